"""Keeps pods off nodes without room for their requests, and prefers the nodes with most room left.

Source: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/
"""

from __future__ import annotations

import numpy as np

from steersman.cluster.sched.plugins.base import SCORE_MAX, Reason
from steersman.cluster.sched.pods import PodClass, PodInfo
from steersman.cluster.sched.snapshot import CPU, MEMORY, PODS, Rows, Snapshot
from steersman.cluster.sched.tally import IntArray, Mask


def _fits(pod_class: PodClass, snapshot: Snapshot, rows: Rows) -> Mask:
    allocatable, used = snapshot.allocatable, snapshot.used
    mask: Mask = used[PODS, rows] < allocatable[PODS, rows]
    for name, amount in pod_class.requests:
        at = snapshot.resources.get(name)
        if at is None:
            return np.zeros_like(mask)
        mask &= used[at, rows] + amount <= allocatable[at, rows]
    return mask


class NodeResourcesFit:
    """Filters by free amount of every resource; scores as `LeastAllocated` with cpu and memory alike."""

    name = "NodeResourcesFit"

    def filter(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        pod_class = pod.pod_class
        mask: Mask = snapshot.per_row(self.name, pod_class, lambda rows: _fits(pod_class, snapshot, rows))
        return mask

    def why(self, pod: PodInfo, snapshot: Snapshot) -> list[Reason]:
        allocatable, used = snapshot.allocatable, snapshot.used
        reasons = [Reason("Too many pods", used[PODS] >= allocatable[PODS])]
        for name, amount in pod.pod_class.requests:
            at = snapshot.resources.get(name)
            if at is None:
                reasons.append(Reason(f"Insufficient {name}", np.ones(snapshot.size, bool), resolvable=False))
                continue
            never = amount > allocatable[at]
            reasons.append(Reason(f"Insufficient {name}", never, resolvable=False))
            reasons.append(Reason(f"Insufficient {name}", ~never & (used[at] + amount > allocatable[at])))
        return [reason for reason in reasons if reason.rows.any()]

    def score(self, pod: PodInfo, snapshot: Snapshot, feasible: Mask) -> IntArray | None:
        asked = pod.pod_class.scored_requests

        def compute(rows: Rows) -> IntArray:
            total: IntArray = np.zeros(1, np.int64)
            weights: IntArray = np.zeros(1, np.int64)
            for at, scored in ((CPU, 0), (MEMORY, 1)):
                capacity = snapshot.allocatable[at, rows]
                free = np.maximum(capacity - snapshot.scored_used[scored, rows] - asked[scored], 0)
                total = total + free * SCORE_MAX // np.maximum(capacity, 1)
                weights = weights + (capacity > 0)
            return total // np.maximum(weights, 1)

        scores: IntArray = snapshot.per_row("LeastAllocated", pod.pod_class, compute)
        return scores
