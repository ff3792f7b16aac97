"""Servicers' methods as exchanges: each call is a task with a context, as grpc.aio has them.

Of `grpc.aio.ServicerContext` they have what servicers here use: `abort`, `write`, `invocation_metadata`.
"""

from __future__ import annotations

import asyncio
import logging
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
from steersman.actors.rpc.h2.waiting import Room, Unread

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
    takes, gives = (
        "stream" if stream else "unary" for stream in (handler.request_streaming, handler.response_streaming)
    )
    return Method(
        getattr(handler, f"{takes}_{gives}"),
        handler.request_deserializer or bytes,
        handler.response_serializer or bytes,
        handler.request_streaming,
        handler.response_streaming,
    )


class Call(Exchange):
    """A call that is answered by a task; it is the context of its handler."""

    __slots__ = ("_method", "_task")

    def __init__(self, link: Link, stream: Stream, head: RequestHead, method: Method) -> None:
        super().__init__(link, stream, head)
        self._method = method
        self._task: asyncio.Task[None] | None = None

    def _start(self, work: Callable[..., Coroutine[Any, Any, None]], *given: Any) -> None:
        self._task = self._link.loop.create_task(self._guarded(work, *given))

    async def _guarded(self, work: Callable[..., Coroutine[Any, Any, None]], *given: Any) -> None:
        try:
            await work(*given)
            self.finish()
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
            self._start(self._answer, request)

    async def _answer(self, request: Any) -> None:
        answer = await self._method.behaviour(request, self)
        if isinstance(answer, Encoded):
            self.send_pieces(answer.pieces)
        else:
            self.send(self._method.encode(answer))


class StreamingCall(Call):
    """Requests, answers or both come in any number."""

    __slots__ = ("_room", "_unread")

    def __init__(self, link: Link, stream: Stream, head: RequestHead, method: Method) -> None:
        super().__init__(link, stream, head, method)
        self._unread = Unread(UNREAD_BYTES_MAX, self.hold, self.release)
        self._room = Room()
        self._start(self._serve)

    def received(self, data: bytes) -> None:
        self._unread.put(data)

    def ended(self) -> None:
        self._unread.end()

    def drained(self) -> None:
        self._room.make()

    async def requests(self) -> AsyncIterator[Any]:
        while (data := await self._unread.get()) is not None:
            request = self._decoded(data)
            if request is None:
                raise asyncio.CancelledError
            yield request

    async def write(self, message: Any) -> None:
        """Sends an answer; waits while the client does not take what was sent before. Several may write at once."""
        self.send(self._method.encode(message))
        if self.waiting_bytes > UNSENT_BYTES_MAX:
            await self._room.wait()

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
