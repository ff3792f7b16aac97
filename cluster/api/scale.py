"""The `/scale` of a kind: its replicas, and the selector of its pods as text.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/scale-v1/ (autoscaling/v1)
"""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.row import Kind, ScalePaths
from steersman.cluster.api.rules.fields import bad, not_negative
from steersman.cluster.meta.errors import BadRequest, Cause, invalid
from steersman.cluster.meta.gotext import formatted, quoted
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.selectors import SelectorError, from_dict

REPLICAS_MAX = 2**31 - 1
#: the sorts of JSON values as Go names them
_GO_TYPES = {
    bool: "bool", int: "int64", float: "float64", str: "string", list: "[]interface {}",
    dict: "map[string]interface {}",
}  # fmt: skip


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


def check_replicas(kind: Kind, old: Obj, scale: Obj) -> None:
    """Refuses to change the Scale of an object that has no replicas yet to one without any.

    Raises:
        BadRequest

    Source: k8s.io/apiextensions-apiserver/pkg/registry/customresource/etcd.go
    """
    if kind.scale is None or "replicas" in (scale.get("spec") or {}):
        return
    if _at(old, path := kind.scale.spec_replicas) is None:
        raise BadRequest(f"the spec replicas field {quoted(path)} cannot be empty")


def scaled_configuration(kind: Kind, scale: Obj) -> Obj:
    """The configuration of the scaled object that an applied Scale stands for."""
    if kind.scale is None:
        raise BadRequest(f"{kind.resource} cannot be scaled")
    meta = {key: scale["metadata"][key] for key in ("name", "namespace") if key in scale["metadata"]}
    found = {"apiVersion": kind.resource.api_version, "kind": kind.resource.kind, "metadata": meta}
    if "replicas" not in (scale.get("spec") or {}):
        return found
    return _put(found, kind.scale.spec_replicas.lstrip(".").split("."), scale["spec"]["replicas"])


def scale_causes(paths: ScalePaths | None, obj: Obj, *, of_status: bool = False) -> list[Cause]:
    """What is wrong with the replicas and the selector that a custom object keeps where its definition says.

    Args:
        of_status: whether only the status is looked at.

    Source: k8s.io/apiextensions-apiserver/pkg/registry/customresource/validator.go
    """
    if paths is None:
        return []
    causes: list[Cause] = []
    for path in (paths.status_replicas,) if of_status else (paths.spec_replicas, paths.status_replicas):
        value, wrong = _nested(obj, path, "int64", 0)
        if wrong:
            causes.append(bad(path, 0, wrong))
        elif value < 0:
            causes.append(bad(path, value, "should be a non-negative integer"))
        elif value > REPLICAS_MAX:
            causes.append(bad(path, value, f"should be less than or equal to {REPLICAS_MAX}"))
    if paths.selector and (wrong := _nested(obj, paths.selector, "string", "")[1]):
        causes.append(bad(paths.selector, "", wrong))
    return causes


def _nested(obj: Obj, path: str, wanted: str, unset: Any) -> tuple[Any, str]:
    """The value at a path of a custom object, and why it cannot be one of the wanted type, in Go's words."""
    found: Any = obj
    parts = path.lstrip(".").split(".")
    for index, part in enumerate(parts):
        if found is None:
            return unset, ""
        if not isinstance(found, dict):
            return unset, _inaccessible(parts[: index + 1], found, "map[string]interface{}")
        if part not in found:
            return unset, ""
        found = found[part]
    if _GO_TYPES.get(type(found)) != wanted:
        return unset, _inaccessible(parts, found, wanted)
    return found, ""


def _inaccessible(parts: list[str], value: Any, wanted: str) -> str:
    kind = _GO_TYPES.get(type(value), "<nil>")
    return f".{'.'.join(parts)} accessor error: {formatted(value)} is of the type {kind}, expected {wanted}"


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
