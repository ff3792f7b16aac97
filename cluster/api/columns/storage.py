"""Columns of PersistentVolume, PersistentVolumeClaim and StorageClass."""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.columns.column import Age, Column, Columns, Name, age, name, rows, sub, wide
from steersman.cluster.meta.objects import Obj, annotations_of

_SHORT_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
_DEFAULT_CLASS = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")


def _modes(modes: list[str]) -> str:
    return ",".join(short for mode, short in _SHORT_MODES.items() if mode in modes)


def _phase(obj: Obj) -> str:
    return "Terminating" if obj["metadata"].get("deletionTimestamp") else sub(obj, "status").get("phase", "")


def _volume(obj: Obj, now: float) -> list[Any]:
    spec = sub(obj, "spec")
    claim = spec.get("claimRef")
    return [
        name(obj),
        str(sub(spec, "capacity").get("storage", "")),
        _modes(rows(spec, "accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""),
        _phase(obj),
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or "<unset>",
        sub(obj, "status").get("reason", ""),
        age(obj, now),
        spec.get("volumeMode") or "<unset>",
    ]


def _claim(obj: Obj, now: float) -> list[Any]:
    spec, status = sub(obj, "spec"), sub(obj, "status")
    bound = bool(spec.get("volumeName"))
    return [
        name(obj),
        _phase(obj),
        spec.get("volumeName", ""),
        str(sub(status, "capacity").get("storage", "")) if bound else "",
        _modes(rows(status, "accessModes")) if bound else "",
        spec.get("storageClassName") or "",
        spec.get("volumeAttributesClassName") or "<unset>",
        age(obj, now),
        spec.get("volumeMode") or "<unset>",
    ]


def _class(obj: Obj, now: float) -> list[Any]:
    default = any(annotations_of(obj).get(key) == "true" for key in _DEFAULT_CLASS)
    return [
        name(obj) + (" (default)" if default else ""),
        obj.get("provisioner", ""),
        obj.get("reclaimPolicy") or "Delete",
        obj.get("volumeBindingMode") or "Immediate",
        bool(obj.get("allowVolumeExpansion")),
        age(obj, now),
    ]


def _columns(*names: str) -> tuple[Column, ...]:
    return tuple(Column(text) for text in names)


_MODE = wide("VolumeMode")
COLUMNS = {
    ("", "PersistentVolume"): Columns(
        (
            Name,
            *_columns("Capacity", "Access Modes", "Reclaim Policy", "Status", "Claim", "StorageClass"),
            *_columns("VolumeAttributesClass", "Reason"),
            Age,
            *_MODE,
        ),
        _volume,
    ),
    ("", "PersistentVolumeClaim"): Columns(
        (
            Name,
            *_columns("Status", "Volume", "Capacity", "Access Modes", "StorageClass", "VolumeAttributesClass"),
            Age,
            *_MODE,
        ),
        _claim,
    ),
    ("storage.k8s.io", "StorageClass"): Columns(
        (
            Name,
            *_columns("Provisioner", "ReclaimPolicy", "VolumeBindingMode", "AllowVolumeExpansion"),
            Age,
        ),
        _class,
    ),
}
