"""Rules of ingresses and their classes.

Source: k8s.io/kubernetes/pkg/apis/networking/{v1/defaults.go,validation/validation.go}
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    forbidden,
    immutable,
    ip,
    parsed_ip,
    required,
    segments,
    too_long,
    unsupported,
)
from steersman.cluster.api.rules.ports import port_name_errors, port_number
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj, annotations_of

_CLASS = "kubernetes.io/ingress.class"
_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_BAD_SEQUENCES = ("//", "/./", "/../", "%2f", "%2F")
_BAD_ENDINGS = ("/..", "/.")
_MODES = ("Proxy", "VIP")
_CONTROLLER_BYTES_MAX = 250
_NOT_AN_IP = "must be a DNS name, not an IP address"
_WILDCARD = re.compile(r"\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_WILDCARD_DETAIL = (
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
    "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', "
    "regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_HTTP_PATH = re.compile(r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+\Z")
_HTTP_PATH_DETAIL = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')"
_PREFIXED = 'must be a domain-prefixed path (such as "acme.io/foo")'


def default_class(obj: Obj) -> None:
    parameters = (obj.get("spec") or {}).get("parameters")
    if parameters is not None:
        parameters.setdefault("scope", "Cluster")


def validate_class(obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    controller, path = spec.get("controller", ""), "spec.controller"
    causes: list[Cause] = []
    if not controller:
        causes.append(required(path))
    else:
        if len(controller) > _CONTROLLER_BYTES_MAX:
            causes.append(too_long(path, _CONTROLLER_BYTES_MAX))
        domain, slash, rest = controller.partition("/")
        if not slash or not domain or not rest:
            causes.append(bad(path, controller, _PREFIXED))
        else:
            causes += bad_all(path, domain, subdomain_errors(domain))
            causes += [] if _HTTP_PATH.match(rest) else [bad(path, rest, _HTTP_PATH_DETAIL)]
    return causes + _parameters("spec.parameters", spec.get("parameters"))


def validate_class_change(new: Obj, old: Obj) -> list[Cause]:
    before, after = ((side.get("spec") or {}).get("controller") for side in (old, new))
    return immutable("spec.controller", after, before) + validate_class(new)


def _reference(path: str, found: Obj) -> list[Cause]:
    causes: list[Cause] = []
    if found.get("apiGroup") is not None:
        causes += bad_all(f"{path}.apiGroup", found["apiGroup"], subdomain_errors(found["apiGroup"]))
    return causes + segments(path, found, ("kind", "name"))


def _parameters(path: str, found: Obj | None) -> list[Cause]:
    if found is None:
        return []
    causes, scope, namespace = _reference(path, found), found.get("scope"), found.get("namespace")
    where = f"{path}.namespace"
    match scope:
        case "Namespace" if namespace is None:
            causes.append(required(where, "`parameters.scope` is set to 'Namespace'"))
        case "Namespace":
            causes += bad_all(where, namespace, label_1123_errors(namespace or ""))
        case "Cluster":
            if namespace is not None:
                causes.append(forbidden(where, "`parameters.scope` is set to 'Cluster'"))
        case _:
            causes.append(unsupported(f"{path}.scope", scope, ("Cluster", "Namespace")))
    return causes


def validate_new_ingress(obj: Obj) -> list[Cause]:
    """The class is said in one way, or in both ways alike."""
    said, wanted = annotations_of(obj).get(_CLASS), (obj.get("spec") or {}).get("ingressClassName")
    if said is None or wanted is None or said == wanted:
        return []
    return [bad(f"annotations.{_CLASS}", said, "must match `ingressClassName` when both are specified")]


def validate_ingress(obj: Obj) -> list[Cause]:
    return _ingress(obj, any_secret=False, any_wildcard_rule=False)


def validate_ingress_change(new: Obj, old: Obj) -> list[Cause]:
    """As of a new ingress, but where secrets or rules of wildcard hosts were wrong before, all may be."""
    before = old.get("spec") or {}
    return _ingress(
        new,
        any_secret=any(_secret("", one) for one in before.get("tls") or ()),
        any_wildcard_rule=any("*" in rule.get("host", "") and _paths("", rule) for rule in before.get("rules") or ()),
    )


def _ingress(obj: Obj, *, any_secret: bool, any_wildcard_rule: bool) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if not spec.get("rules") and "defaultBackend" not in spec:
        causes.append(bad("spec", spec.get("rules") or [], "either `defaultBackend` or `rules` must be specified"))
    if "defaultBackend" in spec:
        causes += _backend("spec.defaultBackend", spec["defaultBackend"])
    for index, rule in enumerate(spec.get("rules") or ()):
        path, host = f"spec.rules[{index}]", rule.get("host", "")
        causes += _rule_host(f"{path}.host", host) if host else []
        if "*" not in host or not any_wildcard_rule:
            causes += _paths(path, rule)
    for index, one in enumerate(spec.get("tls") or ()):
        path = f"spec.tls[{index}]"
        for place, host in enumerate(one.get("hosts") or ()):
            causes += _host(f"{path}.hosts[{place}]", host)
        causes += [] if any_secret else _secret(path, one)
    if spec.get("ingressClassName") is not None:
        name = spec["ingressClassName"]
        causes += bad_all("spec.ingressClassName", name, subdomain_errors(name))
    return causes


def _host(path: str, host: str) -> list[Cause]:
    if "*" in host:
        causes = [bad(path, host, "must be no more than 253 characters")] if len(host) > 253 else []
        return causes if _WILDCARD.match(host) else [*causes, bad(path, host, _WILDCARD_DETAIL)]
    return bad_all(path, host, subdomain_errors(host))


def _secret(path: str, tls: Obj) -> list[Cause]:
    name = tls.get("secretName", "")
    return bad_all(f"{path}.secretName", name, subdomain_errors(name)) if name else []


def _rule_host(path: str, host: str) -> list[Cause]:
    causes = [] if parsed_ip(host) is None else [bad(path, host, _NOT_AN_IP)]
    return causes + _host(path, host)


def _paths(path: str, rule: Obj) -> list[Cause]:
    http = rule.get("http")
    causes: list[Cause] = []
    if http is not None:
        if not http.get("paths"):
            causes.append(required(f"{path}.http.paths"))
        for index, row in enumerate(http.get("paths") or ()):
            causes += _path(f"{path}.http.paths[{index}]", row)
    return causes


def _path(path: str, row: Obj) -> list[Cause]:
    kind, text, where = row.get("pathType"), row.get("path", ""), f"{path}.path"
    if kind is None:
        return [required(f"{path}.pathType", "pathType must be specified")]
    causes: list[Cause] = []
    if kind not in _PATH_TYPES:
        causes.append(unsupported(f"{path}.pathType", kind, _PATH_TYPES))
    elif not text.startswith("/") and (text or kind != "ImplementationSpecific"):
        causes.append(bad(where, text, "must be an absolute path"))
    if kind in ("Exact", "Prefix"):
        causes += [bad(where, text, f"must not contain '{part}'") for part in _BAD_SEQUENCES if part in text]
        causes += [bad(where, text, f"cannot end with '{part}'") for part in _BAD_ENDINGS if text.endswith(part)]
    return causes + _backend(f"{path}.backend", row.get("backend") or {})


def _backend(path: str, backend: Obj) -> list[Cause]:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        return [bad(path, "", "cannot set both resource and service backends")]
    if resource is not None:
        return _reference(f"{path}.resource", resource)
    if service is None:
        return [bad(path, "", "resource or service backend is required")]
    name, port = service.get("name", ""), service.get("port") or {}
    where = f"{path}.service"
    causes = bad_all(f"{where}.name", name, label_1123_errors(name)) if name else [required(f"{where}.name")]
    if port.get("name") and port.get("number"):
        causes.append(bad(path, "", "cannot set both port name & port number"))
    elif port.get("name"):
        causes += bad_all(f"{where}.port.name", port["name"], port_name_errors(port["name"]))
    elif port.get("number"):
        causes += port_number(f"{where}.port.number", port["number"])
    else:
        causes.append(required(path, "port name or number is required"))
    return causes


def balanced_at(obj: Obj) -> Sequence[Obj]:
    """Where the status says that a load balancer is."""
    return ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()


def balancer(new: Obj, old: Obj, *, has_modes: bool = False) -> list[Cause]:
    """The rules of the addresses of a load balancer in a status.

    Args:
        has_modes: each also says how traffic comes from there, as those of a Service do.
    """
    known = {row.get("ip", "") for row in balanced_at(old)}
    causes: list[Cause] = []
    for index, row in enumerate(balanced_at(new)):
        where = f"status.loadBalancer.ingress[{index}]"
        if row.get("ip"):
            causes += ip(f"{where}.ip", row["ip"], known)
        if has_modes:
            causes += _mode(f"{where}.ipMode", row)
        if row.get("hostname"):
            causes += bad_all(f"{where}.hostname", row["hostname"], subdomain_errors(row["hostname"]))
            if parsed_ip(row["hostname"]) is not None:
                causes.append(bad(f"{where}.hostname", row["hostname"], _NOT_AN_IP))
    return causes


def _mode(path: str, row: Obj) -> list[Cause]:
    mode, address = row.get("ipMode"), row.get("ip")
    if mode is None:
        return [required(path, "must be specified when `ip` is set")] if address else []
    if not address:
        return [forbidden(path, "may not be specified when `ip` is not set")]
    return [] if mode in _MODES else [unsupported(path, mode, _MODES)]
