"""Lists and sets.

Source: k8s.io/apiserver/pkg/cel/library/lists.go and github.com/google/cel-go/ext/{lists,sets}.go (lists in version 3)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from steersman.cluster.api.cel.errors import EvaluationError
from steersman.cluster.api.cel.library.standard import checked
from steersman.cluster.api.cel.overload import Cost, Overload, first_size, function, method, walks_list
from steersman.cluster.api.cel.values import Duration, Uint, duration_of, equal, mark, type_name

#: types whose values can be put in order
ORDERED = ("int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes")
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


# ---- lists made of others

#: what a call that makes a list costs beside its items; the most items that a range has
_CALL_COST, _RANGE_MAX = 11, 10_000_000


def _slice(values: list[Any], start: int, end: int) -> list[Any]:
    wrong = ""
    if start < 0 or end < 0:
        wrong = "negative indexes not supported"
    elif start > end:
        wrong = "start index must be less than or equal to end index"
    elif len(values) < end:
        wrong = f"list is length {len(values)}"
    if wrong:
        raise EvaluationError(f"cannot slice({start}, {end}), {wrong}")
    return values[start:end]


def _flat(values: list[Any], depth: int = 1) -> list[Any]:
    if depth < 0:
        raise EvaluationError("level must be non-negative")
    found: list[Any] = []
    for value in values:
        if isinstance(value, list) and depth:
            found += _flat(value, depth - 1)
        else:
            found.append(value)
    return found


def _range(count: int) -> list[int]:
    if count < 0:
        raise EvaluationError(f"lists.range: size must be non-negative, got {count}")
    if count > _RANGE_MAX:
        raise EvaluationError(f"lists.range: size {count} exceeds maximum allowed ({_RANGE_MAX})")
    return list(range(count))


def _distinct(values: list[Any]) -> list[Any]:
    found: dict[Any, Any] = {}
    for value in values:
        found.setdefault(mark(value), value)
    return list(found.values())


def sorted_by(values: list[Any], keys: list[Any]) -> list[Any]:
    """The items in the order of their keys; raises EvaluationError for keys that have none."""
    kinds = {type_name(key) for key in keys}
    if not kinds <= set(ORDERED):
        raise EvaluationError("list elements must be comparable")
    if len(kinds) > 1:
        raise EvaluationError("list elements must have the same type")
    return [values[index] for index in sorted(range(len(values)), key=keys.__getitem__)]


def sort_cost(kind: str) -> Cost:
    """Of comparing each item with each, where they are of a type."""
    factor = 2.1 if kind in ("string", "bytes") else 2.0
    return lambda sizes: _CALL_COST + int(factor * sizes[0] * sizes[0])


def _makes_list(sizes: Sequence[float]) -> float:
    return _CALL_COST + sizes[0]


def _part(sizes: Sequence[float]) -> float:
    return max(0, sizes[2] - sizes[1])


def _made_lists() -> list[Overload]:
    whole = (_makes_list, first_size)
    return [
        method("slice", "list(A), int, int -> list(A)", _slice, lambda s: _CALL_COST + _part(s), _part, counts=True),
        method("flatten", "list(list(A)) -> list(A)", _flat, *whole),
        method("flatten", "list(dyn), int -> list(dyn)", _flat, lambda s: _CALL_COST + s[0] * s[1], counts=True),
        *(method("sort", f"list({kind}) -> list({kind})", lambda values: sorted_by(values, values), sort_cost(kind),
                 first_size) for kind in ORDERED),
        function("lists.range", "int -> list(int)", _range, *whole, counts=True),
        method("reverse", "list(A) -> list(A)", lambda values: values[::-1], *whole),
        method("distinct", "list(A) -> list(A)", _distinct, sort_cost("string"), first_size),
    ]  # fmt: skip


def _lists() -> list[Overload]:
    rows = []
    for kind in ORDERED:
        rows += [
            method("isSorted", f"list({kind}) -> bool", _is_sorted, walks_list),
            method("min", f"list({kind}) -> {kind}", _least, walks_list),
            method("max", f"list({kind}) -> {kind}", _most, walks_list),
        ]
    rows += [method("sum", f"list({kind}) -> {kind}", _sum(kind), walks_list) for kind in _ZEROS]
    return rows


FUNCTIONS = (
    *_lists(),
    *_made_lists(),
    method("indexOf", "list(A), A -> int", _index_of, walks_list),
    method("lastIndexOf", "list(A), A -> int", _last_index_of, walks_list),
    function("sets.contains", "list(A), list(A) -> bool", _all_in, _pairs),
    function("sets.equivalent", "list(A), list(A) -> bool", lambda a, b: _all_in(a, b) and _all_in(b, a), _pairs),
    function("sets.intersects", "list(A), list(A) -> bool", _meet, _pairs),
)
