"""The rules of the schemas in a definition: that they are structural, and that their defaults and expressions hold.

Source: k8s.io/apiextensions-apiserver/pkg/apiserver/schema/validation.go and
k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from steersman.cluster.api.cel import CelError, EvaluationError
from steersman.cluster.api.cel.library.regex import compiled
from steersman.cluster.api.custom.expression_rules import Costs, expression_causes
from steersman.cluster.api.custom.expressions import broken_rules, compile_rules
from steersman.cluster.api.custom.values import TYPES, rooted, validate_value
from steersman.cluster.api.rules.fields import bad, forbidden, required, unsupported
from steersman.cluster.api.schema.structural import prune_default
from steersman.cluster.meta.errors import Cause

Schema = Mapping[str, Any]
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]
_UNSUPPORTED_KEYS = ("id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref")
#: what may stand at the root beside a status subresource, by Go's names
_AT_ROOT = {
    "description": "Description", "type": "Type", "format": "Format", "title": "Title", "maximum": "Maximum",
    "exclusiveMaximum": "ExclusiveMaximum", "minimum": "Minimum", "exclusiveMinimum": "ExclusiveMinimum",
    "maxLength": "MaxLength", "minLength": "MinLength", "pattern": "Pattern", "maxItems": "MaxItems",
    "minItems": "MinItems", "uniqueItems": "UniqueItems", "multipleOf": "MultipleOf", "required": "Required",
    "items": "Items", "properties": "Properties", "externalDocs": "ExternalDocs", "example": "Example",
    "x-kubernetes-preserve-unknown-fields": "XPreserveUnknownFields", "x-kubernetes-validations": "XValidations",
}  # fmt: skip
#: what may not stand in a nested part of `allOf` and the like, with the word that it must be
_NESTED = {
    "type": "empty", "additionalProperties": "undefined", "default": "undefined", "title": "empty",
    "description": "empty", "nullable": "false", "externalDocs": "undefined",
    "x-kubernetes-preserve-unknown-fields": "false", "x-kubernetes-embedded-resource": "false",
    "x-kubernetes-int-or-string": "false", "x-kubernetes-list-map-keys": "empty",
    "x-kubernetes-list-type": "undefined", "x-kubernetes-map-type": "undefined", "x-kubernetes-validations": "empty",
}  # fmt: skip


def schema_causes(path: str, schema: Schema, *, has_status: bool = False) -> list[Cause]:
    """Every broken rule of a version's schema.

    Args:
        path: of the schema in the definition.
        has_status: whether the version has a status subresource.
    """
    causes: list[Cause] = []
    if has_status and any(key not in _AT_ROOT for key in schema):
        listed = f"[{' '.join(_AT_ROOT.values())}]"
        detail = f"only {listed} fields are allowed at the root of the schema if the status subresource is enabled"
        causes.append(bad(path, schema, detail))
    if schema.get("nullable"):
        causes.append(forbidden(f"{path}.nullable", "nullable cannot be true at the root"))
    structural = sorted(_invariants(schema, "root", path), key=lambda cause: f"{cause.field}: {cause.message}")
    structural += _incomplete(schema, schema, path)
    defaults = [] if structural else _defaults(schema, path, resource=True)
    costs = Costs()
    place = _Place(expressions=not structural and not defaults)
    causes += structural + defaults + _walk(schema, path, place, costs, root=True)
    return causes + costs.causes(path)


# ---- structural


def _invariants(schema: Schema, level: str, path: str) -> list[Cause]:
    causes: list[Cause] = []
    if schema.get("type") == "array" and not isinstance(schema.get("items"), Mapping):
        causes.append(required(f"{path}.items", "must be specified"))
    if isinstance(schema.get("items"), Mapping):
        causes += _invariants(schema["items"], "item", f"{path}.items")
    for key, child in (schema.get("properties") or {}).items():
        causes += _invariants(child, "field", f"{path}.properties[{key}]")
    additional = schema.get("additionalProperties")
    if additional is not None:
        if level == "root":
            causes.append(forbidden(f"{path}.additionalProperties", "must not be used at the root"))
        if isinstance(additional, Mapping):
            causes += _invariants(additional, "field", f"{path}.additionalProperties")
    causes += _extensions(schema, path) + _values(schema, level, path) + _type(schema, level, path)
    return causes + _meta(schema, level, path)


def _extensions(schema: Schema, path: str) -> list[Cause]:
    if not schema.get("x-kubernetes-int-or-string"):
        return []
    return [
        bad(f"{path}.{key}", True, "must be false if x-kubernetes-int-or-string is true")
        for key in ("x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource")
        if schema.get(key)
    ]


def _type(schema: Schema, level: str, path: str) -> list[Cause]:
    kind, embedded = schema.get("type", ""), schema.get("x-kubernetes-embedded-resource")
    causes: list[Cause] = []
    if embedded and kind != "object":
        detail = "must be object if x-kubernetes-embedded-resource is true"
        causes.append(bad(f"{path}.type", kind, detail) if kind else required(f"{path}.type", detail))
    elif not kind and not any(
        schema.get(key) for key in ("x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields")
    ):
        what = {"root": "at the root", "item": "for specified array items", "field": "for specified object fields"}
        causes.append(required(f"{path}.type", f"must not be empty {what[level]}"))
    if embedded and schema.get("additionalProperties") is not None:
        detail = "must not be used if x-kubernetes-embedded-resource is set"
        causes.append(forbidden(f"{path}.additionalProperties", detail))
    if level == "root" and kind and kind != "object":
        causes.append(bad(f"{path}.type", kind, "must be object at the root"))
    if embedded and not schema.get("x-kubernetes-preserve-unknown-fields") and not schema.get("properties"):
        detail = (
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
        )
        causes.append(required(f"{path}.properties", detail))
    return causes


def _meta(schema: Schema, level: str, path: str) -> list[Cause]:
    """The rules of what stands for `apiVersion`, `kind` and `metadata` of an object."""
    properties = schema.get("properties") or {}
    causes: list[Cause] = []
    if level != "root" and not schema.get("x-kubernetes-embedded-resource"):
        return causes
    for key in ("kind", "apiVersion"):
        if key in properties and properties[key].get("type") != "string":
            causes.append(bad(f"{path}.properties[{key}].type", properties[key].get("type", ""), "must be string"))
    meta = properties.get("metadata")
    if meta is None:
        return causes
    where = f"{path}.properties[metadata]"
    if meta.get("type") != "object":
        causes.append(bad(f"{where}.type", meta.get("type", ""), "must be object"))
    named = set(meta.get("properties") or {}) <= {"name", "generateName"}
    if level == "root" and (not named or set(meta) - {"type", "properties", "default"}):
        detail = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        causes.append(forbidden(where, detail))
    return causes


def _values(schema: Schema, level: str, path: str) -> list[Cause]:
    """The rules of what restricts values: patterns, and the parts of `allOf` and the like."""
    causes: list[Cause] = []
    open_value = schema.get("x-kubernetes-int-or-string")
    if not (open_value and schema.get("anyOf") == _INT_OR_STRING):
        for index, part in enumerate(schema.get("anyOf") or ()):
            causes += _nested(part, level, f"{path}.anyOf[{index}]")
    for index, part in enumerate(schema.get("allOf") or ()):
        if index == 0 and open_value and part.get("anyOf") == _INT_OR_STRING:
            part = {key: value for key, value in part.items() if key != "anyOf"}
        causes += _nested(part, level, f"{path}.allOf[{index}]")
    for index, part in enumerate(schema.get("oneOf") or ()):
        causes += _nested(part, level, f"{path}.oneOf[{index}]")
    if isinstance(schema.get("not"), Mapping):
        causes += _nested(schema["not"], level, f"{path}.not")
    if schema.get("pattern"):
        try:
            compiled(schema["pattern"])
        except EvaluationError as error:
            detail = f"must be a valid regular expression, but isn't: {error}"
            causes.append(bad(f"{path}.pattern", schema["pattern"], detail))
    return causes


def _nested(part: Schema, level: str, path: str) -> list[Cause]:
    causes = _values(part, level, path)
    if isinstance(part.get("items"), Mapping):
        causes += _nested(part["items"], level, f"{path}.items")
    for key, child in (part.get("properties") or {}).items():
        causes += _nested(child, "field", f"{path}.properties[{key}]")
    for key, word in _NESTED.items():
        if part.get(key):
            causes.append(forbidden(f"{path}.{key}", f"must be {word} to be structural"))
    if "metadata" in (part.get("properties") or {}):
        causes.append(forbidden(f"{path}.properties[metadata]", "must not be specified in a nested context"))
    return causes


def _incomplete(schema: Schema, part: Schema, path: str) -> list[Cause]:
    """Fields that `allOf` and the like restrict although the schema itself does not have them."""
    causes: list[Cause] = []
    for name in ("allOf", "anyOf", "oneOf"):
        for index, below in enumerate(part.get(name) or ()):
            causes += _incomplete_in(schema, below, path, f"{path}.{name}[{index}]")
    if isinstance(part.get("not"), Mapping):
        causes += _incomplete_in(schema, part["not"], path, f"{path}.not")
    if part is schema:
        for key, child in (schema.get("properties") or {}).items():
            causes += _incomplete(child, child, f"{path}.properties[{key}]")
        for key in ("items", "additionalProperties"):
            if isinstance(schema.get(key), Mapping):
                causes += _incomplete(schema[key], schema[key], f"{path}.{key}")
    return causes


def _incomplete_in(schema: Schema, part: Schema, spine: str, path: str) -> list[Cause]:
    causes = _incomplete(schema, part, spine)
    known = schema.get("properties") or {}
    for key, child in (part.get("properties") or {}).items():
        where, below = f"{spine}.properties[{key}]", f"{path}.properties[{key}]"
        if key not in known:
            causes.append(required(where, f"because it is defined in {below}"))
        else:
            causes += _incomplete_in(known[key], child, where, below)
    if isinstance(part.get("items"), Mapping):
        items = schema.get("items")
        if not isinstance(items, Mapping):
            causes.append(required(f"{spine}.items", f"because it is defined in {path}.items"))
        else:
            causes += _incomplete_in(items, part["items"], f"{spine}.items", f"{path}.items")
    return causes


# ---- defaults


def _defaults(schema: Schema, path: str, *, resource: bool) -> list[Cause]:
    causes: list[Cause] = []
    if "default" in schema and not resource:
        value = schema["default"]
        if prune_default(schema, copy.deepcopy(value)) != value:
            causes.append(bad(f"{path}.default", value, "must not have unknown fields"))
        found = validate_value(schema, value, "") or _broken_by_default(schema, value)
        causes += [rooted(cause, f"{path}.default") for cause in found]
    if isinstance(schema.get("items"), Mapping):
        causes += _defaults(schema["items"], f"{path}.items", resource=False)
    for key, child in (schema.get("properties") or {}).items():
        if not (resource and key in ("metadata", "apiVersion", "kind")):
            causes += _defaults(child, f"{path}.properties[{key}]", resource=False)
    return causes


def _broken_by_default(schema: Schema, value: Any) -> list[Cause]:
    """The rules that a default breaks: of an object that has had it, or of one that gets it.

    Source: k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting/validation.go
    """
    try:
        rules = compile_rules(schema, resource=bool(schema.get("x-kubernetes-embedded-resource")))
    except CelError:
        return []  # told where the rule stands
    if rules is None:
        return []
    found = broken_rules(rules, value, value) or broken_rules(rules, value)
    return [replace(cause, forgiven=False) for cause in found]


# ---- everything else, place by place


@dataclass(frozen=True, slots=True)
class _Place:
    """What holds where a schema stands.

    Args:
        expressions: whether its rules are looked at.
        in_meta: within an object's metadata; defaults: why it may have none, or empty.
        apart: the path above which no old value can be told; empty where one can.
        count: how many such values there can be in an object; None when nothing bounds it.
    """

    expressions: bool
    in_meta: bool = False
    defaults: str = ""
    apart: str = ""
    count: int | None = 1

    def below(self, most: Any) -> _Place:
        return replace(self, count=None if most is None or self.count is None else self.count * most)


def _walk(schema: Schema, path: str, place: _Place, costs: Costs, *, root: bool = False) -> list[Cause]:
    causes = _own(schema, path, place)
    additional = schema.get("additionalProperties")
    if additional is not None and schema.get("properties") and additional is not True:
        detail = "additionalProperties and properties are mutual exclusive"
        causes.append(forbidden(f"{path}.additionalProperties", detail))
    if isinstance(additional, Mapping):
        inner = place.below(schema.get("maxProperties"))
        if place.in_meta:
            inner = replace(inner, defaults="inside additionalProperties applying to object metadata")
        causes += _walk(additional, f"{path}.additionalProperties", inner, costs)
    for key, child in (schema.get("properties") or {}).items():
        inner = place
        if schema.get("x-kubernetes-map-type") == "atomic":
            inner = replace(inner, apart=inner.apart or path)
        if (root or schema.get("x-kubernetes-embedded-resource")) and key in ("metadata", "kind", "apiVersion"):
            inner = replace(inner, in_meta=True, defaults=f"in top-level {key}" if root else inner.defaults)
        causes += _walk(child, f"{path}.properties[{key}]", inner, costs)
    silent = replace(place, expressions=False)
    for name in ("allOf", "anyOf", "oneOf"):
        for index, part in enumerate(schema.get(name) or ()):
            causes += _walk(part, f"{path}.{name}[{index}]", silent, costs)
    if isinstance(schema.get("not"), Mapping):
        causes += _walk(schema["not"], f"{path}.not", silent, costs)
    if isinstance(schema.get("items"), Mapping):
        inner = place.below(schema.get("maxItems"))
        if schema.get("x-kubernetes-list-type") != "map":
            inner = replace(inner, apart=inner.apart or path)
        causes += _walk(schema["items"], f"{path}.items", inner, costs)
    causes += _list_and_map(schema, path)
    if schema.get("x-kubernetes-validations"):
        resource = root or bool(schema.get("x-kubernetes-embedded-resource"))
        evaluate = place.expressions and not causes
        causes += expression_causes(schema, path, resource, evaluate, place.apart, place.count, costs)
    return causes


def _own(schema: Schema, path: str, place: _Place) -> list[Cause]:
    causes: list[Cause] = []
    kind = schema.get("type")
    if kind and kind not in TYPES:
        causes.append(unsupported(f"{path}.type", kind, list(TYPES)))
    if "default" in schema and place.defaults:
        causes.append(forbidden(f"{path}.default", f"must not be set {place.defaults}"))
    for key in _UNSUPPORTED_KEYS:
        if schema.get(key):
            causes.append(forbidden(f"{path}.{key}", f"{key} is not supported"))
    if place.in_meta and schema.get("x-kubernetes-embedded-resource"):
        causes.append(forbidden(f"{path}.x-kubernetes-embedded-resource", "must not be used inside of resource meta"))
    if schema.get("uniqueItems"):
        detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        causes.append(forbidden(f"{path}.uniqueItems", detail))
    if schema.get("x-kubernetes-preserve-unknown-fields") is False:
        causes.append(bad(f"{path}.x-kubernetes-preserve-unknown-fields", False, "must be true or undefined"))
    return causes


def _list_and_map(schema: Schema, path: str) -> list[Cause]:
    causes: list[Cause] = []
    kind, map_type, list_type = (
        schema.get("type", ""),
        schema.get("x-kubernetes-map-type"),
        schema.get("x-kubernetes-list-type"),
    )
    for value, wanted, name in ((map_type, "object", "map-type"), (list_type, "array", "list-type")):
        if value is not None and kind != wanted:
            detail = f"must be {wanted} if x-kubernetes-{name} is specified"
            causes.append(bad(f"{path}.type", kind, detail) if kind else required(f"{path}.type", detail))
    if map_type not in (None, "atomic", "granular"):
        causes.append(unsupported(f"{path}.x-kubernetes-map-type", map_type, ["atomic", "granular"]))
    if list_type not in (None, "atomic", "set", "map"):
        causes.append(unsupported(f"{path}.x-kubernetes-list-type", list_type, ["atomic", "set", "map"]))
    items = schema.get("items") if isinstance(schema.get("items"), Mapping) else None
    if list_type == "set" and kind == "array" and items is not None:
        causes += _set_items(items, f"{path}.items")
    keys = schema.get("x-kubernetes-list-map-keys") or ()
    if keys and list_type != "map":
        detail = "must be map if x-kubernetes-list-map-keys is non-empty"
        where = f"{path}.x-kubernetes-list-type"
        causes.append(required(where, detail) if list_type is None else bad(where, list_type, detail))
    if list_type == "map":
        causes += _map_keys(schema, items, keys, path)
    if list_type in ("set", "map") and items is not None and items.get("nullable"):
        causes.append(
            forbidden(f"{path}.items.nullable", f"cannot be nullable when x-kubernetes-list-type is {list_type}")
        )
    return causes


def _set_items(items: Schema, path: str) -> list[Cause]:
    detail = "must be atomic as item of a list with x-kubernetes-list-type=set"
    if items.get("type") == "array" and items.get("x-kubernetes-list-type", "atomic") != "atomic":
        return [bad(f"{path}.x-kubernetes-list-type", items["x-kubernetes-list-type"], detail)]
    if items.get("type") == "object" and items.get("x-kubernetes-map-type") != "atomic":
        return [bad(f"{path}.x-kubernetes-map-type", items.get("x-kubernetes-map-type"), detail)]
    return []


def _map_keys(schema: Schema, items: Schema | None, keys: Sequence[str], path: str) -> list[Cause]:
    where = f"{path}.x-kubernetes-list-map-keys"
    causes: list[Cause] = []
    if not keys:
        causes.append(required(where, "must not be empty if x-kubernetes-list-type is map"))
    if items is None:
        if schema.get("items") is None:
            causes.append(required(f"{path}.items", "must have a schema if x-kubernetes-list-type is map"))
        return causes
    if items.get("type") != "object":
        detail = "must be object if parent array's x-kubernetes-list-type is map"
        return [*causes, bad(f"{path}.items.type", items.get("type", ""), detail)]
    properties = items.get("properties") or {}
    for index, key in enumerate(keys):
        place = f"{path}.items.properties[{key}]"
        child = properties.get(key)
        if child is None:
            causes.append(bad(where, list(keys), "entries must all be names of item properties"))
        elif child.get("type") in ("array", "object"):
            detail = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            causes.append(bad(f"{place}.type", items["type"], detail))
        if key in keys[:index]:
            causes.append(bad(where, list(keys), "must not contain duplicate entries"))
        what = "this property is in x-kubernetes-list-map-keys, so it"
        if child is not None and key not in (items.get("required") or ()) and child.get("default") is None:
            causes.append(required(f"{place}.default", f"{what} must have a default or be a required property"))
        if child is not None and child.get("nullable"):
            causes.append(forbidden(f"{place}.nullable", f"{what} cannot be nullable"))
    return causes
