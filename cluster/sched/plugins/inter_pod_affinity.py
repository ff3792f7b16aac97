"""Keeps pods near to or away from other pods, in both directions: what the pod asks, and what those placed ask of it.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity
"""

from __future__ import annotations

import numpy as np

from steersman.cluster.sched.plugins.base import SCORE_MAX, Reason
from steersman.cluster.sched.pods import PodInfo
from steersman.cluster.sched.snapshot import Snapshot
from steersman.cluster.sched.tally import IntArray, Mask, Tally

#: what one required affinity term of a placed pod weighs when it means the pod to place
_HARD_WEIGHT = 1


def _near(tally: Tally, key: str, snapshot: Snapshot) -> IntArray:
    """The tally's sum over each row's domain; 0 without the key."""
    return snapshot.sums(tally, key)[snapshot.topology(key)[0]]


class InterPodAffinity:
    name = "InterPodAffinity"

    def filter(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        mask: Mask | None = None
        for part in (self._affinity, self._anti_affinity, self._symmetric):
            found = part(pod, snapshot)
            if found is not None:
                mask = found if mask is None else mask & found
        return mask

    def why(self, pod: PodInfo, snapshot: Snapshot) -> list[Reason]:
        left = np.ones(snapshot.size, bool)
        reasons = []
        for part, text, resolvable in (
            (self._affinity, "node(s) didn't match pod affinity rules", False),
            (self._anti_affinity, "node(s) didn't match pod anti-affinity rules", True),
            (self._symmetric, "node(s) didn't satisfy existing pods anti-affinity rules", True),
        ):
            mask = part(pod, snapshot)
            if mask is not None:
                reasons.append(Reason(text, left & ~mask, resolvable))
                left = left & mask
        return reasons

    def _affinity(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        terms = pod.pod_class.affinity
        if not terms:
            return None
        tally = snapshot.tally(tuple(term.selector for term in terms), living=False)
        has_keys, near = np.ones(snapshot.size, bool), np.ones(snapshot.size, bool)
        for term in terms:
            has_keys &= snapshot.topology(term.topology_key)[0] >= 0
            near &= _near(tally, term.topology_key, snapshot) > 0
        first = tally.total == 0 and all(
            term.selector.matches(pod.namespace, pod.pod_class.labels, snapshot.namespaces) for term in terms
        )
        return has_keys if first else has_keys & near

    def _anti_affinity(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        mask: Mask | None = None
        for term in pod.pod_class.anti_affinity:
            tally = snapshot.tally((term.selector,), living=False)
            if tally.total:
                free = _near(tally, term.topology_key, snapshot) == 0
                mask = free if mask is None else mask & free
        return mask

    def _symmetric(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        mask: Mask | None = None
        for sort, _, term, owners in snapshot.owners_meaning(pod.pod_class):
            if sort == "far":
                free = _near(owners, term.topology_key, snapshot) == 0
                mask = free if mask is None else mask & free
        return mask

    def score(self, pod: PodInfo, snapshot: Snapshot, feasible: Mask) -> IntArray | None:
        raw: IntArray | None = None
        for weight, term in pod.pod_class.preferred_pods:
            tally = snapshot.tally((term.selector,), living=False)
            if tally.total:
                part = weight * _near(tally, term.topology_key, snapshot)
                raw = part if raw is None else raw + part
        for sort, weight, term, owners in snapshot.owners_meaning(pod.pod_class):
            if sort == "near":
                part = (weight or _HARD_WEIGHT) * _near(owners, term.topology_key, snapshot)
                raw = part if raw is None else raw + part
        return None if raw is None else _stretched(raw, feasible)


def _stretched(raw: IntArray, feasible: Mask) -> IntArray | None:
    """Maps the lowest feasible score to 0 and the highest to 100."""
    found = raw[feasible]
    if not len(found):
        return None
    lowest, highest = int(found.min()), int(found.max())
    if lowest == highest:
        return None
    return SCORE_MAX * (raw - lowest) // (highest - lowest)
