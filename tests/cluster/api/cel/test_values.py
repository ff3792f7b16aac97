"""JSON trees as typed values, and what evaluations may cost."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.api import cel
from steersman.cluster.api.cel import (
    DYN,
    Budget,
    BudgetExceeded,
    Declarations,
    EvaluationError,
    Field,
    ObjectType,
    as_json,
    schema_type,
)

_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "ratio": {"type": "number"},
        "since": {"type": "string", "format": "date-time"},
        "day": {"type": "string", "format": "date"},
        "wait": {"type": "string", "format": "duration"},
        "data": {"type": "string", "format": "byte"},
        "ratios": {"type": "array", "items": {"type": "number"}},
        "times": {"type": "object", "additionalProperties": {"type": "string", "format": "date-time"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "map": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}},
        },
        "list": {"type": "array", "items": {"type": "string"}},
        "template": {"type": "object", "x-kubernetes-embedded-resource": True},
        "dotted.name/x": {"type": "string"},
    },
}  # fmt: skip


def _evaluate(expression: str, value: Any, old: Any = None) -> Any:
    kind = schema_type(_SCHEMA, "object", resource=True)
    assert kind is not None
    declared = Declarations(variables={"self": kind, "oldSelf": kind})
    return cel.compile(expression, declared).evaluate({"self": value, "oldSelf": old}, Budget(1e7))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("self.ratio / 2.0 == 1.5", {"ratio": 3}),
        ("self.since < timestamp('2025-01-01T00:00:00Z')", {"since": "2024-06-01T10:00:00+02:00"}),
        ("self.day.getFullYear() == 2024", {"day": "2024-06-01"}),
        ("self.wait > duration('59s')", {"wait": "1m"}),
        ("self.data == b'hi'", {"data": "aGk="}),
        ("self.ratios.all(r, r >= 1.0) && self.ratios == [1.0, 2.0]", {"ratios": [1, 2]}),
        ("self.times.all(k, v, v.getFullYear() == 2024) && self.times.a.getMonth() == 0",
         {"times": {"a": "2024-01-01T00:00:00Z"}}),
        ("self.metadata.name == 'x' && self.kind == 'K'", {"kind": "K", "metadata": {"name": "x"}}),
        ("self.template.metadata.name == 'x'", {"template": {"metadata": {"name": "x"}}}),
        ("self.dotted__dot__name__slash__x == 'y'", {"dotted.name/x": "y"}),
        ("!has(self.ratio) && has(self.data)", {"data": ""}),
    ],
)  # fmt: skip
def test_a_field_is_read_as_its_schema_says(expression: str, value: Any) -> None:
    assert _evaluate(expression, value) is True


@pytest.mark.parametrize(
    ("expression", "new", "old"),
    [
        ("self.set == oldSelf.set", {"set": ["a", "b"]}, {"set": ["b", "a"]}),
        ("self.list != oldSelf.list", {"list": ["a", "b"]}, {"list": ["b", "a"]}),
        ("self.map == oldSelf.map", {"map": [{"k": "a", "v": 1}, {"k": "b"}]},
         {"map": [{"k": "b"}, {"k": "a", "v": 1}]}),
        ("self.map != oldSelf.map", {"map": [{"k": "a", "v": 1}]}, {"map": [{"k": "a", "v": 2}]}),
        ("self.set + oldSelf.set == ['a', 'b', 'c']", {"set": ["a", "b"]}, {"set": ["b", "c"]}),
        ("(self.map + oldSelf.map).map(i, i.v) == [9, 2]", {"map": [{"k": "a", "v": 1}, {"k": "b", "v": 2}]},
         {"map": [{"k": "a", "v": 9}]}),
    ],
)  # fmt: skip
def test_sets_and_maps_are_compared_without_order(expression: str, new: Any, old: Any) -> None:
    assert _evaluate(expression, new, old) is True


def test_metadata_has_only_its_names() -> None:
    with pytest.raises(Exception, match="undefined field 'labels'"):
        _evaluate("self.metadata.labels.size() == 0", {})


def test_an_object_can_be_made_and_shown_as_json() -> None:
    spec = ObjectType("Object.spec", fields={"replicas": Field(DYN, "replicas")})
    whole = ObjectType("Object", fields={"spec": Field(spec, "spec")})
    declared = Declarations(types={"Object": whole, "Object.spec": spec})
    program = cel.compile("Object{spec: Object.spec{replicas: 1 + 2, }}", declared)
    assert program.type == whole
    assert as_json(program.evaluate({}, Budget(1000))) == {"spec": {"replicas": 3}}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("{'d': duration('90s')}", {"d": "90s"}),
        ("b'hi'", "aGk="),
        ("[timestamp('2024-01-01T00:00:00Z')]", ["2024-01-01T00:00:00Z"]),
        ("{1: 2u}", {"1": 2}),
    ],
)
def test_a_value_has_a_json_form(expression: str, expected: Any) -> None:
    assert as_json(cel.compile(expression, Declarations()).evaluate({}, Budget(1000))) == expected


def test_an_opaque_value_has_no_json_form() -> None:
    with pytest.raises(EvaluationError):
        as_json(cel.compile("quantity('1')", Declarations()).evaluate({}, Budget(1000)))


def test_a_budget_is_shared_and_nothing_absorbs_its_end() -> None:
    declared = Declarations(variables={"self": DYN})
    program = cel.compile("self.all(a, self.all(b, self.all(c, a + b + c < 0 || true))) || true", declared)
    budget = Budget(100_000)
    with pytest.raises(BudgetExceeded, match="cost limit exceeded"):
        program.evaluate({"self": list(range(1000))}, budget)
    assert budget.left <= 0
    with pytest.raises(BudgetExceeded):
        cel.compile("1 + 1 == 2", declared).evaluate({}, budget)


def test_one_evaluation_has_a_bound_of_its_own() -> None:
    program = cel.compile("self.all(a, self.all(b, a == b || true))", Declarations(variables={"self": DYN}))
    with pytest.raises(BudgetExceeded):
        program.evaluate({"self": list(range(1000))}, Budget(1e9))


def test_fields_can_be_made_when_they_are_asked_for() -> None:
    asked: list[str] = []

    class Lazy(dict[str, Any]):
        def __missing__(self, key: str) -> Any:
            asked.append(key)
            return 5

    kind = ObjectType("variables", fields={"a": Field(DYN, "a"), "b": Field(DYN, "b")})
    program = cel.compile(
        "true || variables.b == 1 ? variables.a == 5 : false", Declarations(variables={"variables": kind})
    )
    assert program.evaluate({"variables": Lazy()}, Budget(1000)) is True
    assert asked == ["a"]
