"""Endpoints that users keep by themselves, as slices: one for each family of addresses and set of ports.

Source: k8s.io/kubernetes/pkg/controller/endpointslicemirroring
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from steersman.cluster.control.endpoints import Port, port_row
from steersman.cluster.control.endpointslice import MANAGED_BY, group_of
from steersman.cluster.control.indexes import SERVICE_NAME
from steersman.cluster.control.plan import NOTHING_TO_DO, Create, Draft, Patch, Plan, delete, patch
from steersman.cluster.control.pods import new_names
from steersman.cluster.control.spec import ControllerSpec, View, Watch, own_key
from steersman.cluster.meta.objects import (
    Obj,
    annotations_of,
    controller_reference,
    is_deleting,
    labels_of,
    name,
    namespace,
    uid,
)
from steersman.cluster.meta.resources import ENDPOINT_SLICES, ENDPOINTS, SERVICES

MANAGER = "endpointslicemirroring-controller.k8s.io"
SKIP = "endpointslice.kubernetes.io/skip-mirror"
#: endpoints of a slice; what is beyond it is left out, as in Kubernetes
ENDPOINTS_MAX = 1000
_LEADER = "control-plane.alpha.kubernetes.io/leader"
_NOT_COPIED = (
    "endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration",
)  # fmt: skip

Group = tuple[str, tuple[Port, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Args: endpoints: what is to be mirrored, None for nothing; slices: the mirrors there are."""

    endpoints: Obj | None
    slices: tuple[Obj, ...] = ()


def keys_of_slice(found: Obj, view: View) -> Iterable[str]:
    labels = labels_of(found)
    service = labels.get(SERVICE_NAME)
    return (f"{namespace(found)}/{service}",) if service and labels.get(MANAGED_BY) == MANAGER else ()


def observe(view: View, key: str) -> Observed | None:
    endpoints, service = view.get(ENDPOINTS, key), view.get(SERVICES, key)
    found = view.by_index(ENDPOINT_SLICES, "service", key)
    slices = tuple(row for row in found if labels_of(row).get(MANAGED_BY) == MANAGER)
    if endpoints is None or service is None or not is_mirrored(endpoints, service):
        return Observed(endpoints=None, slices=slices) if slices else None
    return Observed(endpoints=endpoints, slices=slices)


def is_mirrored(endpoints: Obj, service: Obj) -> bool:
    """Whether a service's endpoints are kept by its user, who does not forbid to mirror them."""
    if labels_of(endpoints).get(SKIP) == "true" or _LEADER in annotations_of(endpoints):
        return False
    return not service["spec"].get("selector") and not is_deleting(endpoints)


def reconcile(observed: Observed, now: float) -> Plan:
    endpoints = observed.endpoints
    if endpoints is None:
        return Plan(steps=tuple(delete(ENDPOINT_SLICES, found) for found in observed.slices))
    wanted = _groups(endpoints)
    draft = Draft()
    for found in sorted(observed.slices, key=name):
        rows = wanted.pop(group_of(found), None)
        draft.add(delete(ENDPOINT_SLICES, found) if rows is None else _change(endpoints, found, rows))
    names = new_names(f"{name(endpoints)}-", endpoints, observed.slices, len(wanted))
    for (group, rows), slice_name in zip(wanted.items(), names, strict=True):
        draft.add(_creation(endpoints, group, rows, slice_name))
    return draft.done() if draft.steps else NOTHING_TO_DO


def _groups(endpoints: Obj) -> dict[Group, list[Obj]]:
    groups: dict[Group, list[Obj]] = {}
    for subset in endpoints.get("subsets") or ():
        ports = tuple(
            (row.get("name") or "", row.get("protocol") or "TCP", row.get("port"), row.get("appProtocol") or "")
            for row in subset.get("ports") or ()
        )
        for part, ready in (("addresses", True), ("notReadyAddresses", False)):
            for row in subset.get(part) or ():
                family = "IPv6" if ":" in row["ip"] else "IPv4"
                rows = groups.setdefault((family, tuple(sorted(ports, key=str))), [])
                if len(rows) < ENDPOINTS_MAX:
                    rows.append(_endpoint(row, ready))
    return groups


def _endpoint(address: Obj, ready: bool) -> Obj:
    kept = {key: address[key] for key in ("targetRef", "nodeName", "hostname") if address.get(key)}
    return {"addresses": [address["ip"]], "conditions": {"ready": ready}, **kept}


def _labels(endpoints: Obj) -> dict[str, str]:
    return dict(labels_of(endpoints)) | {SERVICE_NAME: name(endpoints), MANAGED_BY: MANAGER}


def _annotations(endpoints: Obj) -> dict[str, str]:
    return {key: value for key, value in annotations_of(endpoints).items() if key not in _NOT_COPIED}


def _creation(endpoints: Obj, group: Group, rows: list[Obj], slice_name: str) -> Create:
    family, ports = group
    meta: Obj = {
        "name": slice_name,
        "generateName": f"{name(endpoints)}-",
        "namespace": namespace(endpoints),
        "labels": _labels(endpoints),
        "ownerReferences": [controller_reference(endpoints, ENDPOINTS.api_version, ENDPOINTS.kind)],
    }
    if annotations := _annotations(endpoints):
        meta["annotations"] = annotations
    found: Obj = {
        "apiVersion": ENDPOINT_SLICES.api_version,
        "kind": ENDPOINT_SLICES.kind,
        "metadata": meta,
        "addressType": family,
        "endpoints": rows,
        "ports": [port_row(port) for port in ports],
    }
    return Create(resource=ENDPOINT_SLICES, obj=found, owner_uid=uid(endpoints))


def _change(endpoints: Obj, old: Obj, rows: list[Obj]) -> Patch | None:
    changes: Obj = {} if (old.get("endpoints") or []) == rows else {"endpoints": rows}
    meta: Obj = {}
    for part, wanted, present in (
        ("labels", _labels(endpoints), labels_of(old)), ("annotations", _annotations(endpoints), annotations_of(old)),
    ):  # fmt: skip
        if wanted != present:
            meta[part] = dict.fromkeys(present.keys() - wanted.keys()) | wanted
    if meta:
        changes["metadata"] = meta
    return patch(ENDPOINT_SLICES, old, changes) if changes else None


ENDPOINT_SLICE_MIRRORING = ControllerSpec(
    name="endpointslicemirroring",
    watches=(
        Watch(resource=SERVICES, keys=own_key, indexes=("selector",)),
        Watch(resource=ENDPOINTS, keys=own_key),
        Watch(resource=ENDPOINT_SLICES, keys=keys_of_slice, indexes=("service",)),
    ),
    observe=observe,
    reconcile=reconcile,
    interval_s=0.1,
)
