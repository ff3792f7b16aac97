"""A conversation between two sides of one process: the in-memory implementer of `Channel`."""

from __future__ import annotations

import asyncio

from steersman.actors.ports import Frame

#: frames in flight in one direction before the sender waits
FRAMES_MAX = 256


class MemoryChannel:
    """One end of a conversation inside a process; `pair()` makes both ends."""

    def __init__(self, inbox: asyncio.Queue[Frame | None], outbox: asyncio.Queue[Frame | None]) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._closed = asyncio.Event()
        self._peer: MemoryChannel = self

    async def send(self, frame: Frame) -> None:
        if self._closed.is_set() or self._peer._closed.is_set():
            return
        await self._outbox.put(frame)

    async def receive(self) -> Frame | None:
        if self._closed.is_set():
            return None
        if self._peer._closed.is_set() and self._inbox.empty():
            return None
        return await self._inbox.get()

    async def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        while self._inbox.full() or not self._inbox.empty():
            self._inbox.get_nowait()  # a peer that waits to send goes on
        if not self._outbox.full():  # when it is, the peer does not wait: it takes what was sent and sees the end
            self._outbox.put_nowait(None)
        self._inbox.put_nowait(None)


def pair() -> tuple[MemoryChannel, MemoryChannel]:
    """Returns the two ends of a new conversation."""
    left: asyncio.Queue[Frame | None] = asyncio.Queue(FRAMES_MAX)
    right: asyncio.Queue[Frame | None] = asyncio.Queue(FRAMES_MAX)
    one, other = MemoryChannel(left, right), MemoryChannel(right, left)
    one._peer, other._peer = other, one
    return one, other
