"""Priority: a pod's priority comes from its class.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/
"""

from __future__ import annotations

from steersman.cluster.api.context import WriteContext
from steersman.cluster.meta.errors import Forbidden
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import PRIORITY_CLASSES

#: exist in every cluster, whether their objects have been created yet or not
SYSTEM_CLASSES = {"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}


def admit_pod(pod: Obj, ctx: WriteContext) -> None:
    """Sets priority, its class and the preemption policy; refuses a class that does not exist."""
    spec = pod["spec"]
    name = spec.get("priorityClassName", "")
    found = _class(name, ctx) if name else _default_class(ctx)
    if name and found is None:
        raise _refused(pod, f"no PriorityClass with name {name} was found")
    value = found["value"] if found else 0
    policy = (found or {}).get("preemptionPolicy") or "PreemptLowerPriority"
    if spec.get("priority") not in (None, value):
        raise _refused(
            pod,
            f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; priority admission "
            f"controller computed {value} from the given PriorityClass name",
        )
    if spec.get("preemptionPolicy") not in (None, policy):
        raise _refused(
            pod,
            f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) must not be provided in pod spec; "
            f"priority admission controller computed {policy} from the given PriorityClass name",
        )
    if found and not name:
        spec["priorityClassName"] = found["metadata"]["name"]
    spec["priority"], spec["preemptionPolicy"] = value, policy


def admit_pod_update(new: Obj, old: Obj, _ctx: WriteContext) -> None:
    """Carries priority over from the old pod when an update leaves it out."""
    for key in ("priority", "preemptionPolicy", "priorityClassName"):
        if key not in new["spec"] and key in (old.get("spec") or {}):
            new["spec"][key] = old["spec"][key]


def admit_class(cls: Obj, ctx: WriteContext) -> None:
    """At most one class may be the default of the cluster."""
    if not cls.get("globalDefault"):
        return
    for other in ctx.list(PRIORITY_CLASSES, None):
        if other.get("globalDefault") and other["metadata"]["name"] != cls["metadata"].get("name"):
            raise Forbidden(
                f'priorityclasses.scheduling.k8s.io "{cls["metadata"].get("name")}" is forbidden: PriorityClass '
                f"{other['metadata']['name']} is already marked as default. Only one default can exist",
                kind="priorityclasses",
                group="scheduling.k8s.io",
            )


def admit_class_update(new: Obj, _old: Obj, ctx: WriteContext) -> None:
    """The same when a class becomes the default."""
    admit_class(new, ctx)


def _class(name: str, ctx: WriteContext) -> Obj | None:
    found = ctx.lookup(PRIORITY_CLASSES, "", name)
    if found is None and name in SYSTEM_CLASSES:
        return {"metadata": {"name": name}, "value": SYSTEM_CLASSES[name]}
    return found


def _default_class(ctx: WriteContext) -> Obj | None:
    defaults = [cls for cls in ctx.list(PRIORITY_CLASSES, None) if cls.get("globalDefault")]
    return min(defaults, key=lambda cls: cls.get("value", 0)) if defaults else None


def _refused(pod: Obj, detail: str) -> Forbidden:
    name = pod["metadata"].get("name", "")
    return Forbidden(f'pods "{name}" is forbidden: {detail}', kind="pods", name=name)
