"""Rules of Endpoints and EndpointSlices.

Loopback addresses are taken as endpoints: nodes without network namespaces give their pods addresses of 127/8.

Source: k8s.io/kubernetes/pkg/apis/{core,discovery}/validation
"""

from __future__ import annotations

from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    duplicate,
    immutable,
    ip_family,
    one_of,
    required,
)
from steersman.cluster.api.rules.ports import port_number
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
