"""A short story with a death at each point of its leader: before each step of the event loop (so at every `await`),
before each letter, before each change of the disk; and with a second death at each point of the restart.

In turn the leader dies alone, or everybody with it; `python -m tests.sim --points` plays both for each member.
"""

from __future__ import annotations

from tests.sim.deaths import deaths_in_recovery, deaths_of_the_leader
from tests.sim.faults import Fault
from tests.sim.playing import Played, play_deaths, spread

#: points of the story, at least: with much fewer something of it is no longer told
POINTS_MIN = 700
SORTS = (Fault.DEATH_AT_A_STEP, Fault.DEATH_AT_A_LETTER, Fault.DEATH_AT_A_DISK_CALL)


def test_no_promise_is_broken_wherever_the_leader_dies() -> None:
    deaths = deaths_of_the_leader()
    assert len(deaths) >= POINTS_MIN
    played = Played()
    for some in spread(play_deaths, deaths):
        played.add(some)
    assert not played.failed, played.report
    assert sum(played.faults[sort] for sort in SORTS) == len(deaths), "each death happens"
    assert min(played.faults[sort] for sort in SORTS) >= POINTS_MIN / 20


def test_no_promise_is_broken_wherever_it_dies_again_while_it_starts() -> None:
    deaths = deaths_in_recovery()
    played = Played()
    for some in spread(play_deaths, deaths):
        played.add(some)
    assert not played.failed, played.report
    assert sum(played.faults[sort] for sort in SORTS) == 2 * len(deaths), "each death happens, and happens again"
