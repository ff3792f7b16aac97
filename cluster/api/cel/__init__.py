"""Kubernetes' Common Expression Language: compile once against declared types, evaluate many times within a budget.

    program = compile("self.replicas <= self.max", Declarations(variables={"self": schema_type(schema, "self")}))
    program.type                                    # what it evaluates to, here BOOL
    program.evaluate({"self": {"replicas": 1}}, Budget(10_000_000))

`compile` raises CelError, whose text is Kubernetes' (`ERROR: <input>:1:5: undefined field 'x'` with the line below).
`evaluate` raises EvaluationError (`no such key: max`) or BudgetExceeded. Variables are JSON trees, taken as their
declared types say; those of type DYN as they are. A variable that an expression needs only perhaps can stand in a
mapping that makes it when it is asked for: fields are read with `mapping[name]` alone. Everything here is pure: the
same values give the same result, and nothing is kept between evaluations but compiled patterns.

    types.py       the types and what fits where; `schema.py` makes them of OpenAPI schemas
    lexer, parser  text -> tree (`ast.py`), macros included
    checker.py     tree -> types, chosen overloads, mistakes
    compiler.py    tree -> closures that count their cost; `estimate.py` what they can cost at most
    library/       the functions as rows: those of the language and Kubernetes' own

Source: https://kubernetes.io/docs/reference/using-api/cel/ and https://github.com/google/cel-spec
"""

from steersman.cluster.api.cel.checker import Declarations
from steersman.cluster.api.cel.convert import as_json
from steersman.cluster.api.cel.errors import BudgetExceeded, CelError, EvaluationError
from steersman.cluster.api.cel.estimate import cost_max
from steersman.cluster.api.cel.library.authorizer import Authorizer, Decision, Question, ResourceCheck
from steersman.cluster.api.cel.program import Budget, Program, compile  # noqa: A004
from steersman.cluster.api.cel.schema import schema_type
from steersman.cluster.api.cel.types import BOOL, DYN, STRING, Field, ObjectType, Type, list_of, map_of

__all__ = [
    "BOOL", "DYN", "STRING", "Authorizer", "Budget", "BudgetExceeded", "CelError", "Decision", "Declarations",
    "EvaluationError", "Field", "ObjectType", "Program", "Question", "ResourceCheck", "Type", "as_json", "compile",
    "cost_max", "list_of", "map_of", "schema_type",
]  # fmt: skip
