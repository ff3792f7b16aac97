"""Prefers nodes whose cpu and memory would be used to the same degree."""

from __future__ import annotations

import numpy as np

from steersman.cluster.sched.plugins.base import SCORE_MAX
from steersman.cluster.sched.pods import PodInfo
from steersman.cluster.sched.snapshot import CPU, MEMORY, Rows, Snapshot
from steersman.cluster.sched.tally import IntArray, Mask


class NodeResourcesBalancedAllocation:
    name = "NodeResourcesBalancedAllocation"

    def score(self, pod: PodInfo, snapshot: Snapshot, feasible: Mask) -> IntArray | None:
        if pod.pod_class.best_effort:
            return None
        requests = dict(pod.pod_class.requests)
        asked = {CPU: requests.get("cpu", 0), MEMORY: requests.get("memory", 0)}

        def compute(rows: Rows) -> IntArray:
            shares = []
            for at in (CPU, MEMORY):
                capacity = np.maximum(snapshot.allocatable[at, rows], 1)
                shares.append(np.minimum((snapshot.used[at, rows] + asked[at]) / capacity, 1.0))
            spread = np.abs(shares[0] - shares[1]) / 2
            found: IntArray = ((1 - spread) * SCORE_MAX).astype(np.int64)
            return found

        scores: IntArray = snapshot.per_row(self.name, pod.pod_class, compute)
        return scores
