"""A compiled expression, and the budget that its evaluations share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from steersman.cluster.api.cel.ast import Ident, Node, Select, walk
from steersman.cluster.api.cel.checker import Checker, Declarations
from steersman.cluster.api.cel.compiler import Frame, build
from steersman.cluster.api.cel.convert import reader
from steersman.cluster.api.cel.errors import BudgetExceeded, CelError, EvaluationError, Issue
from steersman.cluster.api.cel.parser import parse
from steersman.cluster.api.cel.types import Type

#: what one evaluation may cost, whatever is left of the budget
CALL_COST_MAX = 1_000_000


class Budget:
    """What several evaluations may cost together.

    Attributes:
        left: what has not been spent yet, in cel-go's units of cost.
    """

    __slots__ = ("left",)

    def __init__(self, left: float) -> None:
        self.left = left


class Program:
    """An expression that compiled.

    Attributes:
        source: the expression.
        type: what it evaluates to.
        tree: for the estimate of cost.
        inputs: the names of the variables that it reads.
    """

    def __init__(self, source: str, tree: Node, checker: Checker, declarations: Declarations) -> None:
        self.source = source
        self.tree = tree
        self.type: Type = tree.type
        self.inputs = frozenset(checker.inputs)
        self._run = build(tree)
        self._slots: list[Any] = [None] * checker.slots
        self._loads: list[tuple[str, int, Callable[[Any], Any] | None]] = [
            (name, slot, reader(declarations.variables[name])) for name, slot in checker.inputs.items()
        ]

    def selects(self, variable: str, field: str) -> bool:
        """Whether it reads a field of a variable."""
        return any(
            isinstance(node, Select)
            and node.field == field
            and isinstance(node.operand, Ident)
            and node.operand.name == variable
            for node in walk(self.tree)
        )

    def evaluate(self, variables: Mapping[str, Any], budget: Budget, cost_max: float = CALL_COST_MAX) -> Any:
        """Returns the value for these variables; the budget is charged what it cost.

        Args:
            cost_max: what this evaluation may cost.

        Raises:
            EvaluationError: the values make it fail. BudgetExceeded: it costs more than it may.
        """
        slots = self._slots.copy()
        for name, slot, read in self._loads:
            if name not in variables:
                raise EvaluationError(f"no such attribute(s): {name}")
            value = variables[name]
            slots[slot] = value if read is None or value is None else read(value)
        frame = Frame(slots, min(budget.left, cost_max))
        try:
            found = self._run(frame)
        except RecursionError:
            raise EvaluationError("expression is nested too deeply") from None
        finally:
            budget.left -= frame.cost
        if frame.cost > frame.limit:
            raise BudgetExceeded
        return found


def compile(source: str, declarations: Declarations) -> Program:  # noqa: A001
    """Compiles an expression.

    Args:
        declarations: the variables with their types, and the types of objects that it may make.

    Raises:
        CelError: with every mistake that was found.
    """
    checker = Checker(declarations)
    try:
        tree = parse(source)
        checker.check(tree)
        checker.finish()
        if checker.issues:
            raise CelError(source, checker.issues)
        return Program(source, tree, checker, declarations)
    except RecursionError:
        raise CelError(source, [Issue(0, "expression recursion limit exceeded")]) from None
