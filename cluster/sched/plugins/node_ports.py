"""Keeps pods off nodes where a host port they want is taken."""

from __future__ import annotations

import numpy as np

from steersman.cluster.sched.plugins.base import Reason
from steersman.cluster.sched.pods import HostPort, PodInfo
from steersman.cluster.sched.snapshot import Snapshot
from steersman.cluster.sched.tally import Mask

_ANY = "0.0.0.0"


def clash(wanted: HostPort, taken: HostPort) -> bool:
    """Whether two pods with these ports cannot share a node."""
    if (wanted.protocol, wanted.port) != (taken.protocol, taken.port):
        return False
    return wanted.ip == taken.ip or _ANY in (wanted.ip, taken.ip)


class NodePorts:
    name = "NodePorts"

    def filter(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        if not pod.pod_class.ports or not snapshot.port_counts():
            return None
        mask = np.ones(snapshot.size, bool)
        for taken, tally in snapshot.port_counts().items():
            if any(clash(wanted, taken) for wanted in pod.pod_class.ports):
                mask &= tally.rows[: snapshot.size] == 0
        return mask

    def why(self, pod: PodInfo, snapshot: Snapshot) -> list[Reason]:
        mask = self.filter(pod, snapshot)
        if mask is None:
            return []
        return [Reason("node(s) didn't have free ports for the requested pod ports", ~mask)]
