"""Holds a pod that names its node to that node."""

from __future__ import annotations

import numpy as np

from steersman.cluster.sched.plugins.base import Reason
from steersman.cluster.sched.pods import PodInfo
from steersman.cluster.sched.snapshot import Snapshot
from steersman.cluster.sched.tally import Mask


class NodeName:
    name = "NodeName"

    def filter(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        if not pod.node:
            return None
        mask = np.zeros(snapshot.size, bool)
        row = snapshot.row_of.get(pod.node)
        if row is not None:
            mask[row] = True
        return mask

    def why(self, pod: PodInfo, snapshot: Snapshot) -> list[Reason]:
        mask = self.filter(pod, snapshot)
        if mask is None:
            return []
        return [Reason("node(s) didn't match the requested node name", ~mask, resolvable=False)]
