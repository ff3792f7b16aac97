"""Resource quantities.

Source: k8s.io/apiserver/pkg/cel/library/quantity.go
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar

from steersman.cluster.api.cel.errors import EvaluationError
from steersman.cluster.api.cel.overload import function, method, reads_text
from steersman.cluster.api.cel.types import Type
from steersman.cluster.api.cel.values import Opaque
from steersman.cluster.meta.quantity import QuantityError, parse


@dataclass(frozen=True, slots=True)
class Quantity(Opaque):
    type: ClassVar[Type] = Type("kubernetes.Quantity")
    value: Decimal


def _quantity(text: str) -> Quantity:
    try:
        return Quantity(parse(text))
    except QuantityError as error:
        raise EvaluationError(str(error)) from None


def _is_quantity(text: str) -> bool:
    try:
        parse(text)
    except QuantityError:
        return False
    return True


def _is_integer(quantity: Quantity) -> bool:
    return quantity.value == quantity.value.to_integral_value() and -(2**63) <= quantity.value < 2**63


def _as_integer(quantity: Quantity) -> int:
    if not _is_integer(quantity):
        raise EvaluationError("cannot convert value to integer")
    return int(quantity.value)


def _number(other: Any) -> Decimal:
    return other.value if isinstance(other, Quantity) else Decimal(other)


def _compare(left: Quantity, right: Quantity) -> int:
    return (left.value > right.value) - (left.value < right.value)


_Q = "kubernetes.Quantity"
FUNCTIONS = (
    function("quantity", f"string -> {_Q}", _quantity, reads_text),
    function("isQuantity", "string -> bool", _is_quantity, reads_text),
    method("sign", f"{_Q} -> int", lambda q: (q.value > 0) - (q.value < 0)),
    method("isInteger", f"{_Q} -> bool", _is_integer),
    method("asInteger", f"{_Q} -> int", _as_integer),
    method("asApproximateFloat", f"{_Q} -> double", lambda q: float(q.value)),
    *(method("add", f"{_Q}, {kind} -> {_Q}", lambda a, b: Quantity(a.value + _number(b))) for kind in (_Q, "int")),
    *(method("sub", f"{_Q}, {kind} -> {_Q}", lambda a, b: Quantity(a.value - _number(b))) for kind in (_Q, "int")),
    method("compareTo", f"{_Q}, {_Q} -> int", _compare),
    method("isGreaterThan", f"{_Q}, {_Q} -> bool", lambda a, b: a.value > b.value),
    method("isLessThan", f"{_Q}, {_Q} -> bool", lambda a, b: a.value < b.value),
)
