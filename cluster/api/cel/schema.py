"""Types of OpenAPI schemas, as expressions see objects: `self` of a rule, `params` of a policy.

What has no type in the schema cannot be named; field names that are no identifiers are escaped (`a-b` is `a__dash__b`).

Source: k8s.io/apiserver/pkg/cel/common/schemas.go and escaping.go
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steersman.cluster.api.cel.lexer import RESERVED
from steersman.cluster.api.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    INT,
    STRING,
    TIMESTAMP,
    Field,
    ObjectType,
    Type,
)  # fmt: skip

#: the largest request: what bounds a list or text that its schema does not
REQUEST_BYTES_MAX = 3 * 1024 * 1024
#: words that are no names even behind a dot
_TOKENS = frozenset({"true", "false", "null", "in"})
#: words that fields have an escape for, which all but the former need no more
_RESERVED = _TOKENS | RESERVED - {"var", "void", "while"}
_ESCAPABLE = re.compile(r"^[a-zA-Z_.\-/][a-zA-Z0-9_.\-/]*$")
_PARTS = re.compile(r"__|[.\-/]")
_ESCAPES = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
#: keys count nothing in Kubernetes' estimate
_KEY = Type(STRING.name, size_max=0)
_SCALARS = {"boolean": (BOOL, 4), "integer": (INT, 1), "number": (DOUBLE, 1)}
#: format of a text to its type, its least and its greatest size
_FORMATS = {
    "date": (TIMESTAMP, 12, 10), "date-time": (TIMESTAMP, 22, 26), "duration": (DURATION, 4, 32),
    "byte": (BYTES, 2, REQUEST_BYTES_MAX - 2),
}  # fmt: skip
_META: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}},
}


def schema_type(schema: Mapping[str, Any], name: str, *, resource: bool = False) -> Type | None:
    """Returns the type of a structural schema; None when it has none that expressions can use.

    Args:
        name: of the type, should it be an object's; two objects of one name are of one type.
        resource: whether it is an object with `apiVersion`, `kind` and `metadata`.
    """
    found = _measured(schema, name, resource)
    return None if found is None else found.type


def values_max(schema: Mapping[str, Any], *, resource: bool = False) -> int:
    """Returns how many values of a schema fit into the largest request."""
    found = _measured(schema, "", resource)
    return REQUEST_BYTES_MAX // ((found.bytes_min if found is not None else 1) + 1)


@dataclass(frozen=True, slots=True)
class _Measured:
    """A type, and the fewest bytes that a value of it takes in JSON."""

    type: Type
    bytes_min: int


def escaped(name: str) -> str | None:
    """Returns a field's name as expressions write it; None when they cannot."""
    if name in _RESERVED:
        return f"__{name}__"
    if not _ESCAPABLE.match(name):
        return None
    return _PARTS.sub(lambda found: _ESCAPES[found[0]], name)


def _measured(schema: Mapping[str, Any], name: str, resource: bool) -> _Measured | None:
    if schema.get("x-kubernetes-int-or-string"):
        return _Measured(Type("dyn", size_max=REQUEST_BYTES_MAX - 2), 1)
    kind = schema.get("type")
    if kind in _SCALARS:
        return _Measured(*_SCALARS[kind])
    if kind == "string":
        return _text(schema)
    if kind == "array":
        return _list(schema, name)
    if kind == "object":
        return (
            _map(schema, name)
            if isinstance(schema.get("additionalProperties"), Mapping)
            else _object(schema, name, resource)
        )
    return None


def _text(schema: Mapping[str, Any]) -> _Measured:
    form = _FORMATS.get(schema.get("format", ""))
    if form is not None:
        kind, least, most = form
        return _Measured(Type(kind.name, size_max=min(most, schema.get("maxLength", most))), least)
    size = schema.get("maxLength")
    if size is None and "enum" in schema:
        size = max((len(item) for item in schema["enum"] if isinstance(item, str)), default=0)
    return _Measured(Type(STRING.name, size_max=REQUEST_BYTES_MAX - 2 if size is None else size), 2)


def _list(schema: Mapping[str, Any], name: str) -> _Measured | None:
    items = schema.get("items")
    if not isinstance(items, Mapping):
        return None
    item = _measured(items, f"{name}.@idx", bool(items.get("x-kubernetes-embedded-resource")))
    if item is None:
        return None
    order = {"set": (), "map": tuple(schema.get("x-kubernetes-list-map-keys") or ())}
    size = schema.get("maxItems", REQUEST_BYTES_MAX // (item.bytes_min + 1))
    unordered = order.get(schema.get("x-kubernetes-list-type", ""))
    return _Measured(Type("list", (item.type,), unordered, size), 2)


def _map(schema: Mapping[str, Any], name: str) -> _Measured | None:
    values = schema["additionalProperties"]
    value = _measured(values, f"{name}.@elem", bool(values.get("x-kubernetes-embedded-resource")))
    if value is None:
        return None
    size = schema.get("maxProperties", REQUEST_BYTES_MAX // (value.bytes_min + 6))
    return _Measured(Type("map", (_KEY, value.type), None, size), 2)


def _object(schema: Mapping[str, Any], name: str, resource: bool) -> _Measured:
    properties = dict(schema.get("properties") or {})
    if resource:
        properties |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": _META}
    required = set(schema.get("required") or ())
    fields: dict[str, Field] = {}
    least = 2
    for key, child in properties.items():
        shown = escaped(key)
        found = _measured(child, f"{name}.{key}", bool(child.get("x-kubernetes-embedded-resource")))
        if shown is None or found is None:
            continue
        fields[shown] = Field(found.type, key)
        if key in _RESERVED and key not in _TOKENS:
            fields[key] = fields[shown]
        if key in required and "default" not in child:
            least += len(key) + 4 + found.bytes_min
    return _Measured(ObjectType(name, fields=fields), least)
