"""Cluster addresses and node ports of Services: which to take, and what in the store reserves them.

A reservation is a store key that must not exist yet; it is created in the transaction that writes the Service, so that
two API servers can never give the same address away. That of an address is its IPAddress. The lists this works on may
lag: a clash means trying again.

Source: k8s.io/kubernetes/pkg/registry/core/service/ipallocator
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.row import Kind
from steersman.cluster.api.rules.fields import bad, is_ip
from steersman.cluster.meta.clusterips import Address, Network, family, holds, ip_object, is_ready, ranges_of
from steersman.cluster.meta.errors import Cause, InternalError, invalid
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import IP_ADDRESSES, SERVICE_CIDRS, SERVICES
from steersman.cluster.meta.times import format_time

_ADDRESSES = f"/registry/{IP_ADDRESSES.group}/{IP_ADDRESSES.plural}/"
_PORTS = "/registry/ranges/servicenodeports/"
#: the first addresses of a range are kept for services that ask for one by name (DNS, the API itself): one in so many,
#: within bounds; a range that is no larger than the least of them keeps none
_STATIC_PART, _STATIC_MIN, _STATIC_MAX = 16, 16, 256

#: store key to the object that is to stand there; None where the key alone matters
Reservations = Mapping[str, Obj | None]


def _addresses(service: Obj) -> list[str]:
    return [ip for ip in (service.get("spec") or {}).get("clusterIPs") or () if ip and ip != "None"]


def reservation_keys(service: Obj) -> tuple[str, ...]:
    """The store keys that a Service holds."""
    spec = service.get("spec") or {}
    keys = [_ADDRESSES + ip for ip in _addresses(service)]
    ports = {(row["nodePort"], row.get("protocol", "TCP")) for row in spec.get("ports") or () if row.get("nodePort")}
    if spec.get("healthCheckNodePort"):
        ports.add((spec["healthCheckNodePort"], "TCP"))
    return (*keys, *(f"{_PORTS}{port}/{protocol}" for port, protocol in sorted(ports)))


def _is_service(kind: Kind) -> bool:
    return kind.resource.plural == "services" and not kind.resource.group


def releases_of(kind: Kind, obj: Obj) -> tuple[str, ...]:
    """The reservations that go with an object."""
    return reservation_keys(obj) if _is_service(kind) else ()


def allocate(kind: Kind, obj: Obj, ctx: WriteContext) -> Reservations:
    """Gives a new Service its address and node ports, in place; returns what is to be reserved."""
    if not _is_service(kind):
        return {}
    _assign(obj, {}, ctx)
    return _reservations(obj, reservation_keys(obj), ctx)


def reallocate(kind: Kind, new: Obj, old: Obj, ctx: WriteContext) -> tuple[Reservations, tuple[str, ...]]:
    """As `allocate` for a change; returns (what is to be reserved, keys to release)."""
    if not _is_service(kind):
        return {}, ()
    _assign(new, old.get("spec") or {}, ctx)
    before, after = reservation_keys(old), reservation_keys(new)
    gained = tuple(key for key in after if key not in before)
    return _reservations(new, gained, ctx), tuple(key for key in before if key not in after)


def _reservations(service: Obj, keys: Iterable[str], ctx: WriteContext) -> Reservations:
    found: dict[str, Obj | None] = dict.fromkeys(keys)
    for ip in _addresses(service):
        if _ADDRESSES + ip in found:
            obj = found[_ADDRESSES + ip] = ip_object(service, ip)
            obj["metadata"] |= {"uid": ctx.new_uid(), "creationTimestamp": format_time(ctx.now)}
    return found


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
    default = ip_network(ctx.settings.service_cidr)
    wanted = spec.get("clusterIP") or next(iter(spec.get("clusterIPs") or ()), "")
    if wanted != "None":
        if not wanted:
            wanted = _free_address(_ranges(default, ctx), service["metadata"]["uid"], ctx)
        elif wanted != old_spec.get("clusterIP") and (causes := _check_address(service, wanted, default, ctx)):
            return causes
        spec["clusterIP"], spec["clusterIPs"] = wanted, [wanted]
    else:
        spec["clusterIP"], spec["clusterIPs"] = "None", ["None"]
    spec.setdefault("ipFamilies", [family(default.network_address)])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    return []


def _ranges(default: Network, ctx: WriteContext) -> list[Network]:
    """Where addresses of the cluster's family come from now; of its first moment the range that it is made with."""
    rows = list(ctx.list(SERVICE_CIDRS, None))
    found = [network for row in rows if is_ready(row) for network in ranges_of(row)] if rows else [default]
    return [network for network in found if network.version == default.version]


def _is_taken(ip: str, ctx: WriteContext) -> bool:
    return ctx.lookup(IP_ADDRESSES, "", ip) is not None


def _check_address(service: Obj, wanted: str, default: Network, ctx: WriteContext) -> list[Cause]:
    if not is_ip(wanted):
        return []
    detail = ""
    if not any(holds(network, ip_address(wanted)) for network in _ranges(default, ctx)):
        detail = "the provided network does not match the current range"
    elif _is_taken(wanted, ctx) or any(wanted in _addresses(other) for other in _others(service, ctx)):
        detail = "provided IP is already allocated"
    return [bad("spec.clusterIPs", [wanted], f"failed to allocate IP {wanted}: {detail}")] if detail else []


def _free_address(ranges: Iterable[Network], seed: str, ctx: WriteContext) -> str:
    start = int(seed.replace("-", "")[:12], 16)
    for network in ranges:
        for address in _candidates(network, start):
            if not _is_taken(str(address), ctx):
                return str(address)
    raise InternalError("failed to allocate a serviceIP: range is full")


def _candidates(network: Network, start: int) -> Iterator[Address]:
    """The addresses of a range in the order in which they are tried: those kept for who asks by name come last."""
    size = network.num_addresses
    static = min(max(size // _STATIC_PART, _STATIC_MIN), _STATIC_MAX) if size > _STATIC_MIN else 0
    last = size - 1 if network.version == 6 else size - 2
    for low, high in ((1 + static, last), (1, min(static, last))):
        span = high - low + 1
        for step in range(span):
            yield network[low + (start + step) % span]


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
