"""Rows of admission: webhook configurations, policies and their bindings."""

from __future__ import annotations

from steersman.cluster.api.admission import typecheck
from steersman.cluster.api.row import OBJECT_META, Kind
from steersman.cluster.api.rows.core import status
from steersman.cluster.api.rules import admission, policystatus
from steersman.cluster.meta import resources as known

_EXTENSIONS = ("api-extensions",)

ROWS: tuple[Kind, ...] = (
    Kind(
        resource=known.MUTATING_WEBHOOKS, singular="mutatingwebhookconfiguration", categories=_EXTENSIONS,
        allows_unconditional_update=False,
        has_generation=True, defaults=admission.default_mutating, validate=admission.validate_webhooks,
        validate_change=admission.validate_webhooks_change,
    ),
    Kind(
        resource=known.VALIDATING_WEBHOOKS, singular="validatingwebhookconfiguration", categories=_EXTENSIONS,
        allows_unconditional_update=False,
        has_generation=True, defaults=admission.default_webhooks, validate=admission.validate_webhooks,
        validate_change=admission.validate_webhooks_change,
    ),
    Kind(
        resource=known.VALIDATING_POLICIES, singular="validatingadmissionpolicy", categories=_EXTENSIONS,
        allows_unconditional_update=False,
        subresources=status("ValidatingAdmissionPolicy", "admissionregistration.k8s.io"), has_generation=True,
        defaults=admission.default_policy, validate=admission.validate_validating_policy,
        new_status={}, observe=typecheck.observe, validate_status=policystatus.validate_policy_status,
        kept={"status": OBJECT_META},
    ),
    Kind(
        resource=known.VALIDATING_BINDINGS, singular="validatingadmissionpolicybinding", categories=_EXTENSIONS,
        allows_unconditional_update=False,
        has_generation=True, defaults=admission.default_binding, validate=admission.validate_validating_binding,
    ),
    Kind(
        resource=known.MUTATING_POLICIES, singular="mutatingadmissionpolicy", categories=_EXTENSIONS,
        allows_unconditional_update=False,
        has_generation=True, defaults=admission.default_policy, validate=admission.validate_mutating_policy,
    ),
    Kind(
        resource=known.MUTATING_BINDINGS, singular="mutatingadmissionpolicybinding", categories=_EXTENSIONS,
        allows_unconditional_update=False,
        has_generation=True, defaults=admission.default_binding, validate=admission.validate_mutating_binding,
    ),
)  # fmt: skip
