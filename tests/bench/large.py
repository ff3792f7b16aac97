"""What a client that asks for little waits at most while another has the server at something large, in milliseconds.

The requests are those of `tests/abuse/large.py`, one after the other; the small client reads a ConfigMap all the while
(`tests/abuse/small.py`). Beside each worst wait stands what the large request itself took.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from tests.abuse.large import LARGE, MAPS, Large, furnish
from tests.abuse.small import Small
from tests.abuse.victim import Victim
from tests.abuse.wire import Wire, wires
from tests.bench.figures import Figure, median

ROUNDS, AT_ONCE = 3, 24


def run() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as directory:
        victim = Victim.start(Path(directory))
        try:
            yield from asyncio.run(_figures(victim))
        finally:
            victim.stop()


async def _figures(victim: Victim) -> list[Figure]:
    found: list[Figure] = []
    async with (
        wires(victim.port, victim.tls("admin"), limit=1 << 26) as (admin,),
        wires(victim.port, victim.tls("admin"), AT_ONCE, limit=1 << 24) as many,
    ):
        await furnish(admin)
        small = await asyncio.to_thread(Small.start, victim.port, victim.directory, "admin", f"{MAPS}/small")
        try:
            async for figure in _one_by_one(admin, small):
                found.append(figure)
            await small.waited()
            await asyncio.gather(*(LARGE["create, keys"].ask(wire) for wire in many))
            found.append(Figure(f"large.{AT_ONCE}-at-once.worst-wait", (await small.waited())[1] * 1000, "ms"))
        finally:
            small.stop()
    return found


async def _one_by_one(wire: Wire, small: Small) -> AsyncIterator[Figure]:
    for name, large in LARGE.items():
        rows = [await _measured(wire, small, large) for _ in range(ROUNDS if large.repeats else 1)]
        text = name.replace(", ", "-").replace(" ", "-")
        yield median(f"large.{text}.took", [took * 1000 for took, _ in rows], "ms")
        yield median(f"large.{text}.worst-wait", [waited * 1000 for _, waited in rows], "ms")


async def _measured(wire: Wire, small: Small, large: Large) -> tuple[float, float]:
    """How long a request took, and the longest wait of the small client meanwhile, in seconds."""
    await small.waited()
    began = time.perf_counter()
    await large.ask(wire)
    return time.perf_counter() - began, (await small.waited())[1]
