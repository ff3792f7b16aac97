"""Cron schedules: which moments a line like `*/5 9-17 * * mon-fri` names, in a time zone.

What is a schedule, and what is said of a line that is none, is as in the parser that Kubernetes uses.

Source: github.com/robfig/cron/v3 (parser.go, spec.go, constantdelay.go)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EVERY = "@every "
_DURATION = re.compile(r"[-+]?(0|((\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h))+)\Z", re.ASCII)
_AMOUNT = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
#: of each field: its least and greatest number, and the names of its numbers
_FIELDS: tuple[tuple[int, int, dict[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, {name: number for number, name in enumerate(_MONTHS, start=1)}),
    (0, 6, {name: number for number, name in enumerate(_DAYS)}),
)
#: how far ahead a moment is looked for: a leap day may be eight years away
_DAYS_AHEAD = 8 * 366


class ScheduleError(ValueError):
    """The line is no schedule, or the time zone is unknown."""


class Schedule(Protocol):
    """What a line says."""

    def after(self, moment: float) -> float | None:
        """Returns the first moment later than `moment`, both in Unix seconds; None when none is in sight."""
        ...


@dataclass(frozen=True, slots=True)
class Every(Schedule):
    """One moment after another, whole seconds apart."""

    seconds: int

    def after(self, moment: float) -> float:
        return moment // 1 + self.seconds


@dataclass(frozen=True, slots=True)
class _Field:
    """The numbers of one field. Args: is_any: whether it names each, so that the other field of days decides."""

    numbers: frozenset[int]
    is_any: bool


@dataclass(frozen=True, slots=True)
class Moments(Schedule):
    """The moments at which all five fields hold; a day has to be in one of its two fields when neither names each."""

    minutes: _Field
    hours: _Field
    days: _Field
    months: _Field
    weekdays: _Field
    zone: tzinfo = UTC

    def _on(self, day: datetime) -> bool:
        if day.month not in self.months.numbers:
            return False
        by_day = day.day in self.days.numbers
        by_weekday = (day.weekday() + 1) % 7 in self.weekdays.numbers
        return by_day and by_weekday if self.days.is_any or self.weekdays.is_any else by_day or by_weekday

    def after(self, moment: float) -> float | None:
        start = datetime.fromtimestamp(moment, self.zone)
        day = start.replace(hour=0, minute=0, second=0, microsecond=0)
        for ahead in range(_DAYS_AHEAD):
            found = (day + timedelta(days=ahead)).replace(tzinfo=self.zone)
            if not self._on(found):
                continue
            for hour in sorted(self.hours.numbers):
                for minute in sorted(self.minutes.numbers):
                    candidate = found.replace(hour=hour, minute=minute).timestamp()
                    if candidate > moment:
                        return candidate
        return None


def parse(line: str, zone: str | None = None) -> Schedule:
    """Reads a schedule of five fields, a name as `@daily`, or a distance as `@every 90s`.

    Args:
        zone: where the line names none itself, as in `TZ=Asia/Tokyo 0 9 * * *`; UTC when neither does.

    Raises:
        ScheduleError: what is wrong with the line or the zone.
    """
    if line.startswith(("TZ=", "CRON_TZ=")):
        zone, _, line = line.partition("=")[2].partition(" ")
        line = line.strip()
        place = _zone(zone, f"provided bad location {zone}: unknown time zone {zone}")
    else:
        place = _zone(zone, f"unknown time zone {zone}") if zone else UTC
    if line.startswith(_EVERY):
        return _distance(line)
    if line.startswith("@"):
        if line not in _MACROS:
            raise ScheduleError(f"unrecognized descriptor: {line}")
        line = _MACROS[line]
    texts = line.split()
    if len(texts) != len(_FIELDS):
        raise ScheduleError(f"expected exactly {len(_FIELDS)} fields, found {len(texts)}: [{' '.join(texts)}]")
    minutes, hours, days, months, weekdays = (
        _field(text, *bounds) for text, bounds in zip(texts, _FIELDS, strict=True)
    )
    return Moments(minutes, hours, days, months, weekdays, place)


def _zone(name: str, complaint: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise ScheduleError(complaint) from None


def _distance(line: str) -> Every:
    text = line.removeprefix(_EVERY)
    if not _DURATION.match(text):
        raise ScheduleError(f'failed to parse duration {line}: time: invalid duration "{text}"')
    amount = sum(float(number) * _UNIT_S[unit] for number, unit in _AMOUNT.findall(text))
    return Every(max(1, int(-amount if text.startswith("-") else amount)))


def _field(text: str, least: int, most: int, names: dict[str, int]) -> _Field:
    ranges = {part: _range(part, least, most, names) for part in text.split(",") if part}
    is_any = any(part[0] in "*?" and found.step == 1 for part, found in ranges.items())
    return _Field(frozenset(number for found in ranges.values() for number in found), is_any)


def _range(text: str, least: int, most: int, names: dict[str, int]) -> range:
    span, *steps = text.split("/")
    ends = span.split("-")
    if ends[0] in ("*", "?"):
        start, end = least, most
    else:
        start = end = _number(ends[0], names)
        if len(ends) > 2:
            raise ScheduleError(f"too many hyphens: {text}")
        if len(ends) == 2:
            end = _number(ends[1], names)
    if len(steps) > 1:
        raise ScheduleError(f"too many slashes: {text}")
    step = _number(steps[0], {}) if steps else 1
    if steps and len(ends) == 1:
        end = most
    if start < least:
        raise ScheduleError(f"beginning of range ({start}) below minimum ({least}): {text}")
    if end > most:
        raise ScheduleError(f"end of range ({end}) above maximum ({most}): {text}")
    if start > end:
        raise ScheduleError(f"beginning of range ({start}) beyond end of range ({end}): {text}")
    if not step:
        raise ScheduleError(f"step of range should be a positive number: {text}")
    return range(start, end + 1, step)


def _number(text: str, names: dict[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not _INTEGER.match(text):
        raise ScheduleError(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    if int(text) < 0:
        raise ScheduleError(f"negative number ({int(text)}) not allowed: {text}")
    return int(text)
