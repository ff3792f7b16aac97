"""What is done to a group, and what it costs: rates or latencies, and the servers' CPU for one operation."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.figures import Figure, median
from tests.bench.store.servers import ETCD, Group
from tests.bench.store.ways import Stream, Unary, Way

SECONDS, RUNS = 0.6, 3
VALUE = b"x" * 256
LISTED = {500: b"/list-500/", 10_000: b"/list-10000/"}
WATCHERS, WATCHED_PUTS = 200, 100

Operation = Callable[[Way, int], Awaitable[object]]


@dataclass(frozen=True)
class Measured:
    """Args: value: operations a second, or milliseconds; cpu_us: of the servers, for one operation."""

    value: float
    cpu_us: float


async def rate(way: Way, group: Group, operation: Operation, callers: int) -> Measured:
    """Returns operations a second with so many callers at once."""
    done, number = 0, 0
    end = time.perf_counter() + SECONDS

    async def call() -> None:
        nonlocal done, number
        while time.perf_counter() < end:
            number += 1
            await operation(way, number)
            done += 1

    cpu, begun = group.cpu_s(), time.perf_counter()
    await asyncio.gather(*(call() for _ in range(callers)))
    return Measured(done / (time.perf_counter() - begun), (group.cpu_s() - cpu) / done * 1e6)


async def latency(way: Way, group: Group, operation: Operation, times: int) -> Measured:
    """Returns the median milliseconds of an operation done alone."""
    spent: list[float] = []
    cpu = group.cpu_s()
    for number in range(times):
        begun = time.perf_counter()
        await operation(way, number)
        spent.append(time.perf_counter() - begun)
    return Measured(statistics.median(spent) * 1000, (group.cpu_s() - cpu) / times * 1e6)


async def watch_latency(way: Way, group: Group) -> Measured:
    """Returns the median milliseconds from the beginning of a put to its event."""
    watch = way.watch(b"/watched/")
    await anext(watch)

    async def put_and_see(way: Way, _: int) -> None:
        put = asyncio.ensure_future(way.put(b"/watched/key", VALUE))
        while not await anext(watch):
            pass
        await put

    found = await latency(way, group, put_and_see, 60)
    await watch.aclose()  # type: ignore[attr-defined]
    return found


async def watchers(way: Way, group: Group) -> Measured:
    """Returns the events a second that many watchers of the same keys receive together."""
    watches = [way.watch(b"/watched/") for _ in range(WATCHERS)]
    await asyncio.gather(*(anext(watch) for watch in watches))

    async def receive(watch: AsyncIterator[int]) -> None:
        seen = 0
        while seen < WATCHED_PUTS:
            seen += await anext(watch)

    cpu, begun = group.cpu_s(), time.perf_counter()
    receiving = [asyncio.ensure_future(receive(watch)) for watch in watches]
    await asyncio.gather(*(way.put(b"/watched/%d" % number, VALUE) for number in range(WATCHED_PUTS)))
    await asyncio.gather(*receiving)
    events = WATCHERS * WATCHED_PUTS
    found = Measured(events / (time.perf_counter() - begun), (group.cpu_s() - cpu) / events * 1e6)
    for watch in watches:
        await watch.aclose()  # type: ignore[attr-defined]
    return found


async def put(way: Way, number: int) -> None:
    await way.put(b"/bench/%d" % (number % 1000), VALUE)


async def get(way: Way, number: int) -> None:
    await way.get(b"/list-500/%06d" % (number % 500), serializable=False)


async def get_serializable(way: Way, number: int) -> None:
    await way.get(b"/list-500/%06d" % (number % 500), serializable=True)


#: name of a measurement to (how it is taken, its unit)
MEASUREMENTS: dict[str, tuple[Callable[[Way, Group], Awaitable[Measured]], str]] = {
    "put_1": (lambda way, group: rate(way, group, put, 1), "1/s"),
    "put_64": (lambda way, group: rate(way, group, put, 64), "1/s"),
    "get_64": (lambda way, group: rate(way, group, get, 64), "1/s"),
    "get_serializable_64": (lambda way, group: rate(way, group, get_serializable, 64), "1/s"),
    "range_500x2k": (lambda way, group: latency(way, group, lambda way, _: way.list(LISTED[500]), 10), "ms"),
    "range_10000x2k": (lambda way, group: latency(way, group, lambda way, _: way.list(LISTED[10_000]), 3), "ms"),
    "watch": (watch_latency, "ms"),
    "watchers_200": (watchers, "1/s"),
}


async def fill(way: Way, prefix: bytes, count: int, value: bytes) -> None:
    """Puts so many keys, a hundred at once."""
    for start in range(0, count, 100):
        await way.put_all([(prefix + b"%06d" % number, value) for number in range(start, min(start + 100, count))])


async def compare(size: int, directory: Path) -> AsyncIterator[Figure]:
    """Measures groups of one size side by side."""
    groups = {kind: Group(kind, size, directory) for kind in (("etcd", "ours") if ETCD else ("ours",))}
    ways: dict[str, tuple[Way, Group]] = {}
    try:
        for kind, group in groups.items():
            await group.start()
            ways[f"{kind}_unary"] = (Unary(group.addresses), group)
        ways["ours_stream"] = (await Stream(groups["ours"].addresses).open(), groups["ours"])
        for kind in groups:
            for count, prefix in LISTED.items():
                await fill(ways[f"{kind}_unary"][0], prefix, count, b"y" * 2048)
        for name, (measure, unit) in MEASUREMENTS.items():
            found: dict[str, list[Measured]] = {way: [] for way in ways}
            for _ in range(RUNS):
                for way, (client, group) in ways.items():
                    found[way].append(await measure(client, group))
            for figure in figures(f"store.{size}.{name}", found, unit):
                yield figure
    finally:
        for client, _ in ways.values():
            await client.close()
        for group in groups.values():
            await group.stop()


def figures(name: str, found: dict[str, list[Measured]], unit: str) -> list[Figure]:
    rows: list[Figure] = []
    for way, runs in found.items():
        value = median(f"{name}.{way}", [run.value for run in runs], unit)
        rows += [value, median(f"{name}.{way}.cpu", [run.cpu_us for run in runs], "us")]
        if way != "etcd_unary" and rows[0].name.endswith("etcd_unary"):
            ratio = value.value / rows[0].value if unit == "1/s" else rows[0].value / value.value
            rows.append(Figure(f"{name}.{way}.ratio", ratio, "x", len(runs)))
    return rows
