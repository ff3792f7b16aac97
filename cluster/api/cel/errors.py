"""What can go wrong with an expression.

    CelError            it does not compile; the text is that of Kubernetes (`ERROR: <input>:1:5: undefined field 'x'`)
    EvaluationError     it compiled, and these values make it fail (`no such key: x`); `||`, `&&` and macros absorb it
    BudgetExceeded      evaluating it costs more than it may; nothing absorbs it

Source: github.com/google/cel-go/common/error.go
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Issue:
    """One mistake: its offset in the expression, in characters, and what is wrong."""

    offset: int
    text: str


class CelError(Exception):
    """An expression that does not compile; `str()` names every mistake with its place."""

    def __init__(self, source: str, issues: Iterable[Issue]) -> None:
        self.issues = tuple(issues)
        super().__init__("\n".join(_shown(source, issue) for issue in sorted(self.issues, key=lambda row: row.offset)))


class EvaluationError(Exception):
    """A value on which an expression fails."""


class BudgetExceeded(Exception):
    """An evaluation that costs more than it may."""

    def __init__(self) -> None:
        super().__init__("operation cancelled: actual cost limit exceeded")


def _shown(source: str, issue: Issue) -> str:
    before = source[: issue.offset]
    line = before.count("\n") + 1
    column = issue.offset - (before.rfind("\n") + 1)
    text = source.split("\n")[line - 1]
    return f"ERROR: <input>:{line}:{column + 1}: {issue.text}\n | {text}\n | {'.' * column}^"


def no_such_overload() -> EvaluationError:
    return EvaluationError("no such overload")


def no_such_key(key: object) -> EvaluationError:
    return EvaluationError(f"no such key: {key}")
