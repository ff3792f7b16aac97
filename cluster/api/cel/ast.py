"""What the parser makes of an expression, and the checker completes: a tree of nodes that know their place and type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from steersman.cluster.api.cel.types import DYN, Type


@dataclass(slots=True, kw_only=True)
class Node:
    """A part of an expression.

    Args:
        offset: of what mistakes in it are shown at, in characters.
        type: what it evaluates to; the checker's.
    """

    offset: int
    type: Type = DYN


@dataclass(slots=True, kw_only=True)
class Literal(Node):
    value: Any


@dataclass(slots=True, kw_only=True)
class Ident(Node):
    """A variable; `slot` is where evaluation keeps it, the checker's."""

    name: str
    slot: int = -1


@dataclass(slots=True, kw_only=True)
class Select(Node):
    """`operand.field`; `test` of `has()`; `optional` of `operand.?field`.

    Args:
        key: the field's name in the JSON tree; `whole` is set where the chain is one name. The checker's, both.
    """

    operand: Node
    field: str
    test: bool = False
    optional: bool = False
    key: str = ""
    whole: Ident | None = None


@dataclass(slots=True, kw_only=True)
class Call(Node):
    """A call of a function or (with a target) a method; operators have the names that cel-go gives them."""

    function: str
    args: list[Node]
    target: Node | None = None
    #: the overloads that the types of its arguments leave
    overloads: list[Any] = field(default_factory=list)

    @property
    def operands(self) -> list[Node]:
        return self.args if self.target is None else [self.target, *self.args]


@dataclass(slots=True, kw_only=True)
class ListExpr(Node):
    items: list[Node]
    #: the places of items that are optionals: left out when there is nothing in them
    optional: frozenset[int] = frozenset()


@dataclass(slots=True, kw_only=True)
class MapExpr(Node):
    keys: list[Node]
    values: list[Node]
    optional: frozenset[int] = frozenset()


@dataclass(slots=True, kw_only=True)
class Struct(Node):
    """`Name{field: value}`."""

    name: str
    fields: list[tuple[str, Node, int]]
    optional: frozenset[int] = frozenset()
    keys: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Macro(Node):
    """A comprehension: `range.name(variables..., bodies...)`.

    Args:
        variables: their names, with the places of these.
        slots: where evaluation keeps the variables; the checker's.
    """

    name: str
    range: Node
    variables: list[tuple[str, int]]
    bodies: list[Node]
    slots: list[int] = field(default_factory=list)


#: makes a node of the target, the arguments and the place of a macro
Expand = Callable[[Node | None, list[Node], int], Node]


def walk(node: Node) -> Iterator[Node]:
    """Yields a node and every one below it."""
    yield node
    for row in fields(node):
        yield from _below(getattr(node, row.name))


def _below(value: Any) -> Iterator[Node]:
    if isinstance(value, Node):
        yield from walk(value)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _below(item)
