"""From an expression to its tree; macros become nodes of their own.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax
"""

from __future__ import annotations

from collections.abc import Callable

from steersman.cluster.api.cel.ast import Call, Ident, ListExpr, Literal, MapExpr, Node, Select, Struct
from steersman.cluster.api.cel.errors import CelError, Issue
from steersman.cluster.api.cel.lexer import RESERVED, SyntaxIssue, Token, tokens
from steersman.cluster.api.cel.macros import MACROS, MacroIssue

#: the longest expression, in characters; cel-go's own bound
SOURCE_MAX = 100_000
_RELATIONS = {"==": "_==_", "!=": "_!=_", "<": "_<_", "<=": "_<=_", ">": "_>_", ">=": "_>=_", "in": "@in"}
#: operators that associate to the left, loosest first
_BINARY = (_RELATIONS, {"+": "_+_", "-": "_-_"}, {"*": "_*_", "/": "_/_", "%": "_%_"})
_OPERAND = (
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
)
_CONSTANTS = {"true": True, "false": False, "null": None}


def parse(source: str) -> Node:
    """Returns the tree of an expression.

    Raises:
        CelError
    """
    if len(source) > SOURCE_MAX:
        text = f"expression code point size exceeds limit: size: {len(source)}, limit {SOURCE_MAX}"
        raise CelError(source, [Issue(0, text)])
    try:
        parser = _Parser(tokens(source))
        tree = parser.expression()
        parser.expect_end()
    except SyntaxIssue as error:
        raise CelError(source, [error.issue]) from None
    except MacroIssue as error:
        raise CelError(source, [Issue(error.offset, str(error))]) from None
    return tree


class _Parser:
    def __init__(self, found: list[Token]) -> None:
        self._tokens = found
        self._at = 0

    # ---- tokens

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _is(self, text: str) -> bool:
        token = self._next
        return token.text == text and token.kind in ("op", "ident")

    def _accept(self, text: str) -> bool:
        if self._is(text):
            self._at += 1
            return True
        return False

    def _expect(self, text: str) -> Token:
        if not self._is(text):
            if self._next.kind == "end" and text == ")":
                raise SyntaxIssue(self._next.offset, "missing ')' at '<EOF>'")
            raise self._unexpected("{']', ','}" if text == "]" else f"'{text}'")
        return self._take()

    def _unexpected(self, wanted: str) -> SyntaxIssue:
        token = self._next
        return SyntaxIssue(token.offset, f"mismatched input '{token.text}' expecting {wanted}")

    def expect_end(self) -> None:
        token = self._next
        if token.kind != "end":
            last = self._tokens[self._at + 1].kind == "end"
            word = "extraneous" if last else "mismatched"
            raise SyntaxIssue(token.offset, f"{word} input '{token.text}' expecting <EOF>")

    # ---- operators

    def expression(self) -> Node:
        condition = self._condition()
        if self._is("?"):
            offset = self._take().offset
            then = self._condition()
            self._expect(":")
            condition = Call(offset=offset, function="_?_:_", args=[condition, then, self.expression()])
        return condition

    def _condition(self) -> Node:
        return self._logical("||", "_||_", lambda: self._logical("&&", "_&&_", lambda: self._binary(0)))

    def _logical(self, text: str, function: str, operand: Callable[[], Node]) -> Node:
        operands, offsets = [operand()], []
        while self._is(text):
            offsets.append(self._take().offset)
            operands.append(operand())
        return _balanced(function, operands, offsets)

    def _binary(self, level: int) -> Node:
        if level == len(_BINARY):
            return self._unary()
        table = _BINARY[level]
        left = self._binary(level + 1)
        while self._next.kind in ("op", "ident") and self._next.text in table:
            token = self._take()
            left = Call(offset=token.offset, function=table[token.text], args=[left, self._binary(level + 1)])
        return left

    def _unary(self) -> Node:
        token = self._next
        if not (self._is("!") or self._is("-")):
            return self._member()
        count = 0
        while self._accept(token.text):
            count += 1
        if token.text == "-" and self._next.kind == "literal" and type(self._next.value) in (int, float):
            count -= 1
            literal = self._take()
            operand = self._members(self._number(-literal.value, token.offset))
        else:
            operand = self._member()
        if count % 2 == 0:
            return operand
        return Call(offset=token.offset, function="!_" if token.text == "!" else "-_", args=[operand])

    @staticmethod
    def _number(value: int | float, offset: int) -> Literal:
        if type(value) is int and not -(2**63) <= value < 2**63:
            raise SyntaxIssue(offset, "invalid int literal")
        return Literal(offset=offset, value=value)

    # ---- members

    def _member(self) -> Node:
        return self._members(self._primary())

    def _members(self, node: Node) -> Node:
        while True:
            token = self._next
            if self._accept("."):
                optional = self._accept("?")
                name = self._identifier()
                if self._is("(") and not optional:
                    node = self._call(name.text, node, self._next.offset)
                else:
                    node = Select(offset=token.offset, operand=node, field=name.text, optional=optional)
            elif self._accept("["):
                function = "_[?_]" if self._accept("?") else "_[_]"
                node = Call(offset=token.offset, function=function, args=[node, self.expression()])
                self._expect("]")
            elif self._is("{") and (made := dotted(node)):
                node = self._struct(made, node.offset)
            else:
                return node

    def _identifier(self) -> Token:
        if self._next.kind != "ident" or self._next.text in ("in", *_CONSTANTS):
            token = self._next
            seen = "" if token.kind == "end" else token.text
            raise SyntaxIssue(token.offset, f"no viable alternative at input '.{seen}'")
        return self._take()

    def _call(self, function: str, target: Node | None, offset: int) -> Node:
        self._expect("(")
        args = self._items(")")
        expand = MACROS.get((function, len(args), target is not None))
        if expand is not None:
            return expand(target, args, offset)
        return Call(offset=offset, function=function, args=args, target=target)

    def _items(self, end: str) -> list[Node]:
        found: list[Node] = []
        while not self._is(end):
            found.append(self.expression())
            if not self._accept(","):
                break
        self._expect(end)
        return found

    # ---- what stands alone

    def _primary(self) -> Node:
        token = self._next
        if token.kind == "literal":
            self._at += 1
            if type(token.value) is int:
                return self._number(token.value, token.offset)
            return Literal(offset=token.offset, value=token.value)
        if token.kind == "ident" and token.text in _CONSTANTS:
            self._at += 1
            return Literal(offset=token.offset, value=_CONSTANTS[token.text])
        if self._accept("("):
            node = self.expression()
            self._expect(")")
            return node
        if self._accept("["):
            return self._list(token.offset)
        if self._accept("{"):
            return self._map(token.offset)
        return self._name(token)

    def _name(self, token: Token) -> Node:
        leading = self._accept(".")
        name = self._next
        if name.kind != "ident" or name.text == "in":
            raise self._unexpected("IDENTIFIER" if leading else _OPERAND)
        self._at += 1
        if self._is("("):
            return self._call(name.text, None, self._next.offset)
        if name.text in RESERVED:
            raise SyntaxIssue(name.offset, f"reserved identifier: {name.text}")
        return Ident(offset=token.offset, name=name.text)

    def _list(self, offset: int) -> Node:
        items: list[Node] = []
        optional: set[int] = set()
        while not self._is("]"):
            if self._accept("?"):
                optional.add(len(items))
            items.append(self.expression())
            if not self._accept(","):
                break
        self._expect("]")
        return ListExpr(offset=offset, items=items, optional=frozenset(optional))

    def _map(self, offset: int) -> Node:
        keys: list[Node] = []
        values: list[Node] = []
        optional: set[int] = set()
        while not self._is("}"):
            if self._accept("?"):
                optional.add(len(keys))
            keys.append(self.expression())
            self._expect(":")
            values.append(self.expression())
            if not self._accept(","):
                break
        self._expect("}")
        return MapExpr(offset=offset, keys=keys, values=values, optional=frozenset(optional))

    def _struct(self, name: str, offset: int) -> Node:
        self._expect("{")
        fields: list[tuple[str, Node, int]] = []
        optional: set[int] = set()
        while not self._is("}"):
            if self._accept("?"):
                optional.add(len(fields))
            key = self._identifier()
            colon = self._expect(":")
            fields.append((key.text, self.expression(), colon.offset))
            if not self._accept(","):
                break
        self._expect("}")
        return Struct(offset=offset, name=name, fields=fields, optional=frozenset(optional))


def _balanced(function: str, operands: list[Node], offsets: list[int]) -> Node:
    """One call over many operands as a tree that is not deep."""
    if len(operands) == 1:
        return operands[0]
    middle = len(operands) // 2
    left = _balanced(function, operands[:middle], offsets[: middle - 1])
    right = _balanced(function, operands[middle:], offsets[middle:])
    return Call(offset=offsets[middle - 1], function=function, args=[left, right])


def dotted(node: Node) -> str:
    """The name that a chain of selections spells; empty when it is none."""
    if isinstance(node, Ident):
        return node.name
    if isinstance(node, Select) and not node.test and not node.optional and (before := dotted(node.operand)):
        return f"{before}.{node.field}"
    return ""
