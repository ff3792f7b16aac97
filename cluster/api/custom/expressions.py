"""The rules in `x-kubernetes-validations`: compiled once a definition, evaluated on every write.

Transition rules (those that name `oldSelf`) run where an old value can be told: not within lists without keys. What
an update leaves as it was may go on breaking a rule that is no transition rule.

Source: k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from steersman.cluster.api import cel
from steersman.cluster.api.cel.values import NONE, Optional
from steersman.cluster.api.custom.correlation import MISSING, OldItems, list_keys, unchanged
from steersman.cluster.api.rules.fields import forbidden, required, show
from steersman.cluster.meta.errors import Cause

#: what the rules of one object may cost together
OBJECT_COST_MAX = 10_000_000
#: the longest message that an expression may make, in bytes
_MESSAGE_BYTES_MAX = 5 * 1024
_NO_MORE = "no further validation rules will be run"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, compiled.

    Args:
        raw: as written in the schema.
        message: makes the message, where an expression does.
        is_transition: whether it compares with the old value; without one it is skipped, unless that is `optional`.
    """

    raw: Mapping[str, Any]
    program: cel.Program
    message: cel.Program | None
    is_transition: bool
    optional: bool

    @property
    def shown(self) -> str:
        return str(self.raw.get("message") or self.raw["rule"]).strip()


@dataclass(slots=True)
class Rules:
    """The rules of a schema and of what is below it; only where there are any.

    Args:
        schema: as written; kind: its type; keys: of a list with keys.
    """

    schema: Mapping[str, Any]
    kind: str
    own: tuple[Rule, ...] = ()
    properties: dict[str, Rules] = field(default_factory=dict)
    items: Rules | None = None
    additional: Rules | None = None
    keys: tuple[str, ...] = ()

    @property
    def is_atomic(self) -> bool:
        """Whether it is a map that is replaced as a whole, so that no transition rule runs below."""
        return self.schema.get("x-kubernetes-map-type") == "atomic"


class Scope:
    """What the rules at one place of a schema may name.

    Args:
        resource: whether the schema is that of an object with metadata.
    """

    def __init__(self, schema: Mapping[str, Any], *, resource: bool) -> None:
        self._kind = cel.schema_type(schema, "object", resource=resource)

    def declarations(self, raw: Mapping[str, Any]) -> cel.Declarations | None:
        """Those of one rule; None when nothing here has a type."""
        if self._kind is None:
            return None
        old = cel.Type("optional_type", (self._kind,)) if raw.get("optionalOldSelf") else self._kind
        return cel.Declarations(variables={"self": self._kind, "oldSelf": old})

    def compile(self, raw: Mapping[str, Any]) -> Rule | None:
        """Compiles one rule; raises CelError."""
        declared = self.declarations(raw)
        if declared is None:
            return None
        program = cel.compile(raw["rule"], declared)
        text = raw.get("messageExpression")
        message = cel.compile(text, declared) if text else None
        return Rule(raw, program, message, "oldSelf" in program.inputs, bool(raw.get("optionalOldSelf")))


def compile_rules(schema: Mapping[str, Any], *, resource: bool = True) -> Rules | None:
    """Returns every rule of a schema; None when there is none.

    Args:
        resource: whether the schema is that of an object with metadata.
    """
    rows = schema.get("x-kubernetes-validations") or ()
    scope = Scope(schema, resource=resource) if rows else None
    own = [scope.compile(row) for row in rows] if scope is not None else []
    properties = {
        key: below
        for key, child in (schema.get("properties") or {}).items()
        if not (resource and key == "metadata") and (below := _below(child)) is not None
    }
    items, additional = _below(schema.get("items")), _below(schema.get("additionalProperties"))
    if not (own or properties or items or additional):
        return None
    return Rules(
        schema=schema,
        kind=str(schema.get("type", "")),
        own=tuple(rule for rule in own if rule is not None),
        properties=properties,
        items=items,
        additional=additional,
        keys=list_keys(schema),
    )


def _below(schema: Any) -> Rules | None:
    if not isinstance(schema, Mapping):
        return None
    return compile_rules(schema, resource=bool(schema.get("x-kubernetes-embedded-resource")))


def broken_rules(rules: Rules, new: Any, old: Any = MISSING) -> list[Cause]:
    """Returns what an object breaks of its rules; what it broke before is marked as forgiven.

    Args:
        old: the object before the update; MISSING when it is new.
    """
    run = _Run(cel.Budget(OBJECT_COST_MAX))
    run.check(rules, new, _Before(old), "", None)
    return run.causes


@dataclass(frozen=True, slots=True)
class _Before:
    """What stood at a place before, or MISSING.

    Args:
        compares: whether transition rules see it: not within an object that is replaced as a whole.
    """

    value: Any = MISSING
    compares: bool = True


@dataclass(frozen=True, slots=True)
class _Pair:
    """The nearest value above that an old one belongs to: errors below count only when it has changed."""

    schema: Mapping[str, Any]
    new: Any
    old: Any

    def is_same(self) -> bool:
        return unchanged(self.schema, self.new, self.old)


class _Run:
    def __init__(self, budget: cel.Budget) -> None:
        self._budget = budget
        self.causes: list[Cause] = []
        self._stopped = False

    def check(self, rules: Rules, new: Any, before: _Before, path: str, above: _Pair | None) -> None:
        if new is None or self._stopped:
            return
        nearest = _Pair(rules.schema, new, before.value) if before.value is not MISSING else above
        old = before.value if before.compares else MISSING
        for rule in rules.own:
            self._evaluate(rule, rules, new, old, path, nearest)
            if self._stopped:
                return
        if isinstance(new, list) and rules.items is not None:
            known = OldItems(rules.keys, before.value)
            for index, item in enumerate(new):
                below = _Before(known.of(item), before.compares)
                self.check(rules.items, item, below, f"{path}[{index}]", nearest)
        elif isinstance(new, dict):
            self._fields(rules, new, before, path, nearest)

    def _fields(self, rules: Rules, new: dict[str, Any], before: _Before, path: str, nearest: _Pair | None) -> None:
        prefix = f"{path}." if path else ""
        old = before.value if isinstance(before.value, dict) else {}
        compares = before.compares and not rules.is_atomic
        for key, value in new.items():
            below = rules.properties.get(key)
            if below is not None:
                where = f"{prefix}{key}"
            elif rules.additional is not None:
                below, where = rules.additional, f"{path}[{key}]"
            else:
                continue
            self.check(below, value, _Before(old.get(key, MISSING), compares), where, nearest)

    def _evaluate(self, rule: Rule, rules: Rules, new: Any, old: Any, path: str, nearest: _Pair | None) -> None:
        has_old = old is not MISSING and old is not None
        if rule.is_transition and not has_old and not rule.optional:
            return
        values = {"self": new}
        if rule.is_transition or rule.message is not None:
            values["oldSelf"] = (Optional(old) if has_old else NONE) if rule.optional else old if has_old else None
        if self._budget.left <= 0:
            self._stop(path, rules, f"validation failed due to running out of cost budget, {_NO_MORE}")
            return
        try:
            if rule.program.evaluate(values, self._budget) is True:
                return
        except cel.BudgetExceeded as error:
            detail = f"'{error}': {_NO_MORE} due to call cost exceeds limit for rule: {rule.shown}"
            if self._budget.left < 0:
                detail = f"validation failed due to running out of cost budget, {_NO_MORE}"
            self._stop(path, rules, detail)
            return
        except cel.EvaluationError as error:
            detail = f"{error} evaluating rule: {rule.shown}"
            if str(error).startswith("no such overload"):
                meant = "call arguments did not match a supported operator, function or macro signature"
                detail = f"'{error}': {meant} for rule: {rule.shown}"
            self.causes.append(_invalid(path, rules.kind, detail))
            return
        cause = self._refusal(rule, rules, values, path)
        forgiven = not rule.is_transition and nearest is not None and nearest.is_same()
        self.causes.append(replace(cause, forgiven=True) if forgiven else cause)

    def _stop(self, path: str, rules: Rules, detail: str) -> None:
        self.causes.append(_invalid(path, rules.kind, detail))
        self._stopped = True

    def _refusal(self, rule: Rule, rules: Rules, values: dict[str, Any], path: str) -> Cause:
        where = rule.raw.get("fieldPath", "").strip().lstrip(".")
        place = f"{path}.{where}" if path and where else (path or where)
        detail = self._message(rule, values) or (
            rule.shown if rule.raw.get("message") else f"failed rule: {rule.shown}"
        )
        match rule.raw.get("reason"):
            case "FieldValueForbidden":
                return forbidden(place, detail)
            case "FieldValueRequired":
                return required(place, detail)
            case "FieldValueDuplicate":
                return Cause(place, _with_value("Duplicate value", values["self"], rules.kind), "FieldValueDuplicate")
        text = _with_value("Invalid value", values["self"], rules.kind)
        return Cause(place or "<nil>", f"{text}: {detail}", "FieldValueInvalid")

    def _message(self, rule: Rule, values: dict[str, Any]) -> str:
        """What the rule's message expression says; empty when it fails or says nothing that can be shown."""
        if rule.message is None:
            return ""
        try:
            text = rule.message.evaluate(values, self._budget)
        except (cel.EvaluationError, cel.BudgetExceeded):
            return ""
        text = text.strip() if isinstance(text, str) else ""
        return "" if "\n" in text or len(text.encode()) > _MESSAGE_BYTES_MAX else text


def _with_value(what: str, value: Any, kind: str) -> str:
    """Args: kind: the schema's type; objects and lists are not shown."""
    return what if kind in ("object", "array") else f"{what}: {show(value)}"


def _invalid(path: str, kind: str, detail: str) -> Cause:
    return Cause(path or "<nil>", f'Invalid value: "{kind}": {detail}', "FieldValueInvalid")
