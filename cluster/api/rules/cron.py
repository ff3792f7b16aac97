"""What is wrong with the schedule of a CronJob, in the words of the parser that Kubernetes uses.

Source: github.com/robfig/cron/v3 (parser.go)
"""

from __future__ import annotations

import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_MACROS = frozenset({"@annually", "@daily", "@hourly", "@midnight", "@monthly", "@weekly", "@yearly"})
_EVERY = "@every "
_DURATION = re.compile(r"[-+]?(0|((\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h))+)\Z", re.ASCII)
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


class ScheduleError(ValueError):
    """A schedule that says nothing."""


def check(schedule: str) -> None:
    """Checks a schedule of five fields, a macro or a distance in time.

    Raises:
        ScheduleError: it is none.
    """
    if schedule.startswith(("TZ=", "CRON_TZ=")):
        zone, _, schedule = schedule.partition("=")[2].partition(" ")
        schedule = schedule.strip()
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError):
            raise ScheduleError(f"provided bad location {zone}: unknown time zone {zone}") from None
    if schedule.startswith("@"):
        _macro(schedule)
        return
    fields = schedule.split()
    if len(fields) != len(_FIELDS):
        raise ScheduleError(f"expected exactly {len(_FIELDS)} fields, found {len(fields)}: [{' '.join(fields)}]")
    for text, (least, most, names) in zip(fields, _FIELDS, strict=True):
        for part in filter(None, text.split(",")):
            _range(part, least, most, names)


def _macro(text: str) -> None:
    if text in _MACROS:
        return
    if not text.startswith(_EVERY):
        raise ScheduleError(f"unrecognized descriptor: {text}")
    if not _DURATION.match(text[len(_EVERY) :]):
        detail = f'time: invalid duration "{text[len(_EVERY) :]}"'
        raise ScheduleError(f"failed to parse duration {text}: {detail}")


def _range(text: str, least: int, most: int, names: dict[str, int]) -> None:
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


def _number(text: str, names: dict[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not _INTEGER.match(text):
        raise ScheduleError(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    if int(text) < 0:
        raise ScheduleError(f"negative number ({int(text)}) not allowed: {text}")
    return int(text)
