"""Whether a pod may be evicted: what the disruption budgets that cover it allow.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/ and
k8s.io/kubernetes/pkg/registry/core/pod/storage/eviction.go
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steersman.cluster.meta.objects import Obj, is_deleting, is_pod_ready, labels_of
from steersman.cluster.meta.selectors import from_dict

#: disrupted pods a budget remembers; more means that its controller is behind
_DISRUPTED_MAX = 2000


@dataclass(frozen=True, slots=True)
class Verdict:
    """Args: budget: the one to take a disruption from, if any; refusal: why not now."""

    budget: str = ""
    refusal: str = ""
    retry_after_s: int = 0


def decide(pod: Obj, budgets: Sequence[Obj]) -> Verdict:
    """Decides on the eviction of a pod.

    Args:
        budgets: the PodDisruptionBudgets of its namespace.
    """
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed", "Pending") or is_deleting(pod):
        return Verdict()
    covering = [row for row in budgets if from_dict((row.get("spec") or {}).get("selector")).matches(labels_of(pod))]
    if not covering:
        return Verdict()
    if len(covering) > 1:
        return Verdict(
            refusal="This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        )
    budget = covering[0]
    name, spec, status = budget["metadata"]["name"], budget.get("spec") or {}, budget.get("status") or {}
    if not is_pod_ready(pod):
        healthy = status.get("currentHealthy", 0) >= status.get("desiredHealthy", 0) > 0
        if spec.get("unhealthyPodEvictionPolicy") == "AlwaysAllow" or healthy:
            return Verdict()
    if status.get("observedGeneration", 0) < budget["metadata"].get("generation", 0):
        return Verdict(
            refusal=f"The disruption budget {name} is still being processed by the server.", retry_after_s=10
        )
    if len(status.get("disruptedPods") or {}) > _DISRUPTED_MAX:
        return Verdict(refusal="DisruptedPods map too big - too many evictions not confirmed by PDB controller")
    if status.get("disruptionsAllowed", 0) <= 0:
        needed, healthy_pods = status.get("desiredHealthy", 0), status.get("currentHealthy", 0)
        return Verdict(
            refusal=f"The disruption budget {name} needs {needed} healthy pods and has {healthy_pods} currently"
        )
    return Verdict(budget=name)
