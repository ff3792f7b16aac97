"""Structural schemas of custom resources: what is pruned, what is filled in, what is refused.

Rules in the Common Expression Language (`x-kubernetes-validations`) are kept in the definition and not evaluated.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from steersman.cluster.api.row import Kind
from steersman.cluster.api.rules.fields import bad, duplicate, forbidden, required, show, unsupported
from steersman.cluster.api.schema.formats import FORMATS
from steersman.cluster.api.schema.node import SchemaNode, SchemaSet
from steersman.cluster.api.schema.walk import Findings, walk
from steersman.cluster.meta.errors import Cause

_OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
_FORBIDDEN = (
    "$ref", "definitions", "dependencies", "deprecated", "discriminator", "id", "patternProperties", "readOnly",
    "writeOnly", "xml",
)  # fmt: skip


def custom_node(base: SchemaSet, kind: Kind) -> SchemaNode:
    """The schema of a custom resource as a node: its own properties beside the metadata of every object."""
    raw = dict(kind.schema or {})
    properties = dict(raw.get("properties") or {})
    for key in ("apiVersion", "kind"):
        properties[key] = {"type": "string"}
    properties["metadata"] = {"$ref": f"#/$defs/{_OBJECT_META}"}
    raw["properties"], raw["type"] = properties, "object"
    return SchemaSet({}, structural=True, base=base).resolve(raw)


def decode_custom(node: SchemaNode, tree: Any) -> tuple[Any, Findings]:
    """Prunes an object in the way of its definition; metadata is decoded as that of built-in kinds."""
    findings = Findings()
    found = {}
    for key, value in tree.items():
        if key == "metadata":
            meta, inner = walk(node.properties["metadata"], value)
            findings.unknown += [f"metadata.{path}" for path in inner.unknown]
            findings.errors += inner.errors
            found[key] = meta
        elif key in ("apiVersion", "kind"):
            found[key] = value
        elif key in node.properties:
            found[key] = _prune(node.properties[key], value, key, findings)
        elif node.preserve_unknown:
            found[key] = value
        else:
            findings.unknown.append(key)
    return found, findings


def _prune(node: SchemaNode, value: Any, path: str, findings: Findings) -> Any:
    if isinstance(value, list):
        items = node.items
        if items is None:
            return value
        return [_prune(items, item, f"{path}[{index}]", findings) for index, item in enumerate(value)]
    if not isinstance(value, dict) or node.type in ("any", "string", "int-or-string"):
        return value
    additional, properties = node.additional, node.properties
    found = {}
    for key, item in value.items():
        below = f"{path}.{key}"
        child = properties.get(key) or additional
        if child is not None:
            if item is None and not child.nullable and child.default is not None:
                continue
            found[key] = _prune(child, item, below, findings)
        elif node.preserve_unknown or (node.embedded_resource and key in ("apiVersion", "kind", "metadata")):
            found[key] = item
        else:
            findings.unknown.append(below)
    return found


def fill_defaults(schema: Mapping[str, Any], value: Any) -> None:
    """Fills in the defaults that a schema declares, in place."""
    if isinstance(value, dict):
        for key, child in (schema.get("properties") or {}).items():
            if key not in value and "default" in child:
                value[key] = copy.deepcopy(child["default"])
            if key in value and not (key == "metadata" and "default" not in child):
                fill_defaults(child, value[key])
        additional = schema.get("additionalProperties")
        if isinstance(additional, Mapping):
            for key, item in value.items():
                if key not in (schema.get("properties") or {}):
                    fill_defaults(additional, item)
    elif isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        for item in value:
            fill_defaults(schema["items"], item)


def validate_value(schema: Mapping[str, Any], value: Any, path: str) -> list[Cause]:
    """Every rule of a schema that a value breaks."""
    if value is None and (schema.get("nullable") or not schema.get("type")):
        return []
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            return [_wrong_type(path, value, "integer,string")]
    elif schema.get("type") and not _is(value, schema["type"]):
        return [_wrong_type(path, value, schema["type"])]
    causes: list[Cause] = []
    if isinstance(value, str):
        causes += _string(schema, value, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        causes += _number(schema, value, path)
    elif isinstance(value, list):
        causes += _array(schema, value, path)
    elif isinstance(value, dict):
        causes += _object(schema, value, path)
    if "enum" in schema and value not in schema["enum"]:
        causes.append(
            unsupported(path, value, [item if isinstance(item, str) else show(item) for item in schema["enum"]])
        )
    return causes + _combined(schema, value, path)


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(kind, (object,)))


def _wrong_type(path: str, value: Any, kind: str) -> Cause:
    seen = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    name = seen.get(type(value), "null")
    detail = f'{path or "<nil>"} in body must be of type {kind}: "{name}"'
    return Cause(path or "<nil>", f'Invalid value: "{name}": {detail}', "FieldValueTypeInvalid")


def _combined(schema: Mapping[str, Any], value: Any, path: str) -> list[Cause]:
    causes: list[Cause] = []
    for part in schema.get("allOf") or ():
        causes += validate_value(part, value, path)
    any_of = () if schema.get("x-kubernetes-int-or-string") else schema.get("anyOf")
    if any_of and all(validate_value(part, value, path) for part in any_of):
        causes.append(bad(path, value, f'"{path}" must validate at least one schema (anyOf)'))
    if schema.get("oneOf"):
        fitting = sum(not validate_value(part, value, path) for part in schema["oneOf"])
        if fitting != 1:
            found = "Found none valid" if not fitting else f"Found {fitting} valid alternatives"
            causes.append(bad(path, value, f'"{path}" must validate one and only one schema (oneOf). {found}'))
    if schema.get("not") and not validate_value(schema["not"], value, path):
        causes.append(bad(path, value, f'"{path}" must not validate the schema (not)'))
    return causes


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str] | None:
    try:
        return re.compile(text)
    except re.error:
        return None


def _string(schema: Mapping[str, Any], value: str, path: str) -> list[Cause]:
    causes = []
    size = len(value)
    if size > schema.get("maxLength", size):
        causes.append(Cause(path, f"Too long: may not be more than {schema['maxLength']} bytes", "FieldValueTooLong"))
    if size < schema.get("minLength", 0):
        causes.append(bad(path, value, f"{path} in body should be at least {schema['minLength']} chars long"))
    if "pattern" in schema:
        pattern = _pattern(schema["pattern"])
        if pattern is not None and not pattern.search(value):
            causes.append(bad(path, value, f"{path} in body should match '{schema['pattern']}'"))
    check = FORMATS.get(schema.get("format", ""))
    if check is not None and not check(value):
        causes.append(bad(path, value, f"{path} in body must be of type {schema['format']}: {show(value)}"))
    return causes


def _number(schema: Mapping[str, Any], value: float, path: str) -> list[Cause]:
    causes = []
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and (value < low or (schema.get("exclusiveMinimum") and value == low)):
        word = "greater than" if schema.get("exclusiveMinimum") else "greater than or equal to"
        causes.append(bad(path, value, f"{path} in body should be {word} {low}"))
    if high is not None and (value > high or (schema.get("exclusiveMaximum") and value == high)):
        word = "less than" if schema.get("exclusiveMaximum") else "less than or equal to"
        causes.append(bad(path, value, f"{path} in body should be {word} {high}"))
    step = schema.get("multipleOf")
    if step and abs(value / step - round(value / step)) > 1e-9:
        causes.append(bad(path, value, f"{path} in body should be a multiple of {step}"))
    limit = {"int32": 2**31, "int64": 2**63}.get(schema.get("format", ""))
    if limit and not -limit <= value < limit:
        causes.append(bad(path, value, f"{path} in body must be of type {schema['format']}: {show(value)}"))
    return causes


def _array(schema: Mapping[str, Any], value: list[Any], path: str) -> list[Cause]:
    causes: list[Cause] = []
    size = len(value)
    if size > schema.get("maxItems", size):
        detail = f"Too many: {size}: must have at most {schema['maxItems']} items"
        causes.append(Cause(path, detail, "FieldValueTooMany"))
    if size < schema.get("minItems", 0):
        causes.append(bad(path, value, f"{path} in body should have at least {schema['minItems']} items"))
    kind = schema.get("x-kubernetes-list-type")
    keys = schema.get("x-kubernetes-list-map-keys") or ()
    seen: set[bytes] = set()
    if kind in ("set", "map") or schema.get("uniqueItems"):
        for index, item in enumerate(value):
            own = {key: item.get(key) for key in keys} if kind == "map" and isinstance(item, dict) else item
            mark = orjson.dumps(own, option=orjson.OPT_SORT_KEYS)
            if mark in seen:
                causes.append(duplicate(f"{path}[{index}]", own))
            seen.add(mark)
    items = schema.get("items")
    if isinstance(items, Mapping):
        for index, item in enumerate(value):
            causes += validate_value(items, item, f"{path}[{index}]")
    return causes


def _object(schema: Mapping[str, Any], value: dict[str, Any], path: str) -> list[Cause]:
    causes: list[Cause] = []
    size = len(value)
    if size > schema.get("maxProperties", size):
        detail = f"Too many: {size}: must have at most {schema['maxProperties']} items"
        causes.append(Cause(path, detail, "FieldValueTooMany"))
    if size < schema.get("minProperties", 0):
        causes.append(bad(path, value, f"{path} in body should have at least {schema['minProperties']} properties"))
    prefix = f"{path}." if path else ""
    for key in schema.get("required") or ():
        if key not in value:
            causes.append(required(f"{prefix}{key}"))
    properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
    for key, item in value.items():
        child = properties.get(key)
        if child is None and isinstance(additional, Mapping):
            child = additional
        if child is not None:
            causes += validate_value(child, item, f"{prefix}{key}")
    return causes


def structural_errors(path: str, schema: Any, *, top: bool = False) -> list[Cause]:
    """What makes a schema not structural."""
    causes: list[Cause] = []
    open_value = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if not schema.get("type") and (top or not open_value):
        detail = "must not be empty at the root" if top else "must not be empty for specified object fields"
        causes.append(required(f"{path}.type", detail))
    elif schema.get("type") and schema["type"] not in _TYPES:
        causes.append(unsupported(f"{path}.type", schema["type"], list(_TYPES)))
    elif top and schema.get("type") != "object":
        causes.append(bad(f"{path}.type", schema.get("type"), "must be object at the root"))
    for key in _FORBIDDEN:
        if schema.get(key):
            causes.append(forbidden(f"{path}.{key}", "must not be set"))
    if schema.get("uniqueItems"):
        detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        causes.append(forbidden(f"{path}.uniqueItems", detail))
    if schema.get("type") == "array" and not isinstance(schema.get("items"), Mapping):
        causes.append(required(f"{path}.items", "must be specified"))
    if "pattern" in schema and _pattern(schema["pattern"]) is None:
        causes.append(bad(f"{path}.pattern", schema["pattern"], "must be a valid regular expression"))
    for key, child in (schema.get("properties") or {}).items():
        if not (top and key == "metadata"):
            causes += structural_errors(f"{path}.properties[{key}]", child)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            causes += structural_errors(f"{path}.{key}", schema[key])
    if "default" in schema:
        for cause in validate_value(schema, schema["default"], ""):
            causes.append(bad(f"{path}.default", schema["default"], cause.message.partition(": ")[2]))
    return causes
