"""Requests and answers that are large, though each is allowed: whoever asks for little does not wait for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from tests.abuse.conftest import Abuse
from tests.abuse.large import LARGE, MAPS, furnish
from tests.abuse.small import Small
from tests.abuse.victim import Victim
from tests.abuse.wire import wires

#: the longest waits of a small client may come to this part of what the large requests cost, each in its turn: without
#: a way past them it is nine tenths of it, with one a tenth
WAITS_PART = 1 / 3
#: large requests of one user at once
AT_ONCE = 24


@pytest.fixture
async def small(victim: Victim) -> AsyncIterator[Small]:
    """A client of another user, beside a server that holds what the large requests are about."""
    async with wires(victim.port, victim.tls("admin")) as (admin,):
        if (await admin.call("GET", f"{MAPS}/small"))[0] == 404:
            await furnish(admin)
    found = await asyncio.to_thread(Small.start, victim.port, victim.directory, "jane", f"{MAPS}/small")
    try:
        yield found
    finally:
        found.stop()


async def test_nobody_waits_for_what_a_large_request_costs(victim: Victim, abuse: Abuse, small: Small) -> None:
    rows: dict[str, tuple[float, float]] = {}
    async with abuse(growth_mib=200), wires(victim.port, victim.tls("mallory"), limit=1 << 26) as (wire,):
        for name, large in LARGE.items():
            await small.waited()
            began = time.perf_counter()
            await large.ask(wire)
            took_s = time.perf_counter() - began
            rows[name] = took_s, (await small.waited())[1]
    took_s, waited_s = (sum(column) for column in zip(*rows.values(), strict=True))
    assert waited_s < took_s * WAITS_PART, "\n".join(
        f"{name:30} took {took * 1000:5.0f} ms, others waited {waited * 1000:5.0f} ms"
        for name, (took, waited) in rows.items()
    )


async def test_nobody_waits_for_many_large_requests_at_once(victim: Victim, abuse: Abuse, small: Small) -> None:
    """Both users share a level: were its seats all taken, the other would have one answer for each large request."""
    large = LARGE["create, keys"]

    async with abuse(growth_mib=200), wires(victim.port, victim.tls("mallory"), AT_ONCE, limit=1 << 24) as flood:
        await small.waited()
        began = time.perf_counter()
        await asyncio.gather(*(large.ask(wire) for wire in flood))
        took_s = time.perf_counter() - began
        count, waited_s = await small.waited()
    assert count > AT_ONCE * 4 and waited_s < took_s / AT_ONCE * 3, (count, waited_s, took_s)
