"""JSON paths that name one field of a schema: `.spec.color`, `.labels['app']`.

Source: k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go (ValidFieldPath)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_TOKEN = re.compile(r"\.|\[|\]|'(?:\\.|[^'\\])*'|[^.\[\]']+|'")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "'": "'", "\\": "\\"}


class PathError(ValueError):
    """The path names no field; the text is Kubernetes'."""


def field_schema(path: str, schema: Mapping[str, Any], *, brackets: bool = True) -> tuple[list[str], Mapping[str, Any]]:
    """Returns the names on a path, and the schema at its end.

    Args:
        brackets: whether `['name']` may be used.

    Raises:
        PathError
    """
    tokens = _TOKEN.findall(path)
    names: list[str] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        if token not in (".", "["):
            raise PathError(f"expected [ or . but got: {token}")
        if token == "[" and not brackets:
            raise PathError("array notation is not allowed")
        if at + 1 >= len(tokens):
            raise PathError("unexpected end of JSON path")
        name = tokens[at + 1]
        if token == "[":
            if len(name) < 2 or name[0] != "'" or name[-1] != "'":
                raise PathError(f"expected single quoted string but got {name}")
            name = _ESCAPE.sub(_unescaped, name[1:-1])
            if at + 2 >= len(tokens):
                raise PathError("unexpected end of JSON path")
            if tokens[at + 2] != "]":
                raise PathError(f"expected ] but got {tokens[at + 2]}")
            at += 1
        at += 2
        schema = _below(schema, name)
        names.append(name)
    return names, schema


def _unescaped(found: re.Match[str]) -> str:
    if found[1] not in _ESCAPES:
        raise PathError(f"invalid string literal: invalid escape char {found[0]}")
    return _ESCAPES[found[1]]


def _below(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    properties, additional = schema.get("properties"), schema.get("additionalProperties")
    found = properties.get(name) if properties is not None else additional
    if not isinstance(found, Mapping):
        raise PathError("does not refer to a valid field")
    return found
