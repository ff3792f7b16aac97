"""A gRPC client of one server: a connection that is made when a call needs one, and made again when it is lost."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from grpc import StatusCode

from steersman.actors.rpc.h2 import heads
from steersman.actors.rpc.h2.connection import Connection
from steersman.actors.rpc.h2.events import Drained, Ended, Event, Headers, Leaving, Message, Refused, Reset
from steersman.actors.rpc.h2.frames import ErrorCode
from steersman.actors.rpc.h2.heads import AnswerHead
from steersman.actors.rpc.h2.limits import Limits
from steersman.actors.rpc.h2.link import Link
from steersman.actors.rpc.h2.outgoing import CallFailed, OutgoingCall
from steersman.actors.rpc.h2.outlet import Stream

#: a server that does not take a connection within it is not there
CONNECT_S = 2.0
#: a server silent for so long is pinged, and given up when it stays so as long again
SILENCE_S = 1.5
#: servers of ours are trusted: their answers are as long as what was asked for
LIMITS = Limits(
    message_bytes=1 << 30,
    partial_bytes=1 << 30,
    stream_window_bytes=4 << 20,
    connection_window_bytes=16 << 20,
    burst=100_000,
    per_second=10_000,
)

C = TypeVar("C", bound=OutgoingCall)


class Channel:
    """Makes calls to one server.

    Args:
        address: `host:port`.
        tls: with a client certificate; None for plain text (tests on loopback).
        server_name: the name in the server's certificate where that carries no addresses.
    """

    def __init__(self, address: str, tls: ssl.SSLContext | None, *, server_name: str = "") -> None:
        self.address = address
        self._host, _, port = address.rpartition(":")
        self._host, self._port = self._host.strip("[]"), int(port)
        self._tls, self._server_name = tls, server_name
        self._link: _ClientLink | None = None
        self._connecting: asyncio.Task[_ClientLink | CallFailed] | None = None

    async def open(
        self, path: str, kind: Callable[[Link, Stream], C], metadata: Sequence[tuple[str, str | bytes]] = ()
    ) -> C:
        """Begins a call.

        Args:
            kind: makes the call; an `OutgoingCall`, which is told what comes.

        Raises:
            CallFailed: the server is not there, or takes no more calls.
        """
        link = self._link
        if link is None or not link.takes_calls:
            if self._connecting is None or self._connecting.done():
                self._connecting = asyncio.create_task(self._connect(), name=f"h2-connect-{self.address}")
            found = await asyncio.shield(self._connecting)
            if isinstance(found, CallFailed):
                raise found
            link = found
            if not link.takes_calls:  # nobody would tell a call on it that it is over
                raise CallFailed(StatusCode.UNAVAILABLE, f"{self.address}: the connection was lost as it was made")
        if len(link.h2.streams) >= link.h2.streams_max:
            raise CallFailed(StatusCode.RESOURCE_EXHAUSTED, f"{self.address} takes no more calls at once")
        scheme = "http" if self._tls is None else "https"
        block = heads.request(path, self._server_name or self.address, scheme=scheme, metadata=metadata)
        call = kind(link, link.h2.open(block))
        link.flush_soon()
        return call

    async def _connect(self) -> _ClientLink | CallFailed:
        timeouts: dict[str, Any] = {"ssl_handshake_timeout": CONNECT_S} if self._tls else {}
        name = (self._server_name or self._host) if self._tls else None
        try:
            async with asyncio.timeout(CONNECT_S):
                _, link = await asyncio.get_running_loop().create_connection(
                    _ClientLink, self._host, self._port, ssl=self._tls, server_hostname=name, **timeouts
                )
        except (OSError, TimeoutError) as error:
            return CallFailed(StatusCode.UNAVAILABLE, f"{self.address}: {error or 'no answer'}")
        if self._link is not None:
            self._link.let_go()
        self._link = link
        return link

    async def close(self) -> None:
        """Cancels what is under way."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        link, self._link = self._link, None
        if link is not None:
            link.close("this side closed the connection")


class _ClientLink(Link):
    def __init__(self) -> None:
        super().__init__(Connection(is_client=True, parse=heads.answer_head, limits=LIMITS), SILENCE_S)
        self._leaves = False

    @property
    def takes_calls(self) -> bool:
        return not (self.is_over or self._leaves)

    def let_go(self) -> None:
        """Closes when the calls under way are over."""
        self._leaves = True
        if not self.is_over and not self.h2.streams:
            self.close("there is another connection")

    def handle(self, event: Event) -> None:
        match event:
            case Message():
                if not event.stream.owner.is_over:
                    event.stream.owner.received(event.data)
            case Headers():
                self._take_head(event)
            case Ended():
                event.stream.owner.close(AnswerHead(StatusCode.INTERNAL, "the answer ended without a status"))
                self.h2.reset(event.stream, ErrorCode.NO_ERROR)
            case Reset():
                event.stream.owner.reset(event.code)
            case Refused():
                code = StatusCode.RESOURCE_EXHAUSTED if event.too_large else StatusCode.INTERNAL
                event.stream.owner.close(AnswerHead(code, event.words))
                self.h2.reset(event.stream, ErrorCode.CANCEL)
            case Drained():
                if not event.stream.owner.is_over:
                    event.stream.owner.drained()
            case Leaving():
                self._take_leave(event)
        if self._leaves and not self.h2.streams and not self.is_over:
            self.close("the server takes no more calls")

    def _take_head(self, event: Headers) -> None:
        head: AnswerHead = event.headers
        if head.code is not None:
            event.stream.owner.close(head)

    def _take_leave(self, event: Leaving) -> None:
        self._leaves = True
        for stream in list(self.h2.streams.values()):
            if stream.id > event.last:
                stream.owner.reset(ErrorCode.REFUSED_STREAM)
                self.h2.reset(stream, ErrorCode.CANCEL)

    def over(self, words: str) -> None:
        for stream in list(self.h2.streams.values()):
            stream.owner.close(AnswerHead(StatusCode.UNAVAILABLE, words))
