"""Overload: which requests may run now, so that no user's flood stops another, and the cluster's own never wait.

A request belongs to a level (how much it matters) and a flow (whose it is). Levels have seats of their own; within a
level no flow takes more than its share while others are there. Watches and conversations hold no seat once they run.

Source: the idea of https://kubernetes.io/docs/concepts/cluster-administration/flow-control/ in its simplest form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from steersman.cluster.auth.attributes import Attributes
from steersman.cluster.auth.rbac import MASTERS

#: what a refused client waits before it tries again
RETRY_AFTER_S = 1


@dataclass(frozen=True, slots=True)
class Level:
    """Args: seats: requests in flight at once; share: the part of them that one flow may hold; 1 for all."""

    name: str
    seats: int
    share: float


EXEMPT = Level("exempt", 0, 1.0)
SYSTEM = Level("system", 2_000, 1.0)
WORKLOAD = Level("workload", 800, 0.5)
CATCH_ALL = Level("catch-all", 100, 0.5)


def classify(user: str, groups: Sequence[str], attributes: Attributes) -> Level:
    """The level of a request: node agents, leases and the control plane before everybody else."""
    if MASTERS in groups or not attributes.is_resource:
        return EXEMPT
    if attributes.resource == "leases" or "system:nodes" in groups:
        return SYSTEM
    if user.startswith("system:kube-") or user == "system:apiserver" or "system:serviceaccounts:kube-system" in groups:
        return SYSTEM
    return WORKLOAD if "system:authenticated" in groups else CATCH_ALL


class Seats:
    """The requests in flight; a pure table that the caller enters and leaves."""

    def __init__(self, scale: float = 1.0) -> None:
        self._scale = scale
        self._taken: Counter[str] = Counter()
        self._by_flow: Counter[tuple[str, str]] = Counter()

    def enter(self, level: Level, flow: str) -> bool:
        """Takes a seat; False when there is none for this flow now (answer 429)."""
        if level is EXEMPT:
            return True
        seats = max(1, int(level.seats * self._scale))
        if self._taken[level.name] >= seats or self._by_flow[level.name, flow] >= max(1, int(seats * level.share)):
            return False
        self._taken[level.name] += 1
        self._by_flow[level.name, flow] += 1
        return True

    def leave(self, level: Level, flow: str) -> None:
        """Gives back a seat taken by `enter`."""
        if level is EXEMPT:
            return
        self._taken[level.name] -= 1
        self._by_flow[level.name, flow] -= 1
        if not self._by_flow[level.name, flow]:
            del self._by_flow[level.name, flow]
