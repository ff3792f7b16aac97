"""Tells why a pod is where it is, or nowhere: per node the reasons against it or its score by plugin."""

from __future__ import annotations

from dataclasses import dataclass

from steersman.cluster.sched.decide import diagnose, feasible_rows, total_scores
from steersman.cluster.sched.plugins import DEFAULT_PROFILE, Profile
from steersman.cluster.sched.pods import PodInfo
from steersman.cluster.sched.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeVerdict:
    """One node for one pod.

    Args:
        reasons: why it is refused; empty when it is feasible.
        score: the weighted total; 0 when refused.
        parts: (plugin, weighted score) of those that tell nodes apart.
    """

    node: str
    feasible: bool
    reasons: tuple[str, ...] = ()
    score: int = 0
    parts: tuple[tuple[str, int], ...] = ()


def explain(pod: PodInfo, snapshot: Snapshot, profile: Profile = DEFAULT_PROFILE) -> list[NodeVerdict]:
    """Returns a verdict per node: feasible ones first by falling score, then by name."""
    mask = feasible_rows(pod, snapshot, profile)
    refused = diagnose(pod, snapshot, profile)
    total = total_scores(pod, snapshot, profile, mask)
    parts = [(plugin.name, weight, plugin.score(pod, snapshot, mask)) for plugin, weight in profile.scores]
    verdicts = []
    for name, row in snapshot.row_of.items():
        if mask[row]:
            own = tuple((plugin, weight * int(scores[row])) for plugin, weight, scores in parts if scores is not None)
            verdicts.append(NodeVerdict(node=name, feasible=True, score=int(total[row]), parts=own))
        else:
            texts = dict.fromkeys(text for _, text, rows in refused.reasons if rows[row])
            verdicts.append(NodeVerdict(node=name, feasible=False, reasons=tuple(texts)))
    return sorted(verdicts, key=lambda verdict: (not verdict.feasible, -verdict.score, verdict.node))
