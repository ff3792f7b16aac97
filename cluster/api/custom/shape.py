"""Whether a schema is one: each keyword has a value of its type, at every depth.

The API's own schema leaves what stands below `items` and the like open; everything else here counts on it.

Source: k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1/types_jsonschema.go
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from steersman.cluster.meta.errors import Cause

#: keyword to what its value is: a scalar, or how schemas stand in it
_WORDS = {
    **dict.fromkeys(
        ("id", "$schema", "$ref", "description", "type", "format", "title", "pattern", "x-kubernetes-list-type",
         "x-kubernetes-map-type"), "string"),
    **dict.fromkeys(
        ("exclusiveMaximum", "exclusiveMinimum", "uniqueItems", "nullable", "x-kubernetes-preserve-unknown-fields",
         "x-kubernetes-embedded-resource", "x-kubernetes-int-or-string"), "boolean"),
    **dict.fromkeys(("maximum", "minimum", "multipleOf"), "number"),
    **dict.fromkeys(
        ("maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties"), "integer"),
    **dict.fromkeys(("required", "x-kubernetes-list-map-keys"), "strings"),
    **dict.fromkeys(("allOf", "oneOf", "anyOf"), "schemas"),
    **dict.fromkeys(("properties", "patternProperties", "definitions"), "map"),
    "not": "schema", "items": "schema", "additionalProperties": "schema or boolean",
    "enum": "array", "x-kubernetes-validations": "rules",
}  # fmt: skip
_RULE = {
    "rule": "string", "message": "string", "messageExpression": "string", "reason": "string", "fieldPath": "string",
    "optionalOldSelf": "boolean",
}  # fmt: skip


def misfits(schema: Any, path: str) -> list[Cause]:
    """Every value in a schema that is of the wrong type."""
    return list(_schema(schema, path))


def _schema(schema: Any, path: str) -> Iterator[Cause]:
    if not isinstance(schema, Mapping):
        yield _wrong(schema, path, "object")
        return
    for key, value in schema.items():
        kind = _WORDS.get(key)
        if kind is not None:
            yield from _value(value, kind, f"{path}.{key}")


def _value(value: Any, kind: str, path: str) -> Iterator[Cause]:
    match kind:
        case "schema or boolean" if isinstance(value, bool):
            return
        case "schema" | "schema or boolean":
            yield from _schema(value, path)
        case "schemas" if isinstance(value, list):
            for index, part in enumerate(value):
                yield from _schema(part, f"{path}[{index}]")
        case "map" if isinstance(value, Mapping):
            for key, part in value.items():
                yield from _schema(part, f"{path}[{key}]")
        case "strings" if isinstance(value, list):
            for index, part in enumerate(value):
                yield from _value(part, "string", f"{path}[{index}]")
        case "rules" if isinstance(value, list):
            for index, part in enumerate(value):
                yield from _rule(part, f"{path}[{index}]")
        case _ if not _is(value, kind):
            yield _wrong(value, path, "array" if kind in ("schemas", "strings", "rules") else kind)


def _rule(rule: Any, path: str) -> Iterator[Cause]:
    if not isinstance(rule, Mapping):
        yield _wrong(rule, path, "object")
        return
    for key, value in rule.items():
        if key in _RULE and not _is(value, _RULE[key]):
            yield _wrong(value, f"{path}.{key}", _RULE[key])


def _is(value: Any, kind: str) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "array":
            return isinstance(value, list)
    return False


def _wrong(value: Any, path: str, kind: str) -> Cause:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    seen = names.get(type(value), "null")
    detail = f'{path} in body must be of type {kind}: "{seen}"'
    return Cause(path, f'Invalid value: "{seen}": {detail}', "FieldValueTypeInvalid")
