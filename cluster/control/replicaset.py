"""ReplicaSet and ReplicationController: keep as many pods as asked, claim orphans, release strangers and count.

They differ in the kind and in the form of the selector alone.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/{replicaset,replicationcontroller}/
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from steersman.cluster.control.plan import (
    NOTHING_TO_DO,
    Batch,
    Create,
    Delete,
    Draft,
    Plan,
    Refusal,
    delete,
    status_patch,
)
from steersman.cluster.control.pods import (
    available_in_s,
    claim,
    deletion_order,
    from_template,
    new_names,
)
from steersman.cluster.control.spec import ControllerSpec, View, Watch, own_key
from steersman.cluster.meta.objects import (
    Obj,
    controller_of,
    is_deleting,
    is_pod_active,
    is_pod_ready,
    key,
    labels_of,
    name,
    namespace,
    uid,
    with_condition,
)
from steersman.cluster.meta.resources import PODS, REPLICA_SETS, REPLICATION_CONTROLLERS, Resource
from steersman.cluster.meta.selectors import LabelSelector, SelectorError, from_dict, from_map

#: pods created or deleted in one turn
BURST_MAX = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Args: resource: what the replica set is; pods: those it controls; orphans: pods of its namespace that nobody
    controls; neighbours: pods of the same Deployment, its own included, wanted only when pods are to be deleted."""

    replica_set: Obj
    resource: Resource = REPLICA_SETS
    pods: tuple[Obj, ...] = ()
    orphans: tuple[Obj, ...] = ()
    neighbours: tuple[Obj, ...] = ()


def observe(resource: Resource, view: View, key: str) -> Observed | None:
    replica_set = view.get(resource, key)
    if replica_set is None:
        return None
    pods = view.by_index(PODS, "controller", uid(replica_set))
    neighbours = pods
    if len(pods) > replicas_wanted(replica_set) and (owner := controller_of(replica_set)) is not None:
        siblings = view.by_index(resource, "controller", owner["uid"])
        neighbours = [pod for sibling in siblings for pod in view.by_index(PODS, "controller", uid(sibling))]
    return Observed(
        replica_set=replica_set,
        resource=resource,
        pods=tuple(pods),
        orphans=tuple(view.by_index(PODS, "orphan", namespace(replica_set))),
        neighbours=tuple(neighbours),
    )


def keys_of_pod(resource: Resource, pod: Obj, view: View) -> Iterable[str]:
    """The pod's replica set; for an orphan every one that selects it."""
    reference = controller_of(pod)
    if reference is not None:
        return (f"{namespace(pod)}/{reference['name']}",) if reference["kind"] == resource.kind else ()
    if not labels_of(pod):
        return ()
    found = view.by_index(resource, "namespace", namespace(pod))
    return [key(obj) for obj in found if _selects(resource, obj, pod)]


def _selector(resource: Resource, replica_set: Obj) -> LabelSelector:
    wanted = replica_set["spec"].get("selector")
    return from_dict(wanted) if resource == REPLICA_SETS else from_map(wanted)


def _selects(resource: Resource, replica_set: Obj, pod: Obj) -> bool:
    try:
        return _selector(resource, replica_set).matches(labels_of(pod))
    except SelectorError:
        return False


def replicas_wanted(obj: Obj) -> int:
    found: int | None = obj["spec"].get("replicas")
    return 1 if found is None else found


def reconcile(observed: Observed, now: float) -> Plan:
    replica_set, resource = observed.replica_set, observed.resource
    draft = Draft()
    selector = _selector(resource, replica_set)
    claimed = claim(replica_set, resource, PODS, selector, observed.pods, observed.orphans)
    if claimed.steps:
        # what is adopted or released counts from the next turn on, which the answers to these writes bring about
        draft.add(*claimed.steps)
        return draft.done()
    active = [pod for pod in claimed.owned if is_pod_active(pod)]
    if not is_deleting(replica_set):
        _manage(draft, observed, active, now)
    status, available_in = status_of(replica_set, claimed.owned, now, resource)
    if not draft.steps or replica_set.get("status", {}).get("observedGeneration") != status["observedGeneration"]:
        draft.add(status_patch(resource, replica_set, status))
    draft.look_again(available_in)
    return draft.done()


def _manage(draft: Draft, observed: Observed, active: list[Obj], now: float) -> None:
    """Creates what is missing or deletes what is too much; the counts follow in the next turn."""
    replica_set = observed.replica_set
    missing = replicas_wanted(replica_set) - len(active)
    if missing > 0:
        names = new_names(f"{name(replica_set)}-", replica_set, observed.pods, min(missing, BURST_MAX))
        template = replica_set["spec"].get("template") or {}
        creations = [
            Create(
                resource=PODS,
                obj=from_template(template, replica_set, observed.resource, pod_name),
                owner_uid=uid(replica_set),
            )
            for pod_name in names
        ]
        draft.add(Batch(tuple(creations)))
        for pod_name in names:
            draft.tell(replica_set, "Normal", "SuccessfulCreate", f"Created pod: {pod_name}")
    elif missing < 0:
        victims = deletion_order(active, observed.neighbours, now)[: min(-missing, BURST_MAX)]
        draft.add(Batch(tuple(delete(PODS, pod) for pod in victims)))
        for pod in victims:
            draft.tell(replica_set, "Normal", "SuccessfulDelete", f"Deleted pod: {name(pod)}")


def status_of(
    replica_set: Obj, pods: Iterable[Obj], now: float, resource: Resource = REPLICA_SETS
) -> tuple[Obj, float | None]:
    """Returns the status, and after how long another pod becomes available by waiting alone."""
    template_labels = (replica_set["spec"].get("template") or {}).get("metadata", {}).get("labels") or {}
    min_ready_s = replica_set["spec"].get("minReadySeconds") or 0
    counts = dict.fromkeys(
        ("replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "terminatingReplicas"), 0
    )
    soonest: float | None = None
    for pod in pods:
        if not is_pod_active(pod):
            if is_deleting(pod) and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
                counts["terminatingReplicas"] += 1
            continue
        counts["replicas"] += 1
        if template_labels.items() <= labels_of(pod).items():
            counts["fullyLabeledReplicas"] += 1
        if not is_pod_ready(pod):
            continue
        counts["readyReplicas"] += 1
        wait_s = available_in_s(pod, min_ready_s, now)
        if wait_s == 0:
            counts["availableReplicas"] += 1
        elif wait_s is not None:
            soonest = wait_s if soonest is None else min(soonest, wait_s)
    status: Obj = {"replicas": counts.pop("replicas"), "observedGeneration": _generation(replica_set)}
    terminating = counts.pop("terminatingReplicas")
    status |= {field: count for field, count in counts.items() if count}
    if resource == REPLICA_SETS:
        status["terminatingReplicas"] = terminating
    conditions = [
        row for row in (replica_set.get("status") or {}).get("conditions") or () if row["type"] != "ReplicaFailure"
    ]
    if conditions:
        status["conditions"] = conditions
    return status, soonest


def _generation(obj: Obj) -> int:
    found: int = obj["metadata"].get("generation", 0)
    return found


def refused(observed: Observed, refusal: Refusal, now: float) -> Plan:
    """Says in a condition and an event why pods cannot be created or deleted."""
    match refusal.action:
        case Create():
            reason, sentence = "FailedCreate", f"Error creating: {refusal.message}"
        case Delete(name=pod_name):
            reason, sentence = "FailedDelete", f"Error deleting pod {pod_name}: {refusal.message}"
        case _:
            return NOTHING_TO_DO
    replica_set = observed.replica_set
    draft = Draft()
    status, _ = status_of(replica_set, observed.pods, now, observed.resource)
    status["conditions"] = with_condition(
        (replica_set.get("status") or {}).get("conditions") or (),
        "ReplicaFailure",
        "True",
        now,
        reason=reason,
        message=refusal.message,
    )
    draft.add(status_patch(observed.resource, replica_set, status))
    draft.tell(replica_set, "Warning", reason, sentence)
    return draft.done()


def _controller(name: str, resource: Resource) -> ControllerSpec:
    return ControllerSpec(
        name=name,
        watches=(
            Watch(resource=resource, keys=own_key, indexes=("namespace", "controller")),
            Watch(resource=PODS, keys=partial(keys_of_pod, resource), indexes=("controller", "orphan")),
        ),
        observe=partial(observe, resource),
        reconcile=reconcile,
        refused=refused,
        interval_s=0.1,
    )


REPLICA_SET = _controller("replicaset", REPLICA_SETS)
REPLICATION_CONTROLLER = _controller("replicationcontroller", REPLICATION_CONTROLLERS)
