"""Servicers' methods as exchanges: each call is a task with a context, as grpc.aio has them.

The part of `grpc.aio.ServicerContext` that servicers here use: `abort`, `write`, `invocation_metadata`, `peer`,
`time_remaining`, `set_trailing_metadata`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, NoReturn

from grpc import StatusCode
from msgspec import Struct

from steersman.actors.rpc.h2.exchange import Exchange
from steersman.actors.rpc.h2.frames import Pieces
from steersman.actors.rpc.h2.heads import Metadata, RequestHead
from steersman.actors.rpc.h2.link import Link
from steersman.actors.rpc.h2.outlet import Stream

logger = logging.getLogger(__name__)

#: bytes of requests that a handler has not read; beyond it the client is given no more room
UNREAD_BYTES_MAX = 1 << 20
#: bytes of answers that the client has not taken; beyond it `write` waits
UNSENT_BYTES_MAX = 1 << 20


class Aborted(Exception):
    """A handler ended its call."""

    def __init__(self, code: StatusCode, words: str, metadata: Metadata) -> None:
        super().__init__(code, words)
        self.code, self.words, self.metadata = code, words, metadata


class Encoded(Struct, frozen=True):
    """A long answer that its handler has encoded already, in pieces that together are one message."""

    pieces: Pieces


class Method(Struct, frozen=True):
    """A method of a servicer."""

    behaviour: Any
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    takes_stream: bool
    gives_stream: bool


def method_of(handler: Any) -> Method:
    """Reads what generated code registers."""
    kinds = {(False, False): "unary_unary", (False, True): "unary_stream"}
    kinds |= {(True, False): "stream_unary", (True, True): "stream_stream"}
    return Method(
        getattr(handler, kinds[handler.request_streaming, handler.response_streaming]),
        handler.request_deserializer or bytes,
        handler.response_serializer or bytes,
        handler.request_streaming,
        handler.response_streaming,
    )


class Call(Exchange):
    """A call that is answered by a task; it is the context of its handler."""

    __slots__ = ("_method", "_task", "_trailing")

    def __init__(self, link: Link, stream: Stream, head: RequestHead, method: Method) -> None:
        super().__init__(link, stream, head)
        self._method = method
        self._task: asyncio.Task[None] | None = None
        self._trailing: Metadata = ()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = self._link.loop.create_task(self._guarded(work))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
            self.finish(metadata=self._trailing)
        except Aborted as error:
            self.finish(error.code, error.words, error.metadata)
        except asyncio.CancelledError:
            self.finish(StatusCode.CANCELLED, "the server ends the call")
            raise
        except Exception as error:
            logger.exception("a handler of %s failed", self.head.path)
            self.finish(StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}")

    def closed(self) -> None:
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def _decoded(self, data: bytes) -> Any:
        """Returns the message; None after a refusal, when the bytes are none."""
        try:
            return self._method.decode(data)
        except Exception:
            self.refuse(StatusCode.INTERNAL, "Exception deserializing request!")
            return None

    # the context

    async def abort(
        self, code: StatusCode, details: str = "", trailing_metadata: Sequence[tuple[str, str | bytes]] = ()
    ) -> NoReturn:
        raise Aborted(code, details, tuple(trailing_metadata))

    def invocation_metadata(self) -> Metadata:
        return self.head.metadata

    def set_trailing_metadata(self, metadata: Sequence[tuple[str, str | bytes]]) -> None:
        self._trailing = tuple(metadata)

    def time_remaining(self) -> float | None:
        return None if self._timer is None else self._timer.when() - self._link.loop.time()


class UnaryCall(Call):
    """One request, one answer."""

    __slots__ = ("_data",)

    def __init__(self, link: Link, stream: Stream, head: RequestHead, method: Method) -> None:
        super().__init__(link, stream, head, method)
        self._data: bytes | None = None

    def received(self, data: bytes) -> None:
        if self._data is not None:
            self.refuse(StatusCode.UNIMPLEMENTED, "this method takes one request")
        self._data = data

    def ended(self) -> None:
        if self._data is None:
            self.refuse(StatusCode.UNIMPLEMENTED, "this method takes one request, none came")
        elif (request := self._decoded(self._data)) is not None:
            self._start(self._answer(request))

    async def _answer(self, request: Any) -> None:
        answer = await self._method.behaviour(request, self)
        if isinstance(answer, Encoded):
            self.send_pieces(answer.pieces)
        else:
            self.send(self._method.encode(answer))


class StreamingCall(Call):
    """Requests, answers or both come in any number."""

    __slots__ = ("_ended", "_requests", "_room", "_unread_bytes", "_wake")

    def __init__(self, link: Link, stream: Stream, head: RequestHead, method: Method) -> None:
        super().__init__(link, stream, head, method)
        self._requests: deque[bytes] = deque()
        self._unread_bytes = 0
        self._ended = False
        #: somebody waits for a request; for room to write
        self._wake: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._start(self._serve())

    def received(self, data: bytes) -> None:
        self._requests.append(data)
        self._unread_bytes += len(data)
        if self._unread_bytes > UNREAD_BYTES_MAX:
            self.hold()
        _resolve(self._wake)

    def ended(self) -> None:
        self._ended = True
        _resolve(self._wake)

    def drained(self) -> None:
        _resolve(self._room)

    async def requests(self) -> AsyncIterator[Any]:
        while True:
            while not self._requests:
                if self._ended:
                    return
                self._wake = self._link.loop.create_future()
                await self._wake
            data = self._requests.popleft()
            was_full = self._unread_bytes > UNREAD_BYTES_MAX
            self._unread_bytes -= len(data)
            if was_full and self._unread_bytes <= UNREAD_BYTES_MAX:
                self.release()
            request = self._decoded(data)
            if request is None:
                raise asyncio.CancelledError
            yield request

    async def write(self, message: Any) -> None:
        """Sends an answer; waits while the client does not take what was sent before. Several may write at once."""
        self.send(self._method.encode(message))
        if self.waiting_bytes > UNSENT_BYTES_MAX:
            if self._room is None or self._room.done():
                self._room = self._link.loop.create_future()
            await asyncio.shield(self._room)

    async def _serve(self) -> None:
        method = self._method
        request: Any = self.requests()
        if not method.takes_stream:
            request = await anext(request, None)
            if request is None:
                raise Aborted(StatusCode.UNIMPLEMENTED, "this method takes one request, none came", ())
        answer = method.behaviour(request, self)
        if not method.gives_stream:
            self.send(method.encode(await answer))
        elif asyncio.iscoroutine(answer):
            self.begin()
            await answer
        else:
            self.begin()
            async with aclosing(answer) as answers:
                async for message in answers:
                    await self.write(message)


def _resolve(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
