"""Rules of disruption budgets, priority classes and runtime classes.

Source: k8s.io/kubernetes/pkg/apis/{policy,scheduling,node}/validation/validation.go
"""

from __future__ import annotations

from steersman.cluster.api.rules.conditions import validate_conditions
from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    duplicate,
    forbidden,
    immutable,
    internal,
    label_selector,
    labels,
    not_negative,
    one_of,
    unsupported,
)
from steersman.cluster.api.rules.resources import validate_resources
from steersman.cluster.api.rules.scheduling import validate_tolerations
from steersman.cluster.api.rules.workloads import int_or_percent, no_more_than_all
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors
from steersman.cluster.meta.objects import Obj

#: the highest priority that is not the system's
USER_PRIORITY_MAX = 1_000_000_000
_POLICIES = ("PreemptLowerPriority", "Never")
#: the system's own classes
_SYSTEM = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}


def validate_budget(obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    if least is not None and most is not None:
        shown = internal(spec, ("minAvailable", "selector", "maxUnavailable", "unhealthyPodEvictionPolicy"))
        causes.append(bad("spec", shown, "minAvailable and maxUnavailable cannot be both set"))
    if least is not None:
        causes += int_or_percent("spec.minAvailable", least) + no_more_than_all("spec.minAvailable", least)
    if most is not None:
        causes += int_or_percent("spec.maxUnavailable", most) + no_more_than_all("spec.maxUnavailable", most)
    causes += label_selector("spec.selector", spec.get("selector"))
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None and policy not in ("AlwaysAllow", "IfHealthyBudget"):
        causes.append(unsupported("spec.unhealthyPodEvictionPolicy", policy, ("AlwaysAllow", "IfHealthyBudget")))
    return causes


def default_priority_class(obj: Obj) -> None:
    obj.setdefault("preemptionPolicy", "PreemptLowerPriority")
    obj.setdefault("value", 0)


def validate_priority_class(obj: Obj) -> list[Cause]:
    name = obj["metadata"].get("name", "")
    causes: list[Cause] = []
    if name.startswith("system-"):
        if wrong := _unlike_system(name, obj):
            detail = "priority class names with 'system-' prefix are reserved for system use only"
            causes.append(forbidden("metadata.name", f"{detail}. error: {wrong}"))
    elif obj["value"] > USER_PRIORITY_MAX:
        detail = f"maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}"
        causes.append(forbidden("value", detail))
    return causes + one_of("preemptionPolicy", obj["preemptionPolicy"], _POLICIES, in_order=True)


def _unlike_system(name: str, obj: Obj) -> str:
    """How a class with a name of the system's differs from the system's own; empty when it does not."""
    value = _SYSTEM.get(name)
    if value is None:
        return f"{name} is not a known system priority class"
    if obj["value"] != value:
        return f"value of {name} PriorityClass must be {value}"
    return f"globalDefault of {name} PriorityClass must be false" if obj.get("globalDefault") else ""


def validate_priority_class_update(new: Obj, old: Obj) -> list[Cause]:
    causes = []
    if new["value"] != old.get("value"):
        causes.append(forbidden("value", "may not be changed in an update."))
    return causes + immutable("preemptionPolicy", new.get("preemptionPolicy"), old.get("preemptionPolicy"))


def validate_runtime_class(obj: Obj) -> list[Cause]:
    handler, scheduling = obj.get("handler", ""), obj.get("scheduling") or {}
    causes = bad_all("handler", handler, label_1123_errors(handler))
    if "overhead" in obj:
        causes += validate_resources("overhead", {"limits": obj["overhead"].get("podFixed") or {}})
    causes += labels("scheduling.nodeSelector", scheduling.get("nodeSelector") or {})
    rows = scheduling.get("tolerations") or []
    causes += validate_tolerations("scheduling.tolerations", rows)
    keys = [tuple(row.get(key, "") for key in ("key", "operator", "value", "effect")) for row in rows]
    for index, row in enumerate(rows):
        if keys[index] in keys[:index]:
            causes.append(duplicate(f"scheduling.tolerations[{index}]", row))
    return causes


def validate_budget_status(new: Obj, _old: Obj) -> list[Cause]:
    status = new.get("status") or {}
    keys = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
    causes = validate_conditions("status.conditions", status.get("conditions") or ())
    return causes + [cause for key in keys for cause in not_negative(f"status.{key}", status.get(key))]


def validate_runtime_class_update(new: Obj, old: Obj) -> list[Cause]:
    return immutable("handler", new.get("handler"), old.get("handler"))
