"""Rows of dynamic resource allocation: device classes, claims, their templates, and what drivers offer."""

from __future__ import annotations

from steersman.cluster.api.row import OBJECT_META, Kind
from steersman.cluster.api.rows.core import status
from steersman.cluster.api.rules import allocations, claims, devices
from steersman.cluster.meta.resources import Resource

_GROUP = "resource.k8s.io"

ROWS: tuple[Kind, ...] = (
    Kind(
        resource=Resource(_GROUP, "v1", "deviceclasses", "DeviceClass", namespaced=False), singular="deviceclass",
        has_generation=True, validate=claims.validate_class,
    ),
    Kind(
        resource=Resource(_GROUP, "v1", "resourceclaims", "ResourceClaim"), singular="resourceclaim",
        subresources=status("ResourceClaim", _GROUP), new_status={}, defaults=claims.default_claim,
        validate_create=claims.validate_claim, validate_change=claims.validate_claim_change,
        prepare_part=allocations.prepare_status, kept={"status": OBJECT_META},
        validate_status=allocations.validate_status,
    ),
    Kind(
        resource=Resource(_GROUP, "v1", "resourceclaimtemplates", "ResourceClaimTemplate"),
        singular="resourceclaimtemplate", defaults=claims.default_template, validate_create=claims.validate_template,
        validate_change=claims.validate_template_change,
    ),
    Kind(
        resource=Resource(_GROUP, "v1", "resourceslices", "ResourceSlice", namespaced=False), singular="resourceslice",
        has_generation=True, prepare_create=devices.prepare_create, prepare_update=devices.prepare_update,
        validate=devices.validate_slice,
        validate_change=devices.validate_slice_change, selectable_fields=devices.slice_fields,
    ),
)  # fmt: skip
