"""Keeps pods off cordoned nodes, save those that tolerate `node.kubernetes.io/unschedulable`."""

from __future__ import annotations

from steersman.cluster.sched.plugins.base import Reason
from steersman.cluster.sched.pods import PodInfo
from steersman.cluster.sched.snapshot import Snapshot
from steersman.cluster.sched.tally import Mask
from steersman.cluster.sched.terms import Taint

_CORDONED = Taint("node.kubernetes.io/unschedulable", "", "NoSchedule")


class NodeUnschedulable:
    name = "NodeUnschedulable"

    def filter(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        def compute() -> Mask | None:
            if not snapshot.unschedulable.any():
                return None
            if any(toleration.tolerates(_CORDONED) for toleration in pod.pod_class.tolerations):
                return None
            return ~snapshot.unschedulable

        mask: Mask | None = snapshot.memo(self.name, pod.pod_class, compute)
        return mask

    def why(self, pod: PodInfo, snapshot: Snapshot) -> list[Reason]:
        return [Reason("node(s) were unschedulable", snapshot.unschedulable, resolvable=False)]
