"""NamespaceLifecycle: objects come to be only in namespaces that exist and are not going away.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#namespacelifecycle
"""

from __future__ import annotations

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.row import Kind
from steersman.cluster.meta.errors import Cause, Forbidden, not_found
from steersman.cluster.meta.objects import Obj, is_deleting
from steersman.cluster.meta.resources import NAMESPACES


def admit_create(kind: Kind, obj: Obj, ctx: WriteContext) -> None:
    """Raises NotFound or Forbidden when the object's namespace cannot take it."""
    name = obj["metadata"].get("namespace", "")
    if not name or kind.virtual:
        return
    namespace = ctx.lookup(NAMESPACES, "", name)
    if namespace is None:
        raise not_found("namespaces", name)
    if is_deleting(namespace) or (namespace.get("status") or {}).get("phase") == "Terminating":
        resource, own = kind.resource, obj["metadata"].get("name", "")
        raise Forbidden(
            f'{resource} "{own}" is forbidden: unable to create new content in namespace {name} because it is being '
            "terminated",
            kind=resource.plural,
            group=resource.group,
            name=own,
            causes=[Cause("metadata.namespace", f"namespace {name} is being terminated", "NamespaceTerminating")],
        )
