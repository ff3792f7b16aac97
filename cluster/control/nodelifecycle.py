"""Node lifecycle: notices nodes that fall silent, taints what is not ready, and evicts pods whose patience has ended.

A node is silent when its Lease (or, where it keeps none, the node itself) has not changed for the grace period, as this
process counts the seconds. While no node at all is ready nobody is evicted: then the trouble is more likely here than
there.
Source: https://kubernetes.io/docs/concepts/architecture/nodes/#node-controller and
https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from steersman.cluster.control.plan import Batch, Draft, Plan, delete, patch, status_patch
from steersman.cluster.control.spec import ControllerSpec, View, Watch, own_key
from steersman.cluster.meta.objects import (
    Obj,
    condition,
    is_deleting,
    is_pod_ready,
    is_true,
    key,
    name,
    with_condition,
)
from steersman.cluster.meta.resources import LEASES, NODES, PODS
from steersman.cluster.meta.times import format_time, parse_time

LEASE_NAMESPACE = "kube-node-lease"
NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
_SILENT = "Kubelet stopped posting node status."
_NEVER = "Kubelet never posted node status."
_JUDGED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
#: (condition, its status, taint) for taints that keep new pods away
_NO_SCHEDULE = (
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
)
_UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_OURS = frozenset({row[2] for row in _NO_SCHEDULE} | {_UNSCHEDULABLE})
#: while no other node is ready, how often to look whether one has become so
ALONE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Args: silent_s: how long ago the node gave its last sign of life; pods: those bound to it;
    others_ready: whether some other node is ready, or this one is."""

    node: Obj
    silent_s: float
    grace_s: float
    pods: tuple[Obj, ...] = ()
    others_ready: bool = True


def observe(view: View, key: str) -> Observed | None:
    node = view.get(NODES, key)
    if node is None:
        return None
    silent_s = view.unchanged_s(LEASES, f"{LEASE_NAMESPACE}/{key}")
    if silent_s is None:
        silent_s = view.unchanged_s(NODES, key)
    ready = is_true(node, "Ready")
    return Observed(
        node=node,
        silent_s=math.inf if silent_s is None else silent_s,
        grace_s=view.settings.node_grace_s,
        pods=tuple(view.by_index(PODS, "node", key)),
        others_ready=ready or any(is_true(other, "Ready") for other in view.all(NODES) if name(other) != key),
    )


def _taints(node: Obj) -> list[Obj]:
    return (node.get("spec") or {}).get("taints") or []


def keys_of_pod(pod: Obj, view: View) -> Iterable[str]:
    """The pod's node, when it is one that pods are evicted from."""
    node_name = (pod.get("spec") or {}).get("nodeName")
    node = view.get(NODES, node_name) if node_name else None
    hurried = node is not None and any(taint.get("effect") == "NoExecute" for taint in _taints(node))
    return (node_name,) if hurried and node_name else ()


def reconcile(observed: Observed, now: float) -> Plan:
    draft = Draft()
    node = observed.node
    conditions = list((node.get("status") or {}).get("conditions") or ())
    silent_in_s = observed.grace_s - observed.silent_s
    if silent_in_s > 0:
        draft.look_again(silent_in_s + 0.1)
    elif (silenced := _silence(conditions, now)) != conditions:
        draft.add(status_patch(NODES, node, {**(node.get("status") or {}), "conditions": silenced}))
        draft.add(_unready(observed.pods, now))
        draft.tell(node, "Normal", "NodeNotReady", f"Node {name(node)} status is now: NodeNotReady")
        return draft.done()  # the taints follow in the next turn, on the version that this one makes
    taints = _with_taints(node, conditions, observed.others_ready, now)
    if taints != _taints(node):
        draft.add(patch(NODES, node, {"spec": {"taints": taints or None}}))
    if not observed.others_ready:
        draft.look_again(ALONE_S)
    _evict(draft, observed, taints, now)
    return draft.done()


def _silence(conditions: Sequence[Obj], now: float) -> list[Obj]:
    """Returns the conditions with everything that only the node can know as Unknown."""
    rows = list(conditions)
    present = {row["type"]: row for row in conditions}
    for kind in _JUDGED:
        row = present.get(kind)
        if row is None:
            never = with_condition(rows, kind, "Unknown", now, reason="NodeStatusNeverUpdated", message=_NEVER)
            rows = never
        elif row.get("status") != "Unknown":
            rows = with_condition(rows, kind, "Unknown", now, reason="NodeStatusUnknown", message=_SILENT)
    return rows


def _unready(pods: Iterable[Obj], now: float) -> Batch | None:
    """Pods of a silent node no longer count as ready, so that services leave them out."""
    changes = []
    for pod in filter(is_pod_ready, pods):
        rows = pod["status"]["conditions"]
        rows = with_condition(rows, "Ready", "False", now, reason="NodeNotReady", message="Node is not ready")
        changes.append(status_patch(PODS, pod, {**pod["status"], "conditions": rows}))
    found = tuple(change for change in changes if change is not None)
    return Batch(found) if found else None


def _with_taints(node: Obj, conditions: Sequence[Obj], others_ready: bool, now: float) -> list[Obj]:
    """Returns the node's taints as its conditions want them; foreign ones stay, dated."""
    status = {row["type"]: row.get("status") for row in conditions}
    wanted = {(taint, "NoSchedule") for kind, value, taint in _NO_SCHEDULE if status.get(kind) == value}
    if (node.get("spec") or {}).get("unschedulable"):
        wanted.add((_UNSCHEDULABLE, "NoSchedule"))
    present = {(taint["key"], taint["effect"]) for taint in _taints(node)}
    for kind, value, taint in _NO_SCHEDULE[:2]:
        evicting = (taint, "NoExecute")
        if status.get(kind) == value and (others_ready or evicting in present):
            wanted.add(evicting)
    kept = [taint for taint in _taints(node) if taint["key"] not in _OURS or (taint["key"], taint["effect"]) in wanted]
    missing = [
        {"key": taint, "effect": effect, "timeAdded": format_time(now)} for taint, effect in sorted(wanted - present)
    ]
    return [_dated(taint, now) for taint in kept] + missing


def _dated(taint: Obj, now: float) -> Obj:
    """The taint with the moment that tolerations count from, where whoever set it left that out."""
    if taint["effect"] != "NoExecute" or taint.get("timeAdded"):
        return taint
    return {**taint, "timeAdded": format_time(now)}


def tolerates(toleration: Obj, taint: Obj) -> bool:
    """Whether a toleration covers a taint."""
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if (toleration.get("operator") or "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")


def patience_s(pod: Obj, taints: Sequence[Obj], now: float) -> float | None:
    """Seconds that a pod may stay beside these NoExecute taints: 0 or less for none; None for as long as it likes."""
    tolerations = (pod.get("spec") or {}).get("tolerations") or ()
    left: list[float] = []
    for taint in taints:
        matching = [row for row in tolerations if tolerates(row, taint)]
        if not matching:
            return 0.0
        limits = [row["tolerationSeconds"] for row in matching if row.get("tolerationSeconds") is not None]
        if limits:
            since = parse_time(taint["timeAdded"]) if taint.get("timeAdded") else now
            left.append(since + max(0, min(limits)) - now)
    return min(left) if left else None


def _evict(draft: Draft, observed: Observed, taints: Sequence[Obj], now: float) -> None:
    evicting = [taint for taint in taints if taint["effect"] == "NoExecute"]
    if not evicting:
        return
    doomed: list[Obj] = []
    for pod in observed.pods:
        if is_deleting(pod) or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            continue
        left_s = patience_s(pod, evicting, now)
        if left_s is not None and left_s <= 0:
            doomed.append(pod)
        else:
            draft.look_again(left_s)
    if not doomed:
        return
    sentence = "Taint manager: deleting due to NoExecute taint"
    marks = []
    for pod in doomed:
        rows = (pod.get("status") or {}).get("conditions") or ()
        rows = with_condition(rows, "DisruptionTarget", "True", now, reason="DeletionByTaintManager", message=sentence)
        marks.append(patch(PODS, pod, {"status": {"conditions": rows}}, subresource="status", exact=False))
    draft.add(Batch(tuple(marks)), Batch(tuple(delete(PODS, pod) for pod in doomed)))
    for pod in doomed:
        draft.tell(pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {key(pod)}")


def keys_of_lease(lease: Obj, view: View) -> Iterable[str]:
    """The node of a heartbeat, but only when it was thought silent: others are looked at when they become late."""
    if lease["metadata"].get("namespace") != LEASE_NAMESPACE:
        return ()
    node = view.get(NODES, name(lease))
    ready = condition(node, "Ready") if node is not None else None
    return (name(lease),) if ready is not None and ready.get("status") == "Unknown" else ()


NODE_LIFECYCLE = ControllerSpec(
    name="nodelifecycle",
    watches=(
        Watch(resource=NODES, keys=own_key, timed=True),
        Watch(resource=LEASES, keys=keys_of_lease, timed=True),
        Watch(resource=PODS, keys=keys_of_pod, indexes=("node",)),
    ),
    observe=observe,
    reconcile=reconcile,
    interval_s=0.2,
)
