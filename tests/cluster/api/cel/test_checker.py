"""Compilation: the mistakes that are found, in Kubernetes' words and at their place."""

from __future__ import annotations

import pytest

from steersman.cluster.api import cel
from steersman.cluster.api.cel import BOOL, CelError, Declarations, schema_type
from steersman.cluster.api.cel.types import DYN, INT, Type

_SCHEMA = {
    "type": "object",
    "properties": {
        "replicas": {"type": "integer"},
        "name": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "ports": {"type": "array", "items": {"type": "object", "properties": {"port": {"type": "integer"}}}},
        "free": {"x-kubernetes-preserve-unknown-fields": True},
        "port": {"x-kubernetes-int-or-string": True},
        "a-b": {"type": "string"},
        "for": {"type": "string"},
    },
}


def _declared() -> Declarations:
    kind = schema_type(_SCHEMA, "object")
    assert kind is not None
    return Declarations(variables={"self": kind})


@pytest.mark.parametrize(
    ("expression", "column", "text"),
    [
        ("self.replica > 1", 5, "undefined field 'replica'"),
        ("self.free == 1", 5, "undefined field 'free'"),
        ("has(self.nope)", 4, "undefined field 'nope'"),
        ("self.ports.all(p, p.x == 1)", 20, "undefined field 'x'"),
        ("other > 1", 1, "undeclared reference to 'other' (in container '')"),
        ("self.name.frob()", 15, "undeclared reference to 'frob' (in container '')"),
        ("self.replicas + self.name", 15, "found no matching overload for '_+_' applied to '(int, string)'"),
        ("self.name.startsWith(1)", 21, "found no matching overload for 'startsWith' applied to 'string.(int)'"),
        ("self.replicas == 1.0", 15, "found no matching overload for '_==_' applied to '(int, double)'"),
        ("self.name ? 1 : 2", 11, "found no matching overload for '_?_:_' applied to '(string, int, int)'"),
        ("self.labels == [1]", 13,
         "found no matching overload for '_==_' applied to '(map(string, string), list(int))'"),
        ("self.replicas.x", 14, "type 'int' does not support field selection"),
        ("[1, 'a']", 5, "expected type 'int' but found 'string'"),
        ("[1, 'a', 'b']", 5, "expected type 'int' but found 'string'"),
        ("[1, self.port]", 9, "expected type 'int' but found 'dyn'"),
        ("{'a': 1, 'b': self.port}", 19, "expected type 'int' but found 'dyn'"),
        ("[null, self.port, 1]", 12, "expected type 'null' but found 'dyn'"),
        ("(true ? [] : [1]) + ['a']", 19,
         "found no matching overload for '_+_' applied to '(list(int), list(string))'"),
        ("'a'.reverse()", 12, "found no matching overload for 'reverse' applied to 'string.()'"),
        ("self.ports.sortBy(p, p)", 18,
         "found no matching overload for '@sortByAssociatedKeys' applied to "
         "'list(object.ports.@idx).(list(object.ports.@idx))'"),
        ("'a'.sortBy(x, x)", 1,
         "sortBy can only be applied to a list, identifier, comprehension, call or select expression"),
        ("[[], [1], ['a']]", 11, "expected type 'list(int)' but found 'list(string)'"),
        ("[] + 1", 4, "found no matching overload for '_+_' applied to '(list(dyn), int)'"),
        ("{}.a + [] + 'x'", 11, "found no matching overload for '_+_' applied to '(list(dyn), string)'"),
        ("optional.of(1).orValue('a')", 23,
         "found no matching overload for 'orValue' applied to 'optional_type(int).(string)'"),
        (
            "self.name.all(c, true)", 5,
            "expression of type 'string' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        ("self.name.matches('a(')", 19, "invalid matches argument"),
        ("duration('1parsec')", 10, "invalid duration argument"),
        ("timestamp('today')", 11, "invalid timestamp argument"),
        ("duration('1parsec') == 1", 21,
         "found no matching overload for '_==_' applied to '(duration, int)'"),
        ("has(self)", 5, "invalid argument to has() macro"),
        ("self.replicas +", 16, "Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', "
         "'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"),
        ("self.replicas $ 1", 15, "Syntax error: token recognition error at: '$'"),
        ("self.in == 1", 6, "Syntax error: no viable alternative at input '.in'"),
        ("(self.replicas", 15, "Syntax error: missing ')' at '<EOF>'"),
        ("self.replicas)", 14, "Syntax error: extraneous input ')' expecting <EOF>"),
        ("self.name == 'a", 14, "Syntax error: token recognition error at: ''a'"),
        ("self.ports.all(p, p.port)", 15, "found no matching overload for '_&&_' applied to '(bool, int)'"),
        ("self.ports.map(1, 2)", 16, "argument is not an identifier"),
        ("if", 1, "Syntax error: reserved identifier: if"),
        ("Object{a: 1}", 1, "undeclared reference to 'Object' (in container '')"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_at_its_place(expression: str, column: int, text: str) -> None:
    with pytest.raises(CelError) as caught:
        cel.compile(expression, _declared())
    dots = "." * (column - 1)
    assert str(caught.value) == f"ERROR: <input>:1:{column}: {text}\n | {expression}\n | {dots}^"


def test_every_mistake_is_named_and_lines_are_counted() -> None:
    with pytest.raises(CelError) as caught:
        cel.compile("self.x == 1 &&\n  self.y", _declared())
    assert str(caught.value) == (
        "ERROR: <input>:1:5: undefined field 'x'\n | self.x == 1 &&\n | ....^\n"
        "ERROR: <input>:2:7: undefined field 'y'\n |   self.y\n | ......^"
    )


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("self.replicas > 1", BOOL),
        ("self.ports.map(p, p.port)", Type("list", (INT,))),
        ("self.port == 1 || self.port == 'http'", BOOL),
        ("self.a__dash__b == self.__for__", BOOL),
        ("has(self.for) && self.for == 'x'", BOOL),
        ("self.labels.app == 'x'", BOOL),
        ("size(self.name)", INT),
        ("true ? self.port : 1", DYN),
        ("[] == ['a']", BOOL),
        ("true ? [] : [1]", Type("list", (INT,))),
        ("[]", Type("list", (DYN,))),
        ("[[], [1]]", Type("list", (Type("list", (INT,)),))),
        ("[] + [1] + []", Type("list", (INT,))),
        ("[].map(x, x.any + 1)", Type("list", (INT,))),
        ("[].map(x, 1) + [2]", Type("list", (INT,))),
        ("[].filter(x, x == 1)", Type("list", (INT,))),
        ("{} == {'a': 1}", BOOL),
        ("true ? {} : {'a': 1}", Type("map", (Type("string"), INT))),
        ("{'a': {}, 'b': {'c': 1}}", Type("map", (Type("string"), Type("map", (Type("string"), INT))))),
        ("optional.none().orValue(1)", INT),
        ("[optional.none(), optional.of(1)]", Type("list", (Type("optional_type", (INT,)),))),
        ("optional.none()", Type("optional_type", (DYN,))),
        ("optional.none().value.x", Type("optional_type", (DYN,))),
        ("'%s is %d'.format([self.name, self.replicas])", Type("string")),
    ],
)
def test_an_expression_has_this_type(expression: str, kind: Type) -> None:
    assert cel.compile(expression, _declared()).type == kind


def test_nesting_has_a_bound() -> None:
    with pytest.raises(CelError, match="recursion limit"):
        cel.compile("(" * 3000 + "1" + ")" * 3000, Declarations())
