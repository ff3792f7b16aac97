"""How a story by script is told: for chains of events that chance brings about too seldom."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from unittest import mock

from tests.sim.group import Group, Machine, Reads
from tests.sim.history import Broken

from steersman.actors.clocks import VirtualTimeLoop
from steersman.actors.store.disk import DiskFailure
from steersman.actors.store.replica import Replica
from steersman.cluster.raft import leadership
from steersman.cluster.store.values import Put, Range, StoreError, Txn, Unavailable

Script = Callable[[Group], Coroutine[None, None, None]]


def act(script: Script, *, reads: Reads = "read-index", kept_bytes: int = 0) -> None:
    """Runs a script on a group of three that has just been started.

    Args:
        kept_bytes: of the log, which leaders keep for members that lag; without any, those need snapshots.

    Raises:
        AssertionError: a promise was broken, or the script could not go on.
    """
    group = Group(VirtualTimeLoop(), random.Random(1), reads=reads)

    async def run() -> None:
        await asyncio.gather(*(machine.start() for machine in group.machines.values()))
        await script(group)

    try:
        with mock.patch.object(leadership, "LAGGING_BYTES_MAX", kept_bytes):
            group.world.run_until_complete(run())
    except (StoreError, DiskFailure, OSError, ValueError) as error:
        raise Broken(f"the script cannot go on: {error!r}") from error
    finally:
        group.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  (a simulated group has no event)
            await asyncio.sleep(0.0001)


async def leader_of(group: Group, *, besides: Machine | None = None) -> Machine:
    """Returns a member that leads and serves."""
    async with asyncio.timeout(10):
        while True:
            for machine in group.up():
                if machine is not besides and replica_of(machine).is_leader and await _serves(group, machine):
                    return machine
            await asyncio.sleep(0.01)


async def _serves(group: Group, machine: Machine) -> bool:
    try:
        await read(group, machine, b"/")
    except Unavailable:
        return False
    return True


def replica_of(machine: Machine) -> Replica:
    assert machine.replica is not None
    return machine.replica


def log_end(machine: Machine) -> int:
    core = replica_of(machine)._driver.core
    assert core is not None
    return core.log.last


def log_start(machine: Machine) -> int:
    core = replica_of(machine)._driver.core
    assert core is not None
    return core.log.start


async def write(group: Group, machine: Machine, key: bytes, value: bytes, lease: int = 0) -> None:
    request = Txn(success=(Put(key=key, value=value, lease=lease),))
    await group.call(machine.member, lambda replica: replica.txn(request))


async def a_write_that_the_network_repeats_happens_once(group: Group) -> None:
    """A follower is asked, and everything that it sends to the leader arrives twice."""
    leader = await leader_of(group)
    follower = next(machine for machine in group.up() if machine is not leader)
    group.network.repeats = 1.0
    await write_many(group, follower, 20)
    kvs = (await group.call(leader.member, lambda replica: replica.range(Range(key=b"/", range_end=b"0")))).kvs
    if len(kvs) != 20 or any(kv.version != 1 for kv in kvs):
        raise Broken(f"writes happened several times: {kvs}")


async def write_many(group: Group, machine: Machine, count: int, prefix: str = "/k/") -> None:
    """Enough of them make the member take snapshots, and begin new segments of its log."""
    for number in range(count):
        await write(group, machine, f"{prefix}{number}".encode(), b"value %d" % number * 4)


async def read(group: Group, machine: Machine, key: bytes, *, serializable: bool = False) -> bytes | None:
    request = Range(key=key, serializable=serializable)
    found = await group.call(machine.member, lambda replica: replica.range(request))
    return found.kvs[0].value if found.kvs else None
