"""Rows of storage classes, CSI objects and runtime classes."""

from __future__ import annotations

from steersman.cluster.api.row import Kind
from steersman.cluster.api.rows.core import status
from steersman.cluster.api.rules import policy, volumes
from steersman.cluster.meta.resources import Resource

_GROUP = "storage.k8s.io"


def _row(plural: str, kind: str, *, namespaced: bool = False) -> Kind:
    resource = Resource(_GROUP, "v1", plural, kind, namespaced=namespaced)
    return Kind(resource=resource, singular=kind.lower())


ROWS: tuple[Kind, ...] = (
    _row("csidrivers", "CSIDriver"),
    _row("csinodes", "CSINode"),
    _row("csistoragecapacities", "CSIStorageCapacity", namespaced=True),
    Kind(
        resource=Resource(_GROUP, "v1", "storageclasses", "StorageClass", namespaced=False), singular="storageclass",
        short_names=("sc",), defaults=volumes.default_class, validate=volumes.validate_class,
        validate_update=volumes.validate_class_update,
    ),
    Kind(
        resource=Resource(_GROUP, "v1", "volumeattachments", "VolumeAttachment", namespaced=False),
        singular="volumeattachment", subresources=status("VolumeAttachment", _GROUP),
    ),
    Kind(
        resource=Resource("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", namespaced=False),
        singular="runtimeclass", validate=policy.validate_runtime_class,
        validate_update=policy.validate_runtime_class_update,
    ),
)  # fmt: skip
