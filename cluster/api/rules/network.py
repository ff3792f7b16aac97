"""Rules of Endpoints, EndpointSlices, NetworkPolicies and Ingresses.

Loopback addresses are taken as endpoints: nodes without network namespaces give their pods addresses of 127/8.

Source: k8s.io/kubernetes/pkg/apis/{core,discovery,networking}/validation
"""

from __future__ import annotations

from ipaddress import ip_network

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    duplicate,
    forbidden,
    immutable,
    ip_family,
    label_selector,
    one_of,
    required,
    unsupported,
)
from steersman.cluster.api.rules.ports import port_number, port_or_name
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj

_PROTOCOLS = ("SCTP", "TCP", "UDP")
_IP_DETAIL = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
_ENDPOINTS_MAX = 1000


def default_endpoints(obj: Obj) -> None:
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            if not port.get("protocol"):
                port["protocol"] = "TCP"


def validate_endpoints(obj: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for index, subset in enumerate(obj.get("subsets") or ()):
        path = f"subsets[{index}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            causes.append(required(path, "must specify `addresses` or `notReadyAddresses`"))
        for key in ("addresses", "notReadyAddresses"):
            for place, row in enumerate(subset.get(key) or ()):
                if ip_family(row.get("ip", "")) is None:
                    causes.append(bad(f"{path}.{key}[{place}].ip", row.get("ip", ""), _IP_DETAIL))
        ports = subset.get("ports") or []
        for place, port in enumerate(ports):
            where = f"{path}.ports[{place}]"
            if len(ports) > 1 and not port.get("name"):
                causes.append(required(f"{where}.name"))
            elif port.get("name"):
                causes += bad_all(f"{where}.name", port["name"], label_1123_errors(port["name"]))
            causes += port_number(f"{where}.port", port.get("port", 0))
            causes += one_of(f"{where}.protocol", port.get("protocol"), _PROTOCOLS)
    return causes


def default_endpoint_slice(obj: Obj) -> None:
    for port in obj.get("ports") or ():
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")


def validate_endpoint_slice(obj: Obj) -> list[Cause]:
    kind = obj.get("addressType", "")
    causes = one_of("addressType", kind, ("FQDN", "IPv4", "IPv6"))
    endpoints = obj.get("endpoints") or []
    if len(endpoints) > _ENDPOINTS_MAX:
        detail = f"Too many: {len(endpoints)}: must have at most {_ENDPOINTS_MAX} items"
        return [*causes, Cause("endpoints", detail, "FieldValueTooMany")]
    for index, endpoint in enumerate(endpoints):
        path = f"endpoints[{index}]"
        addresses = endpoint.get("addresses") or []
        if not addresses:
            causes.append(required(f"{path}.addresses", "must contain at least 1 address"))
        for place, address in enumerate(addresses):
            where = f"{path}.addresses[{place}]"
            if kind in ("IPv4", "IPv6") and ip_family(address) != kind:
                causes.append(bad(where, address, f"must be a valid {kind} address"))
            elif kind == "FQDN":
                causes += bad_all(where, address, subdomain_errors(address))
        if endpoint.get("nodeName"):
            causes += bad_all(f"{path}.nodeName", endpoint["nodeName"], subdomain_errors(endpoint["nodeName"]))
        if endpoint.get("hostname"):
            causes += bad_all(f"{path}.hostname", endpoint["hostname"], label_1123_errors(endpoint["hostname"]))
    names: set[str] = set()
    for index, port in enumerate(obj.get("ports") or ()):
        path = f"ports[{index}]"
        name = port.get("name", "")
        if name in names:
            causes.append(duplicate(f"{path}.name", name))
        names.add(name)
        if name:
            causes += bad_all(f"{path}.name", name, label_1123_errors(name))
        if port.get("port") is not None:
            causes += port_number(f"{path}.port", port["port"])
        causes += one_of(f"{path}.protocol", port.get("protocol"), _PROTOCOLS)
    return causes


def validate_endpoint_slice_update(new: Obj, old: Obj) -> list[Cause]:
    return immutable("addressType", new.get("addressType"), old.get("addressType"))


def default_network_policy(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for key in ("ingress", "egress"):
        for rule in spec.get(key) or ():
            for port in rule.get("ports") or ():
                port.setdefault("protocol", "TCP")


def validate_network_policy(obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = label_selector("spec.podSelector", spec.get("podSelector"))
    for key, side in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(key) or ()):
            path = f"spec.{key}[{index}]"
            for place, port in enumerate(rule.get("ports") or ()):
                causes += _policy_port(f"{path}.ports[{place}]", port)
            for place, peer in enumerate(rule.get(side) or ()):
                causes += _peer(f"{path}.{side}[{place}]", peer)
    for index, kind in enumerate(spec.get("policyTypes") or ()):
        if kind not in ("Ingress", "Egress"):
            causes.append(unsupported(f"spec.policyTypes[{index}]", kind, ("Egress", "Ingress")))
    return causes


def _policy_port(path: str, port: Obj) -> list[Cause]:
    causes = one_of(f"{path}.protocol", port.get("protocol", "TCP"), _PROTOCOLS)
    if port.get("port") is not None:
        causes += port_or_name(f"{path}.port", port["port"])
    end = port.get("endPort")
    if end is not None:
        if not isinstance(port.get("port"), int):
            detail = "may not be specified when `port` is not specified or non-numeric"
            causes.append(bad(f"{path}.endPort", end, detail))
        elif end < port["port"]:
            causes.append(bad(f"{path}.endPort", end, "must be greater than or equal to `port`"))
    return causes


def _peer(path: str, peer: Obj) -> list[Cause]:
    if not any(peer.get(key) is not None for key in ("podSelector", "namespaceSelector", "ipBlock")):
        return [required(path, "must specify a peer")]
    causes = label_selector(f"{path}.podSelector", peer.get("podSelector"))
    causes += label_selector(f"{path}.namespaceSelector", peer.get("namespaceSelector"))
    block = peer.get("ipBlock")
    if block is None:
        return causes
    if "podSelector" in peer or "namespaceSelector" in peer:
        causes.append(forbidden(path, "may not specify both ipBlock and another peer"))
    try:
        whole = ip_network(block.get("cidr", ""))
    except ValueError:
        detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
        return [*causes, bad(f"{path}.ipBlock.cidr", block.get("cidr", ""), detail)]
    for index, text in enumerate(block.get("except") or ()):
        try:
            part = ip_network(text)
            inside = part.version == whole.version and int(part.network_address) & int(whole.netmask) == int(
                whole.network_address
            )
        except ValueError:
            inside = False
        if not inside:
            detail = "must be a strict subset of `cidr`"
            causes.append(bad(f"{path}.ipBlock.except[{index}]", text, detail))
    return causes


def validate_ingress_class(obj: Obj) -> list[Cause]:
    controller = (obj.get("spec") or {}).get("controller", "")
    if not controller:
        return [required("spec.controller")]
    if "/" not in controller:
        return [bad("spec.controller", controller, 'must be a domain-prefixed path (such as "acme.io/foo")')]
    return []


def prepare_ingress(obj: Obj, _ctx: WriteContext) -> None:
    obj["status"] = {"loadBalancer": {}}


def validate_ingress(obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if not spec.get("rules") and not spec.get("defaultBackend"):
        causes.append(bad("spec", spec.get("rules") or [], "either `defaultBackend` or `rules` must be specified"))
    if "defaultBackend" in spec:
        causes += _backend("spec.defaultBackend", spec["defaultBackend"])
    for index, rule in enumerate(spec.get("rules") or ()):
        host = rule.get("host", "")
        path = f"spec.rules[{index}]"
        if host:
            causes += bad_all(f"{path}.host", host, subdomain_errors(host.removeprefix("*.")))
        for place, row in enumerate((rule.get("http") or {}).get("paths") or ()):
            where = f"{path}.http.paths[{place}]"
            kind = row.get("pathType")
            causes += one_of(f"{where}.pathType", kind, ("Exact", "ImplementationSpecific", "Prefix"))
            if kind in ("Exact", "Prefix") and not row.get("path", "").startswith("/"):
                causes.append(bad(f"{where}.path", row.get("path", ""), "must be an absolute path"))
            causes += _backend(f"{where}.backend", row.get("backend") or {})
    return causes


def _backend(path: str, backend: Obj) -> list[Cause]:
    service, resource = backend.get("service"), backend.get("resource")
    if service is None and resource is None:
        return [required(path, "resource or service backend is required")]
    if service is None:
        return []
    if resource is not None:
        return [bad(path, "", "cannot set both resource and service backends")]
    causes = []
    if not service.get("name"):
        causes.append(required(f"{path}.service.name"))
    port = service.get("port") or {}
    if port.get("name") and port.get("number"):
        causes.append(bad(f"{path}.service.port", port, "cannot set both port name & port number"))
    elif not port.get("name") and not port.get("number"):
        causes.append(required(f"{path}.service.port", "port name or number is required"))
    elif port.get("number"):
        causes += port_number(f"{path}.service.port.number", port["number"])
    return causes
