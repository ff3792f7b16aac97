"""One short story, told again and again: each time its leader, or the whole group, dies at the next point of all at
which it can die. Between two of those nobody outside a process can tell apart when it died."""

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

#: decides everything in the story but the death; its leader follows from it
SEED, LEADER = 1, 2
#: rounds of what the one client does; enough for snapshots and new segments
ROUNDS = 6
#: how long a machine that died stays down
DOWN_S = 0.02
LEASE = 7


@dataclass(frozen=True, slots=True)
class Death:
    """Args: point: how often the leader could have died before; everybody: all machines lose power at that moment."""

    point: int
    everybody: bool


class ShortStory(Story):
    """The story; in it nothing breaks but what the death breaks.

    Attributes:
        points: at which the leader could have died.
    """

    def __init__(self, death: Death | None) -> None:
        super().__init__(VirtualTimeLoop(), SEED)
        self.group.settings = replace(self.group.settings, snapshot_entries=6, kept_entries=2, reads="read-index")
        self.group.segment_bytes = 1000
        self._death = death
        self.points = 0

    @property
    def leader(self) -> Machine:
        return self.group.machines[LEADER]

    async def _live(self) -> None:
        group, clients = self.group, self.clients
        if self._death is not None:
            self.leader.dies_at = self._death.point
            group.died = self._died
        self._over = True  # nothing is disturbed, and whoever dies is started again at once
        async with asyncio.TaskGroup() as keepers, asyncio.TaskGroup() as watchers:
            keeper = keepers.create_task(self._keep())
            watchers.create_task(clients.watch(clients.watches[0]))
            await self._use()
            clients.over = True
            clients.last_revision = await self._agree()
            self.points = self.leader.process.points if self.leader.process is not None else 0
            self._repair()
            keeper.cancel()

    def _died(self, _: Machine) -> None:
        self.group.died = lambda _: None
        if self._death is not None and self._death.everybody:
            for machine in self.group.machines.values():
                machine.crash()

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
        await self._try(self.group.call(LEADER, lambda replica: replica.compact(4)))

    async def _lease(self) -> None:
        clients, key, value = self.clients, b"/l/0", b"leased"
        life = LeaseLife(keys={key: value}, ends_after=clients.lease_end())
        clients.leases[LEASE] = life
        await self.group.call(LEADER, lambda replica: replica.lease_grant(LEASE_S, LEASE))
        await clients.write("leased", 1, {}, {key: value}, LEASE)
        life.ended = clients.moment()
        await self.group.call(2, lambda replica: replica.lease_revoke(LEASE))

    async def _try(self, work: Coroutine[Any, Any, Any]) -> None:
        with suppress(StoreError):
            await work


def deaths() -> list[Death]:
    """Every death that there can be in the story."""
    story = ShortStory(None)
    live(story)
    return [Death(point, everybody) for point in range(story.points) for everybody in (False, True)]
