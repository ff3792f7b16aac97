"""Functions as rows: a signature, what it computes, what it costs.

A cost is a function of the sizes of the operands (characters, items; 1 for what has no size), so that the same row
serves the count during evaluation and the estimate before it.

Source: github.com/google/cel-go/checker/cost.go and k8s.io/apiserver/pkg/cel/library/cost.go
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from steersman.cluster.api.cel.types import Type, is_dyn, param_names, parse_type, split_types
from steersman.cluster.api.cel.values import type_name

Cost = Callable[[Sequence[float]], float]


@dataclass(frozen=True, slots=True)
class Overload:
    """One signature of a function.

    Args:
        params: the types of the operands, a method's target first.
        compute: the function itself; raises EvaluationError.
        cost: None costs 1.
        size: the most that the result can measure, of the operands' sizes; None when nobody knows.
        names: of its type parameters.
        counts: whether a whole number among the operands measures what it counts, where costs are told.
    """

    name: str
    params: tuple[Type, ...]
    result: Type
    member: bool
    compute: Callable[..., Any]
    cost: Cost | None = None
    size: Cost | None = None
    names: frozenset[str] = frozenset()
    counts: bool = False

    @property
    def measure(self) -> Callable[[Any], float]:
        """What an operand measures where costs are told."""
        return count_of if self.counts else size_of

    def accepts(self, values: Sequence[Any]) -> bool:
        """Whether values that nothing was known of have the types of this signature."""
        return all(
            param.is_param or is_dyn(param) or param.name == type_name(value)
            for param, value in zip(self.params, values, strict=True)
        )


def _made(
    name: str, signature: str, compute: Callable[..., Any], member: bool, cost: Cost | None, size: Cost | None,
    counts: bool,
) -> Overload:  # fmt: skip
    before, _, after = signature.partition("->")
    params = tuple(map(parse_type, split_types(before)))
    result = parse_type(after)
    names = frozenset(name for kind in (*params, result) for name in param_names(kind))
    return Overload(name, params, result, member, compute, cost, size, names, counts)


def function(
    name: str, signature: str, compute: Callable[..., Any], cost: Cost | None = None, size: Cost | None = None,
    *, counts: bool = False,
) -> Overload:  # fmt: skip
    """A function of a signature as `string, list(A) -> int`."""
    return _made(name, signature, compute, False, cost, size, counts)


def method(
    name: str, signature: str, compute: Callable[..., Any], cost: Cost | None = None, size: Cost | None = None,
    *, counts: bool = False,
) -> Overload:  # fmt: skip
    """A method; its target is the first operand of the signature."""
    return _made(name, signature, compute, True, cost, size, counts)


def by_name(rows: Iterable[Overload]) -> dict[tuple[str, bool], list[Overload]]:
    found: dict[tuple[str, bool], list[Overload]] = {}
    for row in rows:
        found.setdefault((row.name, row.member), []).append(row)
    return found


def size_of(value: Any) -> int:
    """What a value measures where costs are told."""
    return len(value) if isinstance(value, (str, bytes, list, dict)) else 1


def count_of(value: Any) -> float:
    """What a value measures where a number stands for so many items."""
    return max(value, 0) if isinstance(value, int) and not isinstance(value, bool) else size_of(value)


# ---- the costs that many functions share


def reads_text(sizes: Sequence[float]) -> float:
    """Of reading the first operand once, a character costing a tenth."""
    return ceil(sizes[0] * 0.1)


def reads_second(sizes: Sequence[float]) -> float:
    return ceil(sizes[1] * 0.1)


def reads_both(sizes: Sequence[float]) -> float:
    return ceil((sizes[0] + sizes[1]) * 0.1)


def walks_list(sizes: Sequence[float]) -> float:
    """Of visiting every item of the first operand."""
    return sizes[0]


def searches(sizes: Sequence[float]) -> float:
    return ceil(sizes[0] * 0.1) * ceil(sizes[1] * 0.1)


def matches_pattern(sizes: Sequence[float]) -> float:
    return ceil((sizes[0] + 1) * 0.1) * ceil(sizes[1] * 0.25)


def first_size(sizes: Sequence[float]) -> float:
    return sizes[0]


def both_sizes(sizes: Sequence[float]) -> float:
    return sizes[0] + sizes[1]
