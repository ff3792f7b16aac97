"""The operators and conversions of the language itself.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#list-of-standard-definitions
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from steersman.cluster.api.cel.errors import EvaluationError, no_such_key
from steersman.cluster.api.cel.overload import (
    Overload,
    both_sizes,
    first_size,
    function,
    method,
    reads_both,
    reads_second,
    reads_text,
    searches,
    size_of,
)  # fmt: skip
from steersman.cluster.api.cel.values import TypeValue, Uint, equal, type_name

_INT_MIN, _INT_MAX, _UINT_MAX = -(2**63), 2**63 - 1, 2**64 - 1
_NUMBERS = ("int", "uint", "double")


def _int(value: int) -> int:
    if not _INT_MIN <= value <= _INT_MAX:
        raise EvaluationError("integer overflow")
    return value


def _uint(value: int) -> Uint:
    if not 0 <= value <= _UINT_MAX:
        raise EvaluationError("unsigned integer overflow")
    return Uint(value)


def checked(kind: str, value: Any) -> Any:
    """A number of a type, refused where it does not fit."""
    if kind == "double":
        return value
    return _int(value) if kind == "int" else _uint(value)


def _divide(left: int, right: int) -> int:
    if right == 0:
        raise EvaluationError("division by zero")
    found = abs(left) // abs(right)
    return found if (left < 0) == (right < 0) else -found


def _remainder(left: int, right: int) -> int:
    if right == 0:
        raise EvaluationError("modulus by zero")
    return left - right * _divide(left, right)


def _float_divide(left: float, right: float) -> float:
    if right:
        return left / right
    if not left or math.isnan(left):
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


def _negated(value: int) -> int:
    return _int(-value)


# ---- collections


def _at(values: list[Any], index: Any) -> Any:
    if isinstance(index, float):
        if not index.is_integer():
            raise EvaluationError(f"invalid argument: unsupported index value {index}")
        index = int(index)
    if not 0 <= index < len(values):
        raise EvaluationError(f"index out of bounds: {index}")
    return values[index]


def _key(values: Mapping[Any, Any], key: Any) -> Any:
    try:
        return values[key]
    except (KeyError, TypeError):
        raise no_such_key(key) from None


def _contains(item: Any, values: list[Any]) -> bool:
    if type(item) is str:
        return item in values
    return any(equal(item, other) for other in values)


def _has_key(key: Any, values: Mapping[Any, Any]) -> bool:
    return key in values


# ---- conversions


def _to_int(value: Any) -> int:
    if isinstance(value, float):
        if not math.isfinite(value) or not -(2.0**63) < value < 2.0**63:
            raise EvaluationError("integer overflow")
        return int(value)
    if isinstance(value, str):
        return _int(_number(value, int, "int"))
    return _int(int(value))


def _to_uint(value: Any) -> Uint:
    if isinstance(value, float) and not 0 <= value < 2.0**64:
        raise EvaluationError("unsigned integer overflow")
    return _uint(_number(value, int, "uint") if isinstance(value, str) else int(value))


def _to_double(value: Any) -> float:
    return _number(value, float, "double") if isinstance(value, str) else float(value)


def _number(text: str, read: Callable[[str], Any], name: str) -> Any:
    try:
        if "_" in text or text != text.strip():
            raise ValueError
        return read(text)
    except ValueError:
        raise EvaluationError(f"type conversion error from 'string' to '{name}'") from None


def _to_bool(text: str) -> bool:
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise EvaluationError("type conversion error from 'string' to 'bool'")


def shown_double(value: float) -> str:
    """A double as Go's `%g` of the shortest digits prints it."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value)) if value or math.copysign(1, value) > 0 else "-0"
    text = repr(value)
    if "e" in text:
        digits, _, exponent = text.partition("e")
        return f"{digits}e{int(exponent):+03d}"
    return text


def _to_string(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return shown_double(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise EvaluationError("invalid UTF-8 in bytes, cannot convert to string") from None
    return str(value)


def _same(value: Any) -> Any:
    return value


def _type(value: Any) -> TypeValue:
    return TypeValue(type_name(value))


def _not_equal(left: Any, right: Any) -> bool:
    return not equal(left, right)


def _comparisons() -> list[Overload]:
    rows = []
    pairs = [(name, name) for name in (*_NUMBERS, "string", "bytes", "bool", "timestamp", "duration")]
    pairs += [(a, b) for a in _NUMBERS for b in _NUMBERS if a != b]
    for name, compute in (("_<_", operator.lt), ("_<=_", operator.le), ("_>_", operator.gt), ("_>=_", operator.ge)):
        for left, right in pairs:
            cost = _reads_shorter if left in ("string", "bytes") else None
            rows.append(function(name, f"{left}, {right} -> bool", compute, cost))
    return rows


def _reads_shorter(sizes: Sequence[float]) -> float:
    return math.ceil(min(sizes) * 0.1)


def _compared(sizes: Sequence[float]) -> float:
    return max(1, math.ceil(min(sizes) * 0.1))


def _arithmetic() -> list[Overload]:
    rows = []
    for name, compute in (("_+_", operator.add), ("_-_", operator.sub), ("_*_", operator.mul)):
        rows += [
            function(name, "int, int -> int", lambda a, b, compute=compute: _int(compute(a, b))),
            function(name, "uint, uint -> uint", lambda a, b, compute=compute: _uint(compute(a, b))),
            function(name, "double, double -> double", compute),
        ]
    return rows


FUNCTIONS = (
    *_comparisons(),
    *_arithmetic(),
    function("_==_", "A, A -> bool", equal, _compared),
    function("_!=_", "A, A -> bool", _not_equal, _compared),
    function("_&&_", "bool, bool -> bool", operator.and_),
    function("_||_", "bool, bool -> bool", operator.or_),
    function("!_", "bool -> bool", operator.not_),
    function("-_", "int -> int", _negated),
    function("-_", "double -> double", operator.neg),
    function("_/_", "int, int -> int", lambda a, b: _int(_divide(a, b))),
    function("_/_", "uint, uint -> uint", lambda a, b: Uint(_divide(a, b))),
    function("_/_", "double, double -> double", _float_divide),
    function("_%_", "int, int -> int", _remainder),
    function("_%_", "uint, uint -> uint", lambda a, b: Uint(_remainder(a, b))),
    function("_+_", "string, string -> string", operator.add, reads_both, both_sizes),
    function("_+_", "bytes, bytes -> bytes", operator.add, reads_both, both_sizes),
    function("_+_", "list(A), list(A) -> list(A)", operator.add, None, both_sizes),
    function("_[_]", "list(A), int -> A", _at),
    function("_[_]", "map(A, B), A -> B", _key),
    function("@in", "A, list(A) -> bool", _contains, lambda sizes: sizes[1]),
    function("@in", "A, map(A, B) -> bool", _has_key),
    *(
        row
        for kind in ("string", "bytes", "list(A)", "map(A, B)")
        for row in (function("size", f"{kind} -> int", size_of), method("size", f"{kind} -> int", size_of))
    ),
    method("contains", "string, string -> bool", operator.contains, searches),
    method("startsWith", "string, string -> bool", str.startswith, reads_second),
    method("endsWith", "string, string -> bool", str.endswith, reads_second),
    *(function("int", f"{kind} -> int", _to_int) for kind in (*_NUMBERS, "string")),
    *(function("uint", f"{kind} -> uint", _to_uint) for kind in (*_NUMBERS, "string")),
    *(function("double", f"{kind} -> double", _to_double) for kind in (*_NUMBERS, "string")),
    *(
        function("string", f"{kind} -> string", _to_string, reads_text, first_size)
        for kind in (*_NUMBERS, "string", "bytes", "bool", "timestamp", "duration")
    ),
    function("bytes", "string -> bytes", str.encode, reads_text, first_size),
    function("bytes", "bytes -> bytes", _same),
    function("bool", "bool -> bool", _same),
    function("bool", "string -> bool", _to_bool),
    function("dyn", "A -> dyn", _same),
    function("type", "A -> type(A)", _type),
)
