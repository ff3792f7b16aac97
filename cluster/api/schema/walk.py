"""The slow check: walks a JSON tree beside its schema, drops what does not belong and says everything that is wrong.

It decides as Kubernetes' decoder does: a null is a field left out, an unknown field is dropped and told, a value of
the wrong type is an error in the words of Go's decoder. Required fields are validation's, not decoding's.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#field-validation
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

from steersman.cluster.api.schema.node import SchemaNode
from steersman.cluster.api.syntax import name_of
from steersman.cluster.meta.quantity import QuantityError, parse
from steersman.cluster.meta.times import parse_time

#: what is told of one object that cannot be decoded
ERRORS_MAX = 100

_GO_SCALARS = {
    ("string", ""): "string",
    ("integer", "int32"): "int32",
    ("integer", "int64"): "int64",
    ("integer", ""): "int64",
    ("number", "double"): "float64",
    ("number", ""): "float64",
    ("boolean", ""): "bool",
    ("string", "byte"): "[]uint8",
    ("string", "date-time"): "v1.Time",
}
_SIMPLE = frozenset(("string", "int32", "int64", "float64", "bool"))
_ZEROS: dict[str, Any] = {"string": "", "integer": 0, "number": 0, "boolean": False, "quantity": "0"}


@dataclass(slots=True)
class Findings:
    """What a walk found.

    Args:
        unknown: paths of fields that the schema does not know, as `spec.containers[0].foo`.
        errors: what cannot be decoded, in Kubernetes' words.
        unconverted: the same, as it is told of an object that comes of a strategic patch.
    """

    unknown: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    unconverted: list[str] = field(default_factory=list)

    def wrong(self, error: str, unconverted: str = "") -> None:
        self.errors.append(error)
        self.unconverted.append(unconverted or error)

    def include(self, inner: Findings, path: str) -> None:
        """Takes over what was found in the value at a path."""
        self.unknown += [f"{path}.{name}" for name in inner.unknown]
        self.errors += inner.errors
        self.unconverted += inner.unconverted


def walk(node: SchemaNode, tree: Any) -> tuple[Any, Findings]:
    """Returns the tree without nulls and unknown fields, and what was wrong with it."""
    findings = Findings()
    pruned = _walk(node, tree, "", _Place(node.definition.rpartition(".")[2], ""), findings)
    return pruned, findings


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value stands in Go's eyes: the struct around it and the path of field names from the top."""

    struct: str
    dotted: str

    def child(self, name: str) -> _Place:
        return _Place(self.struct, f"{self.dotted}.{name}" if self.dotted else name)


def _walk(node: SchemaNode, value: Any, path: str, place: _Place, findings: Findings) -> Any:
    match node.type:
        case "object":
            return _object(node, value, path, place, findings)
        case "array":
            if not isinstance(value, list):
                return _mismatch(node, value, place, findings)
            items = node.items
            if items is None:
                return value
            return [
                _zero(items) if item is None else _walk(items, item, f"{path}[{index}]", place, findings)
                for index, item in enumerate(value)
            ]
        case "any":
            return value
    return _scalar(node, value, place, findings)


def _zero(node: SchemaNode) -> Any:
    if node.type in ("object", "array"):
        return {} if node.type == "object" else []
    return _ZEROS.get(node.type)


def _object(node: SchemaNode, value: Any, path: str, place: _Place, findings: Findings) -> Any:
    if not isinstance(value, dict):
        return _mismatch(node, value, place, findings)
    additional = node.additional
    if additional is not None:
        return {
            key: _zero(additional) if item is None else _walk(additional, item, _join(path, key), place, findings)
            for key, item in value.items()
        }
    properties = node.properties
    if not properties:
        return value
    inside = _Place(node.definition.rpartition(".")[2] or place.struct, place.dotted)
    found = {}
    for key, item in value.items():
        child = properties.get(key)
        if child is None:
            if node.preserve_unknown:
                found[key] = item
            else:
                findings.unknown.append(_join(path, key))
        elif item is not None:
            found[key] = _walk(child, item, _join(path, key), inside.child(key), findings)
    return found


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _scalar(node: SchemaNode, value: Any, place: _Place, findings: Findings) -> Any:
    match node.type:
        case "string":
            return _string(node, value, place, findings)
        case "boolean" if isinstance(value, bool):
            return value
        case "integer" if isinstance(value, int) and not isinstance(value, bool):
            limit = 2**31 if node.format == "int32" else 2**63
            if not -limit <= value < limit:
                return _mismatch(node, value, place, findings, f"number {value}")
            return value
        case "integer" if isinstance(value, float):
            if value.is_integer() and abs(value) < 2**31:
                return int(value)
            return _mismatch(node, value, place, findings, f"number {value}")
        case "number" if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
        case "quantity" if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            try:
                parse(value)
            except QuantityError as error:
                findings.wrong(str(error))
            return value
        case "int-or-string" if isinstance(value, (str, int)) and not isinstance(value, bool):
            return value
    return _mismatch(node, value, place, findings)


def _string(node: SchemaNode, value: Any, place: _Place, findings: Findings) -> Any:
    if not isinstance(value, str):
        return _mismatch(node, value, place, findings)
    if node.format == "date-time":
        try:
            parse_time(value)
        except ValueError:
            findings.wrong(f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse "{value}" as "2006"')
    elif node.format == "byte":
        try:
            base64.b64decode(value.replace("\n", "").replace("\r", ""), validate=True)
        except (binascii.Error, ValueError):
            findings.wrong(f"illegal base64 data at input byte {_first_bad_byte(value)}")
    return value


def _first_bad_byte(text: str) -> int:
    for index, char in enumerate(text):
        if not (char.isascii() and (char.isalnum() or char in "+/=\r\n")):
            return index
    return max(0, len(text) // 4 * 4)


def _mismatch(node: SchemaNode, value: Any, place: _Place, findings: Findings, what: str = "") -> Any:
    if len(findings.errors) >= ERRORS_MAX:
        return _zero(node)
    seen = what or name_of(value)
    if place.dotted:
        where = f"Go struct field {place.struct}.{place.dotted}"
    else:
        where = "Go value"
    findings.wrong(f"json: cannot unmarshal {seen} into {where} of type {_go_type(node)}", _unconverted(node, value))
    return _zero(node)


#: the sorts of JSON values in memory, and what Go says it cannot make of another one
_GO_KINDS = {bool: "bool", int: "int64", float: "float64", str: "string", list: "slice", dict: "map"}


def _unconverted(node: SchemaNode, value: Any) -> str:
    """k8s.io/apimachinery/pkg/runtime/converter.go"""
    kind = _GO_KINDS[type(value)]
    if node.type == "array":
        return f"cannot restore slice from {kind}"
    if node.type == "object":
        return (
            f"cannot restore map from {kind}" if node.additional is not None else f"cannot restore struct from: {kind}"
        )
    wanted = _GO_SCALARS.get((node.type, node.format))
    if wanted is None or wanted not in _SIMPLE:
        return ""
    numbers = kind in ("int64", "float64")
    if (numbers and wanted in ("int32", "int64", "float64")) or (kind == "int64" and wanted == "string"):
        return f"cannot convert {kind} to {wanted}"
    return f"unrecognized type: {wanted}"


def _go_type(node: SchemaNode) -> str:
    if node.type == "array":
        items = node.items
        return "[]" + (_go_type(items) if items is not None else "interface {}")
    if node.type == "object":
        additional = node.additional
        if additional is not None:
            return f"map[string]{_go_type(additional)}"
        return f"v1.{node.definition.rpartition('.')[2]}"
    if node.type == "quantity":
        return "resource.Quantity"
    if node.type == "int-or-string":
        return "intstr.IntOrString"
    return _GO_SCALARS.get((node.type, node.format), node.type)
