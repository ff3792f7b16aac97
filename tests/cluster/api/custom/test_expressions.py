"""Rules in `x-kubernetes-validations`: what they refuse, in which words, and what an update may leave as it was."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.api.custom.correlation import MISSING
from steersman.cluster.api.custom.expressions import compile_rules
from steersman.cluster.api.custom.values import validate_custom, validate_custom_status

STRING = {"type": "string"}
INTEGER = {"type": "integer"}


def _object(properties: dict[str, Any], *rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "x-kubernetes-validations": list(rules), **more}


def _check(spec: dict[str, Any], new: Any, old: Any = MISSING) -> list[tuple[str, str]]:
    schema = {"type": "object", "properties": {"spec": spec}}
    before = old if old is MISSING else {"metadata": {"name": "a"}, "spec": old}
    causes = validate_custom(schema, compile_rules(schema), {"metadata": {"name": "a"}, "spec": new}, before)
    return [(cause.field, cause.message) for cause in causes if not cause.forgiven]


@pytest.mark.parametrize(
    ("rule", "field", "message"),
    [
        ({"rule": "self.n < 5"}, "spec", 'Invalid value: failed rule: self.n < 5'),
        ({"rule": "self.n < 5", "message": " too big "}, "spec", 'Invalid value: too big'),
        ({"rule": "self.n < 5", "messageExpression": "'n is %d'.format([self.n])"}, "spec",
         'Invalid value: n is 9'),
        ({"rule": "self.n < 5", "message": "big", "messageExpression": "''"}, "spec", 'Invalid value: big'),
        ({"rule": "self.n < 5", "fieldPath": ".n"}, "spec.n", 'Invalid value: failed rule: self.n < 5'),
        ({"rule": "self.n < 5", "reason": "FieldValueForbidden", "message": "no"}, "spec", "Forbidden: no"),
        ({"rule": "self.n < 5", "reason": "FieldValueRequired", "message": "no"}, "spec", "Required value: no"),
        ({"rule": "self.n < 5", "reason": "FieldValueDuplicate"}, "spec", "Duplicate value"),
        ({"rule": "self.s == 'x'"}, "spec", 'Invalid value: "object": no such key: s evaluating rule: self.s == \'x\''),
        ({"rule": "self.any + 1 == 2"}, "spec",
         "Invalid value: \"object\": 'no such overload': call arguments did not match a supported operator, function "
         "or macro signature for rule: self.any + 1 == 2"),
    ],
)  # fmt: skip
def test_a_broken_rule_says_what_kubernetes_says(rule: dict[str, Any], field: str, message: str) -> None:
    spec = _object({"n": INTEGER, "s": STRING, "any": {"x-kubernetes-int-or-string": True}}, rule)
    assert _check(spec, {"n": 9, "any": "a"}) == [(field, message)]


def test_rules_are_looked_at_wherever_there_is_a_value() -> None:
    rule = {"rule": "self > 0"}
    number = {**INTEGER, "x-kubernetes-validations": [rule]}
    spec = _object(
        {
            "list": {"type": "array", "items": number},
            "map": {"type": "object", "additionalProperties": number},
            "n": number,
        }
    )
    found = _check(spec, {"list": [1, 0], "map": {"a": 0, "b": 2}})
    assert [field for field, _ in found] == ["spec.list[1]", "spec.map[a]"]
    assert found[0][1] == "Invalid value: 0: failed rule: self > 0"


def test_a_rule_at_the_root_sees_the_name() -> None:
    schema = {**_object({}, {"rule": "self.metadata.name.startsWith('a')"})}
    rules = compile_rules(schema)
    assert validate_custom(schema, rules, {"metadata": {"name": "abc"}}) == []
    cause = validate_custom(schema, rules, {"metadata": {"name": "xyz"}})[0]
    assert (cause.field, cause.message) == (
        "<nil>", "Invalid value: failed rule: self.metadata.name.startsWith('a')",
    )  # fmt: skip


KEEP = {"rule": "self == oldSelf", "message": "immutable"}


@pytest.mark.parametrize(
    ("schema", "new", "old", "fields"),
    [
        ({**STRING, "x-kubernetes-validations": [KEEP]}, "a", "b", ["spec.f"]),
        ({**STRING, "x-kubernetes-validations": [KEEP]}, "a", "a", []),
        ({**STRING, "x-kubernetes-validations": [KEEP]}, "a", None, []),
        ({"type": "object", "additionalProperties": {**STRING, "x-kubernetes-validations": [KEEP]}},
         {"a": "1", "b": "2"}, {"a": "1", "b": "3"}, ["spec.f[b]"]),
        ({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
          "items": _object({"k": STRING, "v": {**STRING, "x-kubernetes-validations": [KEEP]}})},
         [{"k": "new", "v": "1"}, {"k": "a", "v": "2"}], [{"k": "a", "v": "1"}], ["spec.f[1].v"]),
    ],
)  # fmt: skip
def test_a_transition_rule_compares_with_the_old_value(schema: Any, new: Any, old: Any, fields: list[str]) -> None:
    spec = {"type": "object", "properties": {"f": schema}}
    before = {} if old is None else {"f": old}
    assert [field for field, _ in _check(spec, {"f": new}, before)] == fields
    assert _check(spec, {"f": new}) == []


def test_an_optional_old_value_lets_a_transition_rule_run_on_create() -> None:
    rule = {"rule": "self > oldSelf.orValue(0)", "optionalOldSelf": True}
    spec = {"type": "object", "properties": {"n": {**INTEGER, "x-kubernetes-validations": [rule]}}}
    assert _check(spec, {"n": 1}) == []
    assert _check(spec, {"n": 0}) != []
    assert _check(spec, {"n": 3}, {"n": 2}) == []
    assert _check(spec, {"n": 2}, {"n": 3}) != []


@pytest.mark.parametrize(
    ("new", "old", "fields"),
    [
        ({"n": 9, "s": "b"}, {"n": 9, "s": "a"}, []),
        ({"n": 8, "s": "b"}, {"n": 9, "s": "b"}, ["spec.n", "spec.n"]),
        ({"n": 9, "list": [7]}, {"n": 9}, ["spec.list[0]"]),
        ({"n": 9, "list": [7, 1]}, {"n": 9, "list": [7]}, ["spec.list[0]"]),
        ({"n": 9, "rows": [{"k": "a", "v": 7}, {"k": "b", "v": 1}]}, {"n": 9, "rows": [{"k": "a", "v": 7}]}, []),
        ({"n": 9, "rows": [{"k": "a", "v": 8}]}, {"n": 9, "rows": [{"k": "a", "v": 7}]}, ["spec.rows[0].v"]),
        ({"n": 1, "extra": "x"}, {}, []),
    ],
)
def test_what_did_not_change_may_stay_broken(new: Any, old: Any, fields: list[str]) -> None:
    small = {**INTEGER, "maximum": 5}
    spec = {
        "type": "object",
        "properties": {
            "n": {**small, "x-kubernetes-validations": [{"rule": "self < 5"}]},
            "s": STRING, "extra": STRING,
            "list": {"type": "array", "items": small},
            "rows": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": STRING, "v": small}},
            },
        },
    }  # fmt: skip
    assert [field for field, _ in _check(spec, new, old)] == fields


#: each keyword, and a value that breaks it
BROKEN = {
    "type": (STRING, 1), "enum": ({**STRING, "enum": ["a"]}, "b"), "pattern": ({**STRING, "pattern": "^a$"}, "b"),
    "format": ({**STRING, "format": "ipv4"}, "b"), "minLength": ({**STRING, "minLength": 2}, "b"),
    "maxLength": ({**STRING, "maxLength": 1}, "bb"), "minimum": ({**INTEGER, "minimum": 2}, 1),
    "exclusiveMinimum": ({**INTEGER, "minimum": 1, "exclusiveMinimum": True}, 1),
    "maximum": ({**INTEGER, "maximum": 0}, 1),
    "exclusiveMaximum": ({**INTEGER, "maximum": 1, "exclusiveMaximum": True}, 1),
    "multipleOf": ({**INTEGER, "multipleOf": 2}, 1), "int-or-string": ({"x-kubernetes-int-or-string": True}, 1.5),
    "minItems": ({"type": "array", "items": STRING, "minItems": 2}, ["a"]),
    "maxItems": ({"type": "array", "items": STRING, "maxItems": 1}, ["a", "b"]),
    "items": ({"type": "array", "items": STRING}, [1]),
    "required": ({"type": "object", "properties": {"a": STRING}, "required": ["a"]}, {}),
    "minProperties": ({"type": "object", "additionalProperties": STRING, "minProperties": 1}, {}),
    "maxProperties": ({"type": "object", "additionalProperties": STRING, "maxProperties": 0}, {"a": ""}),
    "nullable": (STRING, None), "not": ({**STRING, "not": {"pattern": "b"}}, "b"),
    **{word: ({**STRING, word: [{"pattern": "a"}]}, "b") for word in ("allOf", "anyOf", "oneOf")},
    "rule": ({**STRING, "x-kubernetes-validations": [{"rule": "self != 'b'"}]}, "b"),
    "optional": ({**STRING, "x-kubernetes-validations": [
        {"rule": "oldSelf.hasValue() || self != 'b'", "optionalOldSelf": True}]}, "b"),
}  # fmt: skip


@pytest.mark.parametrize("keyword", BROKEN)
def test_every_keyword_is_forgiven_where_the_old_value_can_be_told(keyword: str) -> None:
    schema, value = BROKEN[keyword]
    rows = {"type": "array", "items": {"type": "object", "properties": {"k": STRING, "v": schema, "w": STRING}}}
    keyed = {**rows, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}
    both = {"properties": {"v": schema, "w": STRING}, "type": "object"}
    places = {
        "field": (both, {"v": value}, {"v": value, "w": ""}, True),
        "atomic map": ({**both, "x-kubernetes-map-type": "atomic"}, {"v": value}, {"v": value, "w": ""},
                       keyword != "optional"),
        "map": ({"type": "object", "additionalProperties": schema}, {"v": value}, {"v": value, "w": value}, False),
        "list with keys": (keyed, [{"k": "a", "v": value}], [{"k": "b"}, {"k": "a", "v": value}], True),
        "item that is new": (keyed, [{"k": "b"}], [{"k": "b"}, {"k": "a", "v": value}], False),
        "list": (rows, [{"v": value}], [{"v": value}, {}], False),
        "same list": (rows, [{"v": value}], [{"v": value}], keyword != "optional"),
    }  # fmt: skip
    for place, (spec, old, new, forgiven) in places.items():
        found = _check({"type": "object", "properties": {"f": spec}}, {"f": new}, {"f": old})
        assert (found == []) is forgiven, place


@pytest.mark.parametrize(
    ("schema", "new", "old", "fields"),
    [
        ({"type": "array", "maxItems": 1, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
          "items": {"type": "object", "properties": {"k": STRING}}}, [{"k": "a"}, {"k": "b"}],
         [{"k": "b"}, {"k": "a"}], []),
        ({"type": "array", "maxItems": 1, "items": STRING}, ["a", "b"], ["b", "a"], ["spec.f"]),
        ({"type": "object", "x-kubernetes-preserve-unknown-fields": True, "required": ["a"]}, {"b": 1}, {"b": 1},
         ["spec.f.a"]),
        ({"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True},
         {"kind": "A"}, {"kind": "A"}, ["spec.f.apiVersion"]),
        ({"type": "object", "allOf": [{"properties": {"a": {"maximum": 1}}}],
          "properties": {"a": INTEGER, "b": INTEGER}}, {"a": 2, "b": 1}, {"a": 2, "b": 2}, ["spec.f.a", "<nil>"]),
    ],
)  # fmt: skip
def test_what_counts_as_unchanged(schema: Any, new: Any, old: Any, fields: list[str]) -> None:
    spec = {"type": "object", "properties": {"f": schema}}
    assert [field for field, _ in _check(spec, {"f": new}, {"f": old})] == fields


def test_a_rule_at_the_root_is_never_forgiven() -> None:
    schema = _object({"spec": _object({"n": INTEGER})}, {"rule": "self.spec.n < 5"})
    obj = {"metadata": {"name": "a"}, "spec": {"n": 9}}
    assert [cause.forgiven for cause in validate_custom(schema, compile_rules(schema), obj, obj)] == [False]


@pytest.mark.parametrize(
    ("new", "old", "causes"),
    [
        ({"phase": "b"}, {}, ['status.phase: Unsupported value: "b": supported values: "a"']),
        ({"phase": "b"}, {"phase": "b"}, []),
        ({"phase": 1}, {"phase": "b"},
         ['status.phase: Invalid value: "integer": phase in body must be of type string: "integer"',
          'status.phase: Unsupported value: 1: supported values: "a"']),
        ("x", {}, ['status: Invalid value: "string":  in body must be of type object: "string"']),
        (None, {"phase": "b"}, []),
    ],
)  # fmt: skip
def test_a_write_of_the_status_is_checked_by_what_the_schema_says_of_it(new: Any, old: Any, causes: list[str]) -> None:
    status = {"type": "object", "properties": {"phase": {**STRING, "enum": ["a"]}}}
    spec = {"type": "object", "properties": {"n": {**INTEGER, "maximum": 5}}}
    schema = {"type": "object", "required": ["other"], "properties": {"spec": spec, "status": status}}
    obj = {"metadata": {"name": "a"}, "spec": {"n": 9}}
    found = validate_custom_status(schema, None, obj if new is None else {**obj, "status": new}, {**obj, "status": old})
    assert [f"{cause.field}: {cause.message}" for cause in found] == causes


def test_a_broken_rule_on_something_unchanged_is_forgiven_but_a_broken_transition_is_not() -> None:
    spec = _object({"n": INTEGER}, {"rule": "self.n < 5"}, {"rule": "oldSelf.n < 5"})
    assert [message for _, message in _check(spec, {"n": 9}, {"n": 9})] == ["Invalid value: failed rule: oldSelf.n < 5"]


def test_rules_wait_until_the_types_are_right() -> None:
    spec = _object({"n": INTEGER}, {"rule": "self.n < 5"})
    assert [message for _, message in _check(spec, {"n": "text"})] == [
        'Invalid value: "string": spec.n in body must be of type integer: "string"',
        "Invalid value: null: some validation rules were not checked because the object was invalid; "
        "correct the existing errors to complete validation",
    ]


def test_rules_stop_when_they_have_cost_too_much() -> None:
    numbers = {"type": "array", "items": INTEGER, "x-kubernetes-validations": [
        {"rule": "self.all(a, self.all(b, a != b || a == b))"}, {"rule": "size(self) < 1"}]}  # fmt: skip
    spec = {"type": "object", "properties": {"a": numbers}}
    found = _check(spec, {"a": list(range(2000))})
    assert len(found) == 1
    assert "no further validation rules will be run" in found[0][1]


@pytest.mark.parametrize(
    ("value", "causes"),
    [
        ([{"k": "a"}, {"k": "a"}], [("spec.f[1]", 'Duplicate value: {"k":"a"}')]),
        ([{"k": "a"}, {"k": "b"}], []),
    ],
)
def test_items_with_the_same_keys_are_duplicates(value: Any, causes: list[tuple[str, str]]) -> None:
    rows = {
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
        "items": {"type": "object", "properties": {"k": STRING}},
    }  # fmt: skip
    assert _check({"type": "object", "properties": {"f": rows}}, {"f": value}) == causes


@pytest.mark.parametrize(("old", "fields"), [(["a", "a"], []), (["a", "b"], ["spec.f[1]"])])
def test_items_may_be_repeated_where_they_were_before(old: Any, fields: list[str]) -> None:
    rows = {"type": "array", "x-kubernetes-list-type": "set", "items": STRING}
    found = _check({"type": "object", "properties": {"f": rows}}, {"f": ["b", "b"]}, {"f": old})
    assert [field for field, _ in found] == fields


def test_an_object_in_an_object_has_a_type() -> None:
    inner = {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True}
    found = _check(
        {"type": "object", "properties": {"t": inner}}, {"t": {"kind": "A_b", "metadata": {"labels": {"a b": "c"}}}}
    )
    assert [field for field, _ in found] == ["spec.t.apiVersion", "spec.t.kind", "spec.t.metadata.labels"]


def test_the_name_can_be_restricted() -> None:
    schema = {"type": "object", "properties": {"metadata": {"type": "object", "properties": {
        "name": {"type": "string", "maxLength": 3}}}}}  # fmt: skip
    assert validate_custom(schema, None, {"metadata": {"name": "abc"}}) == []
    assert validate_custom(schema, None, {"metadata": {"name": "abcd"}})[0].field == "metadata.name"
    assert validate_custom(schema, None, {"metadata": {"name": "abcd"}}, {"metadata": {"name": "abcd"}}) == []
