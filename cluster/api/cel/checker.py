"""Finds the type of every part of an expression, and what is wrong with it.

What an empty list or map holds is a type variable: the first use tells what it stands for.

Source: github.com/google/cel-go/checker/checker.go; literals of mixed types are refused as Kubernetes does
(github.com/google/cel-go/cel/validator.go)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from steersman.cluster.api.cel import types
from steersman.cluster.api.cel.ast import Call, Ident, ListExpr, Literal, Macro, MapExpr, Node, Select, Struct
from steersman.cluster.api.cel.errors import EvaluationError, Issue
from steersman.cluster.api.cel.library import FUNCTIONS
from steersman.cluster.api.cel.library.collections import ORDERED
from steersman.cluster.api.cel.library.regex import compiled
from steersman.cluster.api.cel.overload import Overload
from steersman.cluster.api.cel.parser import dotted
from steersman.cluster.api.cel.types import BOOL, DYN, ERROR, INT, ObjectType, Type, is_dyn
from steersman.cluster.api.cel.values import parse_duration, parse_timestamp, type_name

_READ_LITERALS: dict[str, Callable[[str], object]] = {
    "matches": compiled,
    "duration": parse_duration,
    "timestamp": parse_timestamp,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Declarations:
    """What an expression may name.

    Args:
        variables: name to type.
        types: of the objects that expressions may make (`Name{field: value}`), by name.
    """

    variables: Mapping[str, Type] = field(default_factory=dict)
    types: Mapping[str, ObjectType] = field(default_factory=dict)


class Checker:
    """Checks one expression; afterwards its nodes know their types, overloads and slots.

    Attributes:
        issues: what is wrong.
        slots: how many values evaluation keeps; the first are those of `inputs`.
        inputs: the variables that the expression reads, name to slot.
    """

    def __init__(self, declarations: Declarations) -> None:
        self._declared = declarations
        self._scopes: list[dict[str, tuple[Type, int]]] = []
        self._inner: list[Ident] = []
        #: whether literals here may mix types: what `format` prints
        self._loose = False
        #: the parts of each literal elsewhere, which must all be of one type, and which of them are optionals
        self._uniform: list[tuple[list[Node], frozenset[int]]] = []
        #: the calls that read a text, which may be written out
        self._read: list[Call] = []
        #: what type variables stand for, as far as is known, and how many there have been; whether any outlived the
        #: call it was made for, and the nodes since then, whose types it may be in
        self._bound: dict[str, Type] = {}
        self._variables = 0
        self._lasting = False
        self._open: list[Node] = []
        self.issues: list[Issue] = []
        self.inputs: dict[str, int] = {}
        self.slots = 0

    def check(self, node: Node) -> Type:
        """Returns the type of a node, with which it is marked."""
        match node:
            case Literal():
                found = types.Type(type_name(node.value))
            case Ident():
                found = self._ident(node)
            case Select():
                found = self._select(node)
            case Call():
                found = self._call(node)
            case ListExpr():
                found = self._list(node)
            case MapExpr():
                found = self._map(node)
            case Struct():
                found = self._struct(node)
            case Macro():
                found = self._macro(node)
            case _:
                raise TypeError(node)
        if self._lasting:
            found = types.resolve(found, self._bound, free=True)
            self._open.append(node)
        node.type = found
        return found

    def _variable(self) -> Type:
        self._variables += 1
        return Type(f"_var{self._variables}")

    def _fits(self, wanted: Type, found: Type) -> bool:
        return types.assign(wanted, found, self._bound)

    def _shown(self, kind: Type) -> str:
        return str(types.resolve(kind, self._bound))

    def _wrong(self, node: Node, text: str) -> Type:
        self.issues.append(Issue(node.offset, text))
        return ERROR

    # ---- names

    def _ident(self, node: Ident) -> Type:
        for scope in reversed(self._scopes):
            if node.name in scope:
                found, node.slot = scope[node.name]
                return found
        found_type = self._declared.variables.get(node.name)
        if found_type is None:
            if node.name in types.NAMED:
                return types.type_of(types.NAMED[node.name])
            return self._wrong(node, f"undeclared reference to '{node.name}' (in container '')")
        node.slot = self.inputs.setdefault(node.name, -1)
        self._inner.append(node)
        return found_type

    def finish(self) -> None:
        """Ends the check of the whole expression: what is not known of a type by now is `dyn`.

        Gives the variables that come from outside their slots, behind those of macros.
        """
        for node in self._open:
            node.type = types.resolve(node.type, self._bound)
        if not self.issues:  # cel-go looks at these only where all types are right
            for call in self._read:
                self._literal(call)
            for nodes, optional in self._uniform:
                self._alike(nodes, optional)
        for name in self.inputs:
            self.inputs[name] = self.slots
            self.slots += 1
        for node in self._inner:
            node.slot = self.inputs[node.name]

    def _is_variable(self, name: str) -> bool:
        root = name.partition(".")[0]
        return root in self._declared.variables or any(root in scope for scope in self._scopes)

    def _select(self, node: Select) -> Type:
        name = dotted(node)
        known = name in self._declared.variables or (name in types.NAMED and not self._is_variable(name))
        if name and known and not node.test:
            node.whole = Ident(offset=node.offset, name=name)
            return self.check(node.whole)
        return self._field(node, self.check(node.operand))

    def _field(self, node: Select, operand: Type) -> Type:
        optional = node.optional
        if operand.name == "optional_type":
            operand, optional = operand.params[0], True
        if operand.is_param:
            self._fits(DYN, operand)
            operand = DYN
        node.key = node.field
        if isinstance(operand, ObjectType):
            row = operand.fields.get(node.field)
            if row is None:
                return self._wrong(node, f"undefined field '{node.field}'")
            node.key, found = row.key, row.type
        elif operand.name == "map":
            found = operand.params[1]
        elif is_dyn(operand):
            found = DYN
        else:
            return self._wrong(node, f"type '{operand}' does not support field selection")
        if node.test:
            return BOOL
        return types.optional_of(found) if optional else found

    # ---- calls

    def _call(self, node: Call) -> Type:
        if node.function == "_?_:_":
            return self._ternary(node)
        name = dotted(node.target) if node.target is not None else ""
        qualified = f"{name}.{node.function}"
        if name and (qualified, False) in FUNCTIONS and not self._is_variable(name):
            node.function, node.target = qualified, None
        loose, self._loose = self._loose, node.function == "format"
        operands = [self.check(operand) for operand in node.operands]
        self._loose = loose
        rows = FUNCTIONS.get((node.function, node.target is not None))
        if rows is None:
            if (node.function, node.target is None) not in FUNCTIONS:
                return self._wrong(node, f"undeclared reference to '{node.function}' (in container '')")
            rows = []
        if any(operand.name == "!error!" for operand in operands):
            return ERROR
        return self._resolved(node, rows, operands)

    def _resolved(self, node: Call, rows: Sequence[Overload], operands: list[Type]) -> Type:
        found: Type | None = None
        for row in rows:
            if len(row.params) != len(operands):
                continue
            params, result = self._instance(row)
            bound = dict(self._bound)
            if not all(types.fits(a, b, bound) for a, b in zip(operands, params, strict=True)):
                continue
            node.overloads.append(row)
            result = types.resolve(result, bound, free=True)
            self._lasting = self._lasting or bool(types.param_names(result))
            if self._lasting:
                self._bound = bound
            found = result if found is None or found == result else DYN
        if found is None:
            shown = ", ".join(map(self._shown, operands if node.target is None else operands[1:]))
            applied = f"({shown})" if node.target is None else f"{self._shown(operands[0])}.({shown})"
            return self._wrong(node, f"found no matching overload for '{node.function}' applied to '{applied}'")
        if node.function in _READ_LITERALS:
            self._read.append(node)
        return found

    def _instance(self, row: Overload) -> tuple[tuple[Type, ...], Type]:
        """The types of a signature, each parameter a type variable of its own."""
        names: dict[str, Type] = {}
        for name in row.names:
            names[name] = self._variable()
        if not names:
            return row.params, row.result
        return tuple(types.resolve(kind, names, free=True) for kind in row.params), types.resolve(
            row.result, names, free=True
        )

    def _literal(self, node: Call) -> None:
        """Refuses texts that can never be read: patterns, moments and spans written out."""
        read = _READ_LITERALS[node.function]
        if not isinstance(node.args[-1], Literal) or not isinstance(node.args[-1].value, str):
            return
        try:
            read(node.args[-1].value)
        except EvaluationError:
            self._wrong(node.args[-1], f"invalid {node.function} argument")

    def _ternary(self, node: Call) -> Type:
        condition, then, other = (self.check(arg) for arg in node.args)
        if "!error!" in (condition.name, then.name, other.name):
            return ERROR
        if not self._fits(BOOL, condition) or not self._fits(then, other):
            shown = f"({', '.join(map(self._shown, (condition, then, other)))})"
            return self._wrong(node, f"found no matching overload for '_?_:_' applied to '{shown}'")
        return types.general(then, other)

    # ---- literals

    def _list(self, node: ListExpr) -> Type:
        return types.list_of(self._common(node.items, node.optional))

    def _map(self, node: MapExpr) -> Type:
        key = self._common(node.keys, frozenset())
        return types.map_of(key, self._common(node.values, node.optional))

    def _common(self, nodes: list[Node], optional: frozenset[int]) -> Type:
        """The type of all of them; they must not differ."""
        if not self._loose and len(nodes) > 1:
            self._uniform.append((nodes, optional))
        common: Type | None = None
        for index, node in enumerate(nodes):
            found = self.check(node)
            if index in optional:
                if found.name == "optional_type":
                    found = found.params[0]
                elif not is_dyn(found):
                    self._wrong(node, f"expected type 'optional_type({found})' but found '{found}'")
            if common is None or self._fits(common, found):
                common = found if common is None else types.general(common, found)
            elif self._loose:
                common = DYN
            else:
                self._wrong(node, f"expected type '{self._shown(common)}' but found '{self._shown(found)}'")
                common = ERROR
        if common is None:
            self._lasting = True
            return self._variable()
        return common

    def _alike(self, nodes: list[Node], optional: frozenset[int]) -> None:
        """Refuses the first part of a literal whose type is not exactly that of the first one."""
        kinds = [node.type.params[0] if index in optional else node.type for index, node in enumerate(nodes)]
        for node, kind in zip(nodes, kinds, strict=True):
            if kind != kinds[0]:
                self._wrong(node, f"expected type '{kinds[0]}' but found '{kind}'")
                return

    def _struct(self, node: Struct) -> Type:
        made = self._declared.types.get(node.name)
        if made is None:
            return self._wrong(node, f"undeclared reference to '{node.name}' (in container '')")
        for index, (name, value, offset) in enumerate(node.fields):
            found = self.check(value)
            row = made.fields.get(name)
            node.keys.append(row.key if row is not None else name)
            if row is None:
                self.issues.append(Issue(offset, f"undefined field '{name}'"))
                continue
            if index in node.optional and found.name == "optional_type":
                found = found.params[0]
            if not self._fits(row.type, found):
                text = f"expected type of field '{name}' is '{row.type}' but provided type is '{found}'"
                self.issues.append(Issue(offset, text))
        return made

    # ---- macros

    def _macro(self, node: Macro) -> Type:
        over = self.check(node.range)
        if over.is_param:
            self._fits(DYN, over)
            over = DYN
        if node.name in ("optMap", "optFlatMap"):
            kinds = [over.params[0] if over.name == "optional_type" else DYN]
        elif over.name == "list":
            kinds = [INT, over.params[0]][-len(node.variables) :]
        elif over.name == "map":
            kinds = list(over.params[: len(node.variables)])
        else:
            kinds = [DYN] * len(node.variables)
            if not is_dyn(over):
                text = f"expression of type '{over}' cannot be range of a comprehension (must be list, map, or dynamic)"
                self._wrong(node.range, text)
        scope = {}
        for (name, _), kind in zip(node.variables, kinds, strict=True):
            scope[name] = (kind, self.slots)
            node.slots.append(self.slots)
            self.slots += 1
        self._scopes.append(scope)
        bodies = [self.check(body) for body in node.bodies]
        self._scopes.pop()
        return self._comprehended(node, over, kinds, bodies)

    def _comprehended(self, node: Macro, over: Type, kinds: list[Type], bodies: list[Type]) -> Type:
        name, last = node.name, bodies[-1]
        for body, kind in zip(node.bodies, bodies, strict=True):
            condition = name in ("all", "exists", "exists_one", "filter") or (
                len(bodies) == 2 and body is node.bodies[0]
            )
            if condition and not self._fits(BOOL, kind):
                shown = {"all": ("_&&_", "(bool, {})"), "exists": ("_||_", "(bool, {})")}.get(name)
                function, form = shown or ("_?_:_", "({}, list, list)")
                self._wrong(
                    node, f"found no matching overload for '{function}' applied to '{form.format(self._shown(kind))}'"
                )
        match name:
            case "all" | "exists" | "exists_one":
                return BOOL
            case "filter":
                return types.list_of(kinds[-1])
            case "map" | "transformList":
                return types.list_of(last)
            case "sortBy":
                if over.name != "map" and any(self._fits(Type(kind), last) for kind in ORDERED):
                    return types.list_of(kinds[-1])
                applied = f"{self._shown(over)}.(list({self._shown(last)}))"
                text = f"found no matching overload for '@sortByAssociatedKeys' applied to '{applied}'"
                return self._wrong(node, text)
            case "transformMap":
                return types.map_of(over.params[0] if over.name == "map" else INT, last)
            case "transformMapEntry":
                return last if last.name == "map" else types.map_of(DYN, DYN)
            case "optMap":
                return types.optional_of(last)
        return last
