"""Optional values.

Source: https://github.com/google/cel-spec/wiki/proposal-246
"""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.cel.errors import EvaluationError
from steersman.cluster.api.cel.overload import first_size, function, method, walks_list
from steersman.cluster.api.cel.values import NONE, Optional


def _value(optional: Optional) -> Any:
    if not optional.present:
        raise EvaluationError("optional.none() dereference")
    return optional.value


def _not_zero(value: Any) -> Optional:
    zero = value is None or (isinstance(value, (bool, int, float, str, bytes, list, dict)) and not value)
    return NONE if zero else Optional(value)


def _entry(values: Any, key: Any) -> Optional:
    if isinstance(values, Optional):
        return _entry(values.value, key) if values.present else NONE
    if isinstance(values, list):
        whole = isinstance(key, int) and not isinstance(key, bool)
        return Optional(values[key]) if whole and 0 <= key < len(values) else NONE
    return Optional(values[key]) if key in values else NONE


def _or_value(optional: Optional, other: Any) -> Any:
    return optional.value if optional.present else other


def _present(optionals: list[Optional]) -> list[Any]:
    return [optional.value for optional in optionals if optional.present]


FUNCTIONS = (
    function("optional.of", "A -> optional_type(A)", Optional),
    function("optional.ofNonZeroValue", "A -> optional_type(A)", _not_zero),
    function("optional.none", "-> optional_type(A)", lambda: NONE),
    method("hasValue", "optional_type(A) -> bool", lambda optional: optional.present),
    method("value", "optional_type(A) -> A", _value),
    method("orValue", "optional_type(A), A -> A", _or_value),
    method(
        "or", "optional_type(A), optional_type(A) -> optional_type(A)",
        lambda optional, other: optional if optional.present else other,
    ),
    function("optional.unwrap", "list(optional_type(A)) -> list(A)", _present, walks_list, first_size),
    method("unwrapOpt", "list(optional_type(A)) -> list(A)", _present, walks_list, first_size),
    method("first", "list(A) -> optional_type(A)", lambda values: _entry(values, 0)),
    method("last", "list(A) -> optional_type(A)", lambda values: _entry(values, len(values) - 1)),
    function("_[?_]", "list(A), int -> optional_type(A)", _entry),
    function("_[?_]", "map(A, B), A -> optional_type(B)", _entry),
    function("_[?_]", "optional_type(list(A)), int -> optional_type(A)", _entry),
    function("_[?_]", "optional_type(map(A, B)), A -> optional_type(B)", _entry),
    function("_[_]", "optional_type(list(A)), int -> optional_type(A)", _entry),
    function("_[_]", "optional_type(map(A, B)), A -> optional_type(B)", _entry),
)  # fmt: skip
