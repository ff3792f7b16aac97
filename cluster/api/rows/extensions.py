"""Rows of what extends the API: CustomResourceDefinitions and webhook configurations."""

from __future__ import annotations

from steersman.cluster.api.row import Kind
from steersman.cluster.api.rows.core import status
from steersman.cluster.api.rules import extensions
from steersman.cluster.meta import resources as known
from steersman.cluster.meta.resources import Resource

_ADMISSION = "admissionregistration.k8s.io"

ROWS: tuple[Kind, ...] = (
    Kind(
        resource=known.CUSTOM_RESOURCE_DEFINITIONS, singular="customresourcedefinition", short_names=("crd", "crds"),
        categories=("api-extensions",), subresources=status("CustomResourceDefinition", "apiextensions.k8s.io"),
        has_generation=True, defaults=extensions.default_crd, validate=extensions.validate_crd,
        validate_update=extensions.validate_crd_update, prepare_create=extensions.establish,
        prepare_update=extensions.establish_update,
    ),
    Kind(
        resource=Resource(
            _ADMISSION, "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", namespaced=False
        ),
        singular="mutatingwebhookconfiguration", categories=("api-extensions",), has_generation=True,
        defaults=extensions.default_mutating, validate=extensions.validate_webhooks,
    ),
    Kind(
        resource=Resource(
            _ADMISSION, "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", namespaced=False
        ),
        singular="validatingwebhookconfiguration", categories=("api-extensions",), has_generation=True,
        defaults=extensions.default_webhooks, validate=extensions.validate_webhooks,
    ),
)  # fmt: skip
