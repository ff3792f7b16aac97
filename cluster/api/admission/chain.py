"""Admission: what the cluster itself adds to objects or refuses, one plugin a module, and what its webhooks do.

The plugins and their order are a table (`plugins`). Order of all: plugins and webhooks that change, then (when the
object is complete) those that only look.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

from __future__ import annotations

from steersman.cluster.api.admission import mutatingpolicy, plugins, validatingpolicy, webhooks
from steersman.cluster.api.admission.attempt import Attempt
from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.steps import Steps


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
    for step in plugins.changes_of(ctx.settings, attempt.operation, attempt.resource, attempt.subresource):
        step(attempt, ctx)


def validate(registry: Registry, attempt: Attempt, ctx: WriteContext) -> Steps[None]:
    """Everything that looks at the finished object and may refuse it.

    Raises:
        ApiError: somebody refuses.
    """
    for step in plugins.checks_of(ctx.settings, attempt.operation, attempt.resource, attempt.subresource):
        step(attempt, ctx)
    hooks = ctx.hooks
    if hooks is not None and not attempt.is_exempt:
        if hooks.validations:
            validatingpolicy.validate(hooks.validations, registry, attempt, ctx)
        yield from webhooks.validate(hooks.validating, registry, attempt, ctx)
