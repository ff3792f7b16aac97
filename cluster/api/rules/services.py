"""Rules of Services: defaults, validation, and what happens to addresses and ports when the type changes.

Source: k8s.io/kubernetes/pkg/apis/core/{v1/defaults.go,validation/validation.go}, pkg/registry/core/service
"""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.rules.cluster_ips import is_headless, validate_addresses, validate_addresses_update
from steersman.cluster.api.rules.endpoints import special_address
from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    cidr,
    duplicate,
    forbidden,
    ip,
    labels,
    one_of,
    parsed_ip,
    required,
    unsupported,
)
from steersman.cluster.api.rules.ingresses import balanced_at, balancer
from steersman.cluster.api.rules.ports import port_number, port_or_name
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj

_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_EXTERNAL = ("NodePort", "LoadBalancer")
#: fields, and the types that have them: they go with a change of type, unless the client changes them too
_OF_TYPES = (
    (("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"), ("ClusterIP", "NodePort", "LoadBalancer")),
    (("externalTrafficPolicy", "healthCheckNodePort"), _EXTERNAL),
    (("allocateLoadBalancerNodePorts", "loadBalancerClass"), ("LoadBalancer",)),
)
_BALANCED_ONLY = "may only be used when `type` is 'LoadBalancer'"
_DISTRIBUTIONS = ("PreferClose", "PreferSameZone", "PreferSameNode")
_HINTS, _MODE = "service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"
_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
_SOURCES = "spec.LoadBalancerSourceRanges"
#: seconds a client sticks to an endpoint, when it does not say, and at most
_STICKY_S = 10_800
_STICKY_MAX_S = 86_400


def fields(obj: Obj) -> dict[str, str]:
    """The selectable fields of a Service."""
    meta, spec = obj["metadata"], obj.get("spec") or {}
    return {
        "metadata.name": meta.get("name", ""),
        "metadata.namespace": meta.get("namespace", ""),
        "spec.clusterIP": spec.get("clusterIP", ""),
        "spec.type": spec.get("type", ""),
    }


def default_service(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("sessionAffinity"):
        spec["sessionAffinity"] = "None"
    if not spec.get("type"):
        spec["type"] = "ClusterIP"
    if spec["sessionAffinity"] == "ClientIP":
        config = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        config.setdefault("timeoutSeconds", _STICKY_S)
    for port in spec.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port", 0)
    if is_external(spec) and not spec.get("externalTrafficPolicy"):
        spec["externalTrafficPolicy"] = "Cluster"
    if spec["type"] != "ExternalName" and not spec.get("internalTrafficPolicy"):
        spec["internalTrafficPolicy"] = "Cluster"
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
        for row in ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
            if row.get("ip"):
                row.setdefault("ipMode", "VIP")
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    if spec["type"] == "ExternalName":
        spec.pop("internalTrafficPolicy", None)


def prepare_create(obj: Obj, _ctx: WriteContext) -> None:
    spec = obj["spec"]
    if spec.get("clusterIP") and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]
    elif spec.get("clusterIPs") and not spec.get("clusterIP"):
        spec["clusterIP"] = spec["clusterIPs"][0]


def prepare_update(new: Obj, old: Obj, _ctx: WriteContext) -> None:
    spec, before = new["spec"], old.get("spec") or {}
    same_type = spec["type"] != "ExternalName" and before.get("type") != "ExternalName"
    if same_type:
        for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if not spec.get(key) and key in before:
                spec[key] = before[key]
    alone = spec.get("clusterIPs") in (None, [], before.get("clusterIPs"))
    if alone and spec.get("clusterIP") and spec["clusterIP"] != before.get("clusterIP"):
        spec["clusterIPs"] = [spec["clusterIP"]]  # who changes one address alone means the list as well
    if before.get("type") in _EXTERNAL and spec["type"] not in _EXTERNAL:
        kept = {row.get("nodePort") for row in before.get("ports") or ()}
        for row in spec.get("ports") or ():
            if row.get("nodePort") in kept:
                row.pop("nodePort", None)
    for keys, types in _OF_TYPES:
        if before.get("type") in types and spec["type"] not in types:
            for key in keys:
                if spec.get(key) == before.get(key):
                    spec.pop(key, None)


def is_external(spec: Obj) -> bool:
    """Whether a Service is reached from outside."""
    return spec.get("type") in _EXTERNAL or bool(spec.get("type") == "ClusterIP" and spec.get("externalIPs"))


def validate_service(obj: Obj) -> list[Cause]:
    """Every broken rule of a Service; those of its addresses stand alone, since these are given out first."""
    return _wrong_addresses(obj, {}) or _apart_from_addresses(obj, {})


def validate_service_change(new: Obj, old: Obj) -> list[Cause]:
    """As of a new Service, after what may not change; addresses that were there may stay as they are written."""
    before = old.get("spec") or {}
    return _wrong_addresses(new, before) or _stays(new["spec"], before) + _apart_from_addresses(new, before)


def _wrong_addresses(obj: Obj, before: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    return [] if spec.get("type") == "ExternalName" else validate_addresses(spec, before.get("clusterIPs") or ())


def _apart_from_addresses(obj: Obj, before: Obj) -> list[Cause]:
    spec, marks = obj.get("spec") or {}, obj["metadata"].get("annotations") or {}
    kind = spec.get("type", "")
    causes = _marks(marks)
    if not spec.get("ports") and not is_headless(spec) and kind != "ExternalName":
        causes.append(required("spec.ports"))
    if kind in _EXTERNAL and is_headless(spec):
        causes.append(bad("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services"))
    if kind == "ExternalName":
        causes += _alias(spec)
    causes += _ports(spec.get("ports") or [])
    causes += labels("spec.selector", spec.get("selector") or {})
    causes += _affinity(spec)
    known = before.get("externalIPs") or ()
    for index, text in enumerate(spec.get("externalIPs") or ()):
        path = f"spec.externalIPs[{index}]"
        causes += ip(path, text, known) or special_address(path, text) or _loopback(path, text)
    causes += one_of("spec.type", kind, _TYPES)
    causes += _numbers(spec.get("ports") or [], kind) + _sources(spec, marks, before)
    return causes + _balanced(spec) + _traffic(spec)


def _marks(marks: Obj) -> list[Cause]:
    if _HINTS not in marks or marks.get(_MODE, marks[_HINTS]) == marks[_HINTS]:
        return []
    detail = f"must match annotations[{_HINTS}] when both are specified"
    return [bad(f"metadata.annotations[{_MODE}]", marks[_MODE], detail)]


def _alias(spec: Obj) -> list[Cause]:
    """The rules of a Service that is another name for one outside: it has no addresses."""
    detail = "may not be set for ExternalName services"
    causes = [
        forbidden(f"spec.{key}", detail) for key in ("clusterIPs", "ipFamilies", "ipFamilyPolicy") if spec.get(key)
    ]
    name = (spec.get("externalName") or "").removesuffix(".")
    if not name:
        return [*causes, required("spec.externalName")]
    return causes + bad_all("spec.externalName", name, subdomain_errors(name))


def _affinity(spec: Obj) -> list[Cause]:
    kind, path = spec.get("sessionAffinity", ""), "spec.sessionAffinityConfig"
    causes = one_of("spec.sessionAffinity", kind, ("ClientIP", "None"))
    if kind != "ClientIP":
        return causes
    seconds = (((spec.get("sessionAffinityConfig") or {}).get("clientIP")) or {}).get("timeoutSeconds")
    if seconds is None:
        causes.append(required(f"{path}.clientIP.timeoutSeconds", "when session affinity type is ClientIP"))
    elif not 0 < seconds <= _STICKY_MAX_S:
        detail = f"must be greater than 0 and less than {_STICKY_MAX_S}"
        causes.append(bad(f"{path}.clientIP.timeoutSeconds", seconds, detail))
    return causes


def _loopback(path: str, text: str) -> list[Cause]:
    found = parsed_ip(text)
    if found is None or not found.is_loopback:
        return []
    return [bad(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)")]


def _sources(spec: Obj, marks: Obj, before: Obj) -> list[Cause]:
    """The rules of the ranges whose clients a load balancer lets in, told by the field or by an annotation."""
    ranges, is_balanced = spec.get("loadBalancerSourceRanges") or [], spec.get("type") == "LoadBalancer"
    known = {text.strip() for text in before.get("loadBalancerSourceRanges") or ()}
    causes: list[Cause] = []
    if ranges:
        causes += [] if is_balanced else [forbidden(_SOURCES, _BALANCED_ONLY)]
        for index, text in enumerate(ranges):
            causes += cidr(f"{_SOURCES}[{index}]", text.strip(), known)
    elif _RANGES in marks:
        path = f"metadata.annotations[{_RANGES}]"
        causes += [] if is_balanced else [forbidden(path, _BALANCED_ONLY)]
        for text in marks[_RANGES].strip().split(",") if marks[_RANGES].strip() else ():
            causes += cidr(path, text.strip())
    return causes


def _balanced(spec: Obj) -> list[Cause]:
    """The rules of what only load balancers have."""
    name, path = spec.get("loadBalancerClass"), "spec.loadBalancerClass"
    if spec.get("type") == "LoadBalancer":
        return bad_all(path, name, qualified_name_errors(name)) if name is not None else []
    keys = ("allocateLoadBalancerNodePorts", "loadBalancerClass")
    return [forbidden(f"spec.{key}", _BALANCED_ONLY) for key in keys if spec.get(key) is not None]


def _traffic(spec: Obj) -> list[Cause]:
    """The rules of where traffic goes: from outside, from within, and to the nearest."""
    policy, probe = spec.get("externalTrafficPolicy"), spec.get("healthCheckNodePort")
    causes: list[Cause] = []
    if is_external(spec):
        causes += one_of("spec.externalTrafficPolicy", policy, ("Cluster", "Local"))
    elif policy:
        causes.append(bad("spec.externalTrafficPolicy", policy, "may only be set for externally-accessible services"))
    if probe and not needs_probe(spec):
        detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        causes.append(bad("spec.healthCheckNodePort", probe, detail))
    elif probe:
        causes += port_number("spec.healthCheckNodePort", probe)
    within, path = spec.get("internalTrafficPolicy"), "spec.internalTrafficPolicy"
    if within is not None or spec.get("type") in ("ClusterIP", *_EXTERNAL):
        causes += one_of(path, within, ("Cluster", "Local"))
    nearest = spec.get("trafficDistribution")
    if nearest is not None and nearest not in _DISTRIBUTIONS:
        causes.append(unsupported("spec.trafficDistribution", nearest, _DISTRIBUTIONS, in_order=True))
    return causes


def needs_probe(spec: Obj) -> bool:
    """Whether nodes tell a load balancer if they have endpoints."""
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def validate_status(new: Obj, old: Obj) -> list[Cause]:
    if balanced_at(new) and new["spec"].get("type") != "LoadBalancer":
        return [forbidden("status.loadBalancer.ingress", "may only be used when `spec.type` is 'LoadBalancer'")]
    return balancer(new, old, has_modes=True)


def _ports(ports: list[Obj]) -> list[Cause]:
    causes: list[Cause] = []
    names: set[str] = set()
    for index, port in enumerate(ports):
        causes += _port(f"spec.ports[{index}]", port, names, required_name=len(ports) > 1)
    return causes


def _numbers(ports: list[Obj], kind: str) -> list[Cause]:
    """The rules of numbers that two ports may not share."""
    causes: list[Cause] = []
    for index, port in enumerate(ports):
        if kind == "ClusterIP" and port.get("nodePort"):
            causes.append(forbidden(f"spec.ports[{index}].nodePort", "may not be used when `type` is 'ClusterIP'"))
    for key in ("nodePort", "port"):
        seen: set[tuple[str, int]] = set()
        for index, port in enumerate(ports):
            found = (port.get("protocol", ""), port.get(key, 0))
            if found in seen:
                causes.append(duplicate(*_shared(f"spec.ports[{index}]", key, *found)))
            if found[1] or key == "port":
                seen.add(found)
    return causes


def _shared(path: str, key: str, protocol: str, number: int) -> tuple[str, Any]:
    if key == "nodePort":
        return f"{path}.nodePort", number
    found = {"Name": "", "Protocol": protocol, "AppProtocol": None, "Port": number, "TargetPort": 0, "NodePort": 0}
    return path, found


def _port(path: str, port: Obj, names: set[str], *, required_name: bool) -> list[Cause]:
    causes: list[Cause] = []
    name = port.get("name", "")
    if not name:
        if required_name:
            causes.append(required(f"{path}.name"))
    else:
        causes += bad_all(f"{path}.name", name, label_1123_errors(name))
        if name in names:
            causes.append(duplicate(f"{path}.name", name))
        names.add(name)
    causes += port_number(f"{path}.port", port.get("port", 0))
    causes += one_of(f"{path}.protocol", port.get("protocol"), _PROTOCOLS)
    causes += port_or_name(f"{path}.targetPort", port.get("targetPort"))
    if port.get("appProtocol") is not None:
        causes += bad_all(f"{path}.appProtocol", port["appProtocol"], qualified_name_errors(port["appProtocol"]))
    return causes


def _stays(spec: Obj, before: Obj) -> list[Cause]:
    """The rules that addresses and what a load balancer was made with stay."""
    causes = validate_addresses_update(spec, before)
    if spec["type"] == before.get("type") == "LoadBalancer":
        name = spec.get("loadBalancerClass")
        if name != before.get("loadBalancerClass"):
            causes.append(bad("spec.loadBalancerClass", name, "may not change once set"))
        probes = [side.get("healthCheckNodePort") for side in (spec, before)]
        if needs_probe(spec) and needs_probe(before) and probes[0] != probes[1]:
            causes.append(forbidden("spec.healthCheckNodePort", "field is immutable"))
    return causes
