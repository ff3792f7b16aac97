"""A call as a server sees it on the wire: whoever answers it is told what comes, and sends bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from grpc import StatusCode

from steersman.actors.rpc.h2 import heads
from steersman.actors.rpc.h2.frames import Pieces
from steersman.actors.rpc.h2.heads import RequestHead
from steersman.actors.rpc.h2.link import Link
from steersman.actors.rpc.h2.outlet import LONG_BYTES, Stream


class Exchange:
    """One call. Children say what happens with what comes; nothing of it is called after `closed`."""

    __slots__ = ("_begun", "_link", "_stream", "_timer", "head", "is_over")

    def __init__(self, link: Link, stream: Stream, head: RequestHead) -> None:
        self._link, self._stream = link, stream
        self.head = head
        self.is_over = False
        self._begun = False
        self._timer: asyncio.TimerHandle | None = None
        if head.timeout_s is not None:
            self._timer = link.loop.call_later(head.timeout_s, self._expire)

    # what comes

    def received(self, data: bytes) -> None:
        """A message."""
        raise NotImplementedError

    def ended(self) -> None:
        """The client sends no more."""
        raise NotImplementedError

    def closed(self) -> None:
        """The call is over before it was finished: the client, the connection or the time is gone."""

    def drained(self) -> None:
        """All that waited to be sent has been."""

    # what goes

    def begin(self) -> None:
        """Sends the headers of the answer, once."""
        if not self._begun and not self.is_over:
            self._begun = True
            self._link.h2.outlet.headers(self._stream, heads.ANSWER)
            self._link.flush_soon()

    def send(self, body: bytes) -> None:
        """Sends a message, or lets it wait for room: see `waiting_bytes`."""
        if self.is_over:
            return
        outlet = self._link.h2.outlet
        if not self._begun:
            self._begun = True
            outlet.headers(self._stream, heads.ANSWER)
        outlet.message(self._stream, body)
        self._link.flush_soon()

    def send_pieces(self, pieces: Pieces) -> None:
        """Sends a message that lies in pieces; long ones are not copied."""
        if sum(map(len, pieces)) < LONG_BYTES:
            self.send(b"".join(pieces))
        elif not self.is_over:
            self.begin()
            self._link.h2.outlet.long_message(self._stream, pieces)
            self._link.flush_soon()

    def write_soon(self, writer: Callable[[], None]) -> None:
        """Calls `writer` once at the end of this turn of the loop, to send what has gathered by then."""
        self._link.write_soon(writer)

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait for the client to take them."""
        return self._stream.queued_bytes

    def finish(
        self,
        code: StatusCode = StatusCode.OK,
        words: str = "",
        metadata: Sequence[tuple[str, str | bytes]] = (),
    ) -> None:
        """Ends the call, after what waits."""
        if self.is_over:
            return
        self._over()
        h2 = self._link.h2
        if not self._begun:
            h2.outlet.headers(self._stream, heads.ANSWER)
        h2.end(self._stream, heads.trailers(code, words, metadata))
        self._link.flush_soon()

    def hold(self) -> None:
        """Lets the client send no more than it may already."""
        self._link.h2.hold(self._stream)

    def release(self) -> None:
        if not self.is_over:
            self._link.h2.release(self._stream)
            self._link.flush_soon()

    def _over(self) -> None:
        self.is_over = True
        if self._timer is not None:
            self._timer.cancel()

    def close(self) -> None:
        """Notes that the stream is gone."""
        if not self.is_over:
            self._over()
            self.closed()

    def refuse(self, code: StatusCode, words: str) -> None:
        """Ends the call, and what works on it."""
        if not self.is_over:
            self.finish(code, words)
            self.closed()

    def _expire(self) -> None:
        self.refuse(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


class Refusal(Exchange):
    """A call that is not answered, but told why."""

    __slots__ = ()

    def __init__(self, link: Link, stream: Stream, head: RequestHead, code: StatusCode, words: str) -> None:
        super().__init__(link, stream, head)
        self.finish(code, words)

    def received(self, data: bytes) -> None:
        """Nobody asked for it."""

    def ended(self) -> None:
        """Nothing waits for it."""
