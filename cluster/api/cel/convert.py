"""Between JSON trees and the values of expressions, as a type asks for it.

Objects are left as they are: their fields are read when an expression selects them.

Source: k8s.io/apiserver/pkg/cel/common/values.go
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

from steersman.cluster.api.cel.errors import EvaluationError
from steersman.cluster.api.cel.types import Type
from steersman.cluster.api.cel.values import Duration, Optional, Timestamp, TypeValue, parse_duration, parse_timestamp

Read = Callable[[Any], Any]


def _double(value: Any) -> Any:
    return float(value) if type(value) is int else value


def _int(value: Any) -> Any:
    return int(value) if type(value) is float else value


def _timestamp(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return parse_timestamp(value if len(value) > 10 else f"{value}T00:00:00Z")


def _duration(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


def _bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise EvaluationError("illegal base64 data") from None


_SCALARS: dict[str, Read] = {
    "double": _double, "int": _int, "timestamp": _timestamp, "duration": _duration, "bytes": _bytes,
}  # fmt: skip


def reader(kind: Type) -> Read | None:
    """Returns what makes a value of a JSON tree's; None when that is one already."""
    if kind.name == "list":
        item = reader(kind.params[0])
        return None if item is None else lambda value: [item(part) for part in value]
    if kind.name == "map":
        entry = reader(kind.params[1])
        return None if entry is None else lambda value: {key: entry(part) for key, part in value.items()}
    return _SCALARS.get(kind.name)


def as_json(value: Any) -> Any:
    """Returns a value as a JSON tree has it.

    Raises:
        EvaluationError: it has no such form.
    """
    match value:
        case None | bool() | str() | float():
            return value
        case int():
            return int(value)
        case bytes():
            return base64.b64encode(value).decode()
        case Duration() | Timestamp():
            return str(value)
        case TypeValue():
            return value.name
        case Optional():
            return as_json(value.value)
        case list():
            return [as_json(item) for item in value]
        case Mapping():
            return {key if isinstance(key, str) else str(as_json(key)): as_json(item) for key, item in value.items()}
    raise EvaluationError(f"type conversion error from '{value.type}' to JSON")
