"""Stories by script, for chains of events that chance brings about too seldom."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine

from tests.sim.group import Group, Machine
from tests.sim.history import Broken

from steersman.actors.clocks import VirtualTimeLoop
from steersman.cluster.store.values import LeaseNotFound, Put, Range, Txn, Unavailable

LEASE, LEASE_S, KEY = 7, 2, b"/l"


def act(script: Callable[[Group], Coroutine[None, None, None]]) -> None:
    """Runs a script on a group of three that has just been started."""
    world = VirtualTimeLoop()
    group = Group(world, random.Random(1))

    async def run() -> None:
        await asyncio.gather(*(machine.start() for machine in group.machines.values()))
        await script(group)

    try:
        world.run_until_complete(run())
    finally:
        world.close()


async def _leader(group: Group, besides: Machine | None = None) -> Machine:
    async with asyncio.timeout(5):
        while True:
            leader = group.leader() if besides is None else _newest(group, besides)
            if leader is not None and await _serves(group, leader):
                return leader
            await asyncio.sleep(0.01)


def _newest(group: Group, besides: Machine) -> Machine | None:
    return next((m for m in group.up() if m is not besides and m.replica is not None and m.replica.is_leader), None)


async def _serves(group: Group, machine: Machine) -> bool:
    try:
        await group.call(machine.member, lambda replica: replica.range(Range(key=KEY)))
    except Unavailable:
        return False
    return True


async def _freeze_a_leader_with_a_lease(group: Group) -> tuple[Machine, Machine]:
    """Returns the leader that granted the lease and stands still since then, deaf, and the present one."""
    old = await _leader(group)
    await group.call(old.member, lambda replica: replica.lease_grant(LEASE_S, LEASE))
    put = Txn(success=(Put(key=KEY, value=b"1", lease=LEASE),))
    await group.call(old.member, lambda replica: replica.txn(put))
    assert old.process is not None
    old.process.freeze()
    group.network.isolate(old.member, group.machines, outward=False)
    return old, await _leader(group, besides=old)


async def _demand_key(group: Group, member: int) -> None:
    found = await group.call(member, lambda replica: replica.range(Range(key=KEY)))
    if not found.count:
        raise Broken("a lease that was kept alive has ended")


async def a_lease_that_an_old_leader_renews_lives_on(group: Group) -> None:
    """A leader that stood still is asked to renew a lease before it hears that another one leads."""
    old, new = await _freeze_a_leader_with_a_lease(group)
    await asyncio.sleep(0.4 * LEASE_S)
    assert old.process is not None
    group.world.call_later(0.05, old.process.thaw)
    try:
        await group.call(old.member, lambda replica: replica.lease_keep_alive(LEASE))
    except Unavailable:
        return  # nothing was promised
    await asyncio.sleep(0.85 * LEASE_S)
    await _demand_key(group, new.member)


async def a_lease_that_a_new_leader_has_not_applied_yet_is_known(group: Group) -> None:
    """A leader grants a lease and dies before the others hear that it is committed; the next one is asked at once."""
    old = await _leader(group)
    others = [machine for machine in group.up() if machine is not old]
    before = max(map(_log_end, others))
    grant = asyncio.ensure_future(group.call(old.member, lambda replica: replica.lease_grant(LEASE_S, LEASE)))
    while min(map(_log_end, others)) == before:  # noqa: ASYNC110  (it has no event)
        await asyncio.sleep(0.0001)
    group.network.isolate(old.member, group.machines, inward=False)
    await grant
    old.crash()
    while (new := _newest(group, besides=old)) is None:  # noqa: ASYNC110
        await asyncio.sleep(0.0001)
    assert new.process is not None and new.replica is not None
    replica = new.replica
    try:
        await new.process.spawn(lambda: replica.lease_keep_alive(LEASE))
    except LeaseNotFound:
        raise Broken("a lease that was granted is unknown") from None


def _log_end(machine: Machine) -> int:
    assert machine.replica is not None and machine.replica._core is not None
    return machine.replica._core.log.last
