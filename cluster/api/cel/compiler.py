"""From a checked tree to closures: each node becomes a function of a frame, and counts what it costs.

Source of the costs: github.com/google/cel-go/interpreter/runtimecost.go
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from steersman.cluster.api.cel.ast import Call, Ident, ListExpr, Literal, Macro, MapExpr, Node, Select, Struct
from steersman.cluster.api.cel.comprehend import comprehension
from steersman.cluster.api.cel.convert import reader
from steersman.cluster.api.cel.errors import BudgetExceeded, EvaluationError, no_such_key, no_such_overload
from steersman.cluster.api.cel.overload import Overload, size_of
from steersman.cluster.api.cel.types import Type, is_dyn
from steersman.cluster.api.cel.unordered import UNORDERED
from steersman.cluster.api.cel.values import NONE, Optional, TypeValue, mark

#: what Python says of values whose types an expression hides: nulls, and items of lists that may be anything
_MISFITS = (TypeError, AttributeError)
_EQUALITY = ("_==_", "_!=_")
#: types whose values are equal when Python says so
_SIMPLE = ("bool", "int", "uint", "double", "string", "timestamp", "duration")
#: what making a value costs beside its parts
LIST_COST, MAP_COST, STRUCT_COST = 10, 30, 40


class Frame:
    """One evaluation: the values of its variables, and what it has cost so far."""

    __slots__ = ("cost", "limit", "slots")

    def __init__(self, slots: list[Any], limit: float) -> None:
        self.slots = slots
        self.cost: float = 0
        self.limit = limit


Run = Callable[[Frame], Any]


def build(node: Node) -> Run:
    """Returns the function that evaluates a node."""
    match node:
        case Literal():
            value = node.value
            return lambda _frame: value
        case Ident():
            return _ident(node)
        case Select():
            return _select(node)
        case Call():
            return _call(node)
        case ListExpr():
            return _list(node)
        case MapExpr():
            return _map(node)
        case Struct():
            return _struct(node)
        case Macro():
            return comprehension(node, build(node.range), [build(body) for body in node.bodies])
    raise TypeError(node)


def _ident(node: Ident) -> Run:
    if node.slot < 0:
        value = TypeValue(node.type.params[0].name)
        return lambda _frame: value
    slot = node.slot

    def run(frame: Frame) -> Any:
        frame.cost += 1
        return frame.slots[slot]

    return run


# ---- fields


def _select(node: Select) -> Run:
    if node.whole is not None:
        return _ident(node.whole)
    operand, key = build(node.operand), node.key
    if node.operand.type.name == "optional_type" or node.optional:
        return _optional_field(operand, key, node)
    if node.test:
        return _has(operand, key)
    keys = [key]
    below = node.operand
    while isinstance(below, Select) and not below.test and below.whole is None and _is_plain(below):
        keys.append(below.key)
        below = below.operand
    keys.reverse()
    return _path(build(below), tuple(keys), reader(node.type))


def _is_plain(node: Select) -> bool:
    return not node.optional and node.operand.type.name != "optional_type"


def _path(operand: Run, keys: tuple[str, ...], read: Callable[[Any], Any] | None) -> Run:
    cost = len(keys)

    def run(frame: Frame) -> Any:
        value = operand(frame)
        frame.cost += cost
        for key in keys:
            try:
                value = value[key]
            except KeyError:
                raise no_such_key(key) from None
            except TypeError:
                raise no_such_overload() from None
        return value if read is None else read(value)

    return run


def _has(operand: Run, key: str) -> Run:
    def run(frame: Frame) -> bool:
        value = operand(frame)
        frame.cost += 1
        if type(value) is Optional:
            value = value.value if value.present else {}
        if not isinstance(value, Mapping):
            raise no_such_overload()
        return key in value

    return run


def _optional_field(operand: Run, key: str, node: Select) -> Run:
    read = None if node.test else reader(node.type.params[0])

    def run(frame: Frame) -> Any:
        value = operand(frame)
        frame.cost += 1
        if type(value) is Optional:
            value = value.value if value.present else {}
        found = isinstance(value, Mapping) and key in value
        if node.test:
            return found
        if not found:
            return NONE
        return Optional(value[key] if read is None else read(value[key]))

    return run


# ---- calls


def _call(node: Call) -> Run:
    operands = [build(operand) for operand in node.operands]
    match node.function:
        case "_?_:_":
            return _ternary(*operands)
        case "_&&_":
            return _junction(operands[0], operands[1], ends=False)
        case "_||_":
            return _junction(operands[0], operands[1], ends=True)
    kinds = [operand.type for operand in node.operands]
    special = UNORDERED.get(node.function)
    if special is not None and (order := kinds[0].unordered or kinds[1].unordered) is not None:
        return _fixed(lambda left, right: special(order, left, right), operands, None)
    if node.function in _EQUALITY and kinds[0].name == kinds[1].name and kinds[0].name in _SIMPLE:
        return _simple_equality(operands[0], operands[1], negated=node.function == "_!=_")
    rows = node.overloads
    unknown = any(_is_open(kind) for kind in kinds)
    if len(rows) == 1 and not (unknown and any(_needs_check(row, kinds) for row in rows)):
        return _fixed(rows[0].compute, operands, rows[0].cost, rows[0].measure)
    return _dispatched(rows, operands)


def _simple_equality(left: Run, right: Run, *, negated: bool) -> Run:
    """Equality of two values of one type that Python compares rightly."""

    def run(frame: Frame) -> Any:
        first, second = left(frame), right(frame)
        frame.cost += 1 if type(first) is not str else 1 + min(len(first), len(second)) // 10
        return (first == second) is not negated

    return run


def _is_open(kind: Type) -> bool:
    return is_dyn(kind) or any(map(_is_open, kind.params))


def _needs_check(row: Overload, kinds: list[Type]) -> bool:
    return any(
        is_dyn(kind) and not param.is_param and not is_dyn(param) for param, kind in zip(row.params, kinds, strict=True)
    )


def _fixed(
    compute: Callable[..., Any], operands: list[Run], cost: Any, measure: Callable[[Any], float] = size_of
) -> Run:
    if cost is not None:
        return _costly(compute, operands, cost, measure)
    if len(operands) == 1:
        (one,) = operands

        def unary(frame: Frame) -> Any:
            frame.cost += 1
            try:
                return compute(one(frame))
            except _MISFITS:
                raise no_such_overload() from None

        return unary
    if len(operands) == 2:
        left, right = operands

        def binary(frame: Frame) -> Any:
            frame.cost += 1
            try:
                return compute(left(frame), right(frame))
            except _MISFITS:
                raise no_such_overload() from None

        return binary

    def run(frame: Frame) -> Any:
        frame.cost += 1
        try:
            return compute(*[operand(frame) for operand in operands])
        except _MISFITS:
            raise no_such_overload() from None

    return run


def _costly(compute: Callable[..., Any], operands: list[Run], cost: Any, measure: Callable[[Any], float]) -> Run:
    if len(operands) == 2 and measure is size_of:
        return _costly_pair(compute, operands[0], operands[1], cost)

    def run(frame: Frame) -> Any:
        values = [operand(frame) for operand in operands]
        frame.cost += cost([measure(value) for value in values])
        if frame.cost > frame.limit:
            raise BudgetExceeded
        try:
            return compute(*values)
        except _MISFITS:
            raise no_such_overload() from None

    return run


def _costly_pair(compute: Callable[..., Any], left: Run, right: Run, cost: Any) -> Run:
    def run(frame: Frame) -> Any:
        one, other = left(frame), right(frame)
        frame.cost += cost(
            (len(one) if type(one) is str else size_of(one), len(other) if type(other) is str else size_of(other))
        )
        if frame.cost > frame.limit:
            raise BudgetExceeded
        try:
            return compute(one, other)
        except _MISFITS:
            raise no_such_overload() from None

    return run


def _dispatched(rows: list[Overload], operands: list[Run]) -> Run:
    """Chooses among overloads by the values: something of their types was not known."""

    def run(frame: Frame) -> Any:
        values = [operand(frame) for operand in operands]
        for row in rows:
            if row.accepts(values):
                frame.cost += 1 if row.cost is None else row.cost([row.measure(value) for value in values])
                if frame.cost > frame.limit:
                    raise BudgetExceeded
                try:
                    return row.compute(*values)
                except _MISFITS:
                    raise no_such_overload() from None
        raise no_such_overload()

    return run


def _ternary(condition: Run, then: Run, other: Run) -> Run:
    def run(frame: Frame) -> Any:
        chosen = condition(frame)
        if chosen is True:
            return then(frame)
        if chosen is False:
            return other(frame)
        raise no_such_overload()

    return run


def _junction(left: Run, right: Run, *, ends: bool) -> Run:
    """`&&` (which a False ends) or `||` (a True): an error on one side gives way to what decides on the other."""

    def run(frame: Frame) -> Any:
        try:
            first = left(frame)
        except EvaluationError:
            if right(frame) is ends:
                return ends
            raise
        if first is ends:
            return ends
        second = right(frame)
        if second is ends:
            return ends
        if type(first) is not bool or type(second) is not bool:
            raise no_such_overload()
        return not ends

    return run


# ---- literals


def _list(node: ListExpr) -> Run:
    items, optional = [build(item) for item in node.items], node.optional

    def run(frame: Frame) -> list[Any]:
        frame.cost += LIST_COST
        if not optional:
            return [item(frame) for item in items]
        found = []
        for index, item in enumerate(items):
            value = item(frame)
            if index not in optional:
                found.append(value)
            elif value.present:
                found.append(value.value)
        return found

    return run


def _map(node: MapExpr) -> Run:
    keys, values = [build(key) for key in node.keys], [build(value) for value in node.values]
    optional = node.optional

    def run(frame: Frame) -> dict[Any, Any]:
        frame.cost += MAP_COST
        found: dict[Any, Any] = {}
        for index, (key_of, value_of) in enumerate(zip(keys, values, strict=True)):
            key, value = key_of(frame), value_of(frame)
            if not isinstance(key, (str, int, float)):
                raise EvaluationError("unsupported key type")
            if key in found:
                raise EvaluationError(f"Failed with repeated key {mark(key)}")
            if index not in optional:
                found[key] = value
            elif value.present:
                found[key] = value.value
        return found

    return run


def _struct(node: Struct) -> Run:
    rows = [
        (key, build(value), index in node.optional)
        for index, (key, (_, value, _)) in enumerate(zip(node.keys, node.fields, strict=True))
    ]

    def run(frame: Frame) -> dict[str, Any]:
        frame.cost += STRUCT_COST
        found = {}
        for key, value_of, optional in rows:
            value = value_of(frame)
            if not optional:
                found[key] = value
            elif value.present:
                found[key] = value.value
        return found

    return run
