"""A conversation inside a process: what was sent before the end arrives."""

from __future__ import annotations

import asyncio

import pytest

from steersman.actors.http.channels import FRAMES_MAX, pair
from steersman.actors.ports import Frame


@pytest.mark.parametrize("count", [0, 1, FRAMES_MAX - 1, FRAMES_MAX])
def test_what_was_sent_before_the_end_arrives_however_full_the_queue_is(count: int) -> None:
    async def run() -> list[bytes]:
        near, far = pair()
        for number in range(count):
            await far.send(Frame(1, b"%d" % number))
        await far.close()
        received = []
        async with asyncio.timeout(5):
            while (frame := await near.receive()) is not None:
                received.append(frame.data)
        return received

    assert asyncio.run(run()) == [b"%d" % number for number in range(count)]


def test_a_side_that_waits_learns_of_the_end() -> None:
    async def run() -> tuple[Frame | None, Frame | None]:
        near, far = pair()
        waiting = asyncio.create_task(near.receive())
        await asyncio.sleep(0)
        await far.close()
        async with asyncio.timeout(5):
            return await waiting, await near.receive()

    assert asyncio.run(run()) == (None, None)


def test_a_side_that_sends_goes_on_when_the_other_has_left() -> None:
    async def run() -> None:
        near, far = pair()
        for _ in range(FRAMES_MAX):
            await far.send(Frame(1, b""))
        waiting = asyncio.create_task(far.send(Frame(1, b"more")))
        await asyncio.sleep(0)
        await near.close()
        async with asyncio.timeout(5):
            await waiting
            assert await far.receive() is None

    asyncio.run(run())
