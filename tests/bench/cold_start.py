"""From nothing to an API that answers, to all components ready, and to the first running pod: on Ray and embedded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence

from tests.bench import clusters
from tests.bench.figures import Figure, median

from steersman import testing
from steersman.actors.client import Client

RUNS = 3
FORMS: dict[str, Sequence[str]] = {"embedded": ("--embedded",), "ray": (), "ray_packed": ("--controllers", "packed")}


async def _first_pod(client: Client) -> float:
    async with client:
        return await clusters.first_pod(client)


def _in_test() -> Iterator[Figure]:
    """`steersman.testing.cluster()`, as a test's fixture makes it; the imports are made already."""
    ready, running = [], []
    for _ in range(RUNS + 1):
        began = time.monotonic()
        with testing.cluster() as c:
            ready.append(time.monotonic() - began)
            c.run(clusters.first_pod(c.client))
            running.append(time.monotonic() - began)
    yield median("cold_start.in_test.ready", ready[1:], "s")
    yield median("cold_start.in_test.first_pod", running[1:], "s")


def run() -> Iterator[Figure]:
    yield from _in_test()
    for form, options in FORMS.items():
        rows = []
        for _ in range(RUNS):
            with clusters.up(*options) as running:
                pod_s = asyncio.run(_first_pod(running.client()))
                rows.append((running.api_ready_s, running.ready_s, running.ready_s + pod_s))
        for what, values in zip(("api_ready", "all_ready", "first_pod"), zip(*rows, strict=True), strict=True):
            yield median(f"cold_start.{form}.{what}", values, "s")
