"""The values that expressions compute with, where Python has none that fits.

int, double, string, bytes, bool, null, list and map are Python's own; what follows are the others. Equality is
`equal`, never `==`: Python takes True for 1.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#equality
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from steersman.cluster.api.cel.errors import EvaluationError
from steersman.cluster.api.cel.types import Type

SECOND = 1_000_000_000
_UNITS = {
    "h": 3600 * SECOND,
    "m": 60 * SECOND,
    "s": SECOND,
    "ms": 1_000_000,
    "us": 1000,
    "µs": 1000,
    "μs": 1000,
    "ns": 1,
}
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(h|ms|m|s|us|µs|μs|ns)")
_TIMESTAMP = re.compile(r"^(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)$")
#: 0001-01-01 and 9999-12-31, in seconds
_TIME_MIN, _TIME_MAX = -62135596800, 253402300799


class Uint(int):
    """An unsigned integer of 64 bits."""

    __slots__ = ()


class Opaque:
    """A value of a type that a library adds; compared by `==` of its class."""

    __slots__ = ()
    type: ClassVar[Type]


@dataclass(frozen=True, slots=True, order=True)
class Duration(Opaque):
    """A span of time in nanoseconds."""

    type: ClassVar[Type] = Type("duration")
    ns: int

    def __str__(self) -> str:
        text = f"{abs(self.ns) // SECOND}"
        if part := abs(self.ns) % SECOND:
            text += f".{part:09d}".rstrip("0")
        return f"{'-' if self.ns < 0 else ''}{text}s"


@dataclass(frozen=True, slots=True, order=True)
class Timestamp(Opaque):
    """A moment in nanoseconds since 1970."""

    type: ClassVar[Type] = Type("timestamp")
    ns: int

    def at(self, zone: str = "UTC") -> datetime:
        """Returns the calendar's view of it in a zone (`Europe/Berlin`, `+02:00`)."""
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=self.ns // SECOND)
        try:
            return moment.astimezone(_zone(zone))
        except OverflowError:
            raise EvaluationError("timestamp overflow") from None

    def __str__(self) -> str:
        text = self.at().replace(tzinfo=None).isoformat()
        if part := self.ns % SECOND:
            text += f".{part:09d}".rstrip("0")
        return f"{text}Z"


@dataclass(frozen=True, slots=True)
class Optional(Opaque):
    """A value that may not be there."""

    type: ClassVar[Type] = Type("optional_type", (Type("dyn"),))
    value: Any = None
    present: bool = True


NONE = Optional(None, False)


@dataclass(frozen=True, slots=True)
class TypeValue(Opaque):
    """A type as a value: `type(1)`, `int`."""

    type: ClassVar[Type] = Type("type")
    name: str


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    if found := re.fullmatch(r"([+-]?)(\d\d):(\d\d)", name):
        sign = -1 if found[1] == "-" else 1
        return timezone(sign * timedelta(hours=int(found[2]), minutes=int(found[3])))
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise EvaluationError(f"unknown time zone {name}") from None


def parse_duration(text: str) -> Duration:
    """Reads a duration in Go's form, as `1h30m`; raises EvaluationError."""
    body = text[1:] if text[:1] in ("-", "+") else text
    if body == "0":
        return Duration(0)
    total, end = 0, 0
    while end < len(body):
        found = _DURATION.match(body, end)
        if found is None:
            break
        whole, _, part = found[1].partition(".")
        unit = _UNITS[found[2]]
        total += int(whole or 0) * unit + (int(part) * unit // 10 ** len(part) if part else 0)
        end = found.end()
    if not body or end < len(body) or total >= 2**63:
        raise EvaluationError(f'time: invalid duration "{text}"')
    return Duration(-total if text[:1] == "-" else total)


def parse_timestamp(text: str) -> Timestamp:
    """Reads a moment as RFC 3339 has it; raises EvaluationError."""
    found = _TIMESTAMP.match(text)
    try:
        if found is None:
            raise ValueError
        zone = "+00:00" if found[3] in ("Z", "z") else found[3]
        moment = datetime.fromisoformat(found[1].upper() + zone)
    except ValueError:
        detail = f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse "{text}" as "2006"'
        raise EvaluationError(detail) from None
    part = int((found[2] or ".0")[1:10].ljust(9, "0"))
    seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    return timestamp_at(seconds * SECOND + part)


def timestamp_at(ns: int) -> Timestamp:
    if not _TIME_MIN <= ns // SECOND <= _TIME_MAX:
        raise EvaluationError("timestamp overflow")
    return Timestamp(ns)


def duration_of(ns: int) -> Duration:
    if not -(2**63) <= ns < 2**63:
        raise EvaluationError("duration overflow")
    return Duration(ns)


_NAMES: dict[type, str] = {
    bool: "bool", int: "int", Uint: "uint", float: "double", str: "string", bytes: "bytes", type(None): "null_type",
    list: "list", dict: "map", Timestamp: "timestamp", Duration: "duration", Optional: "optional_type",
    TypeValue: "type",
}  # fmt: skip


def type_name(value: Any) -> str:
    """The name of a value's type."""
    found = _NAMES.get(type(value))
    if found is None:
        found = value.type.name if isinstance(value, Opaque) else "map" if isinstance(value, Mapping) else "list"
    return found


def equal(left: Any, right: Any) -> bool:
    """Whether two values are equal; numbers of different types are by their value, other types never."""
    a, b = type(left), type(right)
    if a is b and a in (str, int, bool, float, bytes):
        return bool(left == right)
    if a is bool or b is bool:
        return False
    if isinstance(left, (int, float)):
        return isinstance(right, (int, float)) and left == right
    if isinstance(left, list):
        return isinstance(right, list) and len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, Mapping):
        if not isinstance(right, Mapping) or len(left) != len(right):
            return False
        return all(key in right and equal(value, right[key]) for key, value in left.items())
    if a is Optional:
        return b is Optional and left.present == right.present and equal(left.value, right.value)
    return a is b and bool(left == right)


def mark(value: Any) -> Any:
    """A hashable stand-in: two values that are equal have equal marks."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, list):
        return ("list", *map(mark, value))
    if isinstance(value, Mapping):
        return ("map", frozenset((mark(key), mark(item)) for key, item in value.items()))
    return value
