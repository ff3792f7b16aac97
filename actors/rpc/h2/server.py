"""A gRPC server: servicers' methods, and exchanges that do without tasks, behind one address."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Callable, Collection, Mapping
from typing import Any

from grpc import StatusCode

from steersman.actors.rpc.h2 import heads
from steersman.actors.rpc.h2.calls import StreamingCall, UnaryCall, method_of
from steersman.actors.rpc.h2.connection import Connection
from steersman.actors.rpc.h2.events import Drained, Ended, Event, Headers, Leaving, Message, Refused, Reset
from steersman.actors.rpc.h2.exchange import Exchange, Refusal
from steersman.actors.rpc.h2.frames import ErrorCode
from steersman.actors.rpc.h2.heads import RequestHead
from steersman.actors.rpc.h2.limits import Limits
from steersman.actors.rpc.h2.link import Link
from steersman.actors.rpc.h2.outlet import Stream

#: makes the exchange of a call
Open = Callable[[Link, Stream, RequestHead], Exchange]

#: connections at once; more are closed as they come
CONNECTIONS_MAX = 4096
#: of answers that a client does not take; with more waiting its new calls are refused
UNSENT_BYTES_MAX = 256 << 20
#: a client silent for so long is pinged
SILENCE_S = 10.0
#: a client that has not shown its certificate by then is let go
HANDSHAKE_S = 5.0


class Server:
    """Serves methods; generated code's `add_…Servicer_to_server` adds to it as to a server of grpc.aio.

    Args:
        tls: with client certificates required; None for plain text (tests on loopback).
        names: common names of the client certificates that may call; None for every certificate let in.
    """

    def __init__(
        self, tls: ssl.SSLContext | None, *, names: Collection[str] | None = None, limits: Limits | None = None
    ) -> None:
        self._tls, self._names, self._limits = tls, None if names is None else frozenset(names), limits
        self._methods: dict[str, Open] = {}
        self._left_out: Mapping[str, str] = {}
        self._links: set[_ServerLink] = set()
        self._server: asyncio.Server | None = None

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Adds the methods of a servicer."""
        for name, handler in handlers.items():
            method = method_of(handler)
            kind = StreamingCall if method.takes_stream or method.gives_stream else UnaryCall
            self._methods[f"/{service}/{name}"] = functools.partial(kind, method=method)

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Generated code calls it as well; `add_registered_method_handlers` has it all."""

    def add_exchange(self, path: str, opens: Open) -> None:
        """Adds a method that is answered from within the turn in which its bytes come."""
        self._methods[path] = opens

    def leave_out(self, words: Mapping[str, str]) -> None:
        """Says of methods, by the beginning of their path, why they are not there."""
        self._left_out = words

    async def start(self, address: str) -> None:
        """Listens at `host:port`; raises OSError when that cannot be."""
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        timeouts: dict[str, Any] = {"ssl": self._tls, "ssl_handshake_timeout": HANDSHAKE_S} if self._tls else {}
        self._server = await loop.create_server(self._accept, host.strip("[]"), int(port), **timeouts)

    def _accept(self) -> _ServerLink:
        return _ServerLink(self, self._limits)

    async def stop(self, grace_s: float) -> None:
        """Takes no more calls, and ends those that are not over after `grace_s` seconds."""
        if self._server is not None:
            self._server.close()
        for link in self._links:
            link.h2.leave()
            link.flush()
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_s
        while loop.time() < end and any(link.h2.streams for link in self._links):  # noqa: ASYNC110  (many links)
            await asyncio.sleep(0.01)
        for link in list(self._links):
            link.close("the server stops")
        await asyncio.sleep(0)

    def joined(self, link: _ServerLink) -> bool:
        """Returns whether there is room for a connection."""
        self._links.add(link)
        return len(self._links) <= CONNECTIONS_MAX

    def left(self, link: _ServerLink) -> None:
        self._links.discard(link)

    def may_call(self, certificate: Mapping[str, Any] | None) -> bool:
        if self._names is None:
            return True
        subject = (certificate or {}).get("subject", ())
        return any(key == "commonName" and value in self._names for row in subject for key, value in row)

    def open(self, link: Link, stream: Stream, head: RequestHead) -> Exchange:
        opens = self._methods.get(head.path)
        if opens is not None:
            return opens(link, stream, head)
        words = next((words for start, words in self._left_out.items() if head.path.startswith(start)), "")
        return Refusal(link, stream, head, StatusCode.UNIMPLEMENTED, words or "Method not found!")


class _ServerLink(Link):
    def __init__(self, server: Server, limits: Limits | None) -> None:
        super().__init__(Connection(is_client=False, parse=heads.request_head, limits=limits), SILENCE_S)
        self._server = server
        self._may_call = False

    def connection_made(self, transport: Any) -> None:
        self._may_call = self._server.may_call(transport.get_extra_info("peercert"))
        super().connection_made(transport)
        if not self._server.joined(self):
            self.abort("too many connections")

    def handle(self, event: Event) -> None:
        match event:
            case Message():
                owner = event.stream.owner
                if owner is not None and not owner.is_over:
                    owner.received(event.data)
            case Ended():
                owner = event.stream.owner
                if owner is not None and not owner.is_over:
                    owner.ended()
            case Headers():
                if event.stream.owner is None:
                    self._open(event.stream, event.headers)
            case Reset():
                if event.stream.owner is not None:
                    event.stream.owner.close()
            case Refused():
                if event.stream.owner is not None:
                    code = StatusCode.RESOURCE_EXHAUSTED if event.too_large else StatusCode.UNIMPLEMENTED
                    event.stream.owner.refuse(code, event.words)
            case Drained():
                if event.stream.owner is not None and not event.stream.owner.is_over:
                    event.stream.owner.drained()
            case Leaving():
                """The client goes when its calls are over."""

    def _open(self, stream: Stream, head: RequestHead) -> None:
        if head.refusal:
            self.h2.end(stream, heads.http_refusal(head.refusal))
        elif not self._may_call:
            words = "this certificate may not do this"
            stream.owner = Refusal(self, stream, head, StatusCode.PERMISSION_DENIED, words)
        elif self.h2.outlet.queued_bytes > UNSENT_BYTES_MAX:
            self.h2.reset(stream, ErrorCode.ENHANCE_YOUR_CALM)
        else:
            stream.owner = self._server.open(self, stream, head)

    def over(self, words: str) -> None:
        self._server.left(self)
        for stream in list(self.h2.streams.values()):
            if stream.owner is not None:
                stream.owner.close()
