"""A body that is pushed: pieces go straight from whoever makes them to the connection, without a task in between.

Source: the fan-out of a watch: a change that a thousand clients wait for costs one write for each of them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

#: bytes that one feed sends before others have their turn
TURN_BYTES = 1 << 20
#: and how long it may make pieces before: to put an object into another form takes up to a millisecond, and a small
#: request takes several turns of the loop
TURN_S = 0.001
#: bytes that wait for a reader who is slow; with more the feed ends
WAITING_BYTES_MAX = 32 << 20
#: pieces that wait are joined to about this size
PIECE_BYTES = 256 * 1024


class Sink(Protocol):
    """Where a feed goes."""

    def write(self, piece: bytes) -> bool:
        """Sends a piece; returns whether there is room for another, else `Feed.resume` says when there is."""
        ...

    def end(self) -> None:
        """All has been sent."""
        ...


class Feed:
    """A response body made of pushed pieces; taken by one sink, or read as an iterator.

    Args:
        first: what goes before all that is pushed, made piece by piece as it is taken.
        closed: called once, when nobody takes any more or all has been taken.
        waiting_max: pieces that may wait for a slow reader, beside `WAITING_BYTES_MAX`; with one more the feed ends
            without them.
    """

    def __init__(self, first: Iterator[bytes], closed: Callable[[], None], waiting_max: int) -> None:
        self._first: Iterator[bytes] | None = first
        self._closed: Callable[[], None] | None = closed
        self._waiting: deque[bytes] = deque()
        self._waiting_max = waiting_max
        self._waiting_bytes = 0
        self._sink: Sink | None = None
        self._has_room = False
        self._wake: asyncio.Future[None] | None = None
        self.ended = False

    # ---- the maker's side

    def push(self, piece: bytes, parts: Sequence[bytes] = ()) -> None:
        """Sends a piece, now if the reader can take it.

        Args:
            parts: what the piece was joined of, which others hold as well: they wait in its place.
        """
        if self._has_room and not self._waiting and self._first is None:
            assert self._sink is not None
            self._has_room = self._sink.write(piece)
        elif not self.ended:
            self._waiting.extend(parts or (piece,))
            self._waiting_bytes += len(piece)
            if len(self._waiting) > self._waiting_max or self._waiting_bytes > WAITING_BYTES_MAX:
                self._forget()
                self.end()
            self._notify()

    def _forget(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0

    def end(self) -> None:
        """No more is pushed; what waits is still sent."""
        if not self.ended:
            self.ended = True
            self._notify()
            if self._has_room:
                self.resume()

    @property
    def idle(self) -> bool:
        """Whether the reader has taken everything."""
        return not self._waiting and self._first is None

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _next(self) -> bytes | None:
        if self._first is not None:
            piece = next(self._first, None)
            if piece is not None:
                return piece
            self._first = None
        if not self._waiting:
            return None
        taken, size_bytes = [], 0
        while self._waiting and size_bytes < PIECE_BYTES:
            taken.append(self._waiting.popleft())
            size_bytes += len(taken[-1])
        self._waiting_bytes -= size_bytes
        return b"".join(taken)

    # ---- the reader's side

    def attach(self, sink: Sink) -> None:
        """Sends to `sink` from now on."""
        self._sink, self._has_room = sink, True
        self.resume()

    def resume(self) -> None:
        """The sink has room again."""
        if self._sink is None or self._closed is None:
            return
        self._has_room = True
        sent_bytes, until = 0, time.perf_counter() + TURN_S
        while self._has_room:
            piece = self._next()
            if piece is None:
                if self.ended:
                    self.close()
                    self._sink.end()
                return
            self._has_room = self._sink.write(piece)
            sent_bytes += len(piece)
            if self._has_room and (sent_bytes >= TURN_BYTES or time.perf_counter() > until):
                self._has_room = False
                asyncio.get_running_loop().call_soon(self.resume)

    def close(self) -> None:
        """Nobody reads any more."""
        closed, self._closed = self._closed, None
        if closed is not None:
            self.ended, self._has_room = True, False
            self._forget()
            closed()

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> bytes:
        try:
            while True:
                piece = self._next()
                if piece is not None:
                    return piece
                if self.ended:
                    raise StopAsyncIteration
                self._wake = asyncio.get_running_loop().create_future()
                await self._wake
        except BaseException:
            self.close()
            raise

    async def aclose(self) -> None:
        self.close()


class Pieces(Feed):
    """A body that is long and known from the start, made piece by piece as it is taken."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__(pieces, lambda: None, waiting_max=0)
        self.end()
