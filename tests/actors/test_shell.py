"""What an actor's process keeps about its failures."""

from __future__ import annotations

import time
from pathlib import Path

from steersman.actors.shell import History


def test_failures_that_follow_each_other_are_waited_out_ever_longer(tmp_path: Path) -> None:
    waits = []
    for _ in range(8):
        history = History(tmp_path / "store-1.json")
        history.begin(time.monotonic())
        waits.append(history.fail("DiskFailure: the disk failed"))
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert History(tmp_path / "store-1.json").restarts == 7


def test_on_a_disk_that_takes_nothing_the_longest_wait_comes_at_once(tmp_path: Path) -> None:
    (tmp_path / "actors").write_text("no directory")
    history = History(tmp_path / "actors" / "store-1.json")
    history.begin(time.monotonic())
    assert history.fail("DiskFailure: the disk failed") == 30
