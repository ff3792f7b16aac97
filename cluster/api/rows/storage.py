"""Rows of storage classes, CSI objects and runtime classes."""

from __future__ import annotations

from steersman.cluster.api.row import OBJECT_META, Kind
from steersman.cluster.api.rows.core import status
from steersman.cluster.api.rules import attachments, csi, policy, volumes
from steersman.cluster.meta.resources import Resource

_GROUP = "storage.k8s.io"


ROWS: tuple[Kind, ...] = (
    Kind(
        resource=Resource(_GROUP, "v1", "csidrivers", "CSIDriver", namespaced=False), singular="csidriver",
        allows_unconditional_update=False,
        defaults=csi.default_driver, prepare_update=csi.prepare_driver_update, validate=csi.validate_driver,
        validate_update=csi.validate_driver_update,
    ),
    Kind(
        resource=Resource(_GROUP, "v1", "csinodes", "CSINode", namespaced=False), singular="csinode",
        allows_unconditional_update=False,
        validate=csi.validate_node, validate_update=csi.validate_node_update,
    ),
    Kind(
        resource=Resource(_GROUP, "v1", "csistoragecapacities", "CSIStorageCapacity"), singular="csistoragecapacity",
        allows_unconditional_update=False,
        validate=csi.validate_capacity, validate_update=csi.validate_capacity_update,
    ),
    Kind(
        resource=Resource(_GROUP, "v1", "storageclasses", "StorageClass", namespaced=False), singular="storageclass",
        short_names=("sc",), defaults=volumes.default_class, validate=volumes.validate_class,
        validate_update=volumes.validate_class_update,
    ),
    Kind(
        resource=Resource(_GROUP, "v1", "volumeattachments", "VolumeAttachment", namespaced=False),
        singular="volumeattachment", allows_unconditional_update=False, subresources=status("VolumeAttachment",
        _GROUP), defaults=attachments.default_attachment, validate=attachments.validate_attachment,
        validate_create=attachments.validate_new_attachment, validate_update=attachments.validate_attachment_update,
        validate_status=attachments.validate_attachment_status,
        new_status={"attached": False}, kept={"status": OBJECT_META},
    ),
    Kind(
        resource=Resource(_GROUP, "v1", "volumeattributesclasses", "VolumeAttributesClass", namespaced=False),
        singular="volumeattributesclass", short_names=("vac",), validate=csi.validate_attributes,
        validate_update=csi.validate_attributes_update,
    ),
    Kind(
        resource=Resource("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", namespaced=False),
        singular="runtimeclass", allows_unconditional_update=False, validate=policy.validate_runtime_class,
        validate_update=policy.validate_runtime_class_update,
    ),
)  # fmt: skip
