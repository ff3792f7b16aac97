"""Cron schedules: what a line says, and what is said of one that is none."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from steersman.cluster.meta.cron import ScheduleError, parse
from steersman.cluster.meta.times import parse_time

NOW = parse_time("2026-01-01T10:07:30Z")


@pytest.mark.parametrize(
    ("line", "zone", "following"),
    [
        pytest.param("* * * * *", None, "2026-01-01T10:08:00Z", id="each-minute"),
        pytest.param("*/15 * * * *", None, "2026-01-01T10:15:00Z", id="each-quarter"),
        pytest.param("@daily", None, "2026-01-02T00:00:00Z", id="macro"),
        pytest.param("0 9-17 * * mon-fri", None, "2026-01-01T11:00:00Z", id="names"),
        pytest.param("0 0 * * 0", None, "2026-01-04T00:00:00Z", id="sunday"),
        pytest.param("0 0 */2 * fri", None, "2026-01-02T00:00:00Z", id="each-other-day-or-friday"),
        pytest.param("0 0 */1 * fri", None, "2026-01-02T00:00:00Z", id="each-day-that-is-friday"),
        pytest.param("0 0 1-31/3 * ?", None, "2026-01-04T00:00:00Z", id="no-day-of-the-week"),
        pytest.param("@every 90s", None, "2026-01-01T10:09:00Z", id="distance"),
        pytest.param("@every 1h30m0.5s", None, "2026-01-01T11:37:30Z", id="distance-of-whole-seconds"),
        pytest.param("@every 20ms", None, "2026-01-01T10:07:31Z", id="distance-of-a-second-at-least"),
        pytest.param("TZ=Asia/Tokyo 0 12 * * *", None, "2026-01-02T03:00:00Z", id="zone-in-the-line"),
        pytest.param("CRON_TZ=Asia/Tokyo @daily", "UTC", "2026-01-01T15:00:00Z", id="zone-of-a-macro"),
        pytest.param("0 0 29 2 *", None, "2028-02-29T00:00:00Z", id="leap-day"),
        pytest.param("0 0 13 * fri", None, "2026-01-02T00:00:00Z", id="either-day"),
        pytest.param("0 12 * * *", "Asia/Tokyo", "2026-01-02T03:00:00Z", id="zone"),
    ],
)
def test_a_schedule_names_moments(line: str, zone: str | None, following: str) -> None:
    found = parse(line, zone).after(NOW)
    assert found is not None
    assert datetime.fromtimestamp(found, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") == following


@pytest.mark.parametrize(
    "line",
    [
        "",
        "* * * *",
        "60 * * * *",
        "x * * * *",
        "*/0 * * * *",
        "5-3 * * * *",
        "0 0 * * 7",
        "@every",
        "@every 5",
        "TZ=Nowhere 0 0 * * *",
    ],
)
def test_what_is_no_schedule_is_refused(line: str) -> None:
    with pytest.raises(ScheduleError):
        parse(line)


def test_a_date_that_never_comes_is_no_moment() -> None:
    assert parse("0 0 31 2 *").after(NOW) is None
