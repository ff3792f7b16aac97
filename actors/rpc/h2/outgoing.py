"""A call as a client makes it: children are told what comes, or it is read as a stream of messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from grpc import StatusCode

from steersman.actors.rpc.h2.frames import ErrorCode
from steersman.actors.rpc.h2.heads import AnswerHead, Metadata
from steersman.actors.rpc.h2.link import Link
from steersman.actors.rpc.h2.outlet import Stream
from steersman.actors.rpc.h2.waiting import Room, Unread

#: bytes of answers that nobody has read; beyond it the server is given no more room
UNREAD_BYTES_MAX = 4 << 20
#: bytes of messages that the server has not taken; beyond it `write` waits
UNSENT_BYTES_MAX = 1 << 20

#: what a stream that the server broke off means (gRPC over HTTP/2, "Errors")
_RESETS: dict[int, StatusCode] = {
    ErrorCode.REFUSED_STREAM: StatusCode.UNAVAILABLE,
    ErrorCode.CANCEL: StatusCode.CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: StatusCode.PERMISSION_DENIED,
}
_CODES = frozenset(ErrorCode)


class CallFailed(Exception):
    """A call did not end well."""

    def __init__(self, code: StatusCode, words: str, metadata: Metadata = ()) -> None:
        super().__init__(f"{code.name}: {words}" if words else code.name)
        self.code, self.words, self.metadata = code, words, metadata


class OutgoingCall:
    """One call. Children say what happens with what comes; `closed` comes once, at the end."""

    def __init__(self, link: Link, stream: Stream) -> None:
        self._link, self._stream = link, stream
        self.is_over = False
        stream.owner = self

    # what comes

    def received(self, data: bytes) -> None:
        """A message."""
        raise NotImplementedError

    def closed(self, outcome: AnswerHead) -> None:
        """The call is over, also when this side cancelled it."""
        raise NotImplementedError

    def drained(self) -> None:
        """All that waited to be sent has been."""

    # what goes

    def send(self, body: bytes) -> None:
        """Sends a message, or lets it wait for room: see `waiting_bytes`; nothing once the call is over."""
        if not self.is_over:
            self._link.h2.outlet.message(self._stream, body)
            self._link.flush_soon()

    def write_soon(self, writer: Callable[[], None]) -> None:
        """Calls `writer` once at the end of this turn of the loop, to send what has gathered by then."""
        self._link.write_soon(writer)

    @property
    def waiting_bytes(self) -> int:
        return self._stream.queued_bytes

    def end(self) -> None:
        """Says that no more messages follow."""
        if not self.is_over:
            self._link.h2.end(self._stream)
            self._link.flush_soon()

    def cancel(self) -> None:
        if not self.is_over:
            self._link.h2.reset(self._stream, ErrorCode.CANCEL)
            self._link.flush_soon()
            self.close(AnswerHead(StatusCode.CANCELLED, "this side cancelled the call"))

    def hold(self) -> None:
        """Lets the server send no more than it may already."""
        self._link.h2.hold(self._stream)

    def release(self) -> None:
        if not self.is_over:
            self._link.h2.release(self._stream)
            self._link.flush_soon()

    # what its link says

    def close(self, outcome: AnswerHead) -> None:
        if not self.is_over:
            self.is_over = True
            self.closed(outcome)

    def reset(self, code: int) -> None:
        name = ErrorCode(code).name if code in _CODES else str(code)
        self.close(AnswerHead(_RESETS.get(code, StatusCode.INTERNAL), f"the server broke the call off: {name}"))


class PulledCall(OutgoingCall):
    """A call whose messages are read one by one."""

    def __init__(self, link: Link, stream: Stream) -> None:
        super().__init__(link, stream)
        self._unread = Unread(UNREAD_BYTES_MAX, self.hold, self.release)
        self._room = Room()
        self._outcome: AnswerHead | None = None

    def received(self, data: bytes) -> None:
        self._unread.put(data)

    def closed(self, outcome: AnswerHead) -> None:
        self._outcome = outcome
        self._unread.end()
        self._room.make()

    def drained(self) -> None:
        self._room.make()

    async def read(self) -> bytes | None:
        """Returns the next message; None when the call has ended well.

        Raises:
            CallFailed: it has not.
        """
        data = await self._unread.get()
        if data is None and self._outcome is not None and self._outcome.code is not StatusCode.OK:
            raise self.failure()
        return data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (data := await self.read()) is not None:
            yield data

    async def write(self, body: bytes) -> None:
        """Sends a message; waits while the server does not take what was sent before. Raises CallFailed."""
        if self.is_over:
            raise self.failure()
        self.send(body)
        if self.waiting_bytes > UNSENT_BYTES_MAX:
            await self._room.wait()

    def failure(self) -> CallFailed:
        outcome = self._outcome
        assert outcome is not None
        return CallFailed(outcome.code or StatusCode.UNKNOWN, outcome.words, outcome.metadata)
