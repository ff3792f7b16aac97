"""ValidatingAdmissionPolicy: expressions that must hold of an attempt, and what follows when one does not.

Source: k8s.io/apiserver/pkg/admission/plugin/policy/validating/{dispatcher,validator}.go
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from steersman.cluster.api.admission.attempt import Attempt
from steersman.cluster.api.admission.expressions import BUDGET, CONDITIONS_BUDGET, Failed, OutOfBudget, Scope
from steersman.cluster.api.admission.names import Expression, Names, expression
from steersman.cluster.api.admission.policies import (
    Binding,
    Misconfigured,
    Policy,
    concerned,
    namespace_of,
    param_resource,
    params_of,
    shown_kind,
)
from steersman.cluster.api.cel import STRING
from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind
from steersman.cluster.meta.errors import Cause, Refused
from steersman.cluster.meta.objects import Obj

_MESSAGE_BYTES_MAX = 5 * 1024
_ANNOTATION_BYTES_MAX = 10 * 1024
_CODES = {"Forbidden": 403, "Unauthorized": 401, "RequestEntityTooLarge": 413}


@dataclass(frozen=True, slots=True)
class _Failure:
    """A validation that did not hold, or could not be evaluated. Args: index: of the validation; -1 for none."""

    message: str
    reason: str = ""
    index: int = -1


@dataclass(frozen=True, slots=True)
class _Denial:
    policy: str
    binding: str
    message: str
    reason: str = ""

    def text(self) -> str:
        bound = f" with binding '{self.binding}'" if self.binding else ""
        return f"ValidatingAdmissionPolicy '{self.policy}'{bound} denied request: {self.message}"


def validate(policies: Sequence[Policy], registry: Registry, attempt: Attempt, ctx: WriteContext) -> None:
    """Evaluates every policy that concerns an attempt.

    Raises:
        Refused: one does not hold and its binding says `Deny`.
    """
    denials: list[_Denial] = []
    audited: list[str] = []
    for policy in policies:
        try:
            kind = shown_kind(policy, registry, attempt, ctx)
            if kind is None:
                continue
            of_params = param_resource(policy, registry)
        except Misconfigured as error:
            if not policy.ignores_failure:
                denials.append(_Denial(policy.name, "", f"failed to configure policy: {error}"))
            continue
        notes: dict[str, dict[str, None]] = {}
        for binding in policy.bindings:
            try:
                if not concerned(policy, binding, registry, attempt, ctx):
                    continue
                params = params_of(of_params, binding.param_ref, attempt, ctx)
            except Misconfigured as error:
                if not policy.ignores_failure:
                    denials.append(_Denial(policy.name, binding.name, f"failed to configure binding: {error}"))
                continue
            for param in params:
                failures = list(_evaluate(policy, attempt, kind, param, ctx, notes))
                denials += _acted(policy, binding, failures, ctx, audited)
        for key, values in notes.items():
            ctx.annotate(f"{policy.name}/{key}", ", ".join(values))
    if audited:  # all have the same key, and an annotation is not overwritten
        ctx.annotate("validation.policy.admission.k8s.io/validation_failure", audited[0])
    if denials:
        raise _refused(attempt, denials[0])


def _evaluate(
    policy: Policy,
    attempt: Attempt,
    kind: Kind,
    param: Obj | None,
    ctx: WriteContext,
    notes: dict[str, dict[str, None]],
) -> Iterator[_Failure]:
    """Every failure of one evaluation; annotations are added to `notes`."""
    namespace = namespace_of(attempt, ctx)
    failed = () if policy.ignores_failure else (True,)
    try:
        if policy.conditions.rows:
            conditions = Scope(attempt, kind, ctx, CONDITIONS_BUDGET, params=param, namespace=namespace)
            if not policy.conditions.hold(conditions):
                return
    except Failed as error:
        yield from (_Failure(str(error)) for _ in failed)
        return
    scope = Scope(attempt, kind, ctx, BUDGET, params=param, namespace=namespace, variables=policy.variables)
    for index, row in enumerate(policy.spec.get("validations") or ()):
        try:
            if scope.value(expression(row["expression"], policy.names)) is not True:
                reason = row.get("reason") or "Invalid"
                yield _Failure(_message(policy, row, scope), reason, index)
        except OutOfBudget as error:
            yield from (_Failure(str(error), "", index) for _ in failed)
            return
        except Failed as error:
            yield from (_Failure(str(error), "", index) for _ in failed)
    for row in policy.spec.get("auditAnnotations") or ():
        try:
            if text := _annotation(row, scope, policy.names):
                notes.setdefault(row["key"], {})[text] = None
        except Failed as error:
            yield from (_Failure(str(error)) for _ in failed)


def _message(policy: Policy, row: Mapping[str, Any], scope: Scope) -> str:
    text: Any = ""
    if source := row.get("messageExpression"):
        names = policy.names
        without = Names(params=names.params, authorizer=False, variables=names.variables)
        try:
            text = scope.value(expression(source, without))
        except Failed:
            text = ""
        text = text.strip() if isinstance(text, str) else ""
        if len(text.encode()) > _MESSAGE_BYTES_MAX or "\n" in text:
            text = ""
    return text or (row.get("message") or "").strip() or f"failed expression: {row['expression'].strip()}"


def _annotation(row: Mapping[str, Any], scope: Scope, names: Names) -> str:
    source: Expression = expression(row["valueExpression"], names)
    value = scope.value(source)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Failed(
            f"valueExpression '{source.source}' resulted in unsupported return type: {source.type}. "
            f"Return type must be either {STRING} or null."
        )
    return value.strip()[:_ANNOTATION_BYTES_MAX]


def _acted(
    policy: Policy, binding: Binding, failures: Sequence[_Failure], ctx: WriteContext, audited: list[str]
) -> Iterator[_Denial]:
    """Warns of failures and adds what the audit log is told, as the binding says; yields those that deny."""
    for failure in failures:
        if "Deny" in binding.actions:
            yield _Denial(policy.name, binding.name, failure.message, failure.reason)
        if "Warn" in binding.actions:
            ctx.warn(
                f"Validation failed for ValidatingAdmissionPolicy '{policy.name}' with binding '{binding.name}': "
                f"{failure.message}"
            )
    if failures and "Audit" in binding.actions:
        first = failures[0]
        row = {
            "message": first.message, "policy": policy.name, "binding": binding.name,
            "expressionIndex": max(first.index, 0), "validationActions": list(binding.actions),
        }  # fmt: skip
        audited.append(orjson.dumps([row]).decode())


def _refused(attempt: Attempt, denial: _Denial) -> Refused:
    reason, text = denial.reason or "Invalid", denial.text()
    plain = attempt.forbidden(text)
    return Refused(
        plain.message, _CODES.get(reason, 422), reason, kind=plain.kind, group=plain.group, name=plain.name,
        causes=[Cause("", text, "")],
    )  # fmt: skip
