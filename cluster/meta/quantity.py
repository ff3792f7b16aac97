"""Resource quantities: `100m`, `1.5`, `64Mi`, `1e3`, and their canonical form.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

from steersman.cluster.meta.remembered import remembered

_BINARY = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_SUFFIX_OF_EXPONENT = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_SHAPE = re.compile(r"^([+-]?(?:\d+(?:\.\d*)?|\.\d+))([KMGTPE]i|[numkMGTPE]?|[eE][+-]?\d{1,3})$")
_LIMIT = Decimal(2**63 - 1)


class QuantityError(ValueError):
    """The text is no quantity; the message is the one that Kubernetes prints."""

    def __init__(self) -> None:
        super().__init__(
            "quantities must match the regular expression "
            r"'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )


@remembered(8192)
def _parse_text(text: str) -> tuple[Decimal, str]:
    match = _SHAPE.match(text)
    if match is None:
        raise QuantityError
    number, suffix = Decimal(match[1]), match[2]
    if suffix in _BINARY:
        value, form = number * _BINARY[suffix], "BinarySI"
    elif suffix in _DECIMAL:
        value, form = number.scaleb(_DECIMAL[suffix]), "DecimalSI"
    else:
        value, form = number.scaleb(int(suffix[1:])), "DecimalExponent"
    value = min(max(value, -_LIMIT), _LIMIT)
    return value.quantize(Decimal("1e-9"), rounding=ROUND_CEILING), form


def parse(quantity: str | int | float) -> Decimal:
    """Returns the exact value of a quantity, rounded up to nanos.

    Raises:
        QuantityError: the text has not the form of a quantity.
    """
    return _parse_text(str(quantity))[0]


@remembered(8192)
def _milli_text(text: str) -> int:
    return int((_parse_text(text)[0] * 1000).to_integral_value(ROUND_CEILING))


@remembered(8192)
def _whole_text(text: str) -> int:
    return int(_parse_text(text)[0].to_integral_value(ROUND_CEILING))


def milli(quantity: str | int | float) -> int:
    """Returns thousandths, rounded up: `milli("1.5") == 1500`."""
    return _milli_text(str(quantity))


def whole(quantity: str | int | float) -> int:
    """Returns whole units (bytes, pods, ...), rounded up: `whole("1Ki") == 1024`."""
    return _whole_text(str(quantity))


def form_of(quantity: str | int | float) -> str:
    """Returns the form in which a quantity is written: `BinarySI`, `DecimalSI` or `DecimalExponent`."""
    return _parse_text(str(quantity))[1]


def format_value(value: Decimal | int, form: str = "DecimalSI") -> str:
    """Returns the canonical text of a value in form `BinarySI`, `DecimalSI` or `DecimalExponent`."""
    value = Decimal(value)
    if value == 0:
        return "0"
    if form == "BinarySI":
        if value == value.to_integral_value() and abs(value) >= 1024:
            number, suffix = int(value), ""
            for candidate, factor in _BINARY.items():
                if int(value) % factor == 0:
                    number, suffix = int(value) // factor, candidate
            return f"{number}{suffix}"
        if value != value.to_integral_value():
            form = "DecimalSI"
    exponent = 0
    nanos = int((value * 10**9).to_integral_value(ROUND_CEILING))
    exponent = -9
    while nanos % 1000 == 0 and exponent < 18:
        nanos //= 1000
        exponent += 3
    if form == "DecimalExponent":
        return f"{nanos}e{exponent}" if exponent else str(nanos)
    return f"{nanos}{_SUFFIX_OF_EXPONENT[exponent]}"


def canonical(quantity: str | int | float) -> str:
    """Returns the text as Kubernetes stores it: `canonical("0.5") == "500m"`, `canonical("1024Ki") == "1Mi"`."""
    value, form = _parse_text(str(quantity))
    return format_value(value, form)


def add(left: str | int | float, right: str | int | float) -> str:
    """Returns the canonical sum, in the form of the first quantity that is not zero."""
    value, form = _parse_text(str(left))
    other, other_form = _parse_text(str(right))
    return format_value(value + other, form if value else other_form)


def subtract(left: str | int | float, right: str | int | float) -> str:
    """Returns the canonical difference, in the form of the first quantity that is not zero."""
    value, form = _parse_text(str(left))
    other, other_form = _parse_text(str(right))
    return format_value(value - other, form if value else other_form)
