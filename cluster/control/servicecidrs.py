"""Says that ServiceCIDRs are ready, and keeps those that are being deleted while Services have addresses of them.

Source: k8s.io/kubernetes/pkg/controller/servicecidrs/servicecidrs_controller.go
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from steersman.cluster.control.plan import NOTHING_TO_DO, Patch, Plan, patch, status_patch
from steersman.cluster.control.spec import ControllerSpec, View, Watch
from steersman.cluster.meta.clusterips import Network, holders, is_managed, ranges_of
from steersman.cluster.meta.objects import Obj, is_deleting, name, with_condition
from steersman.cluster.meta.resources import IP_ADDRESSES, SERVICE_CIDRS
from steersman.cluster.meta.times import parse_time

FINALIZER = "networking.k8s.io/service-cidr-finalizer"
#: how long API servers may still take addresses from a range that is being deleted: until their caches know
GRACE_S = 10.0
_READY = "Kubernetes Service CIDR is ready"
_IN_USE = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Args: others: the other ServiceCIDRs; addresses: the IPAddresses of Services, when the object is to go."""

    obj: Obj
    others: tuple[Obj, ...] = ()
    addresses: tuple[Obj, ...] = ()


def observe(view: View, key: str) -> Observed | None:
    obj = view.get(SERVICE_CIDRS, key)
    if obj is None:
        return None
    if not is_deleting(obj):
        return Observed(obj=obj)
    others = tuple(row for row in view.all(SERVICE_CIDRS) if name(row) != key)
    addresses = tuple(row for row in view.all(IP_ADDRESSES) if is_managed(row))
    return Observed(obj=obj, others=others, addresses=addresses)


def reconcile(observed: Observed, now: float) -> Plan:
    obj = observed.obj
    finalizers: list[str] = obj["metadata"].get("finalizers") or []
    if not is_deleting(obj):
        steps = (
            []
            if FINALIZER in finalizers
            else [patch(SERVICE_CIDRS, obj, {"metadata": {"finalizers": [*finalizers, FINALIZER]}})]
        )
        said = _say(obj, now, "True", "", _READY)
        return Plan(steps=(*steps, *said))
    if FINALIZER not in finalizers:
        return NOTHING_TO_DO
    if not _may_go(observed):
        return Plan(steps=_say(obj, now, "False", "Terminating", _IN_USE))
    left = parse_time(obj["metadata"]["deletionTimestamp"]) + GRACE_S - now
    if left > 0:
        return Plan(requeue_after_s=left)
    rest = [item for item in finalizers if item != FINALIZER]
    return Plan(steps=(patch(SERVICE_CIDRS, obj, {"metadata": {"finalizers": rest or None}}),))


def _say(obj: Obj, now: float, state: str, reason: str, message: str) -> tuple[Patch, ...]:
    before = (obj.get("status") or {}).get("conditions") or []
    rows = with_condition(before, "Ready", state, now, message=message)
    rows = [{**row, "reason": reason} if row["type"] == "Ready" else row for row in rows]
    made = status_patch(SERVICE_CIDRS, obj, {**(obj.get("status") or {}), "conditions": rows})
    return () if made is None else (made,)


def _may_go(observed: Observed) -> bool:
    """Whether every address of the object's ranges belongs to another ServiceCIDR as well."""
    others = [network for row in observed.others for network in ranges_of(row)]
    if all(any(_contains(other, own) for other in others) for own in ranges_of(observed.obj)):
        return True
    rows = (observed.obj, *observed.others)
    return not any(holders(rows, ip_address(name(row))) == [observed.obj] for row in observed.addresses)


def _contains(other: Network, own: Network) -> bool:
    return other.version == own.version and own.subnet_of(other)  # type: ignore[arg-type]


def _overlapping(obj: Obj, view: View) -> Iterable[str]:
    """A range that comes or goes may let another one go."""
    return (name(obj), *(name(row) for row in view.all(SERVICE_CIDRS) if is_deleting(row)))


def _going(obj: Obj, view: View) -> Iterable[str]:
    """The ServiceCIDRs that wait for an address to go."""
    if not is_managed(obj):
        return ()
    return [name(row) for row in holders(view.all(SERVICE_CIDRS), ip_address(name(obj))) if is_deleting(row)]


SERVICE_CIDR = ControllerSpec(
    name="service-cidr",
    watches=(
        Watch(resource=SERVICE_CIDRS, keys=_overlapping),
        Watch(resource=IP_ADDRESSES, keys=_going),
    ),
    observe=observe,
    reconcile=reconcile,
    workers=1,
)
