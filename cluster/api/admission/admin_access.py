"""Admin access to devices: only for claims in namespaces that are labelled for it.

Source: k8s.io/kubernetes/pkg/registry/resource/resource.go
"""

from __future__ import annotations

from collections.abc import Iterable

from steersman.cluster.api.admission.attempt import Attempt
from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.rules.fields import forbidden
from steersman.cluster.meta.errors import invalid
from steersman.cluster.meta.objects import Obj, labels_of
from steersman.cluster.meta.resources import NAMESPACES

_LABEL = "resource.kubernetes.io/admin-access"


def validate_claim(attempt: Attempt, ctx: WriteContext) -> None:
    """Refuses a claim that asks for admin access elsewhere."""
    _check(attempt, ctx, (attempt.obj or {}).get("spec") or {})


def validate_template(attempt: Attempt, ctx: WriteContext) -> None:
    """The same of a template, whose requests Kubernetes names like those of a claim."""
    spec = (attempt.obj or {}).get("spec") or {}
    _check(attempt, ctx, spec.get("spec") or {})


def validate_status(attempt: Attempt, ctx: WriteContext) -> None:
    """Refuses to give a claim admin access elsewhere; what it has been given stays."""
    if _first(_results(attempt.old)) is None and (at := _first(_results(attempt.obj))) is not None:
        _refuse(attempt, ctx, f"status.allocation.devices.results[{at}].adminAccess")


def _check(attempt: Attempt, ctx: WriteContext, spec: Obj) -> None:
    requests = (spec.get("devices") or {}).get("requests") or ()
    at = _first(row.get("exactly") or {} for row in requests)
    if at is not None:
        _refuse(attempt, ctx, f"spec.devices.requests[{at}].adminAccess")


def _results(claim: Obj | None) -> list[Obj]:
    allocation = ((claim or {}).get("status") or {}).get("allocation") or {}
    found: list[Obj] = (allocation.get("devices") or {}).get("results") or []
    return found


def _first(rows: Iterable[Obj]) -> int | None:
    return next((index for index, row in enumerate(rows) if row.get("adminAccess")), None)


def _refuse(attempt: Attempt, ctx: WriteContext, path: str) -> None:
    namespace = ctx.lookup(NAMESPACES, "", attempt.namespace)
    if namespace is not None and labels_of(namespace).get(_LABEL) == "true":
        return
    detail = f"admin access to devices requires the `{_LABEL}: true` label on the containing namespace"
    resource = attempt.kind.resource
    raise invalid(resource.kind, attempt.name, [forbidden(path, detail)], resource.group)
