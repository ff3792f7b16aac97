"""Resizing a pod in place: what `/resize` may change, and when it may not.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go (ValidatePodResize) and
https://kubernetes.io/docs/tasks/configure-pod-container/resize-container-resources/
"""

from __future__ import annotations

from steersman.cluster.api.rules.fields import bad, forbidden
from steersman.cluster.api.rules.pods import qos_class
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj, annotations_of

_MIRROR = "kubernetes.io/config.mirror"
_RESIZABLE = ("cpu", "memory")
_LISTS = ("initContainers", "containers")


def resized(new: Obj, old: Obj) -> Obj:
    """The pod with the resources and resize policies of a change."""
    spec = dict(old.get("spec") or {})
    wanted = new.get("spec") or {}
    for key in _LISTS:
        asked = {one.get("name"): one for one in wanted.get(key) or ()}
        if spec.get(key):
            spec[key] = [_resized(one, asked.get(one.get("name"), one)) for one in spec[key]]
    if "resources" in wanted:
        spec["resources"] = wanted["resources"]
    return {**old, "spec": spec}


def _resized(one: Obj, asked: Obj) -> Obj:
    taken: Obj = {key: asked[key] for key in ("resources", "resizePolicy") if key in asked}
    return {**{key: value for key, value in one.items() if key not in ("resources", "resizePolicy")}, **taken}


def validate_resize(new: Obj, old: Obj) -> list[Cause]:
    """Every rule that a resize breaks."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    if _MIRROR in annotations_of(old):
        return [forbidden("", "static pods cannot be resized")]
    if (before.get("os") or {}).get("name") == "windows":
        return [forbidden("", "windows pods cannot be resized")]
    causes: list[Cause] = []
    if qos_class(spec) != qos_class(before):
        causes.append(bad("spec", qos_class(spec), "Pod QOS Class may not change as a result of resizing"))
    for key in _LISTS:
        for index, (one, last) in enumerate(zip(spec.get(key) or (), before.get(key) or (), strict=True)):
            if one == last:
                continue
            path = f"spec.{key}[{index}]"
            if key == "initContainers" and one.get("restartPolicy") != "Always":
                causes.append(forbidden(f"{path}.resources", "resources for non-sidecar init containers are immutable"))
                continue
            causes += _resources(f"{path}.resources", one.get("resources") or {}, last.get("resources") or {})
    return causes


def _resources(path: str, resources: Obj, before: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for side in ("limits", "requests"):
        found, had = resources.get(side) or {}, before.get(side) or {}
        if had.keys() - found.keys():
            causes.append(forbidden(f"{path}.{side}", f"resource {side} cannot be removed"))
        if any(found.get(key) != had.get(key) for key in found.keys() | had.keys() if key not in _RESIZABLE):
            causes.append(forbidden("spec", "only cpu and memory resources are mutable"))
    return causes
