"""Spreads pods over the domains of a topology key: hard constraints filter, soft ones score.

A pod with no constraint of its own that belongs to a service, ReplicaSet or StatefulSet is spread softly over hosts
(skew 3) and zones (skew 5).
Source: https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from steersman.cluster.meta.selectors import LabelSelector, Requirement
from steersman.cluster.sched.plugins.base import SCORE_MAX, Reason
from steersman.cluster.sched.plugins.node_affinity import eligible
from steersman.cluster.sched.plugins.taint_toleration import tolerable
from steersman.cluster.sched.pods import PodClass, PodInfo
from steersman.cluster.sched.snapshot import Snapshot
from steersman.cluster.sched.tally import IntArray, Mask, domain_sums
from steersman.cluster.sched.terms import HOSTNAME, ZONE, PodSelector, SpreadConstraint

_DEFAULTS = ((HOSTNAME, 3), (ZONE, 5))


class PodTopologySpread:
    name = "PodTopologySpread"

    def filter(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        hard = [c for c in pod.pod_class.spread if c.hard]
        if not hard:
            return None
        mask = np.ones(snapshot.size, bool)
        for constraint in hard:
            has_key, within = _within_skew(pod.pod_class, snapshot, constraint, hard)
            mask &= has_key & within
        return mask

    def why(self, pod: PodInfo, snapshot: Snapshot) -> list[Reason]:
        hard = [c for c in pod.pod_class.spread if c.hard]
        left = np.ones(snapshot.size, bool)
        missing, skewed = np.zeros(snapshot.size, bool), np.zeros(snapshot.size, bool)
        for constraint in hard:
            has_key, within = _within_skew(pod.pod_class, snapshot, constraint, hard)
            missing |= left & ~has_key
            skewed |= left & has_key & ~within
            left &= has_key & within
        text = "node(s) didn't match pod topology spread constraints"
        return [Reason(f"{text} (missing required label)", missing, resolvable=False), Reason(text, skewed)]

    def score(self, pod: PodInfo, snapshot: Snapshot, feasible: Mask) -> IntArray | None:
        own = [c for c in pod.pod_class.spread if not c.hard]
        defaulted = not pod.pod_class.spread
        constraints = list(_default_constraints(pod.pod_class, snapshot)) if defaulted else own
        if not constraints:
            return None
        ignored = np.zeros(snapshot.size, bool)
        if not defaulted:
            for constraint in constraints:
                ignored |= snapshot.topology(constraint.topology_key)[0] < 0
        scored = feasible & ~ignored
        raw = np.zeros(snapshot.size)
        for constraint in constraints:
            raw += _soft_score(pod.pod_class, snapshot, constraint, constraints, scored, defaulted=defaulted)
        return _inverted(np.rint(raw).astype(np.int64), scored, ignored)


def _inverted(raw: IntArray, scored: Mask, ignored: Mask) -> IntArray | None:
    """The emptiest domain scores most; rows left out score nothing."""
    if not scored.any():
        return None
    highest = int(raw.max(initial=0, where=scored))
    lowest = int(raw.min(initial=highest, where=scored))
    if highest == lowest and not ignored.any():
        return None
    if highest == 0:
        scores = np.full(len(raw), SCORE_MAX, np.int64)
    else:
        scores = SCORE_MAX * (highest + lowest - raw) // highest
    scores[ignored] = 0
    return scores


def _counted(
    pod_class: PodClass, snapshot: Snapshot, constraint: SpreadConstraint, together: list[SpreadConstraint]
) -> Mask | None:
    """The rows whose pods count for a constraint; None for all."""

    def compute() -> Mask | None:
        mask = snapshot.alive.copy()
        for other in together:
            mask &= snapshot.topology(other.topology_key)[0] >= 0
        if constraint.honor_affinity and (nodes := eligible(pod_class, snapshot)) is not None:
            mask &= nodes
        if constraint.honor_taints and (nodes := tolerable(pod_class, snapshot)) is not None:
            mask &= nodes
        return None if bool((mask == snapshot.alive).all()) else mask

    name = f"PodTopologySpread/{together.index(constraint)}/{constraint.hard}/{len(together)}"
    found: Mask | None = snapshot.memo(name, pod_class, compute)
    return found


def _domain_counts(
    pod_class: PodClass, snapshot: Snapshot, constraint: SpreadConstraint, counted: Mask | None
) -> tuple[NDArray[np.int32], IntArray, IntArray]:
    """Returns (value id of each row, pods per value id with a last slot for none, pods per row)."""
    tally = snapshot.tally((PodSelector((pod_class.namespace,), constraint.selector),), living=True)
    values, size = snapshot.topology(constraint.topology_key)
    rows = tally.rows[: snapshot.size]
    if counted is None:
        return values, snapshot.sums(tally, constraint.topology_key), rows
    return values, domain_sums(values, rows * counted, size), rows


def _within_skew(
    pod_class: PodClass, snapshot: Snapshot, constraint: SpreadConstraint, hard: list[SpreadConstraint]
) -> tuple[Mask, Mask]:
    """Returns (rows that have the key, rows where one more pod keeps the skew)."""
    counted = _counted(pod_class, snapshot, constraint, hard)
    values, sums, _ = _domain_counts(pod_class, snapshot, constraint, counted)
    present = np.zeros(len(sums), bool)
    present[values[snapshot.alive if counted is None else counted]] = True
    present[-1] = False
    domains = int(present.sum())
    lowest = int(sums[present].min()) if domains >= max(constraint.min_domains, 1) else 0
    itself = int(constraint.selector.matches(pod_class.labels))
    # a domain in which no node counts has no pods that count either: any pod of this class may go there
    within = sums[values] + itself - lowest <= constraint.max_skew
    return values >= 0, within


def _soft_score(
    pod_class: PodClass,
    snapshot: Snapshot,
    constraint: SpreadConstraint,
    constraints: list[SpreadConstraint],
    scored: Mask,
    *,
    defaulted: bool,
) -> NDArray[np.float64]:
    counted = _counted(pod_class, snapshot, constraint, [constraint] if defaulted else constraints)
    values, sums, rows = _domain_counts(pod_class, snapshot, constraint, counted)
    if constraint.topology_key == HOSTNAME:
        counts, domains = rows, int(np.count_nonzero(scored))
    else:
        counts = sums[values]
        present = np.zeros(len(sums), bool)
        present[values[scored]] = True
        domains = int(present[:-1].sum())
    weight = np.log(domains + 2)
    found: NDArray[np.float64] = np.where(values >= 0, counts * weight + (constraint.max_skew - 1), 0.0)
    return found


def _default_constraints(pod_class: PodClass, snapshot: Snapshot) -> tuple[SpreadConstraint, ...]:
    selector = _default_selector(pod_class, snapshot)
    if not selector.requirements:
        return ()
    return tuple(SpreadConstraint(key, skew, False, selector) for key, skew in _DEFAULTS)


def _default_selector(pod_class: PodClass, snapshot: Snapshot) -> LabelSelector:
    """What the pod's services and its owner select, all together."""
    requirements = [Requirement(key, "In", (value,)) for key, value in pod_class.spread_owner]
    for _, selector in sorted(snapshot.services.get(pod_class.namespace, {}).items()):
        if selector.matches(pod_class.labels):
            requirements += [r for r in selector.requirements if r not in requirements]
    return LabelSelector(tuple(requirements))
