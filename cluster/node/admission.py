"""Whether a node takes a pod that was bound to it; a scheduler may have been wrong, or absent.

Source: k8s.io/kubernetes/pkg/kubelet/lifecycle/predicate.go
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steersman.cluster.meta import quantity
from steersman.cluster.meta.objects import labels_of
from steersman.cluster.meta.objects import name as name_of
from steersman.cluster.meta.selectors import LabelSelector, Requirement
from steersman.cluster.node.observed import Refusal
from steersman.cluster.node.resources import effective_requests

#: resources that count in thousandths
_MILLI = ("cpu",)


def amounts(requests: Mapping[str, str]) -> dict[str, int]:
    """Returns requests as whole numbers: CPU in thousandths, everything else in units."""
    return {
        resource: quantity.milli(amount) if resource in _MILLI else quantity.whole(amount)
        for resource, amount in requests.items()
    }


def requested(pod: Mapping[str, Any]) -> dict[str, int]:
    """Returns what a pod takes from its node, itself as one of `pods` included."""
    return {**amounts(effective_requests(pod)), "pods": 1}


def admit(
    pod: Mapping[str, Any], node: Mapping[str, Any], used: Mapping[str, int], allocatable: Mapping[str, str]
) -> Refusal | None:
    """Returns why the pod is refused, or None when it may run.

    Args:
        node: the Node object; what it offers beyond what the agent knows of (extended resources) counts as well.
        used: what the node's other pods take, as `requested` counts.
    """
    offered = amounts({**((node.get("status") or {}).get("allocatable") or {}), **allocatable})
    for resource, amount in requested(pod).items():
        # what no node ever offered is the business of whoever bound the pod
        if amount == 0 or (resource not in offered and resource not in ("cpu", "memory", "pods")):
            continue
        taken, capacity = used.get(resource, 0), offered.get(resource, 0)
        if taken + amount > capacity:
            return _rejected(
                f"OutOf{resource}",
                f"Node didn't have enough resource: {resource}, requested: {amount}, used: {taken}, "
                f"capacity: {capacity}",
            )
    if not matches_node(pod, node):
        return _rejected(
            "NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
        )
    if not _tolerates(pod, node):
        return _rejected(
            "TaintToleration",
            "Predicate TaintToleration failed: node(s) had untolerated taint(s) with the NoExecute effect",
        )
    return None


def _rejected(reason: str, message: str) -> Refusal:
    return Refusal(reason=reason, message=f"Pod was rejected: {message}")


def matches_node(pod: Mapping[str, Any], node: Mapping[str, Any]) -> bool:
    """Whether the node's labels satisfy the pod's node selector and required node affinity."""
    labels = labels_of(node)
    spec = pod["spec"]
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(_matches_term(term, labels, name_of(node)) for term in required.get("nodeSelectorTerms") or ())


def _matches_term(term: Mapping[str, Any], labels: Mapping[str, str], node: str) -> bool:
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    by_label = LabelSelector(tuple(_requirement(row) for row in expressions))
    by_field = LabelSelector(tuple(_requirement(row) for row in fields))
    return by_label.matches(labels) and by_field.matches({"metadata.name": node})


def _requirement(row: Mapping[str, Any]) -> Requirement:
    return Requirement(row["key"], row["operator"], tuple(row.get("values") or ()))


def _tolerates(pod: Mapping[str, Any], node: Mapping[str, Any]) -> bool:
    """Whether the pod tolerates every NoExecute taint of the node."""
    tolerations = pod["spec"].get("tolerations") or ()
    for taint in (node.get("spec") or {}).get("taints") or ():
        if taint.get("effect") == "NoExecute" and not any(_covers(row, taint) for row in tolerations):
            return False
    return True


def _covers(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("key") not in (None, "", taint["key"]):
        return False
    if toleration.get("operator") == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")
