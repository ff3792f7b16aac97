"""Finds the pods of lower priority whose removal makes room, hurting as little as possible.

Victims are chosen per node: all pods of lower priority leave in thought, then as many as possible return, those that a
disruption budget protects and those of high priority first. Among nodes: fewest budget violations, then lowest
priority of the highest victim, then lowest sum of priorities, then fewest victims, then youngest highest victim.
Source: https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from steersman.cluster.meta.chance import Chance
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.selectors import LabelSelector, from_dict
from steersman.cluster.sched.decide import Unschedulable, available, feasible_rows
from steersman.cluster.sched.plugins import Profile
from steersman.cluster.sched.plugins.node_ports import clash
from steersman.cluster.sched.pods import PodInfo
from steersman.cluster.sched.snapshot import PODS, Snapshot
from steersman.cluster.sched.tally import Mask

#: nodes with victims compared; more only while each of them breaks some disruption budget
_CANDIDATES_MAX = 100
_NOT_HELPFUL = "Preemption is not helpful for scheduling"
_NO_VICTIMS = "No preemption victims found for incoming pod"
#: priorities are shifted so that the lowest counts as well in a sum
_SHIFT = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A PodDisruptionBudget: pods it means may be evicted so many times more."""

    namespace: str
    selector: LabelSelector
    disruptions_allowed: int
    #: names of pods already evicted that the budget's status has not counted as gone
    disrupted: frozenset[str] = frozenset()


def budget(obj: Obj) -> Budget:
    status = obj.get("status") or {}
    return Budget(
        namespace=obj["metadata"].get("namespace", ""),
        selector=from_dict((obj.get("spec") or {}).get("selector")),
        disruptions_allowed=int(status.get("disruptionsAllowed") or 0),
        disrupted=frozenset(status.get("disruptedPods") or ()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Preemption:
    """Room can be made: delete `victims`, then the pod fits `node`."""

    pod: PodInfo
    node: str
    victims: tuple[PodInfo, ...]
    violations: int


def preempt(
    refused: Unschedulable, snapshot: Snapshot, profile: Profile, budgets: Sequence[Budget], rng: Chance
) -> Preemption | str:
    """Returns what to evict for a refused pod, or the sentence that says why nothing helps."""
    pod = refused.pod
    if not pod.pod_class.preempts:
        return "not eligible due to preemptionPolicy=Never."
    at = snapshot.row_of.get(pod.nominated)
    if at is not None and any(
        other.terminating and other.pod_class.priority < pod.pod_class.priority
        for other in snapshot.pods_on[at].values()
    ):
        return "not eligible due to a terminating pod on the nominated node."
    could = refused.resolvable & _has_victims(pod, snapshot)
    roomy = could & _room_without_lower(pod, snapshot)
    candidates = _candidates(pod, snapshot, profile, budgets, roomy, rng)
    if candidates:
        return min(candidates, key=_harm)
    return _explanation(refused, snapshot, could, roomy)


def _explanation(refused: Unschedulable, snapshot: Snapshot, could: Mask, roomy: Mask) -> str:
    hopeless = refused.nodes - int(np.count_nonzero(refused.resolvable))
    none = int(np.count_nonzero(refused.resolvable & ~could))
    rest = int(np.count_nonzero(could))
    counts = [(_NOT_HELPFUL, hopeless), (_NO_VICTIMS, none)]
    if rest:
        cramped = int(np.count_nonzero(could & ~roomy))
        text = next((text for text, _ in refused.counts if text.startswith("Insufficient")), "Too many pods")
        counts += [(text, cramped), ("node(s) would still refuse the pod after preemption", rest - cramped)]
    return available(refused.nodes, [(text, count) for text, count in counts if count])


def _has_victims(pod: PodInfo, snapshot: Snapshot) -> Mask:
    found: Mask = snapshot.used_below(pod.pod_class.priority)[PODS] > 0
    return found


def _room_without_lower(pod: PodInfo, snapshot: Snapshot) -> Mask:
    """Nodes with enough of every resource if all pods of lower priority were gone."""
    rest = snapshot.used - snapshot.used_below(pod.pod_class.priority)
    mask: Mask = rest[PODS] < snapshot.allocatable[PODS]
    for name, amount in pod.pod_class.requests:
        at = snapshot.resources.get(name)
        if at is None:
            return np.zeros(snapshot.size, bool)
        mask &= rest[at] + amount <= snapshot.allocatable[at]
    return mask


def _candidates(
    pod: PodInfo, snapshot: Snapshot, profile: Profile, budgets: Sequence[Budget], roomy: Mask, rng: Chance
) -> list[Preemption]:
    rows = [int(row) for row in np.flatnonzero(roomy)]
    if not rows:
        return []
    start = rng.randrange(len(rows))
    found: list[Preemption] = []
    added = snapshot.with_nominated(pod) if snapshot.nominated else []
    local = _is_local(pod, snapshot)
    try:
        for row in (*rows[start:], *rows[:start]):
            if len(found) >= _CANDIDATES_MAX and any(not candidate.violations for candidate in found):
                break
            trial = _Trial(pod, row, snapshot, profile, local=local)
            victims = trial.victims(budgets)
            if victims is not None:
                found.append(victims)
    finally:
        for uid in added:
            snapshot.remove_pod(uid)
    return found


def _is_local(pod: PodInfo, snapshot: Snapshot) -> bool:
    """Whether fitting depends on the node alone, not on pods elsewhere."""
    pod_class = pod.pod_class
    near_or_far = pod_class.affinity or pod_class.anti_affinity or any(c.hard for c in pod_class.spread)
    return not near_or_far and not any(sort == "far" for sort, *_ in snapshot.owners_meaning(pod_class))


class _Trial:
    """One node with some of its pods gone in thought; the snapshot is as before when `victims` returns."""

    def __init__(self, pod: PodInfo, row: int, snapshot: Snapshot, profile: Profile, *, local: bool) -> None:
        self._pod = pod
        self._row = row
        self._snapshot = snapshot
        self._profile = profile
        self._local = local
        self._gone: dict[str, PodInfo] = {}

    def victims(self, budgets: Sequence[Budget]) -> Preemption | None:
        priority = self._pod.pod_class.priority
        lower = [other for other in self._snapshot.pods_on[self._row].values() if other.pod_class.priority < priority]
        lower.sort(key=importance)
        try:
            for other in lower:
                self._take(other)
            if not self._fits():
                return None
            protected, free = split_by_budget(lower, budgets)
            violations = 0
            for other in protected:
                violations += not self._returns(other)
            for other in free:
                self._returns(other)
            victims = tuple(sorted(self._gone.values(), key=importance))
        finally:
            for other in list(self._gone.values()):
                self._give_back(other)
        node = self._snapshot.names([self._row])[0]
        return Preemption(pod=self._pod, node=node, victims=victims, violations=violations) if victims else None

    def _returns(self, other: PodInfo) -> bool:
        """Lets a pod return if the new one fits nonetheless."""
        self._give_back(other)
        if self._fits():
            return True
        self._take(other)
        return False

    def _take(self, other: PodInfo) -> None:
        self._gone[other.uid] = other
        if not self._local:
            self._snapshot.remove_pod(other.uid)

    def _give_back(self, other: PodInfo) -> None:
        del self._gone[other.uid]
        if not self._local:
            self._snapshot.set_pod(other)

    def _fits(self) -> bool:
        if not self._local:
            return bool(feasible_rows(self._pod, self._snapshot, self._profile)[self._row])
        snapshot, row = self._snapshot, self._row
        freed: dict[str, int] = {"pods": len(self._gone)}
        for other in self._gone.values():
            for name, amount in other.pod_class.requests:
                freed[name] = freed.get(name, 0) + amount
        for name, amount in (*self._pod.pod_class.requests, ("pods", 1)):
            at = snapshot.resources[name]
            if int(snapshot.used[at, row]) - freed.get(name, 0) + amount > int(snapshot.allocatable[at, row]):
                return False
        return self._ports_free()

    def _ports_free(self) -> bool:
        wanted = self._pod.pod_class.ports
        if not wanted:
            return True
        staying = (o for uid, o in self._snapshot.pods_on[self._row].items() if uid not in self._gone)
        return not any(clash(want, taken) for o in staying for taken in o.pod_class.ports for want in wanted)


def importance(pod: PodInfo) -> tuple[int, float, str]:
    """Sorts pods so that the one to keep longest comes first: high priority, then long running."""
    return (-pod.pod_class.priority, pod.started, pod.uid)


def split_by_budget(pods: Sequence[PodInfo], budgets: Sequence[Budget]) -> tuple[list[PodInfo], list[PodInfo]]:
    """Returns (pods whose eviction would break some budget, the rest), each in the order given."""
    left: dict[int, int] = {index: row.disruptions_allowed for index, row in enumerate(budgets)}
    protected: list[PodInfo] = []
    free: list[PodInfo] = []
    for pod in pods:
        broken = False
        for index, row in enumerate(budgets):
            if row.namespace != pod.namespace or not pod.pod_class.labels or pod.name in row.disrupted:
                continue
            if row.selector.requirements and row.selector.matches(pod.pod_class.labels):
                left[index] -= 1
                broken = broken or left[index] < 0
        (protected if broken else free).append(pod)
    return protected, free


def _harm(found: Preemption) -> tuple[int, int, int, int, float, str]:
    priorities = [victim.pod_class.priority for victim in found.victims]
    highest = max(priorities)
    earliest = min(v.started for v in found.victims if v.pod_class.priority == highest)
    total = sum(priority + _SHIFT for priority in priorities)
    return (found.violations, highest, total, len(priorities), -earliest, found.node)


def lower_nominations(preemption: Preemption, nominated: Mapping[str, tuple[PodInfo, str]]) -> list[PodInfo]:
    """Pods of lower priority nominated to the same node: they lose the nomination and are tried anew."""
    return [
        other
        for other, node in nominated.values()
        if node == preemption.node and other.pod_class.priority < preemption.pod.pod_class.priority
    ]
