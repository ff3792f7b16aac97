"""One short story, told again and again: each time a member, or the whole group, dies at the next point of all at which
it can die. Between two of those nobody outside a process can tell apart when it died."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from tests.sim.clients import LEASE_S, REGISTERS, TOGETHER
from tests.sim.group import Machine
from tests.sim.history import LeaseLife
from tests.sim.story import Story, live

from steersman.actors.clocks import VirtualTimeLoop
from steersman.cluster.store.values import StoreError

#: decides everything in the story but the death
SEED = 1
#: rounds of what the one client does; enough for snapshots and new segments
ROUNDS = 6
#: how long a machine that died stays down
DOWN_S = 0.02
LEASE = 7
#: points after its start at which a member that has died dies again
POINTS_AGAIN = 50
#: from so many deaths on a member is let die again
DEATHS_AGAIN = 6


@dataclass(frozen=True, slots=True)
class Death:
    """One way to die.

    Args:
        point: how often the member could have died before.
        everybody: all machines lose power at that moment.
        again: the point at which it dies again after its next start; None for never.
    """

    member: int
    point: int
    everybody: bool
    again: int | None = None

    @property
    def options(self) -> str:
        """How the command line says it."""
        everybody = " --everybody" if self.everybody else ""
        again = f" --again {self.again}" if self.again is not None else ""
        return f"--member {self.member} --point {self.point}{everybody}{again}"


class ShortStory(Story):
    """The story; in it nothing breaks but what the death breaks.

    Attributes:
        leader: who leads in the end.
        points: at which each member could have died.
    """

    def __init__(self, death: Death | None) -> None:
        super().__init__(VirtualTimeLoop(), SEED)
        self.group.settings = replace(self.group.settings, snapshot_entries=6, kept_entries=2, reads="read-index")
        self.group.segment_bytes = 1000
        self._death = death
        self.leader, self.points = 0, dict.fromkeys(self.group.machines, 0)

    async def _live(self) -> None:
        group, clients = self.group, self.clients
        if self._death is not None:
            group.machines[self._death.member].dies_at = self._death.point
            group.died = self._died
        self._over = True  # nothing is disturbed, and whoever dies is started again at once
        async with asyncio.TaskGroup() as keepers, asyncio.TaskGroup() as watchers:
            keeper = keepers.create_task(self._keep())
            watchers.create_task(clients.watch(clients.watches[0]))
            await self._use()
            clients.over = True
            clients.last_revision = await self._agree()
            self._count()
            self._repair()
            keeper.cancel()

    def _count(self) -> None:
        for machine in self.group.machines.values():
            assert machine.process is not None and machine.replica is not None
            self.points[machine.member] = machine.process.points
            self.leader = machine.replica.leader

    def _died(self, machine: Machine) -> None:
        self.group.died = lambda _: None
        assert self._death is not None
        machine.dies_at = self._death.again
        if self._death.everybody:
            for other in self.group.machines.values():
                other.crash()

    async def _keep(self) -> None:
        while True:
            for machine in self.group.machines.values():
                await self._look_after(machine)
            await asyncio.sleep(DOWN_S)

    async def _use(self) -> None:
        clients = self.clients
        for number in range(ROUNDS):
            member, value = 1 + number % 3, f"moved-{number}".encode()
            await self._try(clients.write(f"put-{number}", member, {}, {REGISTERS[number % 2]: b"put-%d" % number}))
            found = await clients.read(f"read-{number}", member, TOGETHER)
            moved = {TOGETHER[1]: value, TOGETHER[2]: value + b"'" if number % 3 else None}
            await self._try(clients.write(f"move-{number}", member, {TOGETHER[1]: found[TOGETHER[1]]}, moved))
        await self._try(self._lease())
        await self._try(self.group.call(1, lambda replica: replica.compact(4)))

    async def _lease(self) -> None:
        clients, key, value = self.clients, b"/l/0", b"leased"
        life = LeaseLife(keys={key: value}, ends_after=clients.lease_end())
        clients.leases[LEASE] = life
        await self.group.call(3, lambda replica: replica.lease_grant(LEASE_S, LEASE))
        await clients.write("leased", 1, {}, {key: value}, LEASE)
        life.ended = clients.moment()
        await self.group.call(2, lambda replica: replica.lease_revoke(LEASE))

    async def _try(self, work: Coroutine[Any, Any, Any]) -> None:
        with suppress(StoreError):
            await work


def every_death() -> list[Death]:
    """Each member, and everybody with it, at each point of the story."""
    points = _told().points
    return [
        Death(member, point, everybody)
        for member in points
        for point in range(points[member])
        for everybody in (False, True)
    ]


def deaths_of_the_leader() -> list[Death]:
    """The leader at each point; in turn it alone, and everybody with it."""
    story = _told()
    return [Death(story.leader, point, bool(point % 2)) for point in range(story.points[story.leader])]


def deaths_in_recovery() -> list[Death]:
    """The leader, having died at a few points, again at each point of the time after its next start."""
    story = _told()
    points = story.points[story.leader]
    first = range(points // DEATHS_AGAIN, points, points // DEATHS_AGAIN)
    return [Death(story.leader, point, bool(point % 2), again) for point in first for again in range(POINTS_AGAIN)]


def _told() -> ShortStory:
    """The story without a death."""
    story = ShortStory(None)
    live(story)
    return story
