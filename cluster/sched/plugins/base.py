"""What a scheduling plugin is: a row of the profile, giving masks and scores over all nodes at once.

Source: https://kubernetes.io/docs/reference/scheduling/config/#scheduling-plugins
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from steersman.cluster.sched.pods import PodInfo
from steersman.cluster.sched.snapshot import Snapshot
from steersman.cluster.sched.tally import IntArray, Mask

SCORE_MAX = 100


@dataclass(frozen=True, slots=True)
class Reason:
    """Why nodes were refused.

    Args:
        text: in kube-scheduler's words.
        rows: the nodes that this holds for.
        resolvable: whether removing pods from such a node could help.
    """

    text: str
    rows: Mask
    resolvable: bool = True


class Filter(Protocol):
    """Says where a pod can run."""

    name: str

    def filter(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        """Returns the rows that pass, or None when all do. The array may be shared: do not write to it."""
        ...

    def why(self, pod: PodInfo, snapshot: Snapshot) -> list[Reason]:
        """Explains every row that `filter` refuses; a row may have several reasons."""
        ...


class Score(Protocol):
    """Says where a pod would rather run."""

    name: str

    def score(self, pod: PodInfo, snapshot: Snapshot, feasible: Mask) -> IntArray | None:
        """Returns 0..100 per row (what stands outside `feasible` is ignored), or None when no node differs."""
        ...


def normalized(raw: IntArray, feasible: Mask, *, reverse: bool = False) -> IntArray | None:
    """Scales raw scores to 0..100 by the largest feasible one; reversed, the largest becomes 0."""
    highest = int(np_max(raw, feasible))
    if highest == 0:
        return None
    scaled = raw * SCORE_MAX // highest
    return SCORE_MAX - scaled if reverse else scaled


def np_max(raw: IntArray, feasible: Mask) -> int:
    """The largest value among feasible rows; 0 when none is above."""
    return int(raw.max(initial=0, where=feasible))
