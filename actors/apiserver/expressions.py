"""Expressions in the configuration of authentication and authorization, as plain functions of one value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from steersman.cluster.api.cel import (
    DYN,
    STRING,
    Budget,
    BudgetExceeded,
    CelError,
    Declarations,
    EvaluationError,
    as_json,
    compile,  # noqa: A004
    map_of,
)

#: what one evaluation may cost; Kubernetes' bound for one expression
_COST_MAX = 1_000_000


def compiled(source: str, variable: str) -> Callable[[Any], Any]:
    """Returns an expression over a variable of this name as a function from its value to a JSON value.

    Raises:
        ValueError: it does not compile; the function raises it where it fails.
    """
    try:
        program = compile(source, Declarations(variables={variable: map_of(STRING, DYN)}))
    except CelError as error:
        raise ValueError(str(error)) from None

    def evaluate(value: Any) -> Any:
        try:
            return as_json(program.evaluate({variable: value}, Budget(_COST_MAX)))
        except (EvaluationError, BudgetExceeded) as error:
            raise ValueError(str(error)) from None

    return evaluate
