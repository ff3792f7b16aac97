"""Who waits on a stream: readers for messages, writers for room."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Unread:
    """Messages that have come and that nobody has read yet.

    Args:
        bytes_max: with more of them unread, the peer is given no more room.
        hold, release: stop and go on giving the peer room.
    """

    def __init__(self, bytes_max: int, hold: Callable[[], None], release: Callable[[], None]) -> None:
        self._bytes_max, self._hold, self._release = bytes_max, hold, release
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._ended = False
        self._reader: asyncio.Future[None] | None = None

    def put(self, data: bytes) -> None:
        self._messages.append(data)
        self._bytes += len(data)
        if self._bytes > self._bytes_max:
            self._hold()
        _resolve(self._reader)

    def end(self) -> None:
        """No more messages come."""
        self._ended = True
        _resolve(self._reader)

    async def get(self) -> bytes | None:
        """Returns the next message, for one reader at a time; None at the end."""
        while not self._messages:
            if self._ended:
                return None
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        data = self._messages.popleft()
        was_full = self._bytes > self._bytes_max
        self._bytes -= len(data)
        if was_full and self._bytes <= self._bytes_max:
            self._release()
        return data


class Room:
    """Lets writers wait until the peer has taken what was sent."""

    def __init__(self) -> None:
        self._made: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        if self._made is None or self._made.done():
            self._made = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._made)

    def make(self) -> None:
        _resolve(self._made)


def _resolve(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
