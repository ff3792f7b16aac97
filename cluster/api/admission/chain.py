"""Admission: what the cluster itself adds to objects or refuses, one plugin a module, and what its webhooks do.

A plugin is a function of an object and a `WriteContext`; it changes the object in place, or raises an API error to
refuse. Order: plugins and webhooks that change, then (when the object is complete) those that only look.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

from __future__ import annotations

from collections.abc import Callable

from steersman.cluster.api.admission import (
    admin_access,
    certificates,
    limits,
    mutatingpolicy,
    namespaces,
    noderestriction,
    nodes,
    optional,
    podsecurity,
    priority,
    runtime_classes,
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
_OnAttempt = Callable[[Attempt, WriteContext], None]

_PODS, _NODES, _CLAIMS = ("", "pods"), ("", "nodes"), ("", "persistentvolumeclaims")
_CLASSES, _REQUESTS = ("scheduling.k8s.io", "priorityclasses"), ("certificates.k8s.io", "certificatesigningrequests")
_DEVICE_CLAIMS = ("resource.k8s.io", "resourceclaims")
#: what changes new objects, in order, by (group, plural)
_ON_CREATE: dict[tuple[str, str], tuple[_OnCreate, ...]] = {
    _PODS: (
        limits.admit_pod, service_accounts.admit_pod, priority.admit_pod, tolerations.admit_pod,
        runtime_classes.admit_pod,
    ),
    _NODES: (tolerations.admit_node,),
    _CLAIMS: (storage.admit_claim,),
    ("networking.k8s.io", "ingresses"): (storage.admit_ingress,),
    _CLASSES: (priority.admit_class,),
}  # fmt: skip
_ON_UPDATE: dict[tuple[str, str], tuple[_OnUpdate, ...]] = {
    _PODS: (priority.admit_pod_update, tolerations.admit_pod_update),
    _CLASSES: (priority.admit_class_update,),
}
#: what looks at more than the object, by (operation, group and plural, subresource)
_BEFORE: dict[tuple[str, tuple[str, str], str], tuple[_OnAttempt, ...]] = {
    (CREATE, _PODS, "binding"): (nodes.admit_binding,),
}
#: what only looks, when the object is complete
_AFTER: dict[tuple[str, tuple[str, str], str], tuple[_OnAttempt, ...]] = {
    (CREATE, _PODS, ""): (limits.validate_pod, service_accounts.validate_pod, runtime_classes.validate_pod),
    (UPDATE, _PODS, "resize"): (limits.validate_pod,),
    (UPDATE, _PODS, "ephemeralcontainers"): (service_accounts.validate_pod,),
    (CREATE, _CLAIMS, ""): (limits.validate_claim,),
    (UPDATE, _CLAIMS, ""): (limits.validate_claim, storage.validate_resize),
    (CREATE, _REQUESTS, ""): (certificates.validate_subject,),
    (UPDATE, _REQUESTS, "approval"): (certificates.validate_approval,),
    (UPDATE, _REQUESTS, "status"): (certificates.validate_signing,),
    (CREATE, _DEVICE_CLAIMS, ""): (admin_access.validate_claim,),
    (UPDATE, _DEVICE_CLAIMS, "status"): (admin_access.validate_status,),
    (CREATE, ("resource.k8s.io", "resourceclaimtemplates"), ""): (admin_access.validate_template,),
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
    if optional.PULL in ctx.settings.plugins:
        optional.pull_images(attempt)
    if optional.TOLERATION in ctx.settings.plugins:
        optional.tolerate_devices(attempt)
    if attempt.operation == CREATE:
        namespaces.admit_create(attempt, ctx)
    noderestriction.admit(attempt, ctx)
    for check in _BEFORE.get((attempt.operation, attempt.resource, attempt.subresource), ()):
        check(attempt, ctx)
    if attempt.subresource or attempt.obj is None:
        return
    if attempt.operation == CREATE:
        for plugin in _ON_CREATE.get(attempt.resource, ()):
            plugin(attempt.obj, ctx)
    elif attempt.operation == UPDATE:
        assert attempt.old is not None
        for change in _ON_UPDATE.get(attempt.resource, ()):
            change(attempt.obj, attempt.old, ctx)


def validate(registry: Registry, attempt: Attempt, ctx: WriteContext) -> Steps[None]:
    """Everything that looks at the finished object and may refuse it.

    Raises:
        ApiError: somebody refuses.
    """
    for check in _AFTER.get((attempt.operation, attempt.resource, attempt.subresource), ()):
        check(attempt, ctx)
    if optional.OWNERS in ctx.settings.plugins:
        optional.validate_owners(registry, attempt, ctx)
    podsecurity.validate(attempt, ctx)
    hooks = ctx.hooks
    if hooks is not None and not attempt.is_exempt:
        if hooks.validations:
            validatingpolicy.validate(hooks.validations, registry, attempt, ctx)
        yield from webhooks.validate(hooks.validating, registry, attempt, ctx)
