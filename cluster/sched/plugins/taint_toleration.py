"""Keeps pods off nodes whose taints they do not tolerate, and prefers nodes with few soft ones.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
"""

from __future__ import annotations

import numpy as np

from steersman.cluster.sched.plugins.base import Reason, normalized
from steersman.cluster.sched.pods import PodClass, PodInfo
from steersman.cluster.sched.snapshot import Snapshot
from steersman.cluster.sched.tally import IntArray, Mask
from steersman.cluster.sched.terms import Taint

_HARD = ("NoSchedule", "NoExecute")


def untolerated(pod_class: PodClass, taints: tuple[Taint, ...]) -> Taint | None:
    """The first taint that keeps pods of this class away."""
    for taint in taints:
        if taint.effect in _HARD and not any(t.tolerates(taint) for t in pod_class.tolerations):
            return taint
    return None


def tolerable(pod_class: PodClass, snapshot: Snapshot) -> Mask | None:
    """The rows whose taints this class tolerates; None for all."""

    def compute() -> Mask | None:
        passes = np.array([untolerated(pod_class, taints) is None for taints in snapshot.taint_sets])
        return None if passes.all() else passes[snapshot.taint_ids]

    mask: Mask | None = snapshot.memo("TaintToleration", pod_class, compute)
    return mask


class TaintToleration:
    name = "TaintToleration"

    def filter(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        return tolerable(pod.pod_class, snapshot)

    def why(self, pod: PodInfo, snapshot: Snapshot) -> list[Reason]:
        found: dict[str, Mask] = {}
        for index, taints in enumerate(snapshot.taint_sets):
            taint = untolerated(pod.pod_class, taints)
            if taint is not None:
                text = f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}"
                rows = snapshot.taint_ids == index
                found[text] = found[text] | rows if text in found else rows
        return [Reason(text, rows, resolvable=False) for text, rows in found.items()]

    def score(self, pod: PodInfo, snapshot: Snapshot, feasible: Mask) -> IntArray | None:
        def compute() -> IntArray | None:
            soft = [t for t in pod.pod_class.tolerations if t.effect in ("", "PreferNoSchedule")]
            counts = np.array(
                [
                    sum(
                        taint.effect == "PreferNoSchedule" and not any(t.tolerates(taint) for t in soft)
                        for taint in row
                    )
                    for row in snapshot.taint_sets
                ],
                np.int64,
            )
            return counts[snapshot.taint_ids] if counts.any() else None

        raw: IntArray | None = snapshot.memo("TaintToleration/score", pod.pod_class, compute)
        return None if raw is None else normalized(raw, feasible, reverse=True)
