"""What many stored pods cost in memory: an API server and its store in one process, empty, filled and asked.

The pods are about 3 KB each and differ as pods do; asking means a list by label, one by field, and a watch of all.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import uvloop
from tests.bench.api import JSON, PODS, Bench, pod
from tests.bench.apiservers import Served, serving
from tests.bench.figures import Figure, memory_mib

STORED, CONNECTIONS = 100_000, 32
ALL = "/api/v1/pods"
QUESTIONS = {
    "list_by_label": f"{ALL}?labelSelector=app%3Dnone",
    "list_by_field": f"{ALL}?fieldSelector=status.phase%3DRunning",
    "list_page": f"{ALL}?limit=500",
    "list_all": ALL,
}


async def fill(bench: Bench) -> None:
    await bench.prepare()
    await bench.load([("POST", PODS, pod(f"web-{n}"), JSON) for n in range(STORED)], CONNECTIONS)


def ask(path: str) -> Callable[[Bench], Awaitable[tuple[float, float]]]:
    async def asked(bench: Bench) -> tuple[float, float]:
        connection = await bench.connect()
        cpu, began = sum(bench.cpu_s().values()), time.perf_counter()
        await connection.call("GET", path)
        connection.close()
        return sum(bench.cpu_s().values()) - cpu, time.perf_counter() - began

    return asked


def _run(served: Served, what: Callable[[Bench], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await what(Bench(served))

    return uvloop.run(main())


def run() -> Iterator[Figure]:
    with serving(apart=False) as served:
        yield Figure("memory.empty", memory_mib(served.servers[0].pid)[0], "MiB")
        _run(served, fill)
        yield Figure(f"memory.pods_{STORED}", memory_mib(served.servers[0].pid)[0], "MiB")
        for name, path in QUESTIONS.items():
            cpu, wall = _run(served, ask(path))
            yield Figure(f"memory.{name}.cpu", 1000 * cpu, "ms")
            yield Figure(f"memory.{name}.time", 1000 * wall, "ms")
            yield Figure(f"memory.{name}", memory_mib(served.servers[0].pid)[0], "MiB")
