"""Mistakes with consensus: a read is stale, or a write happens twice or before it is agreed upon."""

from __future__ import annotations

from typing import Any

from tests.sim.mistakes.patching import Patch, around

from steersman.actors.store.driver import Driver
from steersman.cluster.raft.forwards import Forwards
from steersman.cluster.raft.leadership import Leadership
from steersman.cluster.raft.lease import Lease
from steersman.cluster.raft.log import Log
from steersman.cluster.store import codec


def apply_before_it_is_committed(patch: Patch) -> None:
    def to_apply(_original: Any, log: Log, _entries_max: int) -> Any:
        found = tuple(log._entries[log.applied - log._before :])
        log.applied = log.last
        return found

    around(patch, Log, "to_apply", to_apply)


def read_without_asking_the_majority(patch: Patch) -> None:
    patch.setattr(Driver, "begin_read", lambda driver: driver.alive() and None)


def read_on_a_lease_that_is_over(patch: Patch) -> None:
    """A leader that was deposed, and does not know, answers for as long as it likes."""
    patch.setattr(Lease, "covers", lambda lease, _now: lease._until > 0 and not lease._given_up)


def tell_the_time_by_the_wall_clock(patch: Patch) -> None:
    patch.setattr(Driver, "clock", lambda driver: driver._loop.now())


def forget_entries_that_a_follower_still_needs(patch: Patch) -> None:
    patch.setattr(Leadership, "compactable", lambda _leadership, index: index)


def add_a_proposal_that_arrives_twice_again(patch: Patch) -> None:
    patch.setattr(Forwards, "take", lambda *_: True)


def propose_again_what_a_new_leader_may_have(patch: Patch) -> None:
    """A member repeats the writes that wait for an answer when another one leads."""
    leaders: dict[Driver, int] = {}

    def resume(original: Any, driver: Driver, core: Any) -> None:
        original(driver, core)
        if core.leader and core.leader != leaders.setdefault(driver, core.leader):
            leaders[driver] = core.leader
            pending = driver.proposals._pending.items()
            driver.proposals._queue = [(number, codec.encode(each.command)) for number, each in pending]

    around(patch, Driver, "_notice_role", resume)
