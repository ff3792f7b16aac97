"""The store beside etcd: the same load program, interleaved, one and three members on loopback with real disks.

etcd is asked through unary calls; ours the same way, and through StoreClient's stream as the cluster's components do.
The load program is Python, one process for all callers: its own cost bounds the rates of all three, so the CPU that the
servers use for an operation says more. `ratio` is how many times as fast as etcd ours is (latencies: etcd's by ours).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import uvloop
from tests.bench.figures import Figure
from tests.bench.store.load import compare
from tests.bench.store.scale import at_scale, memory_of_a_key, stall
from tests.bench.store.servers import ETCD

from steersman.actors import allocator


async def _collect(figures: AsyncIterator[Figure]) -> list[Figure]:
    return [figure async for figure in figures]


def run() -> Iterator[Figure]:
    if not ETCD:
        print("no etcd on this machine (Debian: etcd-server): the store is measured alone", file=sys.stderr)
    allocator.keep_freed()
    directory = Path(tempfile.mkdtemp(prefix="steersman-bench-"))
    try:
        yield memory_of_a_key()
        yield stall()
        for size in (1, 3):
            yield from uvloop.run(_collect(compare(size, directory)))
        for name, count, value_bytes in (("100k_2k", 100_000, 2048), ("1m_small", 1_000_000, 32)):
            yield from uvloop.run(_collect(at_scale(name, count, value_bytes, directory)))
    finally:
        shutil.rmtree(directory)
