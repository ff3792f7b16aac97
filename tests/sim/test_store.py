"""The store's whole group under virtual time: real replicas, logs and snapshots on machines that crash, disks that lose
what was not synced, clocks that drift and jump, and a network that loses, delays, repeats, reorders and parts.

`SIM_SEEDS=n` plays so many stories; `python -m tests.sim` plays any number, and one alone by its seed.
"""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.sim.faults import Fault
from tests.sim.playing import Played, fingerprint, play, play_seeds, spread

from steersman.actors.store.replica import Replica

SEEDS = int(os.environ.get("SIM_SEEDS", "2000"))
#: stories among which each sort of trouble must occur at least once
STORIES_A_FAULT = 200
#: the modules of which a member is made that wait for anything
SHELLS = ("replica", "snapshots", "filedisk", "groupchanges", "watches")
#: functions that no story calls: the end of a process, a group of one, and backups, which change nothing
NOT_TOLD = {"stop", "close", "wait_ready", "database", "backup"}
#: what is answered at once here, or only after the disk failed
WAIT_FOR_NOTHING = {
    "await self._transport.start(self)", "await self._take_part(recovered)", "await self.wait_ready()",
    "await self.close()",
}  # fmt: skip


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


@pytest.mark.skipif(SEEDS < 2000, reason="fewer stories do not get everywhere")
@pytest.mark.parametrize("shell", SHELLS)
def test_a_process_dies_at_every_await_of(shell: str, played: Played) -> None:
    path = Path(inspect.getfile(Replica)).with_name(f"{shell}.py")
    lines = {line for file, line in played.died_at if Path(file).name == path.name}
    missed = [
        f"{path.name}:{node.lineno} {ast.unparse(node)}"
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.AsyncFunctionDef) and function.name not in NOT_TOLD
        for node in ast.walk(function)
        if isinstance(node, ast.Await) and lines.isdisjoint(range(node.lineno, (node.end_lineno or 0) + 1))
    ]
    assert not [each for each in missed if each.partition(" ")[2] not in WAIT_FOR_NOTHING], missed


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
