"""Rows of what extends the API: CustomResourceDefinitions and webhook configurations."""

from __future__ import annotations

from steersman.cluster.api.row import Kind
from steersman.cluster.api.rows.core import status
from steersman.cluster.api.rules import extensions
from steersman.cluster.meta import resources as known

ROWS: tuple[Kind, ...] = (
    Kind(
        resource=known.CUSTOM_RESOURCE_DEFINITIONS, singular="customresourcedefinition", short_names=("crd", "crds"),
        categories=("api-extensions",), subresources=status("CustomResourceDefinition", "apiextensions.k8s.io"),
        has_generation=True, defaults=extensions.default_crd, validate=extensions.validate_crd,
        validate_update=extensions.validate_crd_update, prepare_create=extensions.establish,
        prepare_update=extensions.establish_update,
    ),
    Kind(
        resource=known.MUTATING_WEBHOOKS,
        singular="mutatingwebhookconfiguration", categories=("api-extensions",), has_generation=True,
        defaults=extensions.default_mutating, validate=extensions.validate_webhooks,
    ),
    Kind(
        resource=known.VALIDATING_WEBHOOKS,
        singular="validatingwebhookconfiguration", categories=("api-extensions",), has_generation=True,
        defaults=extensions.default_webhooks, validate=extensions.validate_webhooks,
    ),
)  # fmt: skip
