"""An Eviction: a delete that asks the pod's disruption budget first.

A budget whose status no controller has filled in is reckoned from the pods themselves.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/ and
k8s.io/kubernetes/pkg/registry/core/pod/storage/eviction.go
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from steersman.cluster.api.context import Deletion, WriteContext
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.removal import delete
from steersman.cluster.meta.errors import Cause, Forbidden, InternalError, TooManyRequests
from steersman.cluster.meta.objects import Obj, is_deleting, is_pod_active, is_pod_ready, labels_of
from steersman.cluster.meta.resources import POD_DISRUPTION_BUDGETS, PODS
from steersman.cluster.meta.selectors import from_dict
from steersman.cluster.meta.times import format_time, parse_time

#: seconds a pod counts as disrupted before the budget forgets it
_DISRUPTED_S = 120
_REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."


@dataclass(frozen=True, slots=True, kw_only=True)
class Evicted:
    """What to write: first the budget (with its resourceVersion as precondition), then the pod's deletion.

    Args:
        budget: the budget with one disruption less to give, or None when none is concerned.
    """

    deletion: Deletion
    budget: Obj | None = None


def evict(registry: Registry, pod: Obj, eviction: Obj, ctx: WriteContext) -> Evicted:
    """Decides an eviction.

    Raises:
        TooManyRequests: the budget allows no disruption now; try again later.
        InternalError: more than one budget selects the pod.
    """
    kind = registry.kind("", "v1", "pods")
    assert kind is not None
    deletion = delete(registry, kind, pod, eviction.get("deleteOptions"), ctx)
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed", "Pending") or is_deleting(pod):
        return Evicted(deletion=deletion)
    budgets = [
        budget
        for budget in ctx.list(POD_DISRUPTION_BUDGETS, pod["metadata"]["namespace"])
        if from_dict((budget.get("spec") or {}).get("selector")).matches(labels_of(pod))
    ]
    if len(budgets) > 1:
        raise InternalError(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        )
    if not budgets:
        return Evicted(deletion=deletion)
    budget = budgets[0]
    status = budget.get("status") or {}
    if status.get("observedGeneration", 0) < budget["metadata"].get("generation", 0):
        status = budget_status(budget, ctx.list(PODS, pod["metadata"]["namespace"]), ctx.now)
    if not is_pod_ready(pod) and _may_go_unready(budget, status):
        return Evicted(deletion=deletion)
    return Evicted(deletion=deletion, budget=_spend(budget, status, pod, ctx.now))


def _may_go_unready(budget: Obj, status: Obj) -> bool:
    policy = (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") or "IfHealthyBudget"
    if policy == "AlwaysAllow":
        return True
    desired: int = status.get("desiredHealthy", 0)
    return bool(desired > 0 and status.get("currentHealthy", 0) >= desired)


def _spend(budget: Obj, status: Obj, pod: Obj, now: float) -> Obj:
    name, allowed = budget["metadata"]["name"], status.get("disruptionsAllowed", 0)
    if allowed < 0:
        raise Forbidden(f'poddisruptionbudgets.policy "{name}" is forbidden: pdb disruptions allowed is negative')
    if allowed == 0:
        detail = (
            f"The disruption budget {name} needs {status.get('desiredHealthy', 0)} healthy pods and has "
            f"{status.get('currentHealthy', 0)} currently"
        )
        cause = Cause("", detail, "DisruptionBudget")
        raise TooManyRequests(_REFUSED, causes=[cause])  # without a time: clients ask again when they like
    disrupted = {**(status.get("disruptedPods") or {}), pod["metadata"]["name"]: format_time(now)}
    return {**budget, "status": {**status, "disruptionsAllowed": allowed - 1, "disruptedPods": disrupted}}


def budget_status(budget: Obj, pods: Iterable[Obj], now: float) -> Obj:
    """The status of a disruption budget as its pods make it."""
    spec, old = budget.get("spec") or {}, budget.get("status") or {}
    selector = from_dict(spec.get("selector"))
    mine = [pod for pod in pods if is_pod_active(pod) and selector.matches(labels_of(pod))]
    names = {pod["metadata"]["name"] for pod in mine}
    disrupted = {
        name: when
        for name, when in (old.get("disruptedPods") or {}).items()
        if name in names and when and now - parse_time(when) < _DISRUPTED_S
    }
    healthy = sum(is_pod_ready(pod) and pod["metadata"]["name"] not in disrupted for pod in mine)
    expected = len(mine)
    if spec.get("maxUnavailable") is not None:
        desired = max(0, expected - _share(spec["maxUnavailable"], expected))
    else:
        desired = _share(spec.get("minAvailable", 0), expected)
    status: Obj = {
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "disruptionsAllowed": max(0, healthy - desired) if expected else 0,
        "expectedPods": expected,
        "observedGeneration": budget["metadata"].get("generation", 0),
    }
    if disrupted:
        status["disruptedPods"] = disrupted
    if old.get("conditions"):
        status["conditions"] = old["conditions"]
    return status


def _share(value: Any, total: int) -> int:
    """A number, or a percentage of the total rounded up."""
    if isinstance(value, str):
        return math.ceil(total * int(value.removesuffix("%")) / 100)
    return int(value)
