"""MutatingAdmissionPolicy: expressions that make patches of an object.

Source: k8s.io/apiserver/pkg/admission/plugin/policy/mutating
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from steersman.cluster.api import ssa
from steersman.cluster.api.admission.attempt import Attempt
from steersman.cluster.api.admission.expressions import BUDGET, CONDITIONS_BUDGET, Failed, Scope
from steersman.cluster.api.admission.matching import shown
from steersman.cluster.api.admission.names import expression
from steersman.cluster.api.admission.policies import (
    Misconfigured,
    Policy,
    concerned,
    namespace_of,
    param_resource,
    params_of,
    shown_kind,
)
from steersman.cluster.api.admission.webhooks import Reinvocation, redecoded
from steersman.cluster.api.cel import EvaluationError, as_json
from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.decode import bounded
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.patch import Unmet, copied, json_patch
from steersman.cluster.api.row import Kind
from steersman.cluster.meta.errors import ApiError, Cause, Refused
from steersman.cluster.meta.objects import Obj


@dataclass(frozen=True, slots=True)
class _Failure:
    """A policy that could not be carried out: a refusal."""

    text: str
    reason: str = ""


def mutate(
    policies: Sequence[Policy], registry: Registry, attempt: Attempt, ctx: WriteContext, state: Reinvocation
) -> None:
    """Carries out every policy that concerns an attempt, one after the other.

    Raises:
        Refused: one cannot be carried out and has to be.
    """
    if attempt.obj is None or attempt.operation == "CONNECT":
        return
    if state.is_second and attempt.obj != state.output:
        state.changed()
    failures: list[_Failure] = []
    for policy in policies:
        for binding, error in _bound(policy, registry, attempt, ctx, state):
            if not policy.ignores_failure:
                where = f"policy '{policy.name}' with binding '{binding}'" if binding else f'policy "{policy.name}"'
                reason = "" if isinstance(error, Misconfigured) else "Invalid"
                failures.append(_Failure(f"{where} denied request: {error}", reason))
    state.output = copied(attempt.obj)
    if failures:
        plain = attempt.forbidden("admission request denied by policy")
        raise Refused(
            failures[0].text, 403, failures[0].reason or "Forbidden", kind=plain.kind, group=plain.group,
            name=plain.name, causes=[Cause("", failure.text, "") for failure in failures],
        )  # fmt: skip


def _bound(
    policy: Policy, registry: Registry, attempt: Attempt, ctx: WriteContext, state: Reinvocation
) -> list[tuple[str, Exception]]:
    """Carries a policy out for each of its bindings; returns (binding, error) of those that failed."""
    try:
        if shown_kind(policy, registry, attempt, ctx) is None:
            return []
        of_params = param_resource(policy, registry)
    except Misconfigured as error:
        return [("", Misconfigured(f"failed to configure policy: {error}"))]
    failures: list[tuple[str, Exception]] = []
    for binding in policy.bindings:
        try:
            if not concerned(policy, binding, registry, attempt, ctx):
                continue
            params = params_of(of_params, binding.param_ref, attempt, ctx)
        except Misconfigured as error:
            failures.append((binding.name, Misconfigured(f"failed to configure binding: {error}")))
            continue
        for param in params:
            own = (param or {}).get("metadata") or {}
            uid = f"{policy.name}/{binding.name}/{own.get('namespace', '')}/{own.get('name', '')}"
            if state.is_second and uid not in state.due:
                continue
            try:
                if _mutated(policy, registry, attempt, param, ctx):
                    state.changed()
                    state.again = True
            except (Failed, ApiError) as error:
                failures.append((binding.name, error))
                continue
            if policy.spec.get("reinvocationPolicy") == "IfNeeded":
                state.invoked.add(uid)
    return failures


def _mutated(policy: Policy, registry: Registry, attempt: Attempt, param: Obj | None, ctx: WriteContext) -> bool:
    """Carries out a policy's mutations; returns whether they changed the object. Raises Failed or ApiError."""
    kind = policy.match.kind(registry, attempt, ctx)
    if kind is None:
        return False
    namespace = namespace_of(attempt, ctx)
    if policy.conditions.rows:
        conditions = Scope(attempt, kind, ctx, CONDITIONS_BUDGET, params=param, namespace=namespace)
        if not policy.conditions.hold(conditions):
            return False
    of_kind = attempt.body[2] == attempt.kind.resource.kind
    body = kind if of_kind else registry.body_kind(attempt.kind, attempt.subresource)
    changed = False
    for row in policy.spec.get("mutations") or ():
        scope = Scope(attempt, kind, ctx, BUDGET, params=param, namespace=namespace, variables=policy.variables)
        before = shown(attempt.obj, attempt.kind, kind) if of_kind else attempt.obj
        assert before is not None
        after = redecoded(registry, body, _patched(registry, body, before, row, policy, scope))
        if after != before:
            attempt.obj = shown(after, kind, attempt.kind) if of_kind else after
            attempt.changed = changed = True
    return changed


def _patched(registry: Registry, kind: Kind, before: Obj, row: Obj, policy: Policy, scope: Scope) -> Obj:
    if row.get("patchType") == "JSONPatch":
        operations = _value(scope, (row.get("jsonPatch") or {}).get("expression", ""), policy)
        if not isinstance(operations, list):
            raise Failed(f"type conversion error from '{type(operations).__name__}' to 'list(JSONPatch)'")
        try:
            after = json_patch(before, operations)
        except Unmet:  # a patch whose test fails is not for this object
            return before
        bounded(after)
        return after
    wanted = _value(scope, (row.get("applyConfiguration") or {}).get("expression", ""), policy)
    if not isinstance(wanted, dict):
        raise Failed("must evaluate to Object")
    for key in ("apiVersion", "kind"):
        wanted.pop(key, None)
    if "metadata" in wanted and any(
        wanted["metadata"].get(key, before["metadata"].get(key)) != before["metadata"].get(key)
        for key in ("name", "namespace", "uid")
    ):
        raise Failed("may not change metadata.name, metadata.namespace or metadata.uid")
    schema = registry.schema(kind)
    if atomic := ssa.atomics(schema, wanted):
        raise Failed(
            f"error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: "
            f"{', '.join(atomic)}"
        )
    return ssa.merged(schema, before, wanted)


def _value(scope: Scope, source: str, policy: Policy) -> Any:
    try:
        return as_json(scope.value(expression(source, policy.names)))
    except EvaluationError as error:
        raise Failed(f"expression '{source}' resulted in error: {error}") from None
