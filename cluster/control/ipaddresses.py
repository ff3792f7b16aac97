"""Repairs what Services and IPAddresses say of each other: each address of a Service has one that names it, and back.

An address is taken together with the Service in one write, so there is work only after somebody has changed or deleted
an IPAddress by hand, or a state was restored that has none.

Source: k8s.io/kubernetes/pkg/registry/core/service/ipallocator/controller/repairip.go
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from steersman.cluster.control.plan import NOTHING_TO_DO, Create, Draft, Plan, delete
from steersman.cluster.control.spec import ControllerSpec, View, Watch, own_key
from steersman.cluster.meta.clusterips import family, holders, ip_object, is_managed, labels
from steersman.cluster.meta.objects import Obj, labels_of, name, namespace
from steersman.cluster.meta.resources import IP_ADDRESSES, SERVICE_CIDRS, SERVICES
from steersman.cluster.meta.times import parse_time

#: how old an IPAddress without its Service has to be: the Service may only not have been seen yet
ORPHAN_S = 60.0


def addresses(service: Mapping[str, object]) -> list[str]:
    """The addresses of a Service."""
    spec = service.get("spec")
    found = spec.get("clusterIPs") if isinstance(spec, Mapping) else None
    return [ip for ip in found or () if ip and ip != "None"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A Service with the IPAddresses of its addresses, or an IPAddress with the Service that it names.

    Args:
        service, address: what there is of both; `address` is None where a Service is looked at.
        held: by address of the Service, its IPAddress.
        namesakes: by address, the Service that another IPAddress of it names.
        in_range: the addresses of the Service that some ServiceCIDR holds.
    """

    service: Obj | None = None
    address: Obj | None = None
    held: Mapping[str, Obj] = field(default_factory=dict)
    namesakes: Mapping[str, Obj] = field(default_factory=dict)
    in_range: frozenset[str] = frozenset()


def observe(view: View, key: str) -> Observed | None:
    if "/" not in key:
        found = view.get(IP_ADDRESSES, key)
        if found is None or not is_managed(found):
            return None
        return Observed(address=found, service=view.get(SERVICES, _parent_key(found)))
    service = view.get(SERVICES, key)
    wanted = [] if service is None else addresses(service)
    if not wanted:
        return None
    held = {ip: obj for ip in wanted if (obj := view.get(IP_ADDRESSES, ip)) is not None}
    named = {ip: other for ip, obj in held.items() if (other := view.get(SERVICES, _parent_key(obj))) is not None}
    cidrs = view.all(SERVICE_CIDRS)
    in_range = frozenset(ip for ip in wanted if holders(cidrs, ip_address(ip)))
    return Observed(service=service, held=held, namesakes=named, in_range=in_range)


def _parent(address: Obj) -> Obj:
    found: Obj = (address.get("spec") or {}).get("parentRef") or {}
    return found


def _parent_key(address: Obj) -> str:
    reference = _parent(address)
    return f"{reference.get('namespace', '')}/{reference.get('name', '')}"


def _names_a_service(address: Obj) -> bool:
    return not _parent(address).get("group") and _parent(address).get("resource") == "services"


def reconcile(observed: Observed, now: float) -> Plan:
    if observed.address is not None:
        return _address(observed.address, observed.service, now)
    draft = Draft()
    assert observed.service is not None
    for ip in addresses(observed.service):
        _repair(draft, ip, observed.service, observed)
    return draft.done()


def _repair(draft: Draft, ip: str, service: Obj, observed: Observed) -> None:
    shown, held = f"[{family(ip_address(ip))}]: {ip}", observed.held.get(ip)
    if ip not in observed.in_range:
        sentence = f"Cluster IP {shown} is not within any configured Service CIDR; please recreate service"
        draft.tell(service, "Warning", "ClusterIPOutOfRange", sentence)
        return
    if held is None:
        draft.add(Create(resource=IP_ADDRESSES, obj=ip_object(service, ip)))
        draft.tell(service, "Warning", "ClusterIPNotAllocated", f"Cluster IP {shown} is not allocated; repairing")
        return
    other = observed.namesakes.get(ip)
    is_own = _names_a_service(held) and _parent_key(held) == f"{namespace(service)}/{name(service)}"
    if not is_own and _names_a_service(held) and other is not None:
        if ip in addresses(other):
            sentence = f"Cluster IP {shown} was assigned to multiple services; please recreate service"
            draft.tell(service, "Warning", "ClusterIPAlreadyAllocated", sentence)
        return
    if is_own and labels(ip_address(ip)).items() <= labels_of(held).items():
        return
    if not is_own:
        whose = f"for Service {namespace(service)}/{name(service)} has a wrong reference; repairing"
        draft.tell(service, "Warning", "ClusterIPNotAllocated", f"the ClusterIP {shown} {whose}")
    draft.add(delete(IP_ADDRESSES, held), Create(resource=IP_ADDRESSES, obj=ip_object(service, ip)))


def _address(address: Obj, service: Obj | None, now: float) -> Plan:
    draft = Draft()
    if not _names_a_service(address):
        sentence = f"IPAddress {name(address)} appears to have been modified, not referencing a Service: cleaning up"
    elif service is None:
        left = parse_time(address["metadata"]["creationTimestamp"]) + ORPHAN_S - now
        if left > 0:
            return Plan(requeue_after_s=left)
        sentence = f"IPAddress: {name(address)} for Service {_parent_key(address)} appears to have leaked: cleaning up"
    elif name(address) in addresses(service):
        return NOTHING_TO_DO
    else:
        whose = f"for Service {_parent_key(address)} has a wrong reference; cleaning up"
        sentence = f"IPAddress: {name(address)} {whose}"
    draft.add(delete(IP_ADDRESSES, address, resource_version=address["metadata"].get("resourceVersion", "")))
    draft.tell(address, "Warning", "IPAddressNotAllocated", sentence)
    return draft.done()


def _of_service(service: Obj, view: View) -> Iterable[str]:
    return (*own_key(service, view), *addresses(service))


def _of_address(address: Obj, _view: View) -> Iterable[str]:
    return (name(address), _parent_key(address)) if _names_a_service(address) else (name(address),)


def _nothing(_obj: Obj, _view: View) -> Iterable[str]:
    return ()


IP_ADDRESS_REPAIR = ControllerSpec(
    name="ipaddress-repair",
    watches=(
        Watch(resource=SERVICES, keys=_of_service),
        Watch(resource=IP_ADDRESSES, keys=_of_address),
        Watch(resource=SERVICE_CIDRS, keys=_nothing),
    ),
    observe=observe,
    reconcile=reconcile,
    workers=2,
)
