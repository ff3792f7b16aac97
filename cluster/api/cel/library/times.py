"""Moments and spans of time.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#timestamps-and-durations
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from steersman.cluster.api.cel.overload import Overload, function, method
from steersman.cluster.api.cel.values import (
    SECOND,
    Duration,
    Timestamp,
    duration_of,
    parse_duration,
    parse_timestamp,
    timestamp_at,
)  # fmt: skip


def _timestamp(value: Any) -> Timestamp:
    if isinstance(value, str):
        return parse_timestamp(value)
    return value if isinstance(value, Timestamp) else timestamp_at(value * SECOND)


def _duration(value: Any) -> Duration:
    if isinstance(value, str):
        return parse_duration(value)
    return value if isinstance(value, Duration) else duration_of(value)


def _parts(name: str, part: Callable[[datetime], int]) -> list[Overload]:
    return [
        method(name, "timestamp -> int", lambda moment: part(moment.at())),
        method(name, "timestamp, string -> int", lambda moment, zone: part(moment.at(zone))),
    ]


def _whole(ns: int, unit: int) -> int:
    return ns // unit if ns >= 0 else -(-ns // unit)


FUNCTIONS = (
    function("timestamp", "string -> timestamp", _timestamp),
    function("timestamp", "int -> timestamp", _timestamp),
    function("timestamp", "timestamp -> timestamp", _timestamp),
    function("duration", "string -> duration", _duration),
    function("duration", "int -> duration", _duration),
    function("duration", "duration -> duration", _duration),
    function("int", "timestamp -> int", lambda moment: moment.ns // SECOND),
    function("_+_", "timestamp, duration -> timestamp", lambda a, b: timestamp_at(a.ns + b.ns)),
    function("_+_", "duration, timestamp -> timestamp", lambda a, b: timestamp_at(a.ns + b.ns)),
    function("_+_", "duration, duration -> duration", lambda a, b: duration_of(a.ns + b.ns)),
    function("_-_", "timestamp, timestamp -> duration", lambda a, b: duration_of(a.ns - b.ns)),
    function("_-_", "timestamp, duration -> timestamp", lambda a, b: timestamp_at(a.ns - b.ns)),
    function("_-_", "duration, duration -> duration", lambda a, b: duration_of(a.ns - b.ns)),
    *_parts("getFullYear", lambda moment: moment.year),
    *_parts("getMonth", lambda moment: moment.month - 1),
    *_parts("getDayOfYear", lambda moment: moment.timetuple().tm_yday - 1),
    *_parts("getDayOfMonth", lambda moment: moment.day - 1),
    *_parts("getDate", lambda moment: moment.day),
    *_parts("getDayOfWeek", lambda moment: moment.isoweekday() % 7),
    *_parts("getHours", lambda moment: moment.hour),
    *_parts("getMinutes", lambda moment: moment.minute),
    *_parts("getSeconds", lambda moment: moment.second),
    method("getMilliseconds", "timestamp -> int", lambda moment: moment.ns % SECOND // 1_000_000),
    method("getMilliseconds", "timestamp, string -> int", lambda moment, _zone: moment.ns % SECOND // 1_000_000),
    method("getHours", "duration -> int", lambda span: _whole(span.ns, 3600 * SECOND)),
    method("getMinutes", "duration -> int", lambda span: _whole(span.ns, 60 * SECOND)),
    method("getSeconds", "duration -> int", lambda span: _whole(span.ns, SECOND)),
    method("getMilliseconds", "duration -> int", lambda span: _whole(span.ns, 1_000_000)),
)
