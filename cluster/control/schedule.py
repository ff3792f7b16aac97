"""Cron schedules: which moments a line like `*/5 9-17 * * mon-fri` names, in a time zone.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#schedule-syntax and crontab(5)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
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
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
#: how far ahead a moment is looked for: a leap day may be eight years away
_DAYS_AHEAD = 8 * 366


class ScheduleError(ValueError):
    """The line is no schedule, or the time zone is unknown."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The moments of a cron line. Args: any_day, any_weekday: whether that field was `*`, so that the other decides."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool
    zone: tzinfo = UTC

    def _on(self, day: datetime) -> bool:
        if day.month not in self.months:
            return False
        by_day, by_weekday = day.day in self.days, (day.weekday() + 1) % 7 in self.weekdays
        return by_day and by_weekday if self.any_day or self.any_weekday else by_day or by_weekday

    def after(self, moment: float) -> float | None:
        """Returns the first moment later than `moment`; None when there is none within eight years."""
        start = datetime.fromtimestamp(moment, self.zone)
        day = start.replace(hour=0, minute=0, second=0, microsecond=0)
        for ahead in range(_DAYS_AHEAD):
            found = (day + timedelta(days=ahead)).replace(tzinfo=self.zone)
            if not self._on(found):
                continue
            for hour in sorted(self.hours):
                for minute in sorted(self.minutes):
                    candidate = found.replace(hour=hour, minute=minute).timestamp()
                    if candidate > moment:
                        return candidate
        return None


def _field(text: str, low: int, high: int, names: Sequence[str] = ()) -> frozenset[int]:
    def number(word: str) -> int:
        if word.lower() in names:
            return names.index(word.lower()) + (1 if names is _MONTHS else 0)
        if not word.isdigit():
            raise ScheduleError(f"failed to parse int from {word}: {text!r}")
        return int(word)

    found: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = int(step_text) if step_text.isdigit() else 0
        if slash and not step:
            raise ScheduleError(f"step of range should be a positive number: {part}")
        first_text, dash, last_text = span.partition("-")
        if span in ("*", "?"):
            first, last = low, high
        else:
            first = number(first_text)
            last = number(last_text) if dash else high if slash else first
        if not low <= first <= last <= high:
            raise ScheduleError(f"value out of range ({low} - {high}): {part}")
        found.update(range(first, last + 1, step or 1))
    return frozenset(found)


def parse(line: str, zone: str | None = None) -> Schedule:
    """Reads a schedule of five fields, or a name as `@daily`.

    Raises:
        ScheduleError: what is wrong with the line or the zone.
    """
    fields = _MACROS.get(line.strip(), line).split()
    if len(fields) != 5:
        raise ScheduleError(f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]")
    try:
        place: tzinfo = ZoneInfo(zone) if zone else UTC
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ScheduleError(f"unknown time zone {zone}") from error
    minutes, hours, days, months, weekdays = fields
    return Schedule(
        minutes=_field(minutes, 0, 59),
        hours=_field(hours, 0, 23),
        days=_field(days, 1, 31),
        months=_field(months, 1, 12, _MONTHS),
        weekdays=frozenset(day % 7 for day in _field(weekdays, 0, 7, _DAYS)),
        any_day=days[0] in "*?",
        any_weekday=weekdays[0] in "*?",
        zone=place,
    )
