"""NamespaceLifecycle and NamespaceExists: objects come to be only in namespaces that exist and are not going away.

Source: k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle/admission.go and
plugin/pkg/admission/namespace/exists/admission.go
"""

from __future__ import annotations

from steersman.cluster.api.admission.attempt import Attempt
from steersman.cluster.api.context import WriteContext
from steersman.cluster.meta.errors import Cause, not_found
from steersman.cluster.meta.objects import is_deleting
from steersman.cluster.meta.resources import NAMESPACES

#: may be asked about every namespace
_REVIEW = ("authorization.k8s.io", "localsubjectaccessreviews")


def admit_create(attempt: Attempt, ctx: WriteContext) -> None:
    """Raises NotFound or Forbidden when a namespace cannot take what is to be made in it, or done to its objects."""
    name = attempt.namespace
    if not name or attempt.resource in (("", "namespaces"), _REVIEW):
        return
    namespace = ctx.lookup(NAMESPACES, "", name)
    if namespace is None:
        raise not_found("namespaces", name)
    if is_deleting(namespace) or (namespace.get("status") or {}).get("phase") == "Terminating":
        raise attempt.forbidden(
            f"unable to create new content in namespace {name} because it is being terminated",
            Cause("metadata.namespace", f"namespace {name} is being terminated", "NamespaceTerminating"),
        )


def validate_exists(attempt: Attempt, ctx: WriteContext) -> None:
    """Raises NotFound when the namespace of what is made, changed or removed does not exist."""
    name = attempt.namespace
    if name and attempt.resource != ("", "namespaces") and ctx.lookup(NAMESPACES, "", name) is None:
        raise not_found("namespaces", name)
