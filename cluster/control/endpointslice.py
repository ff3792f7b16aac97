"""EndpointSlice: the addresses behind a Service in slices of at most a hundred, changed as little as possible.

Source: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from steersman.cluster.control.endpoints import (
    HEADLESS,
    Port,
    address,
    can_serve,
    hostname,
    is_headless,
    is_served_by_pods,
    keys_of_pod,
    port_row,
    ports_of,
    selected_pods,
    target_reference,
    zones_of,
)
from steersman.cluster.control.indexes import SERVICE_NAME
from steersman.cluster.control.plan import Create, Draft, Patch, Plan, delete, patch
from steersman.cluster.control.pods import new_names
from steersman.cluster.control.spec import ControllerSpec, View, Watch, own_key
from steersman.cluster.meta.objects import (
    Obj,
    controller_reference,
    is_deleting,
    is_pod_ready,
    labels_of,
    name,
    namespace,
    uid,
)
from steersman.cluster.meta.resources import ENDPOINT_SLICES, NODES, PODS, SERVICES

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
ENDPOINTS_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Args: slices: the service's, ours only; zones: of the pods' nodes."""

    service: Obj
    pods: tuple[Obj, ...] = ()
    slices: tuple[Obj, ...] = ()
    zones: Mapping[str, str] = field(default_factory=dict)


def keys_of_slice(found: Obj, view: View) -> Iterable[str]:
    labels = labels_of(found)
    service = labels.get(SERVICE_NAME)
    return (f"{namespace(found)}/{service}",) if service and labels.get(MANAGED_BY) == MANAGER else ()


def observe(view: View, key: str) -> Observed | None:
    service = view.get(SERVICES, key)
    if service is None:
        return None  # its slices go with it, as owned objects
    slices = [
        found for found in view.by_index(ENDPOINT_SLICES, "service", key) if labels_of(found).get(MANAGED_BY) == MANAGER
    ]
    pods = selected_pods(view, service) if is_served_by_pods(service) else []
    return Observed(service=service, pods=tuple(pods), slices=tuple(slices), zones=zones_of(view, pods))


def endpoint_of(service: Obj, pod: Obj, ip: str, zones: Mapping[str, str]) -> Obj:
    """One pod as an endpoint of a slice."""
    ready, going = is_pod_ready(pod), is_deleting(pod)
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    row: Obj = {
        "addresses": [ip],
        "conditions": {"ready": publish or (ready and not going), "serving": publish or ready, "terminating": going},
        "targetRef": target_reference(pod),
    }
    if host := hostname(service, pod):
        row["hostname"] = host
    if node := (pod.get("spec") or {}).get("nodeName"):
        row["nodeName"] = node
        if zone := zones.get(node):
            row["zone"] = zone
    return row


@dataclass(slots=True)
class _Slice:
    """A slice in the making. Args: old: what exists, None for a new one."""

    old: Obj | None
    endpoints: list[Obj]
    changed: bool = False

    @property
    def room(self) -> int:
        return ENDPOINTS_MAX - len(self.endpoints)


def reconcile(observed: Observed, now: float) -> Plan:
    draft = Draft()
    service = observed.service
    if not is_served_by_pods(service):
        draft.add(*(delete(ENDPOINT_SLICES, found) for found in observed.slices))
        return draft.done()
    groups = _groups(observed)
    spare = [found for found in observed.slices if group_of(found) not in groups]
    writes: list[tuple[str, tuple[Port, ...], _Slice]] = []
    for (family, ports), wanted in groups.items():
        present = [found for found in observed.slices if group_of(found) == (family, ports)]
        slices, emptied = _arranged(present, wanted)
        spare += emptied
        writes += [(family, ports, found) for found in slices]
    fresh = sum(found.old is None for _, _, found in writes)
    names = iter(new_names(f"{name(service)}-", service, observed.slices, fresh))
    for family, ports, found in writes:
        if found.old is None:
            draft.add(_creation(observed.service, family, ports, found.endpoints, next(names)))
        else:
            draft.add(_change(observed.service, found.old, found.endpoints if found.changed else None))
    draft.add(*(delete(ENDPOINT_SLICES, found) for found in spare))
    return draft.done()


def _groups(observed: Observed) -> dict[tuple[str, tuple[Port, ...]], dict[str, Obj]]:
    """Returns endpoints by pod uid, for each family and set of ports; a family without any has one empty group."""
    service = observed.service
    groups: dict[tuple[str, tuple[Port, ...]], dict[str, Obj]] = {}
    for family in service["spec"].get("ipFamilies") or ["IPv4"]:
        for pod in sorted(observed.pods, key=name):
            ip = address(pod, family)
            if ip is None or not can_serve(pod):
                continue
            endpoint = endpoint_of(service, pod, ip, observed.zones)
            groups.setdefault((family, tuple(sorted(ports_of(service, pod), key=str))), {})[uid(pod)] = endpoint
        if not any(found == family for found, _ in groups):
            groups[family, _declared(service)] = {}
    return groups


def _declared(service: Obj) -> tuple[Port, ...]:
    """The ports of a service without pods: those that need no pod to be known."""
    return tuple(sorted(ports_of({"spec": {"ports": service["spec"].get("ports")}}, {}), key=str))


def group_of(found: Obj) -> tuple[str, tuple[Port, ...]]:
    """The family and the ports of a slice."""
    ports = tuple(
        (row.get("name") or "", row.get("protocol") or "TCP", row.get("port"), row.get("appProtocol") or "")
        for row in found.get("ports") or ()
    )
    return found.get("addressType", "IPv4"), tuple(sorted(ports, key=str))


def _arranged(present: list[Obj], wanted: Mapping[str, Obj]) -> tuple[list[_Slice], list[Obj]]:
    """Places the endpoints: each stays where it is, new ones fill slices that change anyway.

    Returns the slices to have, and those that are no longer needed. With no endpoint at all one empty slice stays.
    """
    rest = dict(wanted)
    slices: list[_Slice] = []
    for found in sorted(present, key=name):
        old = found.get("endpoints") or []
        uids = [(row.get("targetRef") or {}).get("uid") for row in old]
        kept = [rest.pop(pod_uid) for pod_uid in uids if pod_uid in rest]
        slices.append(_Slice(found, kept, changed=kept != old))
    waiting = list(rest.values())
    for target in sorted(slices, key=lambda item: (not item.changed, item.room)):
        # an untouched slice is written only when it can take all that would else begin a slice of its own
        if not waiting or not (target.changed or target.room >= len(waiting) % ENDPOINTS_MAX > 0):
            continue
        room = target.room if target.changed else len(waiting) % ENDPOINTS_MAX
        target.changed = target.changed or bool(room)
        target.endpoints += waiting[:room]
        waiting = waiting[room:]
    for start in range(0, len(waiting), ENDPOINTS_MAX):
        slices.append(_Slice(None, waiting[start : start + ENDPOINTS_MAX], changed=True))
    filled = [found for found in slices if found.endpoints]
    empty = [found for found in slices if not found.endpoints]
    if not filled:
        filled, empty = (empty[:1] or [_Slice(None, [], changed=True)]), empty[1:]
    return filled, [found.old for found in empty if found.old is not None]


def _labels(service: Obj) -> dict[str, str]:
    labels = dict(labels_of(service)) | {SERVICE_NAME: name(service), MANAGED_BY: MANAGER}
    if is_headless(service):
        labels[HEADLESS] = ""
    else:
        labels.pop(HEADLESS, None)
    return labels


def _creation(service: Obj, family: str, ports: tuple[Port, ...], endpoints: list[Obj], slice_name: str) -> Create:
    found: Obj = {
        "apiVersion": ENDPOINT_SLICES.api_version,
        "kind": ENDPOINT_SLICES.kind,
        "metadata": {
            "name": slice_name,
            "generateName": f"{name(service)}-",
            "namespace": namespace(service),
            "labels": _labels(service),
            "ownerReferences": [controller_reference(service, SERVICES.api_version, SERVICES.kind)],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": [port_row(port) for port in ports],
    }
    return Create(resource=ENDPOINT_SLICES, obj=found, owner_uid=uid(service))


def _change(service: Obj, old: Obj, endpoints: list[Obj] | None) -> Patch | None:
    changes: Obj = {} if endpoints is None else {"endpoints": endpoints}
    labels = _labels(service)
    if labels_of(old) != labels:
        stale = {label: None for label in labels_of(old) if label not in labels}
        changes["metadata"] = {"labels": {**stale, **labels}}
    return patch(ENDPOINT_SLICES, old, changes) if changes else None


ENDPOINT_SLICE = ControllerSpec(
    name="endpointslice",
    watches=(
        Watch(resource=SERVICES, keys=own_key, indexes=("selector",)),
        Watch(resource=PODS, keys=keys_of_pod, indexes=("label",)),
        Watch(resource=ENDPOINT_SLICES, keys=keys_of_slice, indexes=("service",)),
        Watch(resource=NODES, keys=lambda obj, view: ()),
    ),
    observe=observe,
    reconcile=reconcile,
    interval_s=0.1,
)
