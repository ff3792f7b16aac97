"""Finds the node for a pod, or says why there is none.

Every feasible node is scored (kube-scheduler samples them in large clusters); ties are broken by chance, given in.
Source: https://kubernetes.io/docs/concepts/scheduling-eviction/kube-scheduler/
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from steersman.cluster.meta.chance import Chance
from steersman.cluster.sched.plugins import Profile
from steersman.cluster.sched.plugins.node_affinity import named_rows
from steersman.cluster.sched.pods import PodInfo
from steersman.cluster.sched.snapshot import Snapshot
from steersman.cluster.sched.tally import IntArray, Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The node found; `feasible` counts those that could have been."""

    pod: PodInfo
    node: str
    feasible: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unschedulable:
    """No node can take the pod.

    Args:
        nodes: how many nodes there are.
        counts: (reason, number of nodes); a node may count for several reasons.
        plugins: names of the filters that refused some node: what could help is what concerns them.
        resolvable: nodes where removing pods could help.
        message: after the reasons, what preemption tried.
    """

    pod: PodInfo
    nodes: int
    counts: tuple[tuple[str, int], ...]
    plugins: tuple[str, ...]
    resolvable: Mask
    preemption: str = ""

    @property
    def message(self) -> str:
        """kube-scheduler's sentence, as events and the `PodScheduled` condition carry it."""
        if not self.nodes:
            return "no nodes available to schedule pods"
        return available(self.nodes, self.counts) + (f" preemption: {self.preemption}" if self.preemption else "")


def available(nodes: int, counts: Sequence[tuple[str, int]]) -> str:
    """Returns `0/5 nodes are available: 3 Insufficient cpu, 2 node(s) were unschedulable.`"""
    rows = sorted(f"{count} {text}" for text, count in counts)
    return f"0/{nodes} nodes are available:" + (f" {', '.join(rows)}." if rows else "")


@dataclass(slots=True)
class Diagnosis:
    """Per refused row the reasons, and which rows removing pods could open."""

    counts: dict[str, int] = field(default_factory=dict)
    plugins: list[str] = field(default_factory=list)
    reasons: list[tuple[str, str, Mask]] = field(default_factory=list)
    resolvable: Mask = field(default_factory=lambda: np.zeros(0, bool))


def feasible_rows(pod: PodInfo, snapshot: Snapshot, profile: Profile) -> Mask:
    """The nodes that every filter accepts, with the nominated pods of at least its priority counted in."""
    added = snapshot.with_nominated(pod) if snapshot.nominated else []
    if not added:
        return _pass_all(pod, snapshot, profile)
    try:
        mask = _pass_all(pod, snapshot, profile)
    finally:
        for uid in added:
            snapshot.remove_pod(uid)
    # a nominated pod may never arrive: what needs its presence must hold without it too
    if pod.pod_class.affinity or pod.pod_class.spread:
        mask = mask & _pass_all(pod, snapshot, profile)
    return mask


def _pass_all(pod: PodInfo, snapshot: Snapshot, profile: Profile) -> Mask:
    mask = snapshot.alive.copy()
    for plugin in profile.filters:
        found = plugin.filter(pod, snapshot)
        if found is not None:
            mask &= found
    return mask


def total_scores(pod: PodInfo, snapshot: Snapshot, profile: Profile, feasible: Mask) -> IntArray:
    """The weighted sum of every score; only feasible rows mean anything."""
    total = np.zeros(snapshot.size, np.int64)
    for plugin, weight in profile.scores:
        scores = plugin.score(pod, snapshot, feasible)
        if scores is not None:
            total += scores if weight == 1 else weight * scores
    return total


def schedule(pod: PodInfo, snapshot: Snapshot, profile: Profile, rng: Chance) -> Placement | Unschedulable:
    """Decides for one pod; changes nothing."""
    mask = feasible_rows(pod, snapshot, profile)
    count = int(np.count_nonzero(mask))
    if not count:
        return diagnosed(pod, snapshot, profile)
    if pod.nominated and (at := snapshot.row_of.get(pod.nominated)) is not None and mask[at]:
        row = at
    elif count == 1:
        row = int(mask.argmax())
    else:
        scores = np.where(mask, total_scores(pod, snapshot, profile, mask), -1)
        best = np.flatnonzero(scores == scores.max())
        row = int(best[0] if len(best) == 1 else best[rng.randrange(len(best))])
    return Placement(pod=pod, node=snapshot.names([row])[0], feasible=count)


def schedule_batch(
    pods: Sequence[PodInfo], snapshot: Snapshot, profile: Profile, rng: Chance
) -> Iterator[Placement | Unschedulable]:
    """Decides for equal pods in turn, assuming each placement in the snapshot before the next.

    Once one is refused, those after it are refused for the same reasons without another look.
    """
    refused: Unschedulable | None = None
    for pod in pods:
        if refused is not None and not pod.nominated:
            yield replace(refused, pod=pod)
            continue
        found = schedule(pod, snapshot, profile, rng)
        if isinstance(found, Placement):
            snapshot.forget_nomination(pod.uid)
            snapshot.set_pod(replace(pod, node=found.node))
        else:
            refused = found
        yield found


def diagnose(pod: PodInfo, snapshot: Snapshot, profile: Profile) -> Diagnosis:
    """Attributes each refused node to the first filter that refuses it."""
    added = snapshot.with_nominated(pod) if snapshot.nominated else []
    found = Diagnosis()
    left = snapshot.alive.copy()
    hopeless = np.zeros(snapshot.size, bool)
    named = named_rows(pod.pod_class, snapshot)
    if named is not None:
        text, rows = "node(s) didn't satisfy plugin(s) [NodeAffinity]", left & ~named
        _note(found, "NodeAffinity", text, rows)
        hopeless |= rows
        left &= named
    for plugin in profile.filters:
        mask = plugin.filter(pod, snapshot)
        refused = left & ~mask if mask is not None else None
        if refused is None or not refused.any():
            continue
        for reason in plugin.why(pod, snapshot):
            rows = refused & reason.rows
            _note(found, plugin.name, reason.text, rows)
            if not reason.resolvable:
                hopeless |= rows
        left &= ~refused
    found.resolvable = snapshot.alive & ~left & ~hopeless
    for uid in added:
        snapshot.remove_pod(uid)
    return found


def _note(found: Diagnosis, plugin: str, text: str, rows: Mask) -> None:
    count = int(np.count_nonzero(rows))
    if not count:
        return
    found.counts[text] = found.counts.get(text, 0) + count
    found.reasons.append((plugin, text, rows))
    if plugin not in found.plugins:
        found.plugins.append(plugin)


def diagnosed(pod: PodInfo, snapshot: Snapshot, profile: Profile) -> Unschedulable:
    """The refusal of a pod that no node can take."""
    found = diagnose(pod, snapshot, profile)
    return Unschedulable(
        pod=pod,
        nodes=snapshot.node_count,
        counts=tuple(found.counts.items()),
        plugins=tuple(found.plugins),
        resolvable=found.resolvable,
    )
