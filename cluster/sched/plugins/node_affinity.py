"""Holds pods to nodes by label (`nodeSelector`, required affinity) and scores preferred ones.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#node-affinity
"""

from __future__ import annotations

import numpy as np

from steersman.cluster.meta.selectors import Requirement
from steersman.cluster.sched.plugins.base import Reason, normalized
from steersman.cluster.sched.pods import PodClass, PodInfo
from steersman.cluster.sched.snapshot import Snapshot
from steersman.cluster.sched.tally import IntArray, Mask
from steersman.cluster.sched.terms import NodeTerm


def _named(requirement: Requirement, snapshot: Snapshot) -> Mask:
    """The rows whose node name meets a requirement on `metadata.name`."""
    mask = np.zeros(snapshot.size, bool)
    for name in requirement.values:
        if requirement.key == "metadata.name" and name in snapshot.row_of:
            mask[snapshot.row_of[name]] = True
    return ~mask if requirement.operator == "NotIn" else mask


def rows_matching(term: NodeTerm, snapshot: Snapshot) -> Mask:
    """The rows that meet every condition of a term."""
    mask = np.full(snapshot.size, not term.empty)
    for requirement in term.labels:
        mask &= snapshot.labels.matching(requirement, snapshot.size)
    for requirement in term.names:
        mask &= _named(requirement, snapshot)
    return mask


def eligible(pod_class: PodClass, snapshot: Snapshot) -> Mask | None:
    """The rows that the class's node selector and required affinity accept; None for all."""

    def compute() -> Mask | None:
        if pod_class.required_nodes is None:
            return None
        mask = np.zeros(snapshot.size, bool)
        for term in pod_class.required_nodes:
            mask |= rows_matching(term, snapshot)
        return mask

    found: Mask | None = snapshot.memo("NodeAffinity", pod_class, compute)
    return found


def named_rows(pod_class: PodClass, snapshot: Snapshot) -> Mask | None:
    """The rows that a class names outright (every alternative has a `matchFields` on the name); None for all.

    A DaemonSet's pod is bound to its node so; all other nodes are out before any other condition is looked at.
    """
    terms = pod_class.required_nodes
    if not terms or not all(any(r.operator == "In" for r in term.names) for term in terms):
        return None

    def compute() -> Mask:
        mask = np.zeros(snapshot.size, bool)
        for term in terms:
            mask |= rows_matching(NodeTerm(names=term.names), snapshot)
        return mask

    found: Mask = snapshot.memo("NodeAffinity/named", pod_class, compute)
    return found


class NodeAffinity:
    name = "NodeAffinity"

    def filter(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        return eligible(pod.pod_class, snapshot)

    def why(self, pod: PodInfo, snapshot: Snapshot) -> list[Reason]:
        mask = eligible(pod.pod_class, snapshot)
        if mask is None:
            return []
        return [Reason("node(s) didn't match Pod's node affinity/selector", ~mask, resolvable=False)]

    def score(self, pod: PodInfo, snapshot: Snapshot, feasible: Mask) -> IntArray | None:
        if not pod.pod_class.preferred_nodes:
            return None

        def compute() -> IntArray:
            raw = np.zeros(snapshot.size, np.int64)
            for weight, term in pod.pod_class.preferred_nodes:
                raw += weight * rows_matching(term, snapshot)
            return raw

        raw: IntArray = snapshot.memo("NodeAffinity/score", pod.pod_class, compute)
        return normalized(raw, feasible)
