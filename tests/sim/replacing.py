"""An operator who replaces members while things break: each by another id, on another machine, with an empty disk."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from tests.sim.group import Group, Machine

from steersman.actors.store.refusals import GroupRefusal
from steersman.actors.store.replica import Replica
from steersman.cluster.raft.values import ChangeKind, Config, ConfigChange
from steersman.cluster.store.values import Unavailable

#: replacements in one story
REPLACEMENTS_MAX = 2


class Operator:
    """Replaces members one after the other, asking whichever member.

    Args:
        tell: notes what happens.
    """

    def __init__(self, group: Group, rng: random.Random, tell: Callable[[str], None]) -> None:
        self._group, self._rng, self._tell = group, rng, tell

    async def work(self) -> None:
        for _ in range(self._rng.randint(1, REPLACEMENTS_MAX)):
            await asyncio.sleep(self._rng.uniform(0.2, 0.8))
            await self._replace(self._choose())

    def _choose(self) -> Machine:
        """The leader more often than others."""
        leader = self._group.leader()
        if leader is not None and self._rng.random() < 0.4:
            return leader
        return self._rng.choice([machine for _, machine in sorted(self._group.machines.items())])

    async def _replace(self, old: Machine) -> None:
        if self._rng.random() < 0.3 and (file := old.rot()) is not None:
            self._tell(f"{file} of {old.member} rots")
        elif self._rng.random() < 0.5:
            await self._add()
            await self._remove(old)
            return
        await self._remove(old)
        await self._add()

    async def _remove(self, old: Machine) -> None:
        old.leaves = True
        self._tell(f"remove {old.member}")
        change = ConfigChange(ChangeKind.REMOVE, old.member)
        await self._change(change, lambda config: old.member not in config.members)
        await asyncio.sleep(self._rng.uniform(0, 0.3))
        self._group.retire(old)

    async def _add(self) -> None:
        new = self._group.next_member()
        self._tell(f"add {new}")
        change = ConfigChange(ChangeKind.ADD_LEARNER, new, f"m{new}")
        config = await self._change(change, lambda config: new in config.members)
        self._group.install(new, {member: address for member, address in config.addresses if member != new})
        await self._change(ConfigChange(ChangeKind.ADD_VOTER, new), lambda config: new in config.voters)
        self._tell(f"{new} votes")

    async def _change(self, change: ConfigChange, is_made: Callable[[Config], bool]) -> Config:
        """Asks for a change until it is known to be made."""
        while True:
            member = self._rng.choice(sorted(self._group.machines))
            try:
                config = await self._group.call(member, _config)
                if is_made(config):
                    return config
                await self._group.call(member, lambda replica: replica.change_members(change))
            except (Unavailable, GroupRefusal):
                await asyncio.sleep(self._rng.uniform(0, 0.1))


async def _config(replica: Replica) -> Config:
    await replica.read_barrier()
    return replica.config
