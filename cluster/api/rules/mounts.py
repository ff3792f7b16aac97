"""Rules of where containers see the volumes of their pod: as directories and as block devices.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

from collections.abc import Mapping

from steersman.cluster.api.rules.fields import bad, forbidden, not_found, required, unsupported
from steersman.cluster.api.rules.security import descending
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj

_PROPAGATIONS = ("Bidirectional", "HostToContainer", "None")
_RECURSIVE = ("Disabled", "Enabled", "IfPossible")


def validate_mounts(path: str, one: Obj, volumes: Mapping[str, Obj]) -> list[Cause]:
    """Every broken rule of a container's mounts and devices; `volumes` are the pod's by name."""
    mounts, devices = one.get("volumeMounts") or (), one.get("volumeDevices") or ()
    causes: list[Cause] = []
    places: set[str] = set()
    device_paths = {row.get("name", ""): row.get("devicePath", "") for row in devices}
    privileged = bool((one.get("securityContext") or {}).get("privileged"))
    for index, mount in enumerate(mounts):
        where, name, place = f"{path}.volumeMounts[{index}]", mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            causes.append(required(f"{where}.name"))
        if name not in volumes:
            causes.append(not_found(f"{where}.name", name))
        if not place:
            causes.append(required(f"{where}.mountPath"))
        if place in places:
            causes.append(bad(f"{where}.mountPath", place, "must be unique"))
        places.add(place)
        if name in device_paths:
            causes.append(bad(f"{where}.name", name, "must not already exist in volumeDevices"))
        if place in device_paths.values():
            causes.append(bad(f"{where}.mountPath", place, "must not already exist as a path in volumeDevices"))
        causes += _mount(f"{path}.volumeMounts", where, mount, privileged=privileged)
    return causes + _devices(f"{path}.volumeDevices", one, volumes) if devices else causes


def _mount(mounts: str, path: str, mount: Obj, *, privileged: bool) -> list[Cause]:
    """The rules of how a mount is made. Args: mounts: where Kubernetes puts most of them; path: where the mount is."""
    causes: list[Cause] = []
    inner, template = mount.get("subPath"), mount.get("subPathExpr")
    if inner:
        causes += descending(f"{mounts}.subPath", inner)
    if template:
        if inner:
            detail = "subPathExpr and subPath are mutually exclusive"
            causes.append(bad(f"{path}.subPathExpr", template, detail))
        causes += descending(f"{mounts}.subPathExpr", template)
    propagation, recursive = mount.get("mountPropagation"), mount.get("recursiveReadOnly")
    if propagation is None and recursive is None:
        return causes
    where = f"{mounts}.mountPropagation"
    if propagation is not None and propagation not in _PROPAGATIONS:
        causes.append(unsupported(where, propagation, _PROPAGATIONS))
    if propagation == "Bidirectional" and not privileged:
        detail = "Bidirectional mount propagation is available only to privileged containers"
        causes.append(forbidden(where, detail))
    where = f"{mounts}.recursiveReadOnly"
    if recursive is not None and recursive not in _RECURSIVE:
        causes.append(unsupported(where, recursive, _RECURSIVE))
    elif recursive in ("Enabled", "IfPossible"):
        if not mount.get("readOnly"):
            causes.append(forbidden(where, "may only be specified when readOnly is true"))
        if propagation not in (None, "None"):
            detail = "may only be specified when mountPropagation is None or not specified"
            causes.append(forbidden(where, detail))
    return causes


def _devices(path: str, one: Obj, volumes: Mapping[str, Obj]) -> list[Cause]:
    causes: list[Cause] = []
    names: set[str] = set()
    places: set[str] = set()
    mounted = {row.get("name", ""): row.get("mountPath", "") for row in one.get("volumeMounts") or ()}
    for index, device in enumerate(one.get("volumeDevices") or ()):
        where, name, place = f"{path}[{index}]", device.get("name", ""), device.get("devicePath", "")
        volume = volumes.get(name)
        if not name:
            causes.append(required(f"{where}.name"))
        if name in names:
            causes.append(bad(f"{where}.name", name, "must be unique"))
        if volume is None:
            causes.append(not_found(f"{where}.name", name))
        elif "persistentVolumeClaim" not in volume and "ephemeral" not in volume:
            detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            causes.append(bad(f"{where}.name", name, detail))
        if not place:
            causes.append(required(f"{where}.devicePath"))
        if place in places:
            causes.append(bad(f"{where}.devicePath", place, "must be unique"))
        if ".." in place.split("/"):
            causes.append(bad(f"{where}.devicePath", place, "can not contain backsteps ('..')"))
        else:
            places.add(place)
        if name in mounted:
            causes.append(bad(f"{where}.name", name, "must not already exist in volumeMounts"))
        if place in mounted.values():
            causes.append(bad(f"{where}.devicePath", place, "must not already exist as a path in volumeMounts"))
        if name:
            names.add(name)
    return causes
