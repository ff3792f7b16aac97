"""Macros over lists and maps, as closures.

A body's error is kept while another item may decide the result, as `||` and `&&` do.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#macros
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from steersman.cluster.api.cel.ast import Macro
from steersman.cluster.api.cel.errors import BudgetExceeded, EvaluationError, no_such_overload
from steersman.cluster.api.cel.library.collections import sort_cost, sorted_by
from steersman.cluster.api.cel.overload import Cost
from steersman.cluster.api.cel.values import NONE, Optional

if TYPE_CHECKING:
    from steersman.cluster.api.cel.compiler import Frame, Run

#: what a turn of a loop costs beside its body: the condition and the accumulator
TURN_COST = 3


def comprehension(node: Macro, over: Run, bodies: Sequence[Run]) -> Run:
    """Returns the function that evaluates a macro."""
    if node.name in ("optMap", "optFlatMap"):
        return _on_optional(over, bodies[0], node.slots[0], flat=node.name == "optFlatMap")
    turns = _turns(node.slots)
    if node.name in ("all", "exists"):
        return _quantifier(over, bodies[0], turns, ends=node.name == "exists")
    if node.name == "exists_one":
        return _exists_one(over, bodies[0], turns)
    if node.name == "filter":
        return _filter(over, bodies[0], turns, node.slots[-1])
    if node.name == "sortBy":
        return _sorted(over, bodies[0], turns, node.slots[0], sort_cost(node.bodies[0].type.name))
    condition = bodies[0] if len(bodies) == 2 else None
    if node.name in ("map", "transformList"):
        return _collected(over, condition, bodies[-1], turns)
    return _mapped(over, condition, bodies[-1], turns, node.slots[0], entries=node.name == "transformMapEntry")


Turns = Callable[["Frame", Any], Iterator[None]]


def _turns(slots: Sequence[int]) -> Turns:
    """Gives the variables the values of each turn."""

    def run(frame: Frame, values: Any) -> Iterator[None]:
        kept = frame.slots
        if len(slots) == 1:
            (slot,) = slots
            for value in _items(values):
                frame.cost += TURN_COST
                if frame.cost > frame.limit:
                    raise BudgetExceeded
                kept[slot] = value
                yield
            return
        first, second = slots
        pairs: Iterable[tuple[Any, Any]] = values.items() if isinstance(values, Mapping) else enumerate(_items(values))
        for key, value in pairs:
            frame.cost += TURN_COST
            if frame.cost > frame.limit:
                raise BudgetExceeded
            kept[first], kept[second] = key, value
            yield

    return run


def _items(values: Any) -> Iterable[Any]:
    if not isinstance(values, (list, Mapping)):
        raise no_such_overload()
    return values


def _quantifier(over: Run, body: Run, turns: Turns, *, ends: bool) -> Run:
    def run(frame: Frame) -> Any:
        kept: EvaluationError | None = None
        for _ in turns(frame, over(frame)):
            try:
                found = body(frame)
            except EvaluationError as error:
                kept = error
                continue
            if found is ends:
                return ends
            if type(found) is not bool:
                kept = no_such_overload()
        if kept is not None:
            raise kept
        return not ends

    return run


def _exists_one(over: Run, body: Run, turns: Turns) -> Run:
    return lambda frame: sum(body(frame) is True for _ in turns(frame, over(frame))) == 1


def _filter(over: Run, body: Run, turns: Turns, slot: int) -> Run:
    return lambda frame: [frame.slots[slot] for _ in turns(frame, over(frame)) if body(frame) is True]


def _sorted(over: Run, body: Run, turns: Turns, slot: int, cost: Cost) -> Run:
    def run(frame: Frame) -> list[Any]:
        values, keys = [], []
        for _ in turns(frame, over(frame)):
            values.append(frame.slots[slot])
            keys.append(body(frame))
        frame.cost += cost((len(values),))
        if frame.cost > frame.limit:
            raise BudgetExceeded
        return sorted_by(values, keys)

    return run


def _collected(over: Run, condition: Run | None, body: Run, turns: Turns) -> Run:
    if condition is None:
        return lambda frame: [body(frame) for _ in turns(frame, over(frame))]
    return lambda frame: [body(frame) for _ in turns(frame, over(frame)) if condition(frame) is True]


def _mapped(over: Run, condition: Run | None, body: Run, turns: Turns, slot: int, *, entries: bool) -> Run:
    def run(frame: Frame) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for _ in turns(frame, over(frame)):
            if condition is not None and condition(frame) is not True:
                continue
            made = body(frame)
            for key, value in (made if entries else {frame.slots[slot]: made}).items():
                if key in found:
                    raise EvaluationError(f"insert failed: key {key} already exists")
                found[key] = value
        return found

    return run


def _on_optional(over: Run, body: Run, slot: int, *, flat: bool) -> Run:
    def run(frame: Frame) -> Optional:
        optional = over(frame)
        if not isinstance(optional, Optional):
            raise no_such_overload()
        if not optional.present:
            return NONE
        frame.slots[slot] = optional.value
        found = body(frame)
        return found if flat else Optional(found)

    return run
