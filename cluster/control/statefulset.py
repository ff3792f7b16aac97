"""StatefulSet: pods with names and claims of their own, made in order, one after the other, and replaced backwards.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/ and
k8s.io/kubernetes/pkg/controller/statefulset/{stateful_set_control,stateful_set_utils}.go
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from steersman.cluster.control.history import HASH_LABEL, history
from steersman.cluster.control.identity import (
    claim_changes,
    claims_of,
    ordinal_of,
    pod_of,
)
from steersman.cluster.control.plan import Batch, Create, Delete, Draft, Plan, Refusal, delete, status_patch
from steersman.cluster.control.pods import available_in_s, claim
from steersman.cluster.control.spec import ControllerSpec, View, Watch, own_key
from steersman.cluster.meta.objects import (
    Obj,
    controller_of,
    is_deleting,
    key,
    labels_of,
    name,
    namespace,
    uid,
)
from steersman.cluster.meta.resources import CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS
from steersman.cluster.meta.selectors import SelectorError, from_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Args: pods, revisions: those it controls; orphans, lost: those that nobody controls and that could be its own;
    claims: of its pods, by name."""

    stateful_set: Obj
    pods: tuple[Obj, ...] = ()
    orphans: tuple[Obj, ...] = ()
    revisions: tuple[Obj, ...] = ()
    lost: tuple[Obj, ...] = ()
    claims: tuple[Obj, ...] = ()


def observe(view: View, key: str) -> Observed | None:
    stateful_set = view.get(STATEFUL_SETS, key)
    if stateful_set is None:
        return None
    space, pods = namespace(stateful_set), view.by_index(PODS, "controller", uid(stateful_set))
    names = {row for pod in pods for row in claims_of(stateful_set, ordinal_of(stateful_set, name(pod)) or 0)}
    names |= {row for ordinal in _wanted(stateful_set) for row in claims_of(stateful_set, ordinal)}
    found = (view.get(PERSISTENT_VOLUME_CLAIMS, f"{space}/{row}") for row in sorted(names))
    return Observed(
        stateful_set=stateful_set,
        pods=tuple(pods),
        orphans=tuple(
            pod for pod in view.by_index(PODS, "orphan", space) if ordinal_of(stateful_set, name(pod)) is not None
        ),
        revisions=tuple(view.by_index(CONTROLLER_REVISIONS, "controller", uid(stateful_set))),
        lost=tuple(view.by_index(CONTROLLER_REVISIONS, "orphan", space)),
        claims=tuple(row for row in found if row is not None),
    )


def keys_of_pod(pod: Obj, view: View) -> Iterable[str]:
    """The pod's StatefulSet; for an orphan every one that it could belong to."""
    reference = controller_of(pod)
    if reference is not None:
        return (f"{namespace(pod)}/{reference['name']}",) if reference["kind"] == "StatefulSet" else ()
    found = view.by_index(STATEFUL_SETS, "namespace", namespace(pod))
    return [key(row) for row in found if ordinal_of(row, name(pod)) is not None and _selects(row, pod)]


def _selects(stateful_set: Obj, pod: Obj) -> bool:
    try:
        return from_dict(stateful_set["spec"].get("selector")).matches(labels_of(pod))
    except SelectorError:
        return False


def keys_of_claim(found: Obj, view: View) -> Iterable[str]:
    """The StatefulSet whose claim it looks like: it waits for one that is gone."""
    return [
        key(row)
        for row in view.by_index(STATEFUL_SETS, "namespace", namespace(found))
        if any(name(found).startswith(f"{claim['metadata']['name']}-{name(row)}-")
               for claim in row["spec"].get("volumeClaimTemplates") or ())
    ]  # fmt: skip


def _wanted(stateful_set: Obj) -> range:
    """The ordinals that there should be."""
    spec = stateful_set["spec"]
    start, replicas = (spec.get("ordinals") or {}).get("start") or 0, spec.get("replicas")
    return range(start, start + (1 if replicas is None else replicas))


@dataclass(frozen=True, slots=True)
class _Set:
    """A StatefulSet with what follows from it. Args: current, update: revisions; past: the template of the former."""

    obj: Obj
    current: str
    update: str
    past: Obj
    now: float

    @property
    def ordered(self) -> bool:
        policy: str = self.obj["spec"].get("podManagementPolicy") or "OrderedReady"
        return policy == "OrderedReady"

    @property
    def partition(self) -> int:
        rolling = (self.obj["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
        found: int = rolling.get("partition") or 0
        return found

    @property
    def rolls(self) -> bool:
        kind: str = (self.obj["spec"].get("updateStrategy") or {}).get("type") or "RollingUpdate"
        return kind == "RollingUpdate"

    def pod(self, ordinal: int) -> Obj:
        """The pod of an ordinal, of the revision that it should have."""
        if self.rolls and ordinal < _wanted(self.obj).start + self.partition:
            return pod_of(self.obj, ordinal, self.past, self.current)
        return pod_of(self.obj, ordinal, self.obj["spec"]["template"], self.update)

    def available_in_s(self, pod: Obj) -> float | None:
        return available_in_s(pod, self.obj["spec"].get("minReadySeconds") or 0, self.now)

    def waits(self, pod: Obj) -> float | None:
        """Seconds until a pod is healthy: 0 when it is; None when no time alone brings that about."""
        return None if is_deleting(pod) else self.available_in_s(pod)


def reconcile(observed: Observed, now: float) -> Plan:
    stateful_set = observed.stateful_set
    selector = from_dict(stateful_set["spec"].get("selector"))
    claimed = claim(stateful_set, STATEFUL_SETS, PODS, selector, observed.pods, observed.orphans)
    if claimed.steps:
        return Plan(steps=claimed.steps)
    past = history(stateful_set, STATEFUL_SETS, selector, observed.revisions, observed.lost, claimed.owned)
    status = stateful_set.get("status") or {}
    update = f"{name(stateful_set)}-{past.digest}"
    current = status.get("currentRevision") or update
    found = _Set(stateful_set, current, update, _template(observed.revisions, current, stateful_set), now)
    pods = {ordinal: pod for pod in claimed.owned if (ordinal := ordinal_of(stateful_set, name(pod))) is not None}
    draft = Draft()
    if not is_deleting(stateful_set):
        draft.add(*past.steps)
        draft.add(*claim_changes(stateful_set, observed.claims, pods, _wanted(stateful_set)))
        _advance(draft, found, pods, {name(row): row for row in observed.claims})
    told, wait_s = _status(found, list(pods.values()))
    draft.add(status_patch(STATEFUL_SETS, stateful_set, told))
    draft.look_again(wait_s)
    return draft.done()


def _template(revisions: Sequence[Obj], wanted: str, stateful_set: Obj) -> Obj:
    """The template of a revision; the present one where the revision is not there."""
    for row in revisions:
        if name(row) == wanted:
            template = ((row.get("data") or {}).get("spec") or {}).get("template") or {}
            return {key: value for key, value in template.items() if key != "$patch"}
    found: Obj = stateful_set["spec"]["template"]
    return found


def _advance(draft: Draft, found: _Set, pods: dict[int, Obj], claims: dict[str, Obj]) -> None:
    """Takes the next step: in order, each waits for the one before; else all that are due at once."""
    made: list[int] = []
    for ordinal in _wanted(found.obj):
        pod = pods.get(ordinal)
        if pod is None:
            made.append(ordinal)
            if found.ordered:
                break
            continue
        if not is_deleting(pod) and (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
            _recreate(draft, found.obj, pod)
            return
        if found.ordered and (wait := found.waits(pod)) != 0:
            draft.look_again(wait)
            return
    if made:
        _create(draft, found, made, claims)
        if found.ordered:
            return
    if _condemn(draft, found, pods) or not found.rolls:
        return
    _replace(draft, found, pods)


def _recreate(draft: Draft, stateful_set: Obj, pod: Obj) -> None:
    draft.add(delete(PODS, pod))
    where = f"{namespace(stateful_set)}/{name(stateful_set)}"
    ended = "Failed" if (pod.get("status") or {}).get("phase") == "Failed" else "Terminated"
    sentence = f"StatefulSet {where} is recreating {ended.lower()} Pod {name(pod)}"
    draft.tell(stateful_set, "Warning" if ended == "Failed" else "Normal", f"Recreating{ended}Pod", sentence)


def _create(draft: Draft, found: _Set, ordinals: Sequence[int], claims: dict[str, Obj]) -> None:
    stateful_set = found.obj
    pods = []
    for ordinal in ordinals:
        bodies = claims_of(stateful_set, ordinal)
        if any(row in claims and is_deleting(claims[row]) for row in bodies):
            continue  # a pod never gets a claim that is on its way out
        missing = [body for row, body in bodies.items() if row not in claims]
        draft.add(*(Create(resource=PERSISTENT_VOLUME_CLAIMS, obj=body) for body in missing))
        pod = found.pod(ordinal)
        pods.append(Create(resource=PODS, obj=pod, owner_uid=uid(stateful_set)))
        for body in missing:
            words = f"create Claim {name(body)} Pod {name(pod)} in StatefulSet {name(stateful_set)} success"
            draft.tell(stateful_set, "Normal", "SuccessfulCreate", words)
        words = f"create Pod {name(pod)} in StatefulSet {name(stateful_set)} successful"
        draft.tell(stateful_set, "Normal", "SuccessfulCreate", words)
    if pods:
        draft.add(Batch(tuple(pods)))


def _condemn(draft: Draft, found: _Set, pods: dict[int, Obj]) -> bool:
    """Deletes pods that are too many, the highest first; returns whether any is left."""
    wanted = _wanted(found.obj)
    beyond = sorted((ordinal for ordinal in pods if ordinal not in wanted), reverse=True)
    for ordinal in beyond:
        if not is_deleting(pods[ordinal]):
            _delete(draft, found.obj, pods[ordinal])
        if found.ordered:
            break
    return bool(beyond)


def _replace(draft: Draft, found: _Set, pods: dict[int, Obj]) -> None:
    """Deletes the highest pod of another revision, once all above it are healthy."""
    wanted = _wanted(found.obj)
    for ordinal in reversed(wanted[min(found.partition, len(wanted)) :]):
        pod = pods.get(ordinal)
        if pod is None or is_deleting(pod):
            return
        if labels_of(pod).get(HASH_LABEL) != found.update:
            _delete(draft, found.obj, pod)
            return
        if (wait := found.waits(pod)) != 0:
            draft.look_again(wait)
            return


def _delete(draft: Draft, stateful_set: Obj, pod: Obj) -> None:
    draft.add(delete(PODS, pod))
    sentence = f"delete Pod {name(pod)} in StatefulSet {name(stateful_set)} successful"
    draft.tell(stateful_set, "Normal", "SuccessfulDelete", sentence)


def _status(found: _Set, pods: Sequence[Obj]) -> tuple[Obj, float | None]:
    """Returns the status, and after how long another pod becomes available by waiting alone."""
    waits = [found.available_in_s(pod) for pod in pods]
    alive = [pod for pod in pods if not is_deleting(pod)]
    ready = sum(wait is not None for wait in waits)
    counts = {
        "readyReplicas": ready,
        "currentReplicas": sum(labels_of(pod).get(HASH_LABEL) == found.current for pod in alive),
        "updatedReplicas": sum(labels_of(pod).get(HASH_LABEL) == found.update for pod in alive),
    }
    current, size = found.current, len(_wanted(found.obj))
    if found.rolls and counts["updatedReplicas"] == len(pods) == ready == size:
        current, counts["currentReplicas"] = found.update, counts["updatedReplicas"]
    status: Obj = {
        "replicas": len(pods),
        "availableReplicas": sum(wait == 0 for wait in waits),
        "currentRevision": current,
        "updateRevision": found.update,
        "observedGeneration": found.obj["metadata"].get("generation", 0),
        "collisionCount": 0,
        **{key: count for key, count in counts.items() if count},
    }
    return status, min((wait for wait in waits if wait), default=None)


def refused(observed: Observed, refusal: Refusal, now: float) -> Plan:
    """Says in an event why a pod or a claim cannot be created or deleted."""
    draft, stateful_set = Draft(), observed.stateful_set
    match refusal.action:
        case Create(obj=obj):
            kind = "Claim" if obj["kind"] == PERSISTENT_VOLUME_CLAIMS.kind else "Pod"
            verb, reason, target = "create", "FailedCreate", f"{kind} {name(obj)}"
        case Delete(name=pod_name):
            verb, reason, target = "delete", "FailedDelete", f"Pod {pod_name}"
        case _:
            return draft.done()
    sentence = f"{verb} {target} in StatefulSet {name(stateful_set)} failed error: {refusal.message}"
    draft.tell(stateful_set, "Warning", reason, sentence)
    return draft.done()


STATEFUL_SET = ControllerSpec(
    name="statefulset",
    watches=(
        Watch(resource=STATEFUL_SETS, keys=own_key, indexes=("namespace",)),
        Watch(resource=PODS, keys=keys_of_pod, indexes=("controller", "orphan")),
        Watch(resource=PERSISTENT_VOLUME_CLAIMS, keys=keys_of_claim),
        Watch(resource=CONTROLLER_REVISIONS, keys=lambda obj, view: (), indexes=("controller", "orphan")),
    ),
    observe=observe,
    reconcile=reconcile,
    refused=refused,
    interval_s=0.1,
)
