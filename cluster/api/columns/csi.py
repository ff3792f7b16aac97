"""Columns of what CSI drivers and their nodes tell, of attachments and of volume attributes."""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.columns.column import Age, Column, Columns, Name, age, joined, name, rows, sub
from steersman.cluster.meta.objects import Obj


def _driver(obj: Obj, now: float) -> list[Any]:
    spec = sub(obj, "spec")
    audiences = [row.get("audience", "") for row in rows(spec, "tokenRequests")]
    return [
        name(obj),
        spec.get("attachRequired", True),
        spec.get("podInfoOnMount", False),
        spec.get("storageCapacity", False),
        ",".join(audiences) if "tokenRequests" in spec else "<unset>",
        spec.get("requiresRepublish", False),
        joined(rows(spec, "volumeLifecycleModes")),
        age(obj, now),
    ]


def _node(obj: Obj, now: float) -> list[Any]:
    return [name(obj), len(rows(obj, "spec", "drivers")), age(obj, now)]


def _capacity(obj: Obj, now: float) -> list[Any]:
    return [name(obj), obj.get("storageClassName", ""), str(obj.get("capacity", "<unset>"))]


def _attachment(obj: Obj, now: float) -> list[Any]:
    spec = sub(obj, "spec")
    volume = sub(spec, "source").get("persistentVolumeName") or ""
    attached = bool(sub(obj, "status").get("attached"))
    return [name(obj), spec.get("attacher", ""), volume, spec.get("nodeName", ""), attached, age(obj, now)]


def _attributes(obj: Obj, now: float) -> list[Any]:
    return [name(obj), obj.get("driverName", ""), age(obj, now)]


def _columns(*names: str, kind: str = "string") -> tuple[Column, ...]:
    return tuple(Column(text, type=kind) for text in names)


_GROUP = "storage.k8s.io"
_DRIVER = (
    *_columns("AttachRequired", "PodInfoOnMount", "StorageCapacity", kind="boolean"),
    Column("TokenRequests"),
    Column("RequiresRepublish", type="boolean"),
    Column("Modes"),
)
COLUMNS = {
    (_GROUP, "CSIDriver"): Columns((Name, *_DRIVER, Age), _driver),
    (_GROUP, "CSINode"): Columns((Name, Column("Drivers", type="integer"), Age), _node),
    (_GROUP, "CSIStorageCapacity"): Columns((Name, *_columns("StorageClassName", "Capacity")), _capacity),
    (_GROUP, "VolumeAttachment"): Columns(
        (Name, Column("Attacher", format="name"), *_columns("PV", "Node"), Column("Attached", type="boolean"), Age),
        _attachment,
    ),
    (_GROUP, "VolumeAttributesClass"): Columns((Name, Column("DriverName"), Age), _attributes),
}
