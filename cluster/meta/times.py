"""Timestamps as Kubernetes writes them: RFC 3339 in UTC, whole seconds (`Time`) or microseconds (`MicroTime`).

Inside the house a moment is a float: seconds since the Unix epoch, UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache


def format_time(now: float) -> str:
    """Returns `2026-01-02T03:04:05Z`."""
    return _second(int(now))


@lru_cache(maxsize=64)
def _second(moment: int) -> str:
    # most of what is written is written about the present second
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(now: float) -> str:
    """Returns `2026-01-02T03:04:05.000006Z`."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> float:
    """Returns seconds since the epoch.

    Raises:
        ValueError: the text is no RFC 3339 timestamp with a zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"parsing time {text!r}: it has no zone")
    return moment.timestamp()


def age_s(timestamp: str | None, now: float) -> float:
    """Returns seconds between a timestamp and `now`; 0 when there is none."""
    return max(0.0, now - parse_time(timestamp)) if timestamp else 0.0


def human_duration(seconds: float) -> str:
    """Returns a duration as kubectl prints ages: `45s`, `3m20s`, `12m`, `5h3m`, `2d4h`, `30d`, `2y10d`."""
    s = int(seconds)
    if s < 0:
        return "0s" if s > -2 else "<invalid>"
    if s < 120:
        return f"{s}s"
    minutes = s // 60
    if minutes < 10:
        return f"{minutes}m" + (f"{s % 60}s" if s % 60 else "")
    if minutes < 180:
        return f"{minutes}m"
    hours = s // 3600
    if hours < 8:
        return f"{hours}h" + (f"{minutes % 60}m" if minutes % 60 else "")
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if days < 8:
        return f"{days}d" + (f"{hours % 24}h" if hours % 24 else "")
    if days < 730:
        return f"{days}d"
    years = days // 365
    if years < 8:
        return f"{years}y" + (f"{days % 365}d" if days % 365 else "")
    return f"{years}y"


_GO_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_NUMBER, _GO_UNIT = re.compile(r"\d+\.?\d*|\.\d+"), re.compile(r"[^\d.]*")
_GO_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)")


def _no_duration(text: str, body: str) -> str:
    """What Go says of a text that is no duration: it stops at the first part that is wrong."""
    at = 0
    while number := _GO_NUMBER.match(body, at):
        unit = _GO_UNIT.match(body, number.end())
        found = unit[0] if unit is not None else ""
        if not found:
            return f'time: missing unit in duration "{text}"'
        if found not in _GO_UNITS_S:
            return f'time: unknown unit "{found}" in duration "{text}"'
        at = number.end() + len(found)
    return f'time: invalid duration "{text}"'


def duration_s(text: str) -> float:
    """Returns the seconds of a duration in Go's form, as `1m30s`.

    Raises:
        ValueError: it is none.
    """
    body = text[1:] if text[:1] in ("-", "+") else text
    if body != "0" and not re.fullmatch(f"(?:{_GO_PART.pattern})+", body):
        raise ValueError(_no_duration(text, body))
    total = sum(float(number) * _GO_UNITS_S[unit] for number, unit in _GO_PART.findall(body))
    return -total if text[:1] == "-" else total
