"""The store: puts with 1 and 64 writers, ranges, gets and the latency of a watch; the memory of a key.

In-process, and through StoreClient over gRPC with 1 and 3 replicas: a process of its own each, on loopback, with real
disks.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from tests.bench.figures import Figure, cpu_s, median

from steersman.actors.rpc.raft import GrpcTransport
from steersman.actors.rpc.store import serve_store
from steersman.actors.store.client import StoreClient
from steersman.actors.store.filedisk import FileDisk
from steersman.actors.store.replica import Replica
from steersman.cluster.store.mvcc import Mvcc
from steersman.cluster.store.rules import prefix_end
from steersman.cluster.store.values import Put, Range, Txn

SECONDS, RUNS = 0.6, 3
VALUE = b"x" * 256


async def puts(store: Any, writers: int) -> tuple[float, float]:
    """Returns puts a second and the median latency in milliseconds."""
    latencies: list[float] = []
    end = time.perf_counter() + SECONDS

    async def write(writer: int) -> None:
        number = 0
        while (begun := time.perf_counter()) < end:
            await store.txn(Txn(success=(Put(key=b"/bench/%d/%d" % (writer, number % 100), value=VALUE),)))
            latencies.append(time.perf_counter() - begun)
            number += 1

    begun = time.perf_counter()
    await asyncio.gather(*(write(writer) for writer in range(writers)))
    return len(latencies) / (time.perf_counter() - begun), statistics.median(latencies) * 1000


async def figures(store: Any, name: str, pids: list[int]) -> AsyncIterator[Figure]:
    """Args: pids: the replicas' processes, whose CPU a put costs."""
    await store.txn(Txn(success=(Put(key=b"/warm", value=VALUE),)))
    for writers in (1, 64):
        rates, waits, costs = [], [], []
        for _ in range(RUNS):
            cpu = sum(map(cpu_s, pids))
            rate, latency_ms = await puts(store, writers)
            rates.append(rate)
            waits.append(latency_ms)
            costs.append((sum(map(cpu_s, pids)) - cpu) / (rate * SECONDS) * 1e6)
        yield median(f"store.{name}.puts_{writers}.rate", rates, "1/s")
        yield median(f"store.{name}.puts_{writers}.p50", waits, "ms")
        yield median(f"store.{name}.puts_{writers}.cpu", costs, "us")
    for number in range(500):
        await store.txn(Txn(success=(Put(key=b"/list/%03d" % number, value=b"y" * 2048),)))
    request = Range(key=b"/list/", range_end=prefix_end(b"/list/"))
    yield Figure(f"store.{name}.range_500x2k", await repeated(lambda: store.range(request), 30), "ms", 30)
    yield Figure(f"store.{name}.get", await repeated(lambda: store.range(Range(key=b"/list/007")), 200), "ms", 200)
    yield Figure(f"store.{name}.watch_latency", await watch_latency(store), "ms", 100)


async def repeated(work: Callable[[], Awaitable[Any]], times: int) -> float:
    """Returns the median milliseconds of one run."""
    spent = []
    for _ in range(times):
        begun = time.perf_counter()
        await work()
        spent.append(time.perf_counter() - begun)
    return statistics.median(spent) * 1000


async def watch_latency(store: Any) -> float:
    """Returns the median milliseconds from the start of a put to its event."""
    watch = store.watch(b"/watched", b"", 0)
    await anext(watch)
    spent = []
    for _ in range(100):
        begun = time.perf_counter()
        put = asyncio.ensure_future(store.txn(Txn(success=(Put(key=b"/watched", value=VALUE),))))
        while not (await anext(watch)).events:
            pass
        spent.append(time.perf_counter() - begun)
        await put
    await watch.aclose()
    return statistics.median(spent) * 1000


async def in_process(directory: Path) -> AsyncIterator[Figure]:
    replica = Replica(
        name="s1", member_id=1, peers={}, disk=FileDisk(directory / "own"), transport=None,
        rng=random.Random(),
    )  # fmt: skip
    await replica.start()
    async for figure in figures(replica, "in_process", [os.getpid()]):
        yield figure
    await replica.stop()


async def replica_process(member: int, directory: str, *addresses: str) -> None:
    """The body of a child: one replica, until stdin closes."""
    peers = dict(enumerate(addresses, start=1))
    replica = Replica(
        name=f"s{member}", member_id=member, peers=peers, disk=FileDisk(directory),
        transport=GrpcTransport(member), rng=random.Random(),
    )  # fmt: skip
    server = await serve_store(replica, peers[member], None)
    await replica.start()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)
    await replica.stop()


async def over_grpc(size: int, directory: Path) -> AsyncIterator[Figure]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(size)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    children = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.store", str(member), str(directory / f"{size}-{member}"), *addresses,
            stdin=asyncio.subprocess.PIPE,
        )
        for member in range(1, size + 1)
    ]  # fmt: skip
    client = StoreClient(addresses, timeout_s=30)
    await client.start()
    try:
        async for figure in figures(client, f"grpc_{size}_replicas", [child.pid for child in children]):
            yield figure
    finally:
        await client.stop()
        for child in children:
            if child.stdin is not None:
                child.stdin.close()
            await child.wait()


def memory() -> Figure:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    state = Mvcc()
    count = 100_000
    for number in range(count):
        key = b"/registry/core/pods/default/web-%08d" % number
        state.apply(Txn(success=(Put(key=key, value=b""),)))
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return Figure("store.memory_per_key", grown_kib * 1024 / count, "bytes")


async def _collect(figures: AsyncIterator[Figure]) -> list[Figure]:
    return [figure async for figure in figures]


def run() -> Iterator[Figure]:
    directory = Path(tempfile.mkdtemp(prefix="steersman-bench-"))
    try:
        yield memory()
        for work in (in_process(directory), over_grpc(1, directory), over_grpc(3, directory)):
            yield from asyncio.run(_collect(work))
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    asyncio.run(replica_process(int(sys.argv[1]), *sys.argv[2:]))
