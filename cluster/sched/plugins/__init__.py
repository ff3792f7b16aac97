"""The default profile: which plugins filter, in which order, and what each score weighs.

Source: https://kubernetes.io/docs/reference/scheduling/config/#scheduling-plugins
"""

from __future__ import annotations

from dataclasses import dataclass

from steersman.cluster.sched.plugins.balanced_allocation import NodeResourcesBalancedAllocation
from steersman.cluster.sched.plugins.base import Filter, Reason, Score
from steersman.cluster.sched.plugins.image_locality import ImageLocality
from steersman.cluster.sched.plugins.inter_pod_affinity import InterPodAffinity
from steersman.cluster.sched.plugins.node_affinity import NodeAffinity
from steersman.cluster.sched.plugins.node_name import NodeName
from steersman.cluster.sched.plugins.node_ports import NodePorts
from steersman.cluster.sched.plugins.node_resources import NodeResourcesFit
from steersman.cluster.sched.plugins.node_unschedulable import NodeUnschedulable
from steersman.cluster.sched.plugins.taint_toleration import TaintToleration
from steersman.cluster.sched.plugins.topology_spread import PodTopologySpread

__all__ = ["DEFAULT_PROFILE", "Filter", "Profile", "Reason", "Score"]


@dataclass(frozen=True, slots=True)
class Profile:
    """A scheduler by name.

    Args:
        name: pods with this `spec.schedulerName` are its own.
        filters: in the order in which a refused node is explained.
        scores: (plugin, weight).
    """

    name: str
    filters: tuple[Filter, ...]
    scores: tuple[tuple[Score, int], ...]


DEFAULT_PROFILE = Profile(
    name="default-scheduler",
    filters=(
        NodeUnschedulable(),
        NodeName(),
        TaintToleration(),
        NodeAffinity(),
        NodePorts(),
        NodeResourcesFit(),
        PodTopologySpread(),
        InterPodAffinity(),
    ),
    scores=(
        (TaintToleration(), 3),
        (NodeAffinity(), 2),
        (NodeResourcesFit(), 1),
        (PodTopologySpread(), 2),
        (InterPodAffinity(), 2),
        (NodeResourcesBalancedAllocation(), 1),
        (ImageLocality(), 1),
    ),
)
