"""Deployment: moves its pods from old ReplicaSets to the one of its template, at the pace that its strategy allows.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from steersman.cluster.control.plan import (
    NOTHING_TO_DO,
    Create,
    Draft,
    Plan,
    Refusal,
    delete,
    patch,
    status_patch,
)
from steersman.cluster.control.pods import claim
from steersman.cluster.control.progress import deadline_in_s, has_deadline, is_complete, set_condition, status_of
from steersman.cluster.control.revisions import (
    DESIRED_REPLICAS,
    REVISION,
    count_of,
    expired,
    new_annotations,
    new_replica_set,
    revision,
    same_template,
    size_annotations,
    size_of,
    split_new,
)
from steersman.cluster.control.rollout import Bounds, Count, bounds_of, grow_new, shrink_old, spread
from steersman.cluster.control.spec import ControllerSpec, View, Watch, own_key
from steersman.cluster.meta.objects import (
    Obj,
    annotations_of,
    condition,
    controller_of,
    is_deleting,
    key,
    labels_of,
    name,
    namespace,
    uid,
)
from steersman.cluster.meta.resources import DEPLOYMENTS, PODS, REPLICA_SETS
from steersman.cluster.meta.selectors import SelectorError, from_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Args: replica_sets: those it controls; orphans: those of its namespace that nobody controls; running_old: whether
    pods of older templates still run (asked for by Recreate)."""

    deployment: Obj
    replica_sets: tuple[Obj, ...] = ()
    orphans: tuple[Obj, ...] = ()
    running_old: bool = False


def observe(view: View, key: str) -> Observed | None:
    deployment = view.get(DEPLOYMENTS, key)
    if deployment is None:
        return None
    replica_sets = view.by_index(REPLICA_SETS, "controller", uid(deployment))
    running_old = False
    if _recreates(deployment):
        running_old = any(
            (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
            for found in replica_sets
            if not same_template(found, deployment)
            for pod in view.by_index(PODS, "controller", uid(found))
        )
    return Observed(
        deployment=deployment,
        replica_sets=tuple(replica_sets),
        orphans=tuple(view.by_index(REPLICA_SETS, "orphan", namespace(deployment))),
        running_old=running_old,
    )


def keys_of_replica_set(replica_set: Obj, view: View) -> Iterable[str]:
    """The ReplicaSet's Deployment; for an orphan every Deployment that selects it."""
    reference = controller_of(replica_set)
    if reference is not None:
        return (f"{namespace(replica_set)}/{reference['name']}",) if reference["kind"] == "Deployment" else ()
    found = view.by_index(DEPLOYMENTS, "namespace", namespace(replica_set)) if labels_of(replica_set) else ()
    return [key(deployment) for deployment in found if _selects(deployment, replica_set)]


def keys_of_pod(pod: Obj, view: View) -> Iterable[str]:
    """The Deployment, when it waits for old pods to end before it creates new ones."""
    reference = controller_of(pod)
    if reference is None or reference["kind"] != "ReplicaSet":
        return ()
    owner = view.get(REPLICA_SETS, f"{namespace(pod)}/{reference['name']}")
    found = controller_of(owner) if owner is not None else None
    if found is None or found["kind"] != "Deployment":
        return ()
    deployment_key = f"{namespace(pod)}/{found['name']}"
    deployment = view.get(DEPLOYMENTS, deployment_key)
    return (deployment_key,) if deployment is not None and _recreates(deployment) else ()


def _recreates(deployment: Obj) -> bool:
    return (deployment["spec"].get("strategy") or {}).get("type") == "Recreate"


def _selects(deployment: Obj, replica_set: Obj) -> bool:
    try:
        return from_dict(deployment["spec"].get("selector")).matches(labels_of(replica_set))
    except SelectorError:
        return False


class _Turn:
    """One reconciliation in the making."""

    def __init__(self, observed: Observed, owned: tuple[Obj, ...], now: float) -> None:
        self.deployment = observed.deployment
        self.owned = owned
        self.now = now
        self.bounds: Bounds = bounds_of(self.deployment)
        self.draft = Draft()
        self.conditions: list[Obj] = list((self.deployment.get("status") or {}).get("conditions") or ())
        self.new, self.old = split_new(self.deployment, owned)

    def note_progress(self, status: str, reason: str, message: str) -> None:
        if has_deadline(self.deployment):
            self.conditions = set_condition(self.conditions, "Progressing", status, reason, message, self.now)

    def scale(self, replica_set: Obj, size: int) -> bool:
        """Has a ReplicaSet resized, its notes of the Deployment's size included; returns whether its size changes."""
        before = size_of(replica_set)
        notes = {k: v for k, v in size_annotations(self.bounds).items() if annotations_of(replica_set).get(k) != v}
        if size == before and not notes:
            return False
        changes: Obj = {"metadata": {"annotations": notes}} if notes else {}
        if size != before:
            changes["spec"] = {"replicas": size}
            verb = "up" if size > before else "down"
            sentence = f"Scaled {verb} replica set {name(replica_set)} from {before} to {size}"
            self.draft.tell(self.deployment, "Normal", "ScalingReplicaSet", sentence)
        self.draft.add(patch(REPLICA_SETS, replica_set, changes))
        return size != before

    def finish(self, *, rolling: bool = True) -> Plan:
        status = status_of(
            self.deployment, self.bounds, self.new, self.owned, self.conditions, self.now, rolling=rolling
        )
        self.draft.add(status_patch(DEPLOYMENTS, self.deployment, status))
        self.draft.look_again(deadline_in_s(self.deployment, status, self.now))
        return self.draft.done()

    def count(self, replica_set: Obj) -> Count:
        return count_of(replica_set)


def reconcile(observed: Observed, now: float) -> Plan:
    deployment = observed.deployment
    selector = deployment["spec"].get("selector") or {}
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        return _selecting_all(deployment)
    claimed = claim(deployment, DEPLOYMENTS, REPLICA_SETS, from_dict(selector), observed.replica_sets, observed.orphans)
    if claimed.steps:
        return Plan(steps=claimed.steps)
    turn = _Turn(observed, claimed.owned, now)
    if is_deleting(deployment):
        return turn.finish(rolling=False)
    paused = bool(deployment["spec"].get("paused"))
    _note_pause(turn, paused)
    if not _sync_new(turn, create=not paused and not _waits(turn, observed)):
        return turn.draft.done()  # the new ReplicaSet was written: the next turn sees it
    if paused or _is_scaling(turn):
        _rescale(turn)
        if paused:
            _clean_up(turn)
        return turn.finish(rolling=not paused)
    if _recreates(deployment):
        _recreate(turn, observed)
    else:
        _roll(turn)
    return turn.finish()


def _selecting_all(deployment: Obj) -> Plan:
    draft = Draft()
    draft.tell(
        deployment,
        "Warning",
        "SelectingAll",
        "This deployment is selecting all pods. A non-empty selector is required.",
    )
    status = {**(deployment.get("status") or {}), "observedGeneration": deployment["metadata"].get("generation", 0)}
    draft.add(status_patch(DEPLOYMENTS, deployment, status))
    return draft.done()


def _note_pause(turn: _Turn, paused: bool) -> None:
    row = condition(turn.deployment, "Progressing")
    reason = row.get("reason") if row is not None else ""
    if reason == "ProgressDeadlineExceeded":
        return
    if paused and reason != "DeploymentPaused":
        turn.note_progress("Unknown", "DeploymentPaused", "Deployment is paused")
    elif not paused and reason == "DeploymentPaused":
        turn.note_progress("Unknown", "DeploymentResumed", "Deployment is resumed")


def _waits(turn: _Turn, observed: Observed) -> bool:
    """Whether Recreate still has old pods to end before a new ReplicaSet may be created."""
    if not _recreates(turn.deployment):
        return False
    return observed.running_old or any(size_of(found) for found in turn.old)


def _sync_new(turn: _Turn, *, create: bool) -> bool:
    """Keeps revision and annotations of the new ReplicaSet; creates it when missing. False when it was created."""
    deployment, new = turn.deployment, turn.new
    wanted_revision = max([revision(found) for found in turn.old], default=0) + 1
    if new is not None:
        missing = new_annotations(deployment, new, wanted_revision)
        changes: Obj = {"metadata": {"annotations": missing}} if missing else {}
        min_ready_s = deployment["spec"].get("minReadySeconds") or 0
        if (new["spec"].get("minReadySeconds") or 0) != min_ready_s:
            changes["spec"] = {"minReadySeconds": min_ready_s}
        _note_revision(turn, max(revision(new), wanted_revision))
        if changes:
            turn.draft.add(patch(REPLICA_SETS, new, changes))
            return False
        if condition(deployment, "Progressing") is None:
            turn.note_progress("True", "FoundNewReplicaSet", f'Found new replica set "{name(new)}"')
        return True
    if not create:
        return True
    total = sum(size_of(found) for found in turn.old)
    size = grow_new(turn.bounds, 0, total)
    wanted = new_replica_set(deployment, turn.bounds, size, wanted_revision)
    _note_revision(turn, wanted_revision)
    turn.draft.add(Create(resource=REPLICA_SETS, obj=wanted, owner_uid=uid(deployment)))
    if size:
        sentence = f"Scaled up replica set {name(wanted)} from 0 to {size}"
        turn.draft.tell(deployment, "Normal", "ScalingReplicaSet", sentence)
    turn.note_progress("True", "NewReplicaSetCreated", f'Created new replica set "{name(wanted)}"')
    status = {**_observed(deployment), "conditions": turn.conditions}
    turn.draft.add(status_patch(DEPLOYMENTS, deployment, status))
    return False


def _observed(deployment: Obj) -> Obj:
    """The status of a Deployment whose new ReplicaSet does not exist yet: the replicas it counted are outdated now."""
    status = {k: v for k, v in (deployment.get("status") or {}).items() if k != "updatedReplicas"}
    return {**status, "observedGeneration": deployment["metadata"].get("generation", 0)}


def _note_revision(turn: _Turn, number: int) -> None:
    if annotations_of(turn.deployment).get(REVISION) != str(number):
        changes = {"metadata": {"annotations": {REVISION: str(number)}}}
        noted = patch(DEPLOYMENTS, turn.deployment, changes, exact=False)
        turn.draft.add(replace(noted, subresource="status"))  # so that the generation does not count it


def _is_scaling(turn: _Turn) -> bool:
    """Whether the Deployment's size changed since its ReplicaSets were sized last."""
    active = [found for found in turn.owned if size_of(found)]
    if len(active) > 1 and _recreates(turn.deployment):
        return False  # nothing to share out: the old ones go first
    wanted = str(turn.bounds.replicas)
    return any(annotations_of(found).get(DESIRED_REPLICAS, wanted) != wanted for found in active)


def _rescale(turn: _Turn) -> None:
    """Sizes the ReplicaSets for a Deployment that was scaled, without rolling on."""
    active = [found for found in turn.owned if size_of(found)]
    if len(active) <= 1:
        newest = max(turn.old, key=revision) if turn.old else None
        only = active[0] if active else turn.new or newest
        if only is not None:
            turn.scale(only, turn.bounds.replicas)
        return
    new = turn.new
    if new is not None:
        count = turn.count(new)
        if count.replicas == count.available == turn.bounds.replicas and not _is_scaling_one(turn, new):
            for found in turn.old:
                if size_of(found):
                    turn.scale(found, 0)
            return
    if _recreates(turn.deployment):
        return
    sizes = spread(turn.bounds, [turn.count(found) for found in active])
    for found in active:
        turn.scale(found, sizes[name(found)])


def _is_scaling_one(turn: _Turn, replica_set: Obj) -> bool:
    notes = annotations_of(replica_set)
    return any(notes.get(note) != value for note, value in size_annotations(turn.bounds).items())


def _roll(turn: _Turn) -> None:
    """One step of a rolling update: grow the new ReplicaSet, or else shrink old ones."""
    new = turn.new
    if new is None:
        return
    total = sum(size_of(found) for found in turn.owned)
    if turn.scale(new, grow_new(turn.bounds, size_of(new), total)):
        return
    sizes = shrink_old(turn.bounds, turn.count(new), [turn.count(found) for found in turn.old])
    for found in turn.old:
        if name(found) in sizes:
            turn.scale(found, sizes[name(found)])
    if not sizes:
        _clean_up_when_complete(turn)


def _recreate(turn: _Turn, observed: Observed) -> None:
    shrunk = [turn.scale(found, 0) for found in turn.old if size_of(found)]
    if any(shrunk) or observed.running_old or turn.new is None:
        return
    if not turn.scale(turn.new, turn.bounds.replicas):
        _clean_up_when_complete(turn)


def _clean_up_when_complete(turn: _Turn) -> None:
    if is_complete(turn.bounds, status_of(turn.deployment, turn.bounds, turn.new, turn.owned, (), turn.now)):
        _clean_up(turn)


def _clean_up(turn: _Turn) -> None:
    """Forgets revisions beyond the history's limit."""
    for found in expired(turn.deployment, turn.old):
        exact = found["metadata"].get("resourceVersion", "")
        turn.draft.add(delete(REPLICA_SETS, found, resource_version=exact))


def refused(observed: Observed, refusal: Refusal, now: float) -> Plan:
    """A ReplicaSet could not be created: a clash of names moves to another hash, anything else is told."""
    if not isinstance(refusal.action, Create):
        return NOTHING_TO_DO
    deployment = observed.deployment
    draft = Draft()
    if refusal.reason == "AlreadyExists":
        status: Obj = dict(deployment.get("status") or {})
        status["collisionCount"] = (status.get("collisionCount") or 0) + 1
        draft.add(status_patch(DEPLOYMENTS, deployment, status, exact=True))
        return draft.done()
    status = _observed(deployment)
    sentence = f'Failed to create new replica set "{name(refusal.action.obj)}": {refusal.message}'
    if has_deadline(deployment):
        rows = list(status.get("conditions") or ())
        status["conditions"] = set_condition(rows, "Progressing", "False", "ReplicaSetCreateError", sentence, now)
    draft.add(status_patch(DEPLOYMENTS, deployment, status))
    draft.tell(deployment, "Warning", "ReplicaSetCreateError", sentence)
    return draft.done()


DEPLOYMENT = ControllerSpec(
    name="deployment",
    watches=(
        Watch(resource=DEPLOYMENTS, keys=own_key, indexes=("namespace",)),
        Watch(resource=REPLICA_SETS, keys=keys_of_replica_set, indexes=("controller", "orphan")),
        Watch(resource=PODS, keys=keys_of_pod, indexes=("controller",)),
    ),
    observe=observe,
    reconcile=reconcile,
    refused=refused,
    interval_s=0.05,
)
