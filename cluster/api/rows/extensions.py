"""The row of what extends the API: CustomResourceDefinitions."""

from __future__ import annotations

from steersman.cluster.api.custom import definition, naming
from steersman.cluster.api.row import Kind
from steersman.cluster.api.rows.core import status
from steersman.cluster.meta import resources as known

ROWS: tuple[Kind, ...] = (
    Kind(
        resource=known.CUSTOM_RESOURCE_DEFINITIONS, singular="customresourcedefinition",
        allows_unconditional_update=False, short_names=("crd", "crds"),
        categories=("api-extensions",), subresources=status("CustomResourceDefinition", "apiextensions.k8s.io"),
        has_generation=True, defaults=naming.default_crd, validate=definition.validate_crd,
        validate_create=definition.validate_schemas, validate_update=definition.validate_crd_update,
        validate_status=definition.validate_crd_status, prepare_create=naming.establish,
        prepare_update=naming.establish_update, prepare_delete=naming.prepare_delete,
        owned={"status": (("f:status",),)},  # though a change of the status takes metadata along
    ),
)  # fmt: skip
