"""Lists and sets.

Source: k8s.io/apiserver/pkg/cel/library/lists.go and github.com/google/cel-go/ext/sets.go
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from steersman.cluster.api.cel.errors import EvaluationError
from steersman.cluster.api.cel.library.standard import checked
from steersman.cluster.api.cel.overload import Overload, function, method, walks_list
from steersman.cluster.api.cel.values import Duration, Uint, duration_of, equal

_ORDERED = ("int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes")
_ZEROS: dict[str, Any] = {"int": 0, "uint": Uint(0), "double": 0.0, "duration": Duration(0)}


def _is_sorted(values: list[Any]) -> bool:
    return all(a <= b for a, b in pairwise(values))


def _least(values: list[Any]) -> Any:
    if not values:
        raise EvaluationError("min called on empty list")
    return min(values)


def _most(values: list[Any]) -> Any:
    if not values:
        raise EvaluationError("max called on empty list")
    return max(values)


def _sum(kind: str) -> Any:
    def total(values: list[Any]) -> Any:
        if kind == "duration":
            return duration_of(sum(value.ns for value in values))
        return checked(kind, sum(values, _ZEROS[kind]))

    return total


def _index_of(values: list[Any], wanted: Any) -> int:
    return next((index for index, value in enumerate(values) if equal(value, wanted)), -1)


def _last_index_of(values: list[Any], wanted: Any) -> int:
    return next((index for index in reversed(range(len(values))) if equal(values[index], wanted)), -1)


def _all_in(values: list[Any], parts: list[Any]) -> bool:
    return all(any(equal(part, value) for value in values) for part in parts)


def _meet(left: list[Any], right: list[Any]) -> bool:
    return any(equal(a, b) for a in left for b in right)


def _pairs(sizes: Any) -> float:
    return float(sizes[0] * sizes[1])


def _lists() -> list[Overload]:
    rows = []
    for kind in _ORDERED:
        rows += [
            method("isSorted", f"list({kind}) -> bool", _is_sorted, walks_list),
            method("min", f"list({kind}) -> {kind}", _least, walks_list),
            method("max", f"list({kind}) -> {kind}", _most, walks_list),
        ]
    rows += [method("sum", f"list({kind}) -> {kind}", _sum(kind), walks_list) for kind in _ZEROS]
    return rows


FUNCTIONS = (
    *_lists(),
    method("indexOf", "list(A), A -> int", _index_of, walks_list),
    method("lastIndexOf", "list(A), A -> int", _last_index_of, walks_list),
    function("sets.contains", "list(A), list(A) -> bool", _all_in, _pairs),
    function("sets.equivalent", "list(A), list(A) -> bool", lambda a, b: _all_in(a, b) and _all_in(b, a), _pairs),
    function("sets.intersects", "list(A), list(A) -> bool", _meet, _pairs),
)
