"""The rules of rules: that `x-kubernetes-validations` compile, cost little enough and compare only what they can.

Source: k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from steersman.cluster.api import cel
from steersman.cluster.api.cel.schema import values_max
from steersman.cluster.api.custom.expressions import Scope
from steersman.cluster.api.custom.paths import PathError, field_schema
from steersman.cluster.api.rules.fields import bad, forbidden, required, unsupported
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.gotext import quoted

#: what one rule may cost at most, for all the values it may meet in an object; what all of a schema's may
_RULE_COST_MAX, _SCHEMA_COST_MAX = 10_000_000, 100_000_000
#: rules that cost more than this part of a schema's budget are named when it is exceeded, at most so many
_EXPENSIVE_PART, _EXPENSIVE_MAX = 0.01, 4
_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
_ADVICE = (
    "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings "
    "are declared)"
)


class Costs:
    """What the rules of a schema can cost together."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, str]] = []

    def add(self, path: str, cost: float) -> None:
        self._rows.append((cost, path))

    def causes(self, path: str) -> list[Cause]:
        """What to say of a schema whose rules cost too much."""
        total = sum(cost for cost, _ in self._rows)
        if total <= _SCHEMA_COST_MAX:
            return []
        expensive = sorted((row for row in self._rows if row[0] > _SCHEMA_COST_MAX * _EXPENSIVE_PART), reverse=True)
        detail = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
        named = [forbidden(place, detail) for _, place in expensive[:_EXPENSIVE_MAX]]
        what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        return [*named, forbidden(path, _exceeds(what, total, _SCHEMA_COST_MAX))]


def _exceeds(what: str, cost: float, limit: float) -> str:
    factor = cost / limit
    shown = "more than 100x" if factor > 100 else f"{factor:f}x" if factor < 1.5 else f"{factor:.1f}x"
    return f"{what} exceeds budget by factor of {shown} {_ADVICE}"


def expression_causes(
    schema: Mapping[str, Any], path: str, resource: bool, evaluate: bool, apart: str, count: int | None, costs: Costs
) -> list[Cause]:
    """Every broken rule of the `x-kubernetes-validations` of one place.

    Args:
        resource: whether the schema is that of an object with metadata.
        evaluate: whether to compile them, which makes no sense where the schema is wrong.
        apart: the path above within which no old value can be told; empty where one can.
        count: how many values here an object can have; None when only the size of a request bounds it.
        costs: grows by what they can cost.
    """
    rows = schema["x-kubernetes-validations"]
    causes: list[Cause] = []
    for index, row in enumerate(rows):
        causes += _texts(schema, row, f"{path}.x-kubernetes-validations[{index}]")
    if causes or not evaluate:
        return causes
    times = values_max(schema, resource=resource) if count is None else count
    scope = Scope(schema, resource=resource)
    for index, row in enumerate(rows):
        causes += _compiled(scope, row, f"{path}.x-kubernetes-validations[{index}]", apart, times, costs)
    return causes


def _texts(schema: Mapping[str, Any], row: Mapping[str, Any], path: str) -> list[Cause]:
    causes: list[Cause] = []
    rule, message, expression = (row.get(key, "") for key in ("rule", "message", "messageExpression"))
    if not rule.strip():
        causes.append(required(f"{path}.rule", "rule is not specified"))
    elif message and not message.strip():
        causes.append(bad(f"{path}.message", message, "must be non-empty if specified"))
    elif _breaks(message.strip()):
        causes.append(bad(f"{path}.message", message, "must not contain line breaks"))
    elif _breaks(rule.strip()) and not message.strip():
        causes.append(required(f"{path}.message", "message must be specified if rule contains line breaks"))
    if expression and not expression.strip():
        causes.append(required(f"{path}.messageExpression", "messageExpression must be non-empty if specified"))
    if row.get("reason") is not None and row["reason"] not in _REASONS:
        causes.append(unsupported(f"{path}.reason", row["reason"], _REASONS))
    place = row.get("fieldPath", "")
    if not place:
        return causes
    if not place.strip():
        causes.append(bad(f"{path}.fieldPath", place, "must be non-empty if specified"))
    if _breaks(place):
        causes.append(bad(f"{path}.fieldPath", place, "must not contain line breaks"))
    try:
        field_schema(place, schema)
    except PathError:
        causes.append(bad(f"{path}.fieldPath", place, "must be a valid path"))
    return causes


def _breaks(text: str) -> bool:
    return re.search(r"[\n\r]", text) is not None


def _compiled(scope: Scope, row: Mapping[str, Any], path: str, apart: str, times: float, costs: Costs) -> list[Cause]:
    declared = scope.declarations(row)
    if declared is None:
        return []
    try:
        program = cel.compile(row["rule"], declared)
    except cel.CelError as error:
        return [Cause(f"{path}.rule", f"Invalid value: {_shown(row)}: compilation failed: {error}")]
    if program.type != cel.BOOL:
        return [Cause(f"{path}.rule", f"Invalid value: {_shown(row)}: cel expression must evaluate to a bool")]
    causes = _costly(program, f"{path}.rule", "estimated rule cost", times, costs)
    causes += _message(row, path, declared, times, costs)
    if "oldSelf" in program.inputs:
        if apart:
            detail = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {apart}"
            causes.append(bad(f"{path}.rule", row["rule"], detail))
    elif row.get("optionalOldSelf") is not None:
        detail = "may not be set if oldSelf is not used in rule"
        causes.append(bad(f"{path}.optionalOldSelf", row["optionalOldSelf"], detail))
    return causes


def _costly(program: cel.Program, path: str, what: str, times: float, costs: Costs) -> list[Cause]:
    cost = cel.cost_max(program.tree) * times
    costs.add(path, cost)
    return [forbidden(path, _exceeds(what, cost, _RULE_COST_MAX))] if cost > _RULE_COST_MAX else []


def _message(row: Mapping[str, Any], path: str, declared: cel.Declarations, times: float, costs: Costs) -> list[Cause]:
    text = row.get("messageExpression")
    if not text:
        return []
    where = f"{path}.messageExpression"
    try:
        program = cel.compile(text, declared)
    except cel.CelError as error:
        detail = f"messageExpression compilation failed: {error}"
        return [Cause(where, f"Invalid value: {_shown(row)}: {detail}")]
    if program.type != cel.STRING:
        return [Cause(where, f"Invalid value: {_shown(row)}: messageExpression must evaluate to a string")]
    return _costly(program, where, "estimated messageExpression cost", times, costs)


def _shown(row: Mapping[str, Any]) -> str:
    """A rule as Go prints it."""
    texts = [quoted(row.get(key, "")) for key in ("rule", "message", "messageExpression", "fieldPath")]
    rule, message, expression, place = texts
    reason = "0xc000000000" if row.get("reason") else "nil"
    old = "0xc000000000" if row.get("optionalOldSelf") is not None else "nil"
    return (
        f"apiextensions.ValidationRule{{Rule:{rule}, Message:{message}, MessageExpression:{expression}, "
        f"Reason:(*apiextensions.FieldValueErrorReason)({reason}), FieldPath:{place}, OptionalOldSelf:(*bool)({old})}}"
    )
