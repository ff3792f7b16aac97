"""What an expression can cost at most, of the sizes that its types allow.

Source: github.com/google/cel-go/checker/cost.go
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steersman.cluster.api.cel.ast import Call, Ident, ListExpr, Literal, Macro, MapExpr, Node, Select, Struct
from steersman.cluster.api.cel.compiler import LIST_COST, MAP_COST, STRUCT_COST
from steersman.cluster.api.cel.comprehend import TURN_COST
from steersman.cluster.api.cel.library.collections import sort_cost
from steersman.cluster.api.cel.overload import count_of, size_of
from steersman.cluster.api.cel.types import Type

#: the size of what nothing bounds
UNKNOWN = 1e18
_SIZED = ("string", "bytes", "list", "map", "dyn")


@dataclass(frozen=True, slots=True)
class Estimate:
    """The most that a part costs, and the most that its value measures."""

    cost: float
    size: float


def cost_max(tree: Node) -> float:
    """Returns what evaluating a checked expression can cost at most, in cel-go's units."""
    return _of(tree).cost


def _of(node: Node) -> Estimate:
    match node:
        case Literal():
            return Estimate(0, size_of(node.value))
        case Ident():
            return Estimate(1, _size(node.type))
        case Select():
            return Estimate(_of(node.operand).cost + 1, _size(node.type))
        case Call():
            return _call(node)
        case ListExpr():
            return Estimate(LIST_COST + _total(node.items), len(node.items))
        case MapExpr():
            return Estimate(MAP_COST + _total([*node.keys, *node.values]), len(node.keys))
        case Struct():
            return Estimate(STRUCT_COST + _total([value for _, value, _ in node.fields]), 1)
        case Macro():
            return _macro(node)
    raise TypeError(node)


def _total(nodes: list[Node]) -> float:
    return sum(_of(node).cost for node in nodes)


def _size(kind: Type) -> float:
    if kind.size_max is not None:
        return kind.size_max
    return UNKNOWN if kind.name in _SIZED else 1


def _call(node: Call) -> Estimate:
    parts = [_of(operand) for operand in node.operands]
    if node.function == "_?_:_":
        condition, then, other = parts
        return Estimate(condition.cost + max(then.cost, other.cost), max(then.size, other.size))
    below, sizes = sum(part.cost for part in parts), [part.size for part in parts]
    if node.function in ("_&&_", "_||_"):
        return Estimate(below, 1)
    counted = [_counted(operand, size) for operand, size in zip(node.operands, sizes, strict=True)]
    rows = [(row, counted if row.counts else sizes) for row in node.overloads]
    own = max((_own(row, measured) for row, measured in rows), default=1.0)
    size = max((_result(row, measured, node.type) for row, measured in rows), default=1.0)
    return Estimate(below + own, size)


def _counted(node: Node, size: float) -> float:
    """The most that an operand counts; a number that is not written out may be any."""
    if isinstance(node, Literal):
        return count_of(node.value)
    return size if node.type.name in _SIZED else UNKNOWN


def _own(row: Any, sizes: list[float]) -> float:
    return 1 if row.cost is None else min(UNKNOWN, row.cost(sizes))


def _result(row: Any, sizes: list[float], kind: Type) -> float:
    if kind.size_max is not None or row.size is None:
        return _size(kind)
    return float(min(UNKNOWN, row.size(sizes)))


def _macro(node: Macro) -> Estimate:
    over = _of(node.range)
    bodies = _total(node.bodies)
    if node.name in ("optMap", "optFlatMap"):
        return Estimate(over.cost + bodies, _size(node.type))
    if node.name == "sortBy":
        sorting = sort_cost(node.bodies[0].type.name)((over.size,))
        return Estimate(min(UNKNOWN, over.cost + LIST_COST + over.size * (TURN_COST + bodies) + sorting), over.size)
    whole = node.name in ("all", "exists", "exists_one")
    return Estimate(min(UNKNOWN, over.cost + over.size * (TURN_COST + bodies)), 1 if whole else over.size)
