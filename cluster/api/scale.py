"""The `/scale` of a kind: its replicas, and the selector of its pods as text.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/scale-v1/ (autoscaling/v1)
"""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.row import Kind, ScalePaths
from steersman.cluster.api.rules.fields import bad, not_negative
from steersman.cluster.meta.errors import BadRequest, Cause, invalid
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.selectors import SelectorError, from_dict

REPLICAS_MAX = 2**31 - 1


def scale_of(kind: Kind, obj: Obj) -> Obj:
    """Returns the Scale of an object."""
    if kind.scale is None:
        raise BadRequest(f"{kind.resource} cannot be scaled")
    meta = obj["metadata"]
    shown = {
        key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp") if key in meta
    }
    status: Obj = {"replicas": _at(obj, kind.scale.status_replicas) or 0}
    selector = _at(obj, kind.scale.selector) if kind.scale.selector else None
    if text := _selector_text(selector):
        status["selector"] = text
    replicas = _at(obj, kind.scale.spec_replicas)
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": shown,
        "spec": {"replicas": replicas} if replicas else {},
        "status": status,
    }


def with_scale(kind: Kind, obj: Obj, scale: Obj) -> Obj:
    """Returns the object with the replicas that a Scale asks for, and the Scale's preconditions."""
    if kind.scale is None:
        raise BadRequest(f"{kind.resource} cannot be scaled")
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if replicas < 0:
        raise invalid("Scale", obj["metadata"]["name"], not_negative("spec.replicas", replicas), "autoscaling")
    meta = dict(obj["metadata"])  # of the version that it is, unless the Scale names one
    asked = scale.get("metadata") or {}
    for key in ("uid", "resourceVersion", "name", "namespace"):
        if asked.get(key):
            meta[key] = asked[key]
    return _put({**obj, "metadata": meta}, kind.scale.spec_replicas.lstrip(".").split("."), replicas)


def scale_causes(paths: ScalePaths | None, obj: Obj) -> list[Cause]:
    """What is wrong with the replicas that a custom object keeps where its definition says."""
    causes: list[Cause] = []
    for path in (paths.spec_replicas, paths.status_replicas) if paths is not None else ():
        value = _at(obj, path)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            causes.append(bad(path, value, "must be an integer"))
        elif value < 0:
            causes.append(bad(path, value, "should be a non-negative integer"))
        elif value > REPLICAS_MAX:
            causes.append(bad(path, value, f"should be less than or equal to {REPLICAS_MAX}"))
    return causes


def _at(obj: Obj, path: str) -> Any:
    found: Any = obj
    for part in path.lstrip(".").split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _put(obj: Obj, parts: list[str], value: Any) -> Obj:
    if len(parts) == 1:
        return {**obj, parts[0]: value}
    return {**obj, parts[0]: _put(dict(obj.get(parts[0]) or {}), parts[1:], value)}


def _selector_text(selector: Any) -> str:
    if not selector:
        return ""
    if isinstance(selector, str):
        return selector
    wrapped = selector if "matchLabels" in selector or "matchExpressions" in selector else {"matchLabels": selector}
    try:
        return str(from_dict(wrapped))
    except SelectorError:
        return ""
