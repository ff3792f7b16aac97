"""The macros: calls that are parts of the language rather than functions.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#macros and cel-go's ext/{comprehensions,lists}.go
"""

from __future__ import annotations

from steersman.cluster.api.cel.ast import Expand, Ident, Literal, Macro, MapExpr, Node, Select, Struct


class MacroIssue(Exception):
    """A macro with arguments that it cannot have."""

    def __init__(self, offset: int, text: str) -> None:
        self.offset = offset
        super().__init__(text)


def _has(_target: Node | None, args: list[Node], offset: int) -> Node:
    operand = args[0]
    if not isinstance(operand, Select) or operand.optional:
        raise MacroIssue(operand.offset, "invalid argument to has() macro")
    return Select(offset=offset, operand=operand.operand, field=operand.field, test=True)


def _comprehension(name: str, variables: int) -> Expand:
    def expand(target: Node | None, args: list[Node], offset: int) -> Node:
        assert target is not None
        names = [_variable(name, arg) for arg in args[:variables]]
        if len(names) == 2 and names[0][0] == names[1][0]:
            raise MacroIssue(names[1][1], f"duplicate variable name: {names[1][0]}")
        return Macro(offset=offset, name=name, range=target, variables=names, bodies=args[variables:])

    return expand


def _sort_by(target: Node | None, args: list[Node], offset: int) -> Node:
    assert target is not None
    if isinstance(target, (Literal, MapExpr, Struct)):
        text = "sortBy can only be applied to a list, identifier, comprehension, call or select expression"
        raise MacroIssue(target.offset, text)
    return Macro(offset=offset, name="sortBy", range=target, variables=[_variable("map", args[0])], bodies=args[1:])


def _variable(macro: str, node: Node) -> tuple[str, int]:
    if not isinstance(node, Ident):
        detail = "argument is not an identifier" if macro in ("map", "filter") else "argument must be a simple name"
        raise MacroIssue(node.offset, detail)
    return node.name, node.offset


#: (name, number of arguments, whether it is a method) to what makes a node of it
MACROS: dict[tuple[str, int, bool], Expand] = {
    ("has", 1, False): _has,
    ("all", 2, True): _comprehension("all", 1),
    ("exists", 2, True): _comprehension("exists", 1),
    ("exists_one", 2, True): _comprehension("exists_one", 1),
    ("existsOne", 2, True): _comprehension("exists_one", 1),
    ("filter", 2, True): _comprehension("filter", 1),
    ("map", 2, True): _comprehension("map", 1),
    ("map", 3, True): _comprehension("map", 1),
    ("sortBy", 2, True): _sort_by,
    ("optMap", 2, True): _comprehension("optMap", 1),
    ("optFlatMap", 2, True): _comprehension("optFlatMap", 1),
    ("all", 3, True): _comprehension("all", 2),
    ("exists", 3, True): _comprehension("exists", 2),
    ("exists_one", 3, True): _comprehension("exists_one", 2),
    ("existsOne", 3, True): _comprehension("exists_one", 2),
    ("transformList", 3, True): _comprehension("transformList", 2),
    ("transformList", 4, True): _comprehension("transformList", 2),
    ("transformMap", 3, True): _comprehension("transformMap", 2),
    ("transformMap", 4, True): _comprehension("transformMap", 2),
    ("transformMapEntry", 3, True): _comprehension("transformMapEntry", 2),
    ("transformMapEntry", 4, True): _comprehension("transformMapEntry", 2),
}
