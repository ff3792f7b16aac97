"""A store that holds much: memory and start-up with many keys, and how long a snapshot holds up everything else."""

from __future__ import annotations

import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path

from tests.bench.figures import Figure
from tests.bench.store.load import fill
from tests.bench.store.servers import ETCD, Group
from tests.bench.store.ways import Unary

from steersman.cluster.store.commands import Compact
from steersman.cluster.store.mvcc import Mvcc
from steersman.cluster.store.snapshot import Capturing
from steersman.cluster.store.values import Put, Txn


def memory_of_a_key() -> Figure:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    state = Mvcc()
    count = 100_000
    for number in range(count):
        key = b"/registry/core/pods/default/web-%08d" % number
        state.apply(Txn(success=(Put(key=key, value=b""),)))
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return Figure("store.memory_per_key", grown_kib * 1024 / count, "bytes")


def stall() -> Figure:
    """How long the event loop stands still at most while the state is captured for a snapshot, which goes in pieces."""
    state = Mvcc()
    for number in range(1_000_000):
        state.apply(Txn(success=(Put(key=b"/k%08d" % number, value=b"x" * 32),)))
    state.apply(Compact(state.revision))
    capturing, spent, goes_on = Capturing(state), [], True
    while goes_on:
        begun = time.perf_counter()
        goes_on = capturing.step()
        spent.append(time.perf_counter() - begun)
    return Figure("store.capture_1m.stall", max(spent) * 1000, "ms")


async def at_scale(name: str, count: int, value_bytes: int, directory: Path) -> AsyncIterator[Figure]:
    """Fills each store, and starts it again."""
    for kind in ("etcd", "ours") if ETCD else ("ours",):
        group = Group(kind, 1, directory / name)
        await group.start()
        way = Unary(group.addresses)
        try:
            begun = time.perf_counter()
            await fill(way, b"/registry/things/", count, b"v" * value_bytes)
            yield Figure(f"store.{name}.{kind}.fill", time.perf_counter() - begun, "s")
            yield Figure(f"store.{name}.{kind}.memory", group.memory_mib(), "MiB")
        finally:
            await way.close()
            await group.stop()
        yield Figure(f"store.{name}.{kind}.start", await group.start(), "s")
        yield Figure(f"store.{name}.{kind}.start_cpu", group.cpu_s(), "s")
        yield Figure(f"store.{name}.{kind}.memory_after_start", group.memory_mib(), "MiB")
        await group.stop()
