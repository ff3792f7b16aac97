"""RuntimeClass: a pod of a class carries its overhead and goes where it runs.

Source: https://kubernetes.io/docs/concepts/containers/runtime-class/
"""

from __future__ import annotations

from steersman.cluster.api.admission.attempt import Attempt
from steersman.cluster.api.context import WriteContext
from steersman.cluster.meta.errors import Forbidden
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import parse
from steersman.cluster.meta.resources import RUNTIME_CLASSES


def admit_pod(pod: Obj, ctx: WriteContext) -> None:
    """Sets overhead, node selector and tolerations; refuses a pod that contradicts its class."""
    spec = pod["spec"]
    name = spec.get("runtimeClassName")
    if not name:
        return
    found = ctx.lookup(RUNTIME_CLASSES, "", name)
    if found is None:
        raise _refused(pod, f'pod rejected: RuntimeClass "{name}" not found')
    overhead = (found.get("overhead") or {}).get("podFixed")
    if overhead:
        own = spec.get("overhead")
        if own and {key: parse(text) for key, text in own.items()} != {key: parse(overhead[key]) for key in overhead}:
            raise _refused(pod, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
        spec["overhead"] = dict(overhead)
    scheduling = found.get("scheduling") or {}
    selector = dict(spec.get("nodeSelector") or {})
    for key, value in (scheduling.get("nodeSelector") or {}).items():
        if selector.get(key, value) != value:
            detail = (
                f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                f"pod.spec.nodeSelector[{key}] = {selector[key]}"
            )
            raise _refused(pod, detail)
        selector[key] = value
    if selector:
        spec["nodeSelector"] = selector
    present = spec.get("tolerations") or []
    more = [row for row in scheduling.get("tolerations") or () if row not in present]
    if more:
        spec["tolerations"] = [*present, *more]


def validate_pod(attempt: Attempt, ctx: WriteContext) -> None:
    """Refuses overhead that no class has set."""
    spec = (attempt.obj or {})["spec"]
    if not spec.get("overhead"):
        return
    found = ctx.lookup(RUNTIME_CLASSES, "", spec["runtimeClassName"]) if spec.get("runtimeClassName") else None
    if not ((found or {}).get("overhead") or {}).get("podFixed"):
        raise attempt.forbidden("pod rejected: Pod overhead set without corresponding RuntimeClass defined Overhead")


def _refused(pod: Obj, detail: str) -> Forbidden:
    name = pod["metadata"].get("name") or pod["metadata"].get("generateName") or "Unknown"
    return Forbidden(f'pods "{name}" is forbidden: {detail}', kind="pods", name=name)
