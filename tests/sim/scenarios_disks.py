"""Stories by script about disks, logs and snapshots."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Literal

from tests.sim.group import Group, Machine
from tests.sim.history import Broken, Watched, Witness
from tests.sim.scenarios import leader_of, log_end, log_start, read, replica_of, until, write, write_many

from steersman.actors.store.disk import DataDamaged, DataDirForeign
from steersman.cluster.store.values import Unavailable

KEY = b"/kept"
#: bits of a file that are turned over, one after the other: a prime, so that all sorts of places are met
BIT_STEP = 331
#: calls of the disk in which a segment is made
SEGMENT_CALLS = 5
#: the same for a snapshot, and what is forgotten afterwards
SNAPSHOT_CALLS = 8


async def _followers(group: Group) -> tuple[Machine, Machine, Machine]:
    """Returns the leader and the others."""
    leader = await leader_of(group)
    first, second = (machine for machine in group.up() if machine is not leader)
    return leader, first, second


async def _settled(group: Group) -> None:
    """Returns when all members hold the same."""
    await until(lambda: len({replica_of(machine).applied for machine in group.up()}) == 1)


async def a_write_outlives_the_power_that_fails_at_its_answer(group: Group) -> None:
    """The leader's disk is slow; one follower takes a write and is the only one that does not come back afterwards."""
    leader, _, second = await _followers(group)
    group.network.isolate(second.member, group.machines)
    assert leader.process is not None
    leader.process.thread_s = 0.5

    def cut_power(_machine: Machine) -> None:
        for machine in group.up():
            machine.crash()

    group.answered = cut_power
    await write(group, leader, KEY, b"1")
    group.answered = lambda _: None
    group.network.heal()
    await asyncio.gather(leader.start(), second.start())
    if await read(group, await leader_of(group), KEY) is None:
        raise Broken("a write that was acknowledged is lost")


async def a_write_outlives_a_sync_that_fails(group: Group) -> None:
    """The same with a leader whose disk fails to sync: what it wrote is nowhere."""
    leader, _, second = await _followers(group)
    group.network.isolate(second.member, group.machines)
    leader.disk.error["sync"] = OSError(errno.EIO, os.strerror(errno.EIO))
    try:
        await write(group, leader, KEY, b"1")
    except Unavailable:
        return  # nothing was promised
    for machine in group.up():
        machine.crash()
    group.network.heal()
    await asyncio.gather(leader.start(), second.start())
    if await read(group, await leader_of(group), KEY) is None:
        raise Broken("a write that was acknowledged is lost")


async def damage_of_the_log_is_refused(group: Group) -> None:
    await _demand_refusals(group, "wal")


async def damage_of_a_snapshot_is_refused(group: Group) -> None:
    await _demand_refusals(group, "snap")


async def _demand_refusals(group: Group, kind: Literal["wal", "snap"]) -> None:
    """Whatever bit of a file turns over, its member refuses to start."""
    leader, victim, _ = await _followers(group)
    await write_many(group, leader, 60)
    await _settled(group)
    victim.crash()
    path = victim.files(kind)[-1 if kind == "snap" else 0]
    for bit in range(0, 8 * victim.disk.size(path), BIT_STEP):
        victim.disk.rot(path, bit)
        victim.rotten = path
        await victim.start()
        if not isinstance(victim.refusal, DataDamaged | DataDirForeign):
            raise Broken(f"bit {bit} of {path}: {victim.refusal!r}")
        victim.disk.rot(path, bit)


async def a_member_that_dies_while_it_makes_a_segment_forgets_nothing(group: Group) -> None:
    """It comes back, goes on, takes snapshots that let old segments go, dies again: what it acknowledged is there."""
    leader, victim, _ = await _followers(group)
    for calls in range(SEGMENT_CALLS):
        victim.disk.doomed = (".wal", calls)
        while victim.is_up:
            await write_many(group, leader, 5)
        await victim.start()
        await write_many(group, leader, 30)
        await _settled(group)
        acknowledged = log_end(victim)
        victim.crash()
        await victim.start()
        if victim.refusal is not None:
            raise Broken(f"a member does not start any more: {victim.refusal}")
        if log_end(victim) < acknowledged:
            raise Broken(f"entries up to {acknowledged} were acknowledged, after a crash there are {log_end(victim)}")
        await _settled(group)


async def a_member_that_dies_while_it_takes_a_snapshot_comes_back(group: Group) -> None:
    leader, victim, _ = await _followers(group)
    for calls in range(SNAPSHOT_CALLS):
        victim.disk.doomed = (".snap.tmp", calls)
        while victim.is_up:
            await write_many(group, leader, 5)
        await victim.start()
        if victim.refusal is not None:
            raise Broken(f"a member does not start any more: {victim.refusal}")
        await _settled(group)


async def a_snapshot_that_breaks_off_is_not_installed(group: Group) -> None:
    """A member that was cut off needs a snapshot, whose stream breaks, after another block each time."""
    leader, victim, _ = await _followers(group)
    for blocks in range(4):
        group.network.isolate(victim.member, group.machines)
        await write_many(group, leader, 60, prefix=f"/{blocks}/")
        await until(lambda: log_start(leader) > log_end(victim) + 1)
        group.network.heal()
        group.network.blocks = blocks
        await asyncio.sleep(0.5)
        group.network.blocks = None
        await _settled(group)
        for number in range(60):
            if await read(group, victim, f"/{blocks}/{number}".encode(), serializable=True) is None:
                raise Broken(f"a part of a snapshot was taken for the whole: key {number} is missing")


async def a_member_that_lags_a_little_needs_no_snapshot(group: Group) -> None:
    """A member was cut off while the leader took snapshots; every stream of a snapshot to it breaks."""
    leader, victim, _ = await _followers(group)
    group.network.isolate(victim.member, group.machines)
    await write_many(group, leader, 60)
    group.network.heal()
    group.network.blocks = 0
    try:
        await _settled(group)
    except TimeoutError:
        raise Broken("a member was not sent the entries that it lacked") from None


async def a_watch_goes_on_when_its_member_receives_a_snapshot(group: Group) -> None:
    """A member with a watch that waits for the next change is cut off, and needs a snapshot afterwards."""
    leader, victim, _ = await _followers(group)
    watched = Watched(b"/", b"0", 2)
    following = asyncio.ensure_future(_follow(group, victim, watched))
    await write_many(group, leader, 3)
    await until(lambda: watched.next > replica_of(leader).revision)
    group.network.isolate(victim.member, group.machines)
    await write_many(group, leader, 60)
    await until(lambda: log_start(leader) > log_end(victim) + 1)
    group.network.heal()
    await _settled(group)
    await write(group, leader, KEY, b"1")
    try:
        await until(lambda: following.done() or watched.next > replica_of(leader).revision)
    except TimeoutError:
        raise Broken(f"a watch stands still at revision {watched.next}") from None
    following.cancel()
    Witness(watched)


async def _follow(group: Group, machine: Machine, watched: Watched) -> None:
    opened = await group.open_watch(machine.member, watched.key, watched.end, watched.start)
    while True:
        watched.batches.append(await opened())


async def a_vote_outlives_a_crash(group: Group) -> None:
    """A leader dies; the next one is elected and cut off at once; who voted for it dies, too, and is asked again."""
    old, first, second = await _followers(group)
    old.crash()
    await until(lambda: replica_of(first).is_leader or replica_of(second).is_leader)
    new, voter = (first, second) if replica_of(first).is_leader else (second, first)
    group.network.isolate(new.member, group.machines)
    await old.start()
    for _ in range(40):
        voter.crash()
        await voter.start()
        await asyncio.sleep(0.1)  # too short for an election of its own
        if replica_of(old).is_leader and replica_of(old).status().term == replica_of(new).status().term:
            raise Broken("two members lead in one term")
        if replica_of(old).is_leader:
            return
    raise Broken("nobody is elected")
