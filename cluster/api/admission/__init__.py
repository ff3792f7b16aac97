"""Built-in admission: what the cluster itself adds to objects or refuses, one plugin a module.

A plugin is a function of an object and a `WriteContext`; it changes the object in place, raises an API error to refuse,
and returns warnings.
"""

from __future__ import annotations

from collections.abc import Callable

from steersman.cluster.api.admission import (
    limits,
    namespaces,
    priority,
    quota,
    service_accounts,
    storage,
    tolerations,
    warnings,
)
from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.row import Kind
from steersman.cluster.meta.objects import Obj

_OnCreate = Callable[[Obj, WriteContext], None]
_OnUpdate = Callable[[Obj, Obj, WriteContext], None]

#: in order, by (group, plural)
_ON_CREATE: dict[tuple[str, str], tuple[_OnCreate, ...]] = {
    ("", "pods"): (
        service_accounts.admit_pod, priority.admit_pod, limits.admit_pod, tolerations.admit_pod, quota.admit_pod,
    ),
    ("", "services"): (quota.admit_service,),
    ("", "nodes"): (tolerations.admit_node,),
    ("", "persistentvolumeclaims"): (storage.admit_claim,),
    ("scheduling.k8s.io", "priorityclasses"): (priority.admit_class,),
}  # fmt: skip
_ON_UPDATE: dict[tuple[str, str], tuple[_OnUpdate, ...]] = {
    ("", "pods"): (priority.admit_pod_update,),
}


def admit_create(kind: Kind, obj: Obj, ctx: WriteContext) -> list[str]:
    """Runs the plugins of a create; returns warnings.

    Raises:
        Forbidden, NotFound: a plugin refuses.
    """
    resource = kind.resource
    if resource.namespaced:
        namespaces.admit_create(kind, obj, ctx)
        if resource.plural not in quota.COUNTED_APART:
            quota.admit_count(kind, obj, ctx)
    for plugin in _ON_CREATE.get((resource.group, resource.plural), ()):
        plugin(obj, ctx)
    return warnings.of(kind, obj)


def admit_update(kind: Kind, new: Obj, old: Obj, subresource: str, ctx: WriteContext) -> list[str]:
    """Runs the plugins of an update; returns warnings.

    Raises:
        Forbidden: a plugin refuses.
    """
    if subresource == "status":
        return []
    for plugin in _ON_UPDATE.get((kind.resource.group, kind.resource.plural), ()):
        plugin(new, old, ctx)
    return warnings.of(kind, new)
