"""Cluster addresses and node ports of Services: which to take, and the store keys that reserve them.

A reservation is a store key that must not exist yet; it is created in the transaction that writes the Service, so that
two API servers can never give the same address away. The lists this works on may lag: a clash means trying again.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.row import Kind
from steersman.cluster.api.rules.fields import bad, is_ip
from steersman.cluster.meta.errors import Cause, InternalError, invalid
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import SERVICES

_ADDRESSES = "/registry/ranges/serviceips/"
_PORTS = "/registry/ranges/servicenodeports/"
#: the first addresses of the range are kept for services that ask for one by name (DNS, the API itself)
_STATIC_SHARE = 16


def reservation_keys(service: Obj) -> tuple[str, ...]:
    """The store keys that a Service holds."""
    spec = service.get("spec") or {}
    keys = [_ADDRESSES + ip for ip in spec.get("clusterIPs") or () if ip and ip != "None"]
    ports = {(row["nodePort"], row.get("protocol", "TCP")) for row in spec.get("ports") or () if row.get("nodePort")}
    if spec.get("healthCheckNodePort"):
        ports.add((spec["healthCheckNodePort"], "TCP"))
    return (*keys, *(f"{_PORTS}{port}/{protocol}" for port, protocol in sorted(ports)))


def _is_service(kind: Kind) -> bool:
    return kind.resource.plural == "services" and not kind.resource.group


def releases_of(kind: Kind, obj: Obj) -> tuple[str, ...]:
    """The reservations that go with an object."""
    return reservation_keys(obj) if _is_service(kind) else ()


def allocate(kind: Kind, obj: Obj, ctx: WriteContext) -> tuple[str, ...]:
    """Gives a new Service its address and node ports, in place; returns the keys to reserve."""
    if not _is_service(kind):
        return ()
    _assign(obj, {}, ctx)
    return reservation_keys(obj)


def reallocate(kind: Kind, new: Obj, old: Obj, ctx: WriteContext) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """As `allocate` for a change; returns (keys to reserve, keys to release)."""
    if not _is_service(kind):
        return (), ()
    _assign(new, old.get("spec") or {}, ctx)
    before, after = reservation_keys(old), reservation_keys(new)
    return tuple(key for key in after if key not in before), tuple(key for key in before if key not in after)


def _assign(service: Obj, old_spec: Obj, ctx: WriteContext) -> None:
    spec = service["spec"]
    if spec.get("type") == "ExternalName":
        return
    causes = _assign_address(service, old_spec, ctx)
    if spec.get("type") in ("NodePort", "LoadBalancer"):
        causes += _assign_ports(service, old_spec, ctx)
    if causes:
        raise invalid("Service", service["metadata"].get("name", ""), causes)


def _assign_address(service: Obj, old_spec: Obj, ctx: WriteContext) -> list[Cause]:
    spec = service["spec"]
    network = ip_network(ctx.settings.service_cidr)
    family = f"IPv{network.version}"
    wanted = spec.get("clusterIP") or next(iter(spec.get("clusterIPs") or ()), "")
    if wanted != "None":
        used = {ip for other in _others(service, ctx) for ip in (other.get("spec") or {}).get("clusterIPs") or ()}
        if not wanted:
            wanted = _free_address(network, used, service["metadata"]["uid"])
        elif wanted != old_spec.get("clusterIP") and (causes := _check_address(wanted, network, used)):
            return causes
        spec["clusterIP"], spec["clusterIPs"] = wanted, [wanted]
    else:
        spec["clusterIP"], spec["clusterIPs"] = "None", ["None"]
    spec.setdefault("ipFamilies", [family])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    return []


def _check_address(wanted: str, network: IPv4Network | IPv6Network, used: set[str]) -> list[Cause]:
    if not is_ip(wanted):
        return []
    if ip_address(wanted) not in network:
        detail = f"the provided IP ({wanted}) is not in the valid range. The range of valid IPs is {network}"
        return [bad("spec.clusterIPs", [wanted], f"failed to allocate IP {wanted}: {detail}")]
    if wanted in used:
        return [bad("spec.clusterIPs", [wanted], f"failed to allocate IP {wanted}: provided IP is already allocated")]
    return []


def _free_address(network: IPv4Network | IPv6Network, used: set[str], seed: str) -> str:
    size = min(network.num_addresses, 1 << 20) - 2
    first = min(_STATIC_SHARE, max(1, size // 4))
    span = size - first + 1
    start = int(seed.replace("-", "")[:12], 16) % span
    base = int(network.network_address)
    for step in range(span):
        candidate = str(type(network.network_address)(base + first + (start + step) % span))
        if candidate not in used:
            return candidate
    raise InternalError("failed to allocate a serviceIP: range is full")


def _others(service: Obj, ctx: WriteContext) -> Iterable[Obj]:
    uid = service["metadata"].get("uid")
    return (other for other in ctx.list(SERVICES, None) if other["metadata"].get("uid") != uid)


def _assign_ports(service: Obj, old_spec: Obj, ctx: WriteContext) -> list[Cause]:
    spec = service["spec"]
    if spec["type"] == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is False:
        return []
    first, last = ctx.settings.node_port_range
    used = {
        (row["nodePort"], row.get("protocol", "TCP"))
        for other in _others(service, ctx)
        for row in (other.get("spec") or {}).get("ports") or ()
        if row.get("nodePort")
    }
    held = {(row.get("nodePort"), row.get("protocol", "TCP")) for row in old_spec.get("ports") or ()}
    named = {_port_name(row): row["nodePort"] for row in old_spec.get("ports") or () if row.get("nodePort")}
    causes: list[Cause] = []
    taken = set(used)
    for index, row in enumerate(spec.get("ports") or ()):
        protocol, wanted = row.get("protocol", "TCP"), row.get("nodePort") or named.get(_port_name(row))
        path = f"spec.ports[{index}].nodePort"
        if wanted:
            if (wanted, protocol) not in held and not first <= wanted <= last:
                detail = f"provided port is not in the valid range. The range of valid ports is {first}-{last}"
                causes.append(bad(path, wanted, detail))
            elif (wanted, protocol) in used:
                causes.append(bad(path, wanted, "provided port is already allocated"))
            row["nodePort"] = wanted
            taken.add((wanted, protocol))
    for index, row in enumerate(spec.get("ports") or ()):
        if not row.get("nodePort"):
            row["nodePort"] = _free_port(first, last, taken, service["metadata"]["uid"], index)
            taken |= {(row["nodePort"], protocol) for protocol in ("TCP", "UDP", "SCTP")}
    return causes


def _port_name(row: Obj) -> tuple[int, str]:
    return row.get("port", 0), row.get("protocol", "TCP")


def _free_port(first: int, last: int, taken: set[tuple[int, str]], seed: str, index: int) -> int:
    span = last - first + 1
    start = int(seed.replace("-", "")[12:24], 16) + index
    ports = {port for port, _ in taken}
    for step in range(span):
        candidate = first + (start + step) % span
        if candidate not in ports:
            return candidate
    raise InternalError("failed to allocate a nodePort: range is full")
