"""A short story with a death at each point of its leader: before each step of the event loop (so at every `await`),
before each letter, before each change of the disk.

In turn the leader dies alone, or everybody with it; `python -m tests.sim --points` plays both for each point.
"""

from __future__ import annotations

from tests.sim.deaths import deaths
from tests.sim.faults import Fault
from tests.sim.playing import Played, play_deaths, spread

#: points of the story, at least: with much fewer something of it is no longer told
POINTS_MIN = 700


def test_no_promise_is_broken_wherever_the_leader_dies() -> None:
    played = Played()
    for some in spread(play_deaths, [death for death in deaths() if death.everybody == death.point % 2]):
        played.add(some)
    assert not played.failed, "\n".join(f"{again}  # {what}" for again, what in played.failed.items())
    died = {
        sort: played.faults[sort]
        for sort in (Fault.DEATH_AT_A_STEP, Fault.DEATH_AT_A_LETTER, Fault.DEATH_AT_A_DISK_CALL)
    }
    assert sum(died.values()) == played.stories >= POINTS_MIN and min(died.values()) > POINTS_MIN / 20, died
