"""Expressions in the configuration of authentication and authorization, as plain functions of one value.

Source: k8s.io/apiserver/pkg/authentication/cel/compile.go and k8s.io/apiserver/pkg/authorization/cel/compile.go
"""

from __future__ import annotations

from functools import cache
from typing import Any

from steersman.cluster.api.cel import (
    BOOL,
    DYN,
    STRING,
    Budget,
    BudgetExceeded,
    CelError,
    Declarations,
    EvaluationError,
    Field,
    ObjectType,
    Program,
    Type,
    as_json,
    compile,  # noqa: A004
    list_of,
    map_of,
)

#: what one evaluation may cost; Kubernetes' bound for one expression
_COST_MAX = 1_000_000


def _object(name: str, /, **fields: Type) -> ObjectType:
    return ObjectType(f"kubernetes.{name}", fields={key: Field(kind, key) for key, kind in fields.items()})


_EXTRA = map_of(STRING, list_of(STRING))
_REQUIREMENT = _object("SelectorRequirement", key=STRING, operator=STRING, values=list_of(STRING))
_SELECTOR = {"rawSelector": STRING, "requirements": list_of(_REQUIREMENT)}
_RESOURCE = _object(
    "ResourceAttributes",
    **dict.fromkeys(("namespace", "verb", "group", "version", "resource", "subresource", "name"), STRING),
    fieldSelector=_object("FieldSelectorAttributes", **_SELECTOR),
    labelSelector=_object("LabelSelectorAttributes", **_SELECTOR),
)
#: the variables that expressions may have
_VARIABLES: dict[str, Type] = {
    "claims": map_of(STRING, DYN),
    "user": _object("UserInfo", username=STRING, uid=STRING, groups=list_of(STRING), extra=_EXTRA),
    "request": _object(
        "SubjectAccessReviewSpec",
        resourceAttributes=_RESOURCE,
        nonResourceAttributes=_object("NonResourceAttributes", path=STRING, verb=STRING),
        user=STRING,
        groups=list_of(STRING),
        extra=_EXTRA,
        uid=STRING,
    ),
}


@cache
def _declarations(variable: str) -> Declarations:
    return Declarations(variables={variable: _VARIABLES[variable]})


class CompiledExpression:
    """A `configfile.Expression`."""

    __slots__ = ("_program", "_variable", "source")

    def __init__(self, program: Program, variable: str) -> None:
        self.source = program.source
        self._program = program
        self._variable = variable

    def __call__(self, value: Any) -> Any:
        try:
            return as_json(self._program.evaluate({self._variable: value}, Budget(_COST_MAX)))
        except BudgetExceeded:
            raise ValueError("operation cancelled: actual cost limit exceeded") from None
        except EvaluationError as error:
            raise ValueError(str(error)) from None

    def selects(self, field: str) -> bool:
        return self._program.selects(self._variable, field)


def compiled(source: str, variable: str, condition: bool) -> CompiledExpression:
    """Returns an expression over one of `claims`, `user` and `request`.

    Raises:
        ValueError: it does not compile, or is no condition where it has to be one.
    """
    try:
        program = compile(source, _declarations(variable))
    except CelError as error:
        raise ValueError(f"compilation failed: {error}") from None
    if condition and program.type != BOOL:
        raise ValueError(f"must evaluate to bool but got {program.type}")
    return CompiledExpression(program, variable)
