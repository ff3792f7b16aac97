"""A member without data: a new group begins, a new member joins, one that lost its promises is refused."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from steersman.actors.clocks import VirtualTimeLoop
from steersman.actors.store.disk import MemoryDisk
from steersman.actors.store.founding import Founding
from steersman.actors.store.replica import Replica
from steersman.actors.store.transport import Greeting, MemoryNetwork
from steersman.cluster.raft.values import ChangeKind, Config, ConfigChange
from steersman.cluster.store.values import Put, Range, Txn, Unavailable

ALL = Range(key=b"\0", range_end=b"\0")


class Group:
    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.disks = {member: MemoryDisk() for member in (1, 2, 3)}
        self.replicas: dict[int, Replica] = {}

    async def start(self, *members: int) -> None:
        for member in members:
            self.replicas[member] = Replica(
                name=f"s{member}", member_id=member, peers={1: "a", 2: "b", 3: "c"}, disk=self.disks[member],
                transport=self.network.transport(member), rng=random.Random(),
            )  # fmt: skip
            await self.replicas[member].start()

    async def empty(self, member: int) -> Replica:
        await self.replicas[member].stop()
        self.disks[member] = MemoryDisk()
        await self.start(member)
        return self.replicas[member]

    async def leader(self) -> Replica:
        async with asyncio.timeout(20):
            while True:
                for replica in self.replicas.values():
                    if replica.is_leader and replica.failure is None:
                        return replica
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        for replica in self.replicas.values():
            await replica.stop()


def play(story: Coroutine[Any, Any, None]) -> None:
    loop = VirtualTimeLoop()
    try:
        loop.run_until_complete(story)
    finally:
        loop.close()


def put(key: str) -> Txn:
    return Txn(success=(Put(key=key.encode(), value=b""),))


def test_a_group_begins_when_all_its_members_have_met_and_goes_on_without_one() -> None:
    async def story() -> None:
        group = Group()
        await group.start(1, 2)
        await asyncio.sleep(5)
        with pytest.raises(Unavailable, match="waits for members 3"):
            await group.replicas[1].txn(put("/early"))
        await group.start(3)
        await (await group.leader()).txn(put("/k"))
        await group.replicas.pop(3).stop()
        await (await group.leader()).txn(put("/more"))
        await group.stop()

    play(story())


def test_a_founder_that_restarts_before_it_has_met_all_is_the_same() -> None:
    async def story() -> None:
        group = Group()
        await group.start(1, 2)
        await asyncio.sleep(1)
        await group.replicas[1].stop()
        await group.start(3)
        await asyncio.sleep(1)
        await group.start(1)
        await (await group.leader()).txn(put("/k"))
        assert all(replica.failure is None for replica in group.replicas.values())
        await group.stop()

    play(story())


def test_an_emptied_voter_is_refused_even_when_another_is_away() -> None:
    async def story() -> None:
        group = Group()
        await group.start(1, 2, 3)
        await (await group.leader()).txn(put("/k"))
        await group.replicas.pop(2).stop()
        emptied = await group.empty(3)
        await asyncio.sleep(5)
        assert "lost what it promised" in str(emptied.failure)
        assert not group.replicas[1].is_leader, "its vote made nobody a leader"
        await group.start(2)
        assert (await (await group.leader()).range(ALL)).count == 1
        await group.stop()

    play(story())


def test_a_member_emptied_after_the_founding_of_the_others_may_not_pass_for_new() -> None:
    async def story() -> None:
        group = Group()
        await group.start(1, 2, 3)
        await (await group.leader()).txn(put("/k"))
        first = await group.empty(1)
        await asyncio.sleep(1)
        second = await group.empty(2)
        await asyncio.sleep(5)
        assert first.failure and second.failure, "the one that kept its data knew both"
        await group.stop()

    play(story())


def test_an_emptied_member_removed_and_added_anew_catches_up_and_votes() -> None:
    async def story() -> None:
        group = Group()
        await group.start(1, 2, 3)
        await (await group.leader()).txn(put("/k"))
        await group.empty(3)
        await asyncio.sleep(1)
        leader = await group.leader()
        await leader.change_members(ConfigChange(ChangeKind.REMOVE, 3))
        await leader.change_members(ConfigChange(ChangeKind.ADD_LEARNER, 3, "c"))
        again = await group.empty(3)
        async with asyncio.timeout(10):
            while again.revision < 2:  # noqa: ASYNC110  (it has no event)
                await asyncio.sleep(0.05)
        await leader.change_members(ConfigChange(ChangeKind.ADD_VOTER, 3, "c"))
        await group.replicas.pop(next(m for m in (1, 2) if group.replicas[m] is not leader)).stop()
        await leader.txn(put("/with-its-vote"))
        await group.stop()

    play(story())


def test_a_learner_that_greeted_a_founder_before_it_was_founded_joins_all_the_same() -> None:
    founders, grown = Config(voters=(1, 2, 3)), Config(voters=(1, 2, 3), learners=(4,))
    members = {member: Founding(member, 10 * member, {}, founders) for member in (1, 2, 3)}
    learner = Founding(4, 40, {}, founders)
    members[1].hear(Greeting(4, 1, learner.incarnation))
    learner.hear(Greeting(1, 4, members[1].incarnation))
    for member, founding in members.items():
        learner.hear(founding.answer(Greeting(4, member, learner.incarnation), 9, grown))
    assert learner.is_learner and not learner.is_founded
