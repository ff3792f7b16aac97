"""PodDisruptionBudget: how many of the pods it covers may be evicted now.

Source: https://kubernetes.io/docs/concepts/workloads/pods/disruptions/
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from steersman.cluster.control.plan import Draft, Plan, status_patch
from steersman.cluster.control.rollout import resolve
from steersman.cluster.control.spec import ControllerSpec, View, Watch, own_key
from steersman.cluster.meta.objects import (
    Obj,
    controller_of,
    is_deleting,
    is_pod_ready,
    key,
    labels_of,
    name,
    namespace,
    with_condition,
)
from steersman.cluster.meta.resources import (
    DEPLOYMENTS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    STATEFUL_SETS,
    Resource,
)
from steersman.cluster.meta.selectors import SelectorError, from_dict
from steersman.cluster.meta.times import parse_time

#: an eviction whose pod is still there after so long has not happened
DISRUPTED_S = 120.0
_SCALED = {
    row.kind: row for row in (REPLICA_SETS, REPLICATION_CONTROLLERS, STATEFUL_SETS, DEPLOYMENTS)
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Args: pods: those it covers; expected: how many their controllers want; unmanaged: pods that none controls."""

    budget: Obj
    pods: tuple[Obj, ...] = ()
    expected: int = 0
    unmanaged: tuple[str, ...] = ()


def observe(view: View, key: str) -> Observed | None:
    budget = view.get(POD_DISRUPTION_BUDGETS, key)
    if budget is None:
        return None
    selector = from_dict(budget["spec"].get("selector"))
    ended = ("Succeeded", "Failed")
    pods = [
        pod
        for pod in view.by_index(PODS, "namespace", namespace(budget))
        if selector.matches(labels_of(pod)) and (pod.get("status") or {}).get("phase") not in ended
    ]
    owners: dict[str, int] = {}
    unmanaged: list[str] = []
    for pod in pods:
        owner = _scaled_owner(view, pod)
        if owner is None:
            unmanaged.append(name(pod))
        else:
            replicas = owner["spec"].get("replicas")
            owners[owner["metadata"]["uid"]] = 1 if replicas is None else replicas
    return Observed(budget=budget, pods=tuple(pods), expected=sum(owners.values()), unmanaged=tuple(unmanaged))


def _scaled_owner(view: View, obj: Obj) -> Obj | None:
    """The controller that says how many pods there should be; a Deployment rather than its ReplicaSets."""
    reference = controller_of(obj)
    resource: Resource | None = _SCALED.get(reference["kind"]) if reference is not None else None
    owner = view.get(resource, f"{namespace(obj)}/{reference['name']}") if resource and reference else None
    if owner is None or reference is None or owner["metadata"]["uid"] != reference["uid"]:
        return None
    return _scaled_owner(view, owner) or owner


def keys_of_pod(pod: Obj, view: View) -> Iterable[str]:
    found = []
    for budget in view.by_index(POD_DISRUPTION_BUDGETS, "namespace", namespace(pod)):
        try:
            if from_dict(budget["spec"].get("selector")).matches(labels_of(pod)):
                found.append(key(budget))
        except SelectorError:
            continue
    return found


def keys_of_owner(owner: Obj, view: View) -> Iterable[str]:
    """Every budget of the namespace: a change of size may change what they expect."""
    return [key(budget) for budget in view.by_index(POD_DISRUPTION_BUDGETS, "namespace", namespace(owner))]


def reconcile(observed: Observed, now: float) -> Plan:
    budget, spec = observed.budget, observed.budget["spec"]
    draft = Draft()
    old = budget.get("status") or {}
    expected, wanted = _wanted(observed)
    present = {name(pod) for pod in observed.pods if not is_deleting(pod)}
    disrupted = {
        pod: stamp
        for pod, stamp in (old.get("disruptedPods") or {}).items()
        if pod in present and parse_time(stamp) + DISRUPTED_S > now
    }
    healthy = sum(is_pod_ready(pod) for pod in observed.pods if not is_deleting(pod) and name(pod) not in disrupted)
    allowed = max(0, healthy - wanted) if expected > 0 else 0
    status: Obj = {
        "observedGeneration": budget["metadata"].get("generation", 0),
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": wanted,
        "expectedPods": expected,
        "conditions": with_condition(
            old.get("conditions") or (),
            "DisruptionAllowed",
            "True" if allowed else "False",
            now,
            reason="SufficientPods" if allowed else "InsufficientPods",
        ),
    }
    if disrupted:
        status["disruptedPods"] = disrupted
        draft.look_again(min(map(parse_time, disrupted.values())) + DISRUPTED_S - now)
    # exact: an eviction in between has lowered what is allowed, and must not be overwritten
    draft.add(status_patch(POD_DISRUPTION_BUDGETS, budget, status, exact=True))
    if observed.unmanaged and (spec.get("maxUnavailable") is not None or isinstance(spec.get("minAvailable"), str)):
        sentence = (
            f"Pods selected by this PodDisruptionBudget (selector: {from_dict(spec.get('selector'))}) were found to be "
            "unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in "
            "undefined behavior."
        )
        draft.tell(budget, "Warning", "UnmanagedPods", sentence)
    return draft.done()


def _wanted(observed: Observed) -> tuple[int, int]:
    """Returns (pods that there should be, healthy pods that there must be)."""
    spec = observed.budget["spec"]
    if spec.get("maxUnavailable") is not None:
        unavailable = resolve(spec["maxUnavailable"], observed.expected, up=True)
        return observed.expected, max(0, observed.expected - unavailable)
    least = spec.get("minAvailable", 0)
    if isinstance(least, str):
        return observed.expected, resolve(least, observed.expected, up=True)
    return len(observed.pods), int(least)


DISRUPTION = ControllerSpec(
    name="disruption",
    watches=(
        Watch(resource=POD_DISRUPTION_BUDGETS, keys=own_key, indexes=("namespace",)),
        Watch(resource=PODS, keys=keys_of_pod, indexes=("namespace",)),
        *(Watch(resource=row, keys=keys_of_owner) for row in _SCALED.values()),
    ),
    observe=observe,
    reconcile=reconcile,
    interval_s=0.2,
)
