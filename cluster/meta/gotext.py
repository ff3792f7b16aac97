"""Values as Go's `%q` and `%v` write them, in which many of Kubernetes' sentences show what was sent.

Source: fmt, strconv
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

_NAMED = {
    '"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t",
    "\v": "\\v",
}  # fmt: skip
#: floating numbers are written with an exponent from here on
_EXPONENT_MIN = 21


def quoted(text: str) -> str:
    """A text in double quotes, as `%q` writes it."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(_NAMED.get(char) or (char if char.isprintable() else _escaped(char)) for char in text) + '"'


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def formatted(value: Any) -> str:
    """A JSON value as `%v` writes it: `map[a:1 b:[x y]]`."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case float():
            return _float(value)
        case dict():
            return "map[" + " ".join(f"{key}:{formatted(value[key])}" for key in sorted(value)) + "]"
        case list():
            return "[" + " ".join(formatted(item) for item in value) + "]"
    return str(value)


def _float(value: float) -> str:
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    point = len(digits) + exponent
    if value and not -4 < point <= _EXPONENT_MIN:
        rest = "".join(map(str, digits[1:]))
        mantissa = f"{digits[0]}.{rest}" if rest else str(digits[0])
        return f"{'-' if sign else ''}{mantissa}e{point - 1:+03d}"
    return f"{Decimal(repr(value)).normalize():f}"
