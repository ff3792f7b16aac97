"""The language: what expressions evaluate to, and what makes them fail."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.api import cel
from steersman.cluster.api.cel import DYN, Budget, Declarations, EvaluationError

_DECLARED = Declarations(variables={"self": DYN, "none": DYN})


def _value(expression: str, value: Any = None) -> Any:
    return cel.compile(expression, _DECLARED).evaluate({"self": value, "none": None}, Budget(1e7))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1 + 2 * 3", 7),
        ("-7 / 2", -3),
        ("-7 % 3", -1),
        ("int(7u / 2u)", 3),
        ("1.0 / 0.0 > 1.0e300", True),
        ("1u < 2 && 2 >= 1.5", True),
        ("dyn(1) == 1.0 && dyn(1u) == 1", True),
        ("dyn(1) == '1' || dyn(true) == 1", False),
        ("[1, 2] + [3] == [1, 2, 3]", True),
        ("{'a': 1} == {'a': 1} && {'a': 1} != {'a': 2}", True),
        ("2 in [1, 2] && !('c' in {'a': 1})", True),
        ("{'a': {'b': 5}}.a.b", 5),
        ("has({'a': 1}.a) && !has({'a': 1}.b)", True),
        ("true ? 'yes' : 'no'", "yes"),
        ("'a' < 'b' && b'a' < b'b' && false < true", True),
        ("r'\\n' == '\\\\n' && '''it's''' == \"it's\" && '\\u00e9\\x41' == 'éA'", True),
        ("0x1f == 31 && 0x1Fu == 31u && .5 == 0.5 && 1e3 == 1000.0", True),
        ("--5 == 5 && !!true && -9223372036854775808 < 0", True),
        ("size('héllo') == 5 && b'héllo'.size() == 6 && size({'a': 1}) == 1", True),
        ("int('5') + int(2.9) + int(3u)", 10),
        ("string(1.0) + string(1.5) + string(true) + string(b'x') + string(1e30)", "11.5truex1e+30"),
        ("type(1) == int && type([]) == list && type(type(1)) == type && type(1u) != int", True),
        ("double('1.5') + double(1)", 2.5),
        ("bool('true') && !bool('f')", True),
        ("timestamp('2024-02-29T12:30:45.5Z').getMonth()", 1),
        ("timestamp('2024-02-29T23:30:00Z').getDayOfMonth('+02:00')", 0),
        ("timestamp('2024-02-29T23:30:00Z').getHours('Europe/Berlin')", 0),
        ("string(timestamp('2024-01-01T00:00:00Z') + duration('1h30m'))", "2024-01-01T01:30:00Z"),
        ("string(duration('1h30m0.5s')) + string(duration('-90s'))", "5400.5s-90s"),
        ("timestamp('2024-01-02T00:00:00Z') - timestamp('2024-01-01T00:00:00Z') == duration('24h')", True),
        ("int(timestamp(5))", 5),
        ("google.protobuf.Timestamp == type(timestamp(0))", True),
        ("'a // b' // a comment", "a // b"),
    ],
)
def test_an_expression_has_this_value(expression: str, expected: Any) -> None:
    found = _value(expression)
    assert type(found) is type(expected)
    assert found == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("[1, 2, 3].all(i, i > 0)", True),
        ("[1, 2, 3].exists(i, i > 2)", True),
        ("[1, 2, 2].exists_one(i, i == 2)", False),
        ("[1, 2, 3].filter(i, i > 1).map(i, i * 2)", [4, 6]),
        ("[1, 2, 3].map(i, i > 1, i * 2)", [4, 6]),
        ("{'a': 1, 'b': 2}.all(k, k < 'c')", True),
        ("{'a': 1, 'b': 2}.all(k, v, v < 3 && k < 'c')", True),
        ("[5, 6].exists(i, v, i == 1 && v == 6)", True),
        ("[5, 6].existsOne(i, v, v > 5)", True),
        ("[5, 6].transformList(i, v, i * v)", [0, 6]),
        ("[5, 6].transformList(i, v, i > 0, v)", [6]),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v * 10)", {"b": 20}),
        ("{'a': 'b'}.transformMapEntry(k, v, {v: k})", {"b": "a"}),
        ("[[1], [2]].map(x, x.map(y, y + 1))", [[2], [3]]),
        ("[1].all(self, self == 1)", True),
        ("optional.of(1).optMap(x, x + 1).value()", 2),
        ("optional.none().orValue(5)", 5),
        ("{'a': 1}[?'b'].orValue(0) + [7][?0].value() + {'a': 2}.?a.orValue(0)", 9),
        ("optional.ofNonZeroValue('').hasValue()", False),
        ("[1, ?optional.none(), ?optional.of(2)]", [1, 2]),
        ("{?'a': optional.none(), 'b': 1}", {"b": 1}),
        ("optional.none().or(optional.of(3)).value()", 3),
        ("{'a': {'b': 1}}.?a.?b.hasValue() && !{'a': {'b': 1}}.?x.b.hasValue()", True),
    ],
)
def test_a_macro_has_this_value(expression: str, expected: Any) -> None:
    assert _value(expression) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1 / 0 == 1 || true", True),
        ("true || 1 / 0 == 1", True),
        ("1 / 0 == 1 && false", False),
        ("[0, 1].exists(i, 1 / i == 1)", True),
        ("[0, 5].all(i, 10 / i > 100)", False),
        ("false && self.missing", False),
        ("true ? 1 : self.missing", 1),
    ],
)
def test_an_error_gives_way_to_what_decides(expression: str, expected: Any) -> None:
    assert _value(expression, {}) is expected or _value(expression, {}) == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("0u - 1u", "unsigned integer overflow"),
        ("self.b", "no such key: b"),
        ("self['b']", "no such key: b"),
        ("[1][1]", "index out of bounds: 1"),
        ("dyn('a') + 1", "no such overload"),
        ("self.a.b", "no such overload"),
        ("dyn(1) ? 1 : 2", "no such overload"),
        ("1 / 0 == 1 || false", "division by zero"),
        ("[0, 2].all(i, 1 / i > -1)", "division by zero"),
        ("optional.none().value()", "optional.none() dereference"),
        ("{'a': 1, 'a': 2}", "Failed with repeated key a"),
        ("int('x')", "type conversion error from 'string' to 'int'"),
        ("int(1e30)", "integer overflow"),
        ("dyn(1).startsWith('a')", "no such overload"),
        ("timestamp('9999-12-31T23:59:59Z') + duration('1s')", "timestamp overflow"),
        ("dyn(self).all(x, x)", "no such overload"),
    ],
)
def test_an_evaluation_fails_with_this_message(expression: str, message: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        _value(expression, {"a": "text"} if "self.a" in expression else {} if "self." in expression else {"k": 1})
    assert str(caught.value) == message


def test_a_variable_that_is_not_given_is_an_error() -> None:
    with pytest.raises(EvaluationError, match=r"no such attribute\(s\): self"):
        cel.compile("self == 1", _DECLARED).evaluate({}, Budget(100))


def test_many_operands_of_one_operator_are_not_too_deep() -> None:
    assert _value(" && ".join(["self == 1"] * 2000), 1) is True


def test_a_program_knows_what_it_reads() -> None:
    assert cel.compile("[1].all(x, x == self)", _DECLARED).inputs == {"self"}
