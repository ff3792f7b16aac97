"""Bytes that flow while a request runs: an upgraded connection both ways, and a body too large to hold.

Both are bounded: when a reader falls behind, the transport stops reading from the socket.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

#: bytes held for a slow reader before the socket is no longer read
BUFFER_BYTES_MAX = 1024 * 1024


class _Inbound:
    """A queue of received bytes with back-pressure on the transport."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._ended = False
        self._wake: asyncio.Event = asyncio.Event()

    def feed(self, data: bytes) -> None:
        if data and not self._ended:
            self._pieces.append(data)
            self._size += len(data)
            if self._size > BUFFER_BYTES_MAX and not self._paused:
                self._paused = True
                self._transport.pause_reading()
            self._wake.set()

    def feed_eof(self) -> None:
        self._ended = True
        self._wake.set()

    async def _next(self) -> bytes:
        while not self._pieces:
            if self._ended:
                return b""
            self._wake.clear()
            await self._wake.wait()
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        if self._paused:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        return data


class Pipe(_Inbound):
    """The raw bytes of a connection after its upgrade."""

    def __init__(self, transport: asyncio.Transport, drain: Callable[[], Awaitable[None]], leftover: bytes) -> None:
        super().__init__(transport)
        self._drain = drain
        self.feed(leftover)

    async def read(self) -> bytes:
        """Returns what has arrived, at least one byte; empty when the client has ended."""
        return await self._next()

    async def write(self, data: bytes) -> None:
        """Raises ConnectionError or TimeoutError when the client is gone or reads nothing."""
        self._transport.write(data)
        await self._drain()


class Upload(_Inbound):
    """The body of one request in pieces; iterate it once."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._complete = False

    def end(self) -> None:
        """The body is complete."""
        self._complete = True
        self.feed_eof()

    def fail(self) -> None:
        """The client is gone or broke the framing before the body's end."""
        self.feed_eof()

    async def discard(self) -> bool:
        """Drops what was not read; returns whether the connection can carry another request."""
        self._pieces.clear()
        return self._complete

    def __aiter__(self) -> Upload:
        return self

    async def __anext__(self) -> bytes:
        data = await self._next()
        if data:
            return data
        if not self._complete:
            raise ConnectionResetError("the upload ended early")
        raise StopAsyncIteration
