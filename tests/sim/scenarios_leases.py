"""Stories by script about leases, those of clients and those on which leaders answer reads."""

from __future__ import annotations

import asyncio

from tests.sim.group import Group, Machine
from tests.sim.history import Broken
from tests.sim.scenarios import leader_of, log_end, read, replica_of, until, write

from steersman.cluster.store.values import LeaseNotFound, Unavailable

LEASE, LEASE_S, KEY = 7, 2, b"/l"


async def _grant(group: Group, leader: Machine) -> None:
    await group.call(leader.member, lambda replica: replica.lease_grant(LEASE_S, LEASE))
    await write(group, leader, KEY, b"1", LEASE)


async def _demand_key(group: Group, machine: Machine) -> None:
    if await read(group, machine, KEY) is None:
        raise Broken("a lease that was kept alive has ended")


async def _freeze(group: Group, leader: Machine) -> Machine:
    """Lets a leader stand still, deaf from then on; returns the next one."""
    assert leader.process is not None
    leader.process.freeze()
    group.network.isolate(leader.member, group.machines, outward=False)
    return await leader_of(group, besides=leader)


async def a_lease_that_an_old_leader_renews_lives_on(group: Group) -> None:
    """A leader that stood still is asked to renew a lease before it hears that another one leads."""
    old = await leader_of(group)
    await _grant(group, old)
    new = await _freeze(group, old)
    await asyncio.sleep(0.4 * LEASE_S)
    assert old.process is not None
    group.world.call_later(0.05, old.process.thaw)
    try:
        await group.call(old.member, lambda replica: replica.lease_keep_alive(LEASE))
    except Unavailable:
        return  # nothing was promised
    await asyncio.sleep(0.85 * LEASE_S)
    await _demand_key(group, new)


async def a_lease_that_was_renewed_outlives_its_leader(group: Group) -> None:
    """A lease is kept alive for long, then the leader dies, who alone knows of that."""
    old = await leader_of(group)
    await _grant(group, old)
    for _ in range(3):
        await asyncio.sleep(0.6 * LEASE_S)
        await group.call(old.member, lambda replica: replica.lease_keep_alive(LEASE))
    old.crash()
    new = await leader_of(group)
    await asyncio.sleep(0.2)
    await _demand_key(group, new)


async def a_lease_that_a_new_leader_has_not_applied_yet_is_known(group: Group) -> None:
    """A leader grants a lease and dies before the others hear that it is committed; the next one is asked at once."""
    old = await leader_of(group)
    others = [machine for machine in group.up() if machine is not old]
    before = max(map(log_end, others))
    grant = asyncio.ensure_future(group.call(old.member, lambda replica: replica.lease_grant(LEASE_S, LEASE)))
    await until(lambda: min(map(log_end, others)) > before)
    group.network.isolate(old.member, group.machines, inward=False)
    await grant
    old.crash()
    await until(lambda: any(replica_of(machine).is_leader for machine in others))
    new = next(machine for machine in others if replica_of(machine).is_leader)
    replica = replica_of(new)
    assert new.process is not None
    try:
        await new.process.spawn(lambda: replica.lease_keep_alive(LEASE))
    except LeaseNotFound:
        raise Broken("a lease that was granted is unknown") from None


async def a_deposed_leader_answers_no_read_on_its_lease(group: Group) -> None:
    """A leader stands still; another one is elected and takes a write; then the old one is asked at once."""
    await _ask_after_the_freeze(group, wall_clock_back_s=0.0)


async def a_clock_that_was_set_back_makes_no_lease_longer(group: Group) -> None:
    """The same, and meanwhile somebody has set the old leader's clock back."""
    await _ask_after_the_freeze(group, wall_clock_back_s=3600.0)


async def _ask_after_the_freeze(group: Group, wall_clock_back_s: float) -> None:
    old = await leader_of(group)
    await write(group, old, KEY, b"old")
    await asyncio.sleep(0.2)
    new = await _freeze(group, old)
    await write(group, new, KEY, b"new")
    assert old.process is not None
    old.process.jump(-wall_clock_back_s)
    asking = asyncio.ensure_future(read(group, old, KEY))
    await asyncio.sleep(0.1)
    old.process.thaw()
    try:
        found = await asking
    except Unavailable:
        return
    if found != b"new":
        raise Broken(f"a leader that was deposed answered {found!r}")
