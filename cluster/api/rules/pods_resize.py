"""Resizing a pod in place: what `/resize` may change, and when it may not.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go (ValidatePodResize) and
https://kubernetes.io/docs/tasks/configure-pod-container/resize-container-resources/
"""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.rules.fields import bad, forbidden
from steersman.cluster.api.rules.pod_marks import MIRROR
from steersman.cluster.api.rules.pods import qos_class
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj, annotations_of

_RESIZABLE = ("cpu", "memory")
_LISTS = ("containers", "initContainers")


def resized(new: Obj, old: Obj) -> Obj:
    """The pod with the resources and resize policies of a change; with its containers, when others are meant."""
    before, wanted = old.get("spec") or {}, new.get("spec") or {}
    if any(len(wanted.get(key) or ()) != len(before.get(key) or ()) for key in _LISTS):
        return new
    spec = dict(before)
    for key in _LISTS:
        if spec.get(key):
            spec[key] = _resized(wanted[key], spec[key])
    if "resources" in wanted:
        spec["resources"] = wanted["resources"]
    return {**old, "spec": spec}


def _resized(asked: list[Obj], before: list[Obj]) -> list[Obj]:
    if any(one.get("name") != last.get("name") for one, last in zip(asked, before, strict=True)):
        return asked
    taken = ("resources", "resizePolicy")
    return [
        {**{key: value for key, value in last.items() if key not in taken}, **{k: one[k] for k in taken if k in one}}
        for one, last in zip(asked, before, strict=True)
    ]


def validate_resize(new: Obj, old: Obj) -> list[Cause]:
    """Every rule that a resize breaks."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    if MIRROR in annotations_of(old):
        return [forbidden("", "static pods cannot be resized")]
    if (before.get("os") or {}).get("name") == "windows":
        return [forbidden("", "windows pods cannot be resized")]
    causes: list[Cause] = []
    if qos_class(spec) != qos_class(before):
        quality = (new.get("status") or {}).get("qosClass", "")
        causes.append(bad("spec", quality, "Pod QOS Class may not change as a result of resizing"))
    if not _can_be_resized(old):
        causes.append(forbidden("spec", "Pod running on node without support for resize"))
    causes += _whole(spec.get("resources"), before.get("resources"))
    if disorder := _order(spec, before):
        return causes + disorder
    for key in reversed(_LISTS):
        for index, (one, last) in enumerate(zip(spec.get(key) or (), before.get(key) or (), strict=True)):
            if key == "containers" or last.get("restartPolicy") == "Always":
                causes += _kept(f"spec.{key}[{index}].resources", one, last)
    for one, last in zip(spec.get("containers") or (), before.get("containers") or (), strict=True):
        if _frozen(one) != _frozen(last):
            causes.append(forbidden("spec", "only cpu and memory resources are mutable"))
    for one, last in zip(spec.get("initContainers") or (), before.get("initContainers") or (), strict=True):
        if one.get("restartPolicy") != "Always":
            if one != last:
                causes.append(forbidden("spec", "resources for non-sidecar init containers are immutable"))
        elif _frozen(one) != _frozen(last):
            causes.append(forbidden("spec", "only cpu and memory resources for sidecar containers are mutable"))
    return causes


def _can_be_resized(pod: Obj) -> bool:
    """Whether the node of a running pod says what its containers have, as those do that can change it."""
    for row in (pod.get("status") or {}).get("containerStatuses") or ():
        if "running" in (row.get("state") or {}):
            return row.get("resources") is not None
    return True


def _order(spec: Obj, before: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for key in _LISTS:
        new, old = spec.get(key) or [], before.get(key) or []
        if len(new) != len(old):
            causes.append(forbidden(f"spec.{key}", f"{key} may not be added or removed on resize"))
            continue
        for index, (one, last) in enumerate(zip(new, old, strict=True)):
            if one.get("name") != last.get("name"):
                detail = f"{key} may not be renamed or reordered on resize"
                causes.append(forbidden(f"spec.{key}[{index}].name", detail))
    return causes


def _whole(new: Obj | None, old: Obj | None) -> list[Cause]:
    """The rules of the resources of a pod as a whole."""
    if not new and not old:
        return []
    if old and not new:
        return [forbidden("spec.resources", "pod-level resources cannot be removed")]
    found, had = new or {}, old or {}
    causes = [
        forbidden(f"spec.resources.{side}", f"pod-level resource {side} cannot be removed")
        for side in ("requests", "limits")
        if (had.get(side) or {}).keys() - (found.get(side) or {}).keys()
    ]
    if _frozen({"resources": found}) != _frozen({"resources": had}):
        causes.append(forbidden("spec", "only cpu and memory resources are mutable at pod-level"))
    return causes


def _kept(path: str, one: Obj, last: Obj) -> list[Cause]:
    found, had = one.get("resources") or {}, last.get("resources") or {}
    return [
        forbidden(f"{path}.{side}", f"resource {side} cannot be removed")
        for side in ("requests", "limits")
        if (had.get(side) or {}).keys() - (found.get(side) or {}).keys()
    ]


def _frozen(one: Obj) -> Obj:
    """A container, or a pod, without what a resize may change."""
    resources: dict[str, Any] = dict(one.get("resources") or {})
    for side in ("requests", "limits"):
        left = {key: value for key, value in (resources.pop(side, None) or {}).items() if key not in _RESIZABLE}
        if left:
            resources[side] = left
    return {**one, "resources": resources}
