"""Admission: what the cluster itself adds to objects or refuses, one plugin a module, and what its webhooks do.

A plugin is a function of an object and a `WriteContext`; it changes the object in place, or raises an API error to
refuse. Order: plugins and webhooks that change, then (when the object is complete) those that only look.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

from __future__ import annotations

from collections.abc import Callable

from steersman.cluster.api.admission import (
    limits,
    mutatingpolicy,
    namespaces,
    podsecurity,
    priority,
    service_accounts,
    storage,
    tolerations,
    validatingpolicy,
    webhooks,
)
from steersman.cluster.api.admission.attempt import CREATE, UPDATE, Attempt
from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.steps import Steps
from steersman.cluster.meta.objects import Obj

_OnCreate = Callable[[Obj, WriteContext], None]
_OnUpdate = Callable[[Obj, Obj, WriteContext], None]

#: in order, by (group, plural)
_ON_CREATE: dict[tuple[str, str], tuple[_OnCreate, ...]] = {
    ("", "pods"): (
        service_accounts.admit_pod, priority.admit_pod, limits.admit_pod, tolerations.admit_pod,
    ),
    ("", "nodes"): (tolerations.admit_node,),
    ("", "persistentvolumeclaims"): (storage.admit_claim,),
    ("scheduling.k8s.io", "priorityclasses"): (priority.admit_class,),
}  # fmt: skip
_ON_UPDATE: dict[tuple[str, str], tuple[_OnUpdate, ...]] = {
    ("", "pods"): (priority.admit_pod_update,),
}


def mutate(registry: Registry, attempt: Attempt, ctx: WriteContext) -> Steps[None]:
    """Everything that may change an object: the plugins, then webhooks; all once more when a webhook wants it.

    Args:
        attempt: its object is changed in place, or replaced.

    Raises:
        ApiError: somebody refuses.
    """
    _run_plugins(attempt, ctx)
    hooks = ctx.hooks
    if hooks is None or attempt.is_exempt or not (hooks.mutating or hooks.mutations):
        return
    asked, carried = webhooks.Reinvocation(), webhooks.Reinvocation()
    mutatingpolicy.mutate(hooks.mutations, registry, attempt, ctx, carried)
    yield from webhooks.mutate(hooks.mutating, registry, attempt, ctx, asked)
    if asked.again or carried.again:
        asked.is_second = carried.is_second = True
        _run_plugins(attempt, ctx)
        mutatingpolicy.mutate(hooks.mutations, registry, attempt, ctx, carried)
        yield from webhooks.mutate(hooks.mutating, registry, attempt, ctx, asked)


def _run_plugins(attempt: Attempt, ctx: WriteContext) -> None:
    if attempt.operation == CREATE and not attempt.subresource:
        _on_create(attempt, ctx)
    elif attempt.operation == UPDATE and attempt.subresource != "status":
        assert attempt.obj is not None and attempt.old is not None
        for plugin in _ON_UPDATE.get(attempt.resource, ()):
            plugin(attempt.obj, attempt.old, ctx)


def _on_create(attempt: Attempt, ctx: WriteContext) -> None:
    kind, obj = attempt.kind, attempt.obj
    assert obj is not None
    if kind.resource.namespaced:
        namespaces.admit_create(kind, obj, ctx)
    for plugin in _ON_CREATE.get(attempt.resource, ()):
        plugin(obj, ctx)


def validate(registry: Registry, attempt: Attempt, ctx: WriteContext) -> Steps[None]:
    """Everything that looks at the finished object and may refuse it.

    Raises:
        ApiError: somebody refuses.
    """
    podsecurity.validate(attempt, ctx)
    hooks = ctx.hooks
    if hooks is not None and not attempt.is_exempt:
        if hooks.validations:
            validatingpolicy.validate(hooks.validations, registry, attempt, ctx)
        yield from webhooks.validate(hooks.validating, registry, attempt, ctx)
