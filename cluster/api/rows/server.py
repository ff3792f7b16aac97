"""Rows of what API servers themselves work by: certificate requests, flow control, aggregated APIs."""

from __future__ import annotations

from steersman.cluster.api.row import OBJECT_META, STATUS_VERBS, Kind, Subresource
from steersman.cluster.api.rows.core import status
from steersman.cluster.api.rules import aggregation, certificates, flowcontrol
from steersman.cluster.meta import resources as known
from steersman.cluster.meta.names import path_segment_errors
from steersman.cluster.meta.resources import Resource

_CERTIFICATES = "certificates.k8s.io"
_FLOWS = "flowcontrol.apiserver.k8s.io"

ROWS: tuple[Kind, ...] = (
    Kind(
        resource=known.CERTIFICATE_SIGNING_REQUESTS, singular="certificatesigningrequest", short_names=("csr",),
        subresources={
            **status("CertificateSigningRequest", _CERTIFICATES),
            "approval": Subresource("approval", STATUS_VERBS, "CertificateSigningRequest", _CERTIFICATES),
        },
        name_errors=path_segment_errors, new_status={}, defaults=certificates.default_request,
        prepare_create=certificates.prepare_create, prepare_update=certificates.prepare_update,
        validate=certificates.validate_request,
        validate_status=certificates.validate_status, validate_update=certificates.validate_update,
        parts={"approval": certificates.approved},
        owned={
            "": (("f:metadata",),), "status": (("f:metadata",), ("f:status", "f:certificate")),
            "approval": (("f:metadata",), ("f:status", "f:conditions")),
        },
        prepare_part=certificates.stamp_conditions,
        validate_parts={"approval": certificates.validate_approval}, selectable_fields=certificates.request_fields,
    ),
    Kind(
        resource=Resource(_FLOWS, "v1", "flowschemas", "FlowSchema", namespaced=False), singular="flowschema",
        subresources=status("FlowSchema", _FLOWS), has_generation=True, new_status={},
        defaults=flowcontrol.default_schema, validate=flowcontrol.validate_schema,
        validate_status=flowcontrol.validate_status, kept={"status": OBJECT_META},
    ),
    Kind(
        resource=Resource(_FLOWS, "v1", "prioritylevelconfigurations", "PriorityLevelConfiguration", namespaced=False),
        singular="prioritylevelconfiguration", subresources=status("PriorityLevelConfiguration", _FLOWS),
        has_generation=True, new_status={}, defaults=flowcontrol.default_level, validate=flowcontrol.validate_level,
        validate_status=flowcontrol.validate_status, kept={"status": OBJECT_META},
    ),
    Kind(
        resource=Resource("apiregistration.k8s.io", "v1", "apiservices", "APIService", namespaced=False),
        singular="apiservice", allows_unconditional_update=False, categories=("api-extensions",),
        subresources=status("APIService",
        "apiregistration.k8s.io"),
        name_errors=path_segment_errors, new_status={}, defaults=aggregation.default_service,
        prepare_create=aggregation.prepare_create, validate=aggregation.validate_service,
        validate_status=aggregation.validate_status, kept={"status": OBJECT_META},
    ),
)  # fmt: skip
