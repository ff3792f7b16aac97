"""Whatever an expression says: it does not compile, it fails in a way that is foreseen, or it has a value."""

from __future__ import annotations

import random

import pytest

from steersman.cluster.api import cel
from steersman.cluster.api.cel import DYN, Budget, BudgetExceeded, CelError, Declarations, EvaluationError
from steersman.cluster.api.cel.library import FUNCTIONS

ATOMS = (
    "1", "0", "-5", "3u", "1.5", "1e300", "'a'", "''", "b'x'", "true", "null", "[]", "[1, 2]", "['a']", "{'a': 1}",
    "{1: 'x'}", "dyn(1)", "dyn('a')", "dyn([1])", "self", "self.l", "timestamp('0001-01-01T00:00:00Z')", "type(1)",
    "duration('290y')", "duration('9000000000s')", "quantity('1Ki')", "ip('::1')", "cidr('10.0.0.0/8')", "'-05:00'",
    "optional.none()", "optional.of(1)", "semver('1.2.3')", "url('https://a/')", "9223372036854775807", "'%d'", "'[a'",
    "[dyn(1), dyn('a')]", "-9223372036854775808", "[[1], [2]]", "format.named('uri')", "'é'", "x",
)  # fmt: skip
OPERATORS = ("+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "in")
METHODS = [name for name, member in FUNCTIONS if member]
NAMES = [name for name, member in FUNCTIONS if not member and name[0].isalpha()]
MACROS = ("all", "exists", "exists_one", "map", "filter")


def _expression(rng: random.Random, depth: int) -> str:
    def part() -> str:
        return _expression(rng, depth - 1)

    def arguments() -> str:
        return ", ".join(part() for _ in range(rng.choice((0, 0, 1, 1, 2))))

    match rng.randrange(8) if depth else 0:
        case 0:
            return rng.choice(ATOMS)
        case 1 | 2:
            return f"({part()} {rng.choice(OPERATORS)} {part()})"
        case 3:
            return f"dyn({part()}).{rng.choice(METHODS)}({arguments()})"
        case 4:
            return f"{part()}.{rng.choice(METHODS)}({arguments()})"
        case 5:
            return f"{rng.choice(NAMES)}({arguments()})"
        case 6:
            return f"dyn({part()})[{part()}]"
    return f"dyn({part()}).{rng.choice(MACROS)}(x, {part()})"


@pytest.mark.parametrize("seed", range(3))
def test_nothing_else_can_happen(seed: int) -> None:
    rng = random.Random(seed)
    declared = Declarations(variables={"self": DYN})
    values = {"self": {"l": [1, "a", None, 2.5]}}
    compiled = 0
    for _ in range(1500):
        text = _expression(rng, 3)
        try:
            program = cel.compile(text, declared)
        except CelError:
            continue
        compiled += 1
        try:
            program.evaluate(values, Budget(100_000))
        except (EvaluationError, BudgetExceeded):
            pass
        except Exception as error:
            raise AssertionError(text) from error
    assert compiled > 200
