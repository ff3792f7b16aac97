"""DaemonSet: one pod on each node that it fits, replaced at the pace of its update strategy.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from steersman.cluster.control.history import HASH_LABEL, history
from steersman.cluster.control.nodelifecycle import tolerates
from steersman.cluster.control.plan import Batch, Create, Draft, Plan, Refusal, delete, status_patch
from steersman.cluster.control.pods import (
    available_in_s,
    claim,
    from_template,
    new_names,
)
from steersman.cluster.control.rollout import resolve
from steersman.cluster.control.spec import ControllerSpec, View, Watch, own_key
from steersman.cluster.meta.objects import (
    Obj,
    annotations_of,
    controller_of,
    is_deleting,
    is_pod_ready,
    key,
    labels_of,
    name,
    namespace,
    uid,
)
from steersman.cluster.meta.resources import CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS
from steersman.cluster.meta.selectors import Requirement, from_dict

#: how often the template was changed, as the API server counts, and the label that pods carry it in
_TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
_GENERATION_LABEL = "pod-template-generation"
#: taints that a daemon pod tolerates by itself, with their effects
_BORNE = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Args: orphans, lost: pods and revisions of its namespace that nobody controls."""

    daemon_set: Obj
    nodes: tuple[Obj, ...] = ()
    pods: tuple[Obj, ...] = ()
    orphans: tuple[Obj, ...] = ()
    revisions: tuple[Obj, ...] = ()
    lost: tuple[Obj, ...] = ()


def observe(view: View, key: str) -> Observed | None:
    daemon_set = view.get(DAEMON_SETS, key)
    if daemon_set is None:
        return None
    return Observed(
        daemon_set=daemon_set,
        nodes=tuple(view.all(NODES)),
        pods=tuple(view.by_index(PODS, "controller", uid(daemon_set))),
        orphans=tuple(view.by_index(PODS, "orphan", namespace(daemon_set))),
        revisions=tuple(view.by_index(CONTROLLER_REVISIONS, "controller", uid(daemon_set))),
        lost=tuple(view.by_index(CONTROLLER_REVISIONS, "orphan", namespace(daemon_set))),
    )


def keys_of_pod(pod: Obj, view: View) -> Iterable[str]:
    reference = controller_of(pod)
    mine = reference is not None and reference["kind"] == "DaemonSet"
    return (f"{namespace(pod)}/{reference['name']}",) if reference is not None and mine else ()


def keys_of_node(node: Obj, view: View) -> Iterable[str]:
    return [key(daemon_set) for daemon_set in view.all(DAEMON_SETS)]


def fits(daemon_set: Obj, node: Obj, *, running: bool) -> bool:
    """Whether a node should have a pod of the set.

    Args:
        running: whether it has one, which may stay beside taints that only keep new ones away.
    """
    spec = daemon_set["spec"]["template"].get("spec") or {}
    if spec.get("nodeName") and spec["nodeName"] != name(node):
        return False
    labels = labels_of(node)
    if any(labels.get(label) != value for label, value in (spec.get("nodeSelector") or {}).items()):
        return False
    if not _affine(spec, node):
        return False
    tolerations = [*(spec.get("tolerations") or ()), *_tolerations(spec)]
    effects = ("NoExecute",) if running else ("NoSchedule", "NoExecute")
    return all(
        any(tolerates(row, taint) for row in tolerations)
        for taint in (node.get("spec") or {}).get("taints") or ()
        if taint["effect"] in effects
    )


def _affine(spec: Obj, node: Obj) -> bool:
    required = (((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms")  # fmt: skip
    if required is None:
        return True
    fields = {"metadata.name": name(node)}
    return any(
        _matches(term.get("matchExpressions") or (), labels_of(node))
        and _matches(term.get("matchFields") or (), fields)
        for term in required
        if term.get("matchExpressions") or term.get("matchFields")
    )


def _matches(rows: Iterable[Obj], values: object) -> bool:
    return all(
        Requirement(row["key"], row["operator"], tuple(row.get("values") or ())).matches(values)  # type: ignore[arg-type]
        for row in rows
    )


def _tolerations(spec: Obj) -> list[Obj]:
    borne = [*_BORNE, ("node.kubernetes.io/network-unavailable", "NoSchedule")] if spec.get("hostNetwork") else _BORNE
    return [{"key": taint, "operator": "Exists", "effect": effect} for taint, effect in borne]


def pod_of(daemon_set: Obj, node_name: str, digest: str, pod_name: str) -> Obj:
    """Returns the pod for a node, bound to it by affinity, which the scheduler honours."""
    pod = from_template(daemon_set["spec"]["template"], daemon_set, DAEMON_SETS, pod_name)
    spec = dict(pod["spec"])
    affinity = dict(spec.get("affinity") or {})
    field = {"key": "metadata.name", "operator": "In", "values": [node_name]}
    affinity["nodeAffinity"] = {
        **(affinity.get("nodeAffinity") or {}),
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [field]}]},
    }
    present = {(row.get("key"), row.get("effect")) for row in spec.get("tolerations") or ()}
    added = [row for row in _tolerations(spec) if (row["key"], row["effect"]) not in present]
    spec |= {"affinity": affinity, "tolerations": [*(spec.get("tolerations") or ()), *added]}
    pod["spec"] = spec
    generation = annotations_of(daemon_set).get(_TEMPLATE_GENERATION)
    counted = {_GENERATION_LABEL: generation} if generation else {}
    pod["metadata"]["labels"] = {**(pod["metadata"].get("labels") or {}), **counted, HASH_LABEL: digest}
    return pod


def node_of(pod: Obj) -> str:
    """The node that a pod is on, or is meant for."""
    spec = pod.get("spec") or {}
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    required = (((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution") or {})  # fmt: skip
    for term in required.get("nodeSelectorTerms") or ():
        for row in term.get("matchFields") or ():
            if row["key"] == "metadata.name" and row.get("values"):
                return str(row["values"][0])
    return ""


def reconcile(observed: Observed, now: float) -> Plan:
    daemon_set = observed.daemon_set
    selector = from_dict(daemon_set["spec"].get("selector"))
    claimed = claim(daemon_set, DAEMON_SETS, PODS, selector, observed.pods, observed.orphans)
    if claimed.steps:
        return Plan(steps=claimed.steps)
    draft = Draft()
    past = history(daemon_set, DAEMON_SETS, selector, observed.revisions, observed.lost, claimed.owned)
    digest = past.digest
    by_node: dict[str, list[Obj]] = {}
    for pod in claimed.owned:
        by_node.setdefault(node_of(pod), []).append(pod)
    nodes = {name(node): node for node in observed.nodes}
    wanted = [node for node in nodes if fits(daemon_set, nodes[node], running=bool(by_node.get(node)))]
    if not is_deleting(daemon_set):
        draft.add(*past.steps)
        _place(draft, daemon_set, digest, wanted, by_node, claimed.owned)
        if len(draft.steps) == len(past.steps):
            _update(draft, daemon_set, digest, wanted, by_node, now)
    status, wait_s = _status(daemon_set, digest, wanted, nodes, by_node, now)
    draft.add(status_patch(DAEMON_SETS, daemon_set, status))
    draft.look_again(wait_s)
    return draft.done()


def _place(
    draft: Draft,
    daemon_set: Obj,
    digest: str,
    wanted: Sequence[str],
    by_node: dict[str, list[Obj]],
    pods: Sequence[Obj],
) -> None:
    """Creates pods where they are missing, deletes them where they do not belong, failed or are doubled."""
    doomed: list[Obj] = []
    missing: list[str] = []
    for node in wanted:
        here = by_node.get(node, [])
        failed = [pod for pod in here if (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")]
        doomed += [pod for pod in failed if not is_deleting(pod)]
        alive = [pod for pod in here if pod not in failed and not is_deleting(pod)]
        going = [pod for pod in here if is_deleting(pod)]
        fresh = [pod for pod in alive if labels_of(pod).get(HASH_LABEL) == digest]
        keep = sorted(fresh or alive, key=lambda pod: (not is_pod_ready(pod), name(pod)))
        doomed += keep[1:]
        if not alive and not going and not failed:
            missing.append(node)
    belongs = set(wanted)
    for node, here in by_node.items():
        if node not in belongs:
            doomed += [pod for pod in here if not is_deleting(pod)]
    if doomed:
        draft.add(Batch(tuple(delete(PODS, pod) for pod in doomed)))
        for pod in doomed:
            draft.tell(daemon_set, "Normal", "SuccessfulDelete", f"Deleted pod: {name(pod)}")
    names = new_names(f"{name(daemon_set)}-", daemon_set, pods, len(missing))
    creations = [
        Create(resource=PODS, obj=pod_of(daemon_set, node, digest, pod_name), owner_uid=uid(daemon_set))
        for node, pod_name in zip(missing, names, strict=True)
    ]
    if creations:
        draft.add(Batch(tuple(creations)))
        for pod_name in names:
            draft.tell(daemon_set, "Normal", "SuccessfulCreate", f"Created pod: {pod_name}")


def _update(
    draft: Draft, daemon_set: Obj, digest: str, wanted: Sequence[str], by_node: dict[str, list[Obj]], now: float
) -> None:
    """Deletes pods of older templates: broken ones at once, others as long as enough nodes are served."""
    strategy = daemon_set["spec"].get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return
    rolling = strategy.get("rollingUpdate") or {}
    budget = max(1, resolve(rolling.get("maxUnavailable", 1), len(wanted), up=True))
    min_ready_s = daemon_set["spec"].get("minReadySeconds") or 0
    idle: list[Obj] = []
    candidates: list[Obj] = []
    for node in wanted:
        served = False
        for pod in by_node.get(node, []):
            available = not is_deleting(pod) and available_in_s(pod, min_ready_s, now) == 0
            served = served or available
            if labels_of(pod).get(HASH_LABEL) != digest and not is_deleting(pod):
                (candidates if available else idle).append(pod)
        budget -= not served
    doomed = idle + candidates[: max(0, budget)]
    if doomed:
        draft.add(Batch(tuple(delete(PODS, pod) for pod in doomed)))
        for pod in doomed:
            draft.tell(daemon_set, "Normal", "SuccessfulDelete", f"Deleted pod: {name(pod)}")


def _status(
    daemon_set: Obj,
    digest: str,
    wanted: Sequence[str],
    nodes: dict[str, Obj],
    by_node: dict[str, list[Obj]],
    now: float,
) -> tuple[Obj, float | None]:
    min_ready_s = daemon_set["spec"].get("minReadySeconds") or 0
    current = ready = available = updated = 0
    soonest: float | None = None
    for node in wanted:
        here = [pod for pod in by_node.get(node, []) if not is_deleting(pod)]
        current += bool(here)
        updated += any(labels_of(pod).get(HASH_LABEL) == digest for pod in here)
        ready += any(map(is_pod_ready, here))
        waits = [wait for pod in here if (wait := available_in_s(pod, min_ready_s, now)) is not None]
        available += 0.0 in waits
        later = [wait for wait in waits if wait]
        soonest = min([*later, *([soonest] if soonest is not None else [])], default=None)
    belongs = set(wanted)
    strays = [node for node, here in by_node.items() if here and node in nodes and node not in belongs]
    status: Obj = {
        "currentNumberScheduled": current,
        "numberMisscheduled": len(strays),
        "desiredNumberScheduled": len(wanted),
        "numberReady": ready,
        "observedGeneration": daemon_set["metadata"].get("generation", 0),
    }
    more = {
        "updatedNumberScheduled": updated,
        "numberAvailable": available,
        "numberUnavailable": len(wanted) - available,
    }
    return status | {field: count for field, count in more.items() if count}, soonest


def refused(observed: Observed, refusal: Refusal, now: float) -> Plan:
    draft = Draft()
    if isinstance(refusal.action, Create):
        draft.tell(observed.daemon_set, "Warning", "FailedCreate", f"Error creating: {refusal.message}")
    return draft.done()


DAEMON_SET = ControllerSpec(
    name="daemonset",
    watches=(
        Watch(resource=DAEMON_SETS, keys=own_key),
        Watch(resource=PODS, keys=keys_of_pod, indexes=("controller", "orphan")),
        Watch(resource=NODES, keys=keys_of_node),
        Watch(resource=CONTROLLER_REVISIONS, keys=lambda obj, view: (), indexes=("controller", "orphan")),
    ),
    observe=observe,
    reconcile=reconcile,
    refused=refused,
    interval_s=0.2,
)
