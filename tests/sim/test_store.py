"""The store's whole group under virtual time: real replicas, logs and snapshots on machines that crash, disks that lose
what was not synced, clocks that drift and jump, and a network that loses, delays, repeats, reorders and parts.

`SIM_SEEDS=n` plays so many stories; `python -m tests.sim` plays any number, and one alone by its seed.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tests.sim.faults import Fault
from tests.sim.playing import Played, fingerprint, play, play_seeds, spread

SEEDS = int(os.environ.get("SIM_SEEDS", "2000"))
#: stories among which each sort of trouble must occur at least once
STORIES_A_FAULT = 200


@pytest.fixture(scope="module")
def played() -> Played:
    total = Played()
    for some in spread(play_seeds, range(SEEDS)):
        total.add(some)
    return total


def test_no_promise_is_broken(played: Played) -> None:
    assert not played.failed, played.report


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.value)
def test_it_happens_that(fault: Fault, played: Played) -> None:
    assert played.faults[fault] >= played.stories // STORIES_A_FAULT


def test_a_seed_replays_exactly_whatever_the_hash_seed() -> None:
    code = "from tests.sim.playing import fingerprint, play; print(fingerprint(play(3)))"
    prints = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }  # fmt: skip
    assert prints == {fingerprint(play(3))}
