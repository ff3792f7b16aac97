"""Mutating and validating admission webhooks: whom to ask, in what order, and what their answers do.

Source: k8s.io/apiserver/pkg/admission/plugin/webhook/{mutating,validating}/dispatcher.go
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from steersman.cluster.api.admission.attempt import Attempt
from steersman.cluster.api.admission.expressions import CONDITIONS_BUDGET, Failed, Scope
from steersman.cluster.api.admission.hooks import Webhook
from steersman.cluster.api.admission.matching import shown
from steersman.cluster.api.admission.review import Answer, CallFailed, call_of, read
from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.decode import bounded, check, identified
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.patch import copied, json_patch
from steersman.cluster.api.row import Kind
from steersman.cluster.api.steps import HookCall, HookReply, Steps
from steersman.cluster.meta.errors import ApiError, Cause, InternalError
from steersman.cluster.meta.objects import Obj


@dataclass(slots=True)
class Reinvocation:
    """Who is to be asked again because others changed the object after them.

    Args:
        again: a second round is due; is_second: it is under way.
        invoked: webhooks that may be asked again and have been asked; due: those that now shall be.
        output: the object as the last round left it.
    """

    again: bool = False
    is_second: bool = False
    invoked: set[str] = field(default_factory=set)
    due: set[str] = field(default_factory=set)
    output: Obj | None = None

    def changed(self) -> None:
        """All who were asked before are to be asked again."""
        self.due |= self.invoked
        self.invoked = set()


def mutate(
    hooks: Sequence[Webhook], registry: Registry, attempt: Attempt, ctx: WriteContext, state: Reinvocation
) -> Steps[None]:
    """Asks the mutating webhooks one after the other; each sees what those before it have made.

    Raises:
        ApiError: one refuses, or cannot be asked and has to be.
    """
    if state.is_second and attempt.obj != state.output:
        state.changed()
    for index, hook in enumerate(hooks):
        kind = hook.match.kind(registry, attempt, ctx)
        if kind is None or (state.is_second and hook.uid not in state.due):
            continue
        if hook.conditions.rows and not _hold(hook, attempt, kind, ctx):
            continue
        place = f"round_{int(state.is_second)}_index_{index}"
        try:
            changed = yield from _changes(hook, registry, attempt, kind, ctx, place)
        except ApiError:
            _tell(ctx.annotate, "mutation", place, hook, mutated=False)
            raise
        _tell(ctx.annotate, "mutation", place, hook, mutated=changed)
        if changed:
            state.changed()
            state.again = True
        if hook.reinvoked:
            state.invoked.add(hook.uid)
    state.output = copied(attempt.obj)


def _changes(
    hook: Webhook, registry: Registry, attempt: Attempt, kind: Kind, ctx: WriteContext, place: str
) -> Steps[bool]:
    """Asks one webhook and does what it wants; returns whether that changed anything.

    Args:
        place: of the call among all of the request.
    """
    uid = ctx.new_uid()
    try:
        call = call_of(hook, attempt, kind, ctx, uid, mutating=True)
        replies = yield (call,)
        patch = _heard(hook, call, replies[0], uid, ctx, mutating=True).patch
    except CallFailed as error:
        _bear(hook, error, f"failed-open.mutation.webhook.admission.k8s.io/{place}", ctx)
        return False
    if patch in (None, []):
        return False
    changed = _patched(registry, hook, patch, attempt, kind)
    _tell(ctx.annotate_object, "patch", place, hook, patch=patch, patchType="JSONPatch")
    return changed


def _hold(hook: Webhook, attempt: Attempt, kind: Kind, ctx: WriteContext) -> bool:
    """Whether a webhook's match conditions hold; raises Forbidden when they cannot be evaluated and must be."""
    try:
        return hook.conditions.hold(Scope(attempt, kind, ctx, CONDITIONS_BUDGET))
    except Failed as error:
        raise attempt.forbidden(str(error)) from None


def _tell(annotate: Callable[[str, str], None], what: str, place: str, hook: Webhook, **more: Any) -> None:
    """Notes for the audit log what a webhook has done."""
    row = {"configuration": hook.configuration, "webhook": hook.name, **more}
    annotate(f"{what}.webhook.admission.k8s.io/{place}", orjson.dumps(row).decode())


def _heard(hook: Webhook, call: HookCall, reply: HookReply, uid: str, ctx: WriteContext, *, mutating: bool) -> Answer:
    """What a webhook answered; its warnings and annotations are passed on, its refusal is raised."""
    answer = read(hook, call, reply, uid, mutating=mutating)
    for key, value in answer.annotations:
        ctx.annotate(key, value)
    for text in answer.warnings:
        ctx.warn(text)
    if answer.refusal is not None:
        raise answer.refusal
    return answer


def _bear(hook: Webhook, error: CallFailed, annotation: str, ctx: WriteContext) -> None:
    """Takes a failed call as an approval where the webhook's policy is so; raises InternalError where not."""
    if not hook.ignores_failure:
        raise failed(hook.name, error) from None
    ctx.annotate(annotation, hook.name)


def failed(name: str, error: Exception) -> InternalError:
    """The error of a webhook that must be asked and cannot."""
    return internal(f'failed calling webhook "{name}": {error}')


def internal(text: str) -> InternalError:
    return InternalError(f"Internal error occurred: {text}", causes=[Cause("", text, "")])


def _patched(registry: Registry, hook: Webhook, operations: Any, attempt: Attempt, kind: Kind) -> bool:
    """Carries a webhook's patch out; returns whether it changed anything."""
    if attempt.obj is None:
        raise internal(
            f'admission webhook "{hook.name}" attempted to modify the object, which is not supported for this operation'
        )
    of_kind = attempt.body[2] == attempt.kind.resource.kind
    before = shown(attempt.obj, attempt.kind, kind) if of_kind else attempt.obj
    assert before is not None
    try:
        after = json_patch(before, operations)
        bounded(after)
        after = redecoded(registry, kind if of_kind else registry.body_kind(attempt.kind, attempt.subresource), after)
    except ApiError as error:
        raise internal(str(error)) from None
    if after == before:
        return False
    attempt.obj = shown(after, kind, attempt.kind) if of_kind else after
    attempt.changed = True
    return True


def redecoded(registry: Registry, kind: Kind, tree: Obj) -> Obj:
    """An object that somebody else has written, as if a client had sent it: pruned, checked and defaulted."""
    fresh, _ = check(registry, kind, identified(registry, kind, orjson.loads(orjson.dumps(tree))), b"", "Ignore")
    kind.defaults(fresh)
    return fresh


def validate(hooks: Sequence[Webhook], registry: Registry, attempt: Attempt, ctx: WriteContext) -> Steps[None]:
    """Asks the validating webhooks, all at the same time.

    Raises:
        ApiError: the first refusal, in the order of the webhooks.
    """
    asked: list[tuple[int, Webhook, HookCall, str]] = []
    first: ApiError | None = None
    for index, hook in enumerate(hooks):
        kind = hook.match.kind(registry, attempt, ctx)
        if kind is None or (hook.conditions.rows and not _hold(hook, attempt, kind, ctx)):
            continue
        uid = ctx.new_uid()
        try:
            asked.append((index, hook, call_of(hook, attempt, kind, ctx, uid, mutating=False), uid))
        except CallFailed as error:
            _bear(hook, error, f"failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}", ctx)
    if not asked:
        return
    replies = yield tuple(call for _, _, call, _ in asked)
    for (index, hook, call, uid), reply in zip(asked, replies, strict=True):
        try:
            _heard(hook, call, reply, uid, ctx, mutating=False)
        except CallFailed as error:
            if not hook.ignores_failure:
                first = first or failed(hook.name, error)
            else:
                ctx.annotate(f"failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}", hook.name)
        except ApiError as error:
            first = first or error
    if first is not None:
        raise first
