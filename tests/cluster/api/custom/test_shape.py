"""Schemas whose keywords have values of other types, at depths that the API's own schema leaves open."""

from __future__ import annotations

import random
from typing import Any

import pytest

from steersman.cluster.api.custom.definition import validate_schemas
from steersman.cluster.api.custom.shape import misfits

KEYWORDS = (
    "type", "format", "pattern", "properties", "required", "enum", "allOf", "anyOf", "oneOf", "not", "items",
    "additionalProperties", "maxLength", "minItems", "maxProperties", "minimum", "multipleOf", "nullable", "default",
    "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource",
    "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-validations",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, 1, -1.5, True, "a", "object", "array", "map", "(", [], {}, ["a"], [1], {"a": 1}, [{"rule": 1}],
    [{"rule": "self == oldSelf"}],
)  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "field", "message"),
    [
        ("x", "s", 'Invalid value: "string": s in body must be of type object: "string"'),
        ({"type": 5}, "s.type", 'Invalid value: "integer": s.type in body must be of type string: "integer"'),
        (
            {"items": {"maxItems": "a"}},
            "s.items.maxItems",
            's.items.maxItems in body must be of type integer: "string"',
        ),
        ({"items": [{}]}, "s.items", 's.items in body must be of type object: "array"'),
        ({"additionalProperties": 1}, "s.additionalProperties", "must be of type object"),
        ({"allOf": [{"required": "a"}]}, "s.allOf[0].required", "must be of type array"),
        ({"properties": {"a": {"enum": {}}}}, "s.properties[a].enum", "must be of type array"),
        ({"required": ["a", 1]}, "s.required[1]", "must be of type string"),
        ({"x-kubernetes-validations": ["a"]}, "s.x-kubernetes-validations[0]", "must be of type object"),
        ({"x-kubernetes-validations": [{"rule": None}]}, "s.x-kubernetes-validations[0].rule", 'string: "null"'),
        ({"multipleOf": True}, "s.multipleOf", "must be of type number"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_at_its_place(schema: Any, field: str, message: str) -> None:
    (cause,) = misfits(schema, "s")
    assert cause.field == field
    assert message in cause.message


@pytest.mark.parametrize(
    "schema", [{"additionalProperties": True}, {"minimum": 1.5, "default": {"a": [1]}}, {"x-other": 5}, {}]
)
def test_a_good_schema_has_no_misfits(schema: Any) -> None:
    assert misfits(schema, "s") == []


def _schema(rng: random.Random, depth: int) -> Any:
    found: dict[str, Any] = {"type": rng.choice(("object", "array", "string", "integer"))}
    for key in rng.sample(KEYWORDS, rng.randrange(6)):
        below = rng.random() < 0.5 and depth > 0
        found[key] = rng.choice(VALUES) if not below else rng.choice(
            (_schema(rng, depth - 1), [_schema(rng, depth - 1)], {"a": _schema(rng, depth - 1)})
        )  # fmt: skip
    return found


def test_no_schema_is_too_odd_to_be_judged() -> None:
    rng = random.Random(1)
    for _ in range(1500):
        root = {"type": "object", "properties": {"a": _schema(rng, 3)}}
        validate_schemas({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": root}}]}})
