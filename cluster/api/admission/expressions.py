"""Expressions of policies and of webhooks' match conditions: what they may name, and their evaluation on an attempt.

Source: k8s.io/apiserver/pkg/admission/plugin/cel/{compile,condition,composition}.go and .../matchconditions/matcher.go
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steersman.cluster.api.admission.attempt import Attempt, aggregated
from steersman.cluster.api.admission.matching import shown
from steersman.cluster.api.admission.names import Expression, Names, expression
from steersman.cluster.api.admission.review import options_of, request_of
from steersman.cluster.api.cel import (
    Authorizer,
    Budget,
    BudgetExceeded,
    EvaluationError,
    Question,
    ResourceCheck,
)
from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.row import Kind
from steersman.cluster.meta.objects import Obj

#: what the expressions of one policy may cost on one attempt; the match conditions a quarter of it
BUDGET, CONDITIONS_BUDGET = 10_000_000, 2_500_000
_OUT_OF_BUDGET = "validation failed due to running out of cost budget, no further validation rules will be run"


class Failed(Exception):
    """An expression that could not be evaluated; the text is the one clients see."""


class OutOfBudget(Failed):
    """The expressions together cost more than they may: none of those that follow is evaluated."""


class _Lazy(Mapping[str, Any]):
    """The variables of a policy, each evaluated when it is first asked for."""

    def __init__(self, sources: Mapping[str, Expression], run: Callable[[Expression], Any]) -> None:
        self._sources = sources
        self._run = run
        self._values: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            source = self._sources[name]
            try:
                self._values[name] = self._run(source)
            except EvaluationError as error:
                raise EvaluationError(f'composited variable "{name}" fails to evaluate: {error}') from None
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


class Scope:
    """The values that the expressions of one policy (or webhook) see of one attempt.

    Args:
        kind: as which the attempt is shown.
        params: None where there are none.
        namespace: the attempt's Namespace, if it is in one.
    """

    def __init__(
        self,
        attempt: Attempt,
        kind: Kind,
        ctx: WriteContext,
        budget: float = BUDGET,
        *,
        params: Obj | None = None,
        namespace: Obj | None = None,
        variables: Mapping[str, Expression] | None = None,
    ) -> None:
        request = {**request_of(attempt, kind, ctx), "dryRun": ctx.dry_run, "options": options_of(attempt)}
        own = attempt.body[2] == attempt.kind.resource.kind
        check = Question(
            group=kind.resource.group, resource=kind.resource.plural, subresource=attempt.subresource,
            namespace=attempt.namespace, name=attempt.name,
        )  # fmt: skip
        self._budget = Budget(budget)
        self._values: dict[str, Any] = {
            "object": shown(attempt.obj, attempt.kind, kind) if own else attempt.obj,
            "oldObject": shown(attempt.old, attempt.kind, kind) if own else attempt.old,
            "request": request,
            "params": params,
            "namespaceObject": None if namespace is None else _shown_namespace(namespace),
            "authorizer": Authorizer(ctx.authorize),
            "authorizer.requestResource": ResourceCheck(ctx.authorize, check),
            "variables": _Lazy(variables or {}, self._evaluate),
        }

    def _evaluate(self, expression: Expression) -> Any:
        if expression.program is None:
            raise EvaluationError(expression.failure)
        return expression.program.evaluate(self._values, self._budget)

    def value(self, expression: Expression) -> Any:
        """Returns what an expression comes to.

        Raises:
            Failed
        """
        if expression.program is None:
            raise Failed(expression.failure)
        try:
            return self._evaluate(expression)
        except EvaluationError as error:
            raise Failed(f"expression '{expression.source}' resulted in error: {error}") from None
        except BudgetExceeded as error:
            if self._budget.left <= 0:
                raise OutOfBudget(_OUT_OF_BUDGET) from None
            raise Failed(f"expression '{expression.source}' resulted in error: {error}") from None


def _shown_namespace(namespace: Obj) -> Obj:
    meta = dict(namespace["metadata"])
    meta["UID"] = meta.pop("uid", "")
    found: Obj = {"metadata": meta}
    for key in ("spec", "status"):
        if namespace.get(key):
            found[key] = namespace[key]
    return found


@dataclass(frozen=True, slots=True)
class Conditions:
    """Match conditions: every one must hold; one that does not decides, whatever others fail."""

    rows: tuple[Expression, ...]
    ignores_failure: bool

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], ignores_failure: bool, names: Names) -> Conditions:
        return cls(tuple(expression(row["expression"], names) for row in rows), ignores_failure)

    def hold(self, scope: Scope) -> bool:
        """Raises Failed when some fail and none says no, where failures count."""
        failures: list[str] = []
        for row in self.rows:
            try:
                if scope.value(row) is False:
                    return False
            except OutOfBudget as error:
                failures = [str(error)]
                break
            except Failed as error:
                failures.append(str(error))
        if not failures:
            return True
        if self.ignores_failure:
            return False
        raise Failed(aggregated(failures))
