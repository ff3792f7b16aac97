"""Prefers nodes that have the pod's images, weighed by size and by how widespread they are."""

from __future__ import annotations

import numpy as np

from steersman.cluster.sched.plugins.base import SCORE_MAX
from steersman.cluster.sched.pods import PodInfo
from steersman.cluster.sched.snapshot import Snapshot
from steersman.cluster.sched.tally import IntArray, Mask

_BYTES_MIN = 23 * 1024 * 1024
_BYTES_MAX_PER_CONTAINER = 1000 * 1024 * 1024


class ImageLocality:
    name = "ImageLocality"

    def score(self, pod: PodInfo, snapshot: Snapshot, feasible: Mask) -> IntArray | None:
        images = pod.pod_class.images

        def compute() -> IntArray | None:
            total = np.zeros(snapshot.size, np.int64)
            for name in images:
                found = snapshot.image(name)
                if found is not None:
                    rows, size_bytes = found
                    total += rows * int(size_bytes * int(rows.sum()) / max(snapshot.node_count, 1))
            if not (total > _BYTES_MIN).any():
                return None
            highest = _BYTES_MAX_PER_CONTAINER * len(images)
            clipped = np.clip(total, _BYTES_MIN, highest)
            scores: IntArray = SCORE_MAX * (clipped - _BYTES_MIN) // (highest - _BYTES_MIN)
            return scores

        scores: IntArray | None = snapshot.memo(self.name, pod.pod_class, compute)
        return scores
