"""Rules of Endpoints and EndpointSlices.

Loopback addresses are taken as endpoints: nodes without network namespaces give their pods addresses of 127/8.

Source: k8s.io/kubernetes/pkg/apis/{core,discovery}/validation
"""

from __future__ import annotations

from ipaddress import ip_network

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    duplicate,
    immutable,
    ip,
    one_of,
    parsed_ip,
    required,
    too_many,
)
from steersman.cluster.api.rules.ports import port_number
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, label_value_errors, qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj

_PROTOCOLS = ("SCTP", "TCP", "UDP")
_ENDPOINTS_MAX = 1000
_ADDRESSES_MAX = 100
_PORTS_MAX = 20_000
_HINTS_MAX = 8
_LINK_LOCAL_GROUP = ip_network("224.0.0.0/24")


def prepare_slice(obj: Obj, _ctx: WriteContext) -> None:
    """What `v1beta1` told of an endpoint's place cannot be written any more."""
    for endpoint in obj.get("endpoints") or ():
        endpoint.pop("deprecatedTopology", None)


def prepare_slice_update(new: Obj, _old: Obj, ctx: WriteContext) -> None:
    """As at creation."""
    prepare_slice(new, ctx)


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
                where = f"{path}.{key}[{place}]"
                causes += ip(f"{where}.ip", row.get("ip", "")) or special_address(f"{where}.ip", row["ip"])
                if row.get("hostname"):
                    causes += bad_all(f"{where}.hostname", row["hostname"], label_1123_errors(row["hostname"]))
                if row.get("nodeName"):
                    causes += bad_all(f"{where}.nodeName", row["nodeName"], subdomain_errors(row["nodeName"]))
        ports = subset.get("ports") or []
        for place, port in enumerate(ports):
            causes += _port(f"{path}.ports[{place}]", port, named=len(ports) > 1)
    return causes


def validate_endpoints_change(new: Obj, old: Obj) -> list[Cause]:
    """As of a new object, but subsets that are as they were may stay."""
    causes = validate_endpoints(new)
    return causes if causes and (new.get("subsets") or []) != (old.get("subsets") or []) else []


def _port(path: str, port: Obj, *, named: bool) -> list[Cause]:
    causes: list[Cause] = []
    if named and not port.get("name"):
        causes.append(required(f"{path}.name"))
    elif port.get("name"):
        causes += bad_all(f"{path}.name", port["name"], label_1123_errors(port["name"]))
    causes += port_number(f"{path}.port", port.get("port", 0))
    causes += one_of(f"{path}.protocol", port.get("protocol"), _PROTOCOLS)
    if port.get("appProtocol") is not None:
        causes += bad_all(f"{path}.appProtocol", port["appProtocol"], qualified_name_errors(port["appProtocol"]))
    return causes


def special_address(path: str, text: str) -> list[Cause]:
    """The rules of addresses that mean no one machine."""
    found = parsed_ip(text)
    if found is None:
        return [bad(path, text, "must be a valid IP address")]
    if found.is_unspecified:
        return [bad(path, text, f"may not be unspecified ({text})")]
    if found.is_link_local:
        return [bad(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")]
    first, second = found.packed[:2]
    if found in _LINK_LOCAL_GROUP or (found.version == 6 and first == 0xFF and second & 0x0F == 2):
        return [bad(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")]
    return []


def default_endpoint_slice(obj: Obj) -> None:
    for port in obj.get("ports") or ():
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")


def validate_endpoint_slice(obj: Obj) -> list[Cause]:
    return _apart_from_endpoints(obj) + _endpoints(obj)


def validate_endpoint_slice_change(new: Obj, old: Obj) -> list[Cause]:
    """As of a new object, but endpoints that are as they were may stay; the type of addresses must."""
    causes, wrong = _apart_from_endpoints(new), _endpoints(new)
    if wrong and (new.get("endpoints") or []) != (old.get("endpoints") or []):
        causes += wrong
    return causes + immutable("addressType", new.get("addressType"), old.get("addressType"))


def _endpoints(obj: Obj) -> list[Cause]:
    kind, endpoints = obj.get("addressType", ""), obj.get("endpoints") or []
    if len(endpoints) > _ENDPOINTS_MAX:
        return [too_many("endpoints", len(endpoints), _ENDPOINTS_MAX)]
    causes: list[Cause] = []
    for index, endpoint in enumerate(endpoints):
        causes += _endpoint(f"endpoints[{index}]", endpoint, kind)
    return causes


def _apart_from_endpoints(obj: Obj) -> list[Cause]:
    ports = obj.get("ports") or []
    causes = one_of("addressType", obj.get("addressType", ""), ("FQDN", "IPv4", "IPv6"))
    if len(ports) > _PORTS_MAX:
        return [*causes, too_many("ports", len(ports), _PORTS_MAX)]
    names: set[str] = set()
    for index, port in enumerate(ports):
        path, name = f"ports[{index}]", port.get("name", "")
        if name:
            causes += bad_all(f"{path}.name", name, label_1123_errors(name))
        if name in names:
            causes.append(duplicate(f"{path}.name", name))
        names.add(name)
        causes += one_of(f"{path}.protocol", port.get("protocol"), _PROTOCOLS)
        if port.get("appProtocol") is not None:
            causes += bad_all(f"{path}.appProtocol", port["appProtocol"], qualified_name_errors(port["appProtocol"]))
    return causes


def _endpoint(path: str, endpoint: Obj, kind: str) -> list[Cause]:
    addresses, where = endpoint.get("addresses") or [], f"{path}.addresses"
    causes: list[Cause] = []
    if not addresses:
        causes.append(required(where, "must contain at least 1 address"))
    elif len(addresses) > _ADDRESSES_MAX:
        causes.append(too_many(where, len(addresses), _ADDRESSES_MAX))
    for index, address in enumerate(addresses):
        causes += _address(f"{where}[{index}]", address, kind)
    if endpoint.get("nodeName") is not None:
        causes += bad_all(f"{path}.nodeName", endpoint["nodeName"], subdomain_errors(endpoint["nodeName"]))
    if endpoint.get("hostname") is not None:
        causes += bad_all(f"{path}.hostname", endpoint["hostname"], label_1123_errors(endpoint["hostname"]))
    return causes + _hints(f"{path}.hints", endpoint.get("hints") or {})


def _address(path: str, text: str, kind: str) -> list[Cause]:
    match kind:
        case "FQDN":
            return _domain(path, text)
        case "IPv4" | "IPv6":
            found = parsed_ip(text)
            wrong = found is None or f"IPv{found.version}" != kind
            causes = [bad(path, text, f"must be a valid {kind} address")] if wrong else ip(path, text)
            return causes + special_address(path, text)
    return []


def _domain(path: str, text: str) -> list[Cause]:
    """The rules of a fully qualified domain name."""
    if not text:
        return [required(path)]
    name = text.removesuffix(".")
    if errors := subdomain_errors(name):
        return [bad(path, name, ",".join(errors))]
    if "." not in name:
        return [bad(path, name, "should be a domain with at least two segments separated by dots")]
    for part in name.split("."):
        if errors := label_1123_errors(part):
            return [bad(path, part, ",".join(errors))]
    return []


def _hints(path: str, hints: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for key, rule in (("forZones", label_value_errors), ("forNodes", subdomain_errors)):
        rows, seen = hints.get(key) or [], set[str]()
        if len(rows) > _HINTS_MAX:
            return [*causes, too_many(f"{path}.{key}", len(rows), _HINTS_MAX)]
        for index, row in enumerate(rows):
            name, where = row.get("name", ""), f"{path}.{key}[{index}].name"
            if name in seen:
                causes.append(duplicate(where, name))
            seen.add(name)
            causes += bad_all(where, name, rule(name))
    return causes
