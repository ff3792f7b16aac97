"""Rows of who may do what, of disruption and priority."""

from __future__ import annotations

from steersman.cluster.api.row import Kind
from steersman.cluster.api.rows.core import status
from steersman.cluster.api.rules import access, policy
from steersman.cluster.meta import resources as known
from steersman.cluster.meta.names import path_segment_errors

ROWS: tuple[Kind, ...] = (
    Kind(
        resource=known.POD_DISRUPTION_BUDGETS, singular="poddisruptionbudget", allows_unconditional_update=False,
        short_names=("pdb",),
        subresources=status("PodDisruptionBudget", "policy"), has_generation=True, validate=policy.validate_budget,
        validate_status=policy.validate_budget_status,
        new_status={"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0},
    ),
    Kind(
        resource=known.ROLES, singular="role", create_on_update=True, name_errors=path_segment_errors,
        validate=access.validate_role,
    ),
    Kind(
        resource=known.ROLE_BINDINGS, singular="rolebinding", create_on_update=True, name_errors=path_segment_errors,
        defaults=access.default_binding, validate=access.validate_role_binding,
        validate_update=access.validate_binding_update,
    ),
    Kind(
        resource=known.CLUSTER_ROLES, singular="clusterrole", create_on_update=True, name_errors=path_segment_errors,
        validate=access.validate_cluster_role,
    ),
    Kind(
        resource=known.CLUSTER_ROLE_BINDINGS, singular="clusterrolebinding", create_on_update=True,
        name_errors=path_segment_errors,
        defaults=access.default_binding, validate=access.validate_cluster_role_binding,
        validate_update=access.validate_binding_update,
    ),
    Kind(
        resource=known.PRIORITY_CLASSES, singular="priorityclass", short_names=("pc",), has_generation=True,
        counted=None,
        defaults=policy.default_priority_class, validate_create=policy.validate_priority_class,
        validate_update=policy.validate_priority_class_update,
    ),
)  # fmt: skip
