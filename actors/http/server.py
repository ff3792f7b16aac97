"""The HTTP/1.1 server: listens, and bounds what all its connections hold together.

A connection (`steersman.actors.http.connection`) bounds what is its own. Nobody is refused for what others do as long
as somebody can be found who only holds: the idlest connection goes for a new one, the oldest incomplete request for
bytes that come, the reader who stalls longest for bytes that go.

Source: RFC 9112 (HTTP/1.1)
"""

from __future__ import annotations

import asyncio
import heapq
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any

from steersman.actors.http.connection import Connection
from steersman.actors.http.limits import HttpLimits
from steersman.actors.http.messages import Handler
from steersman.actors.http.receiver import Receiver
from steersman.actors.ports import User
from steersman.runtime.descriptors import allow

#: descriptors that are not for connections: of the store, node agents, webhooks, files
_DESCRIPTORS_KEPT = 256
#: how many idle connections go at once where there is no room, so that looking for them costs little
_ROOM = 64
#: how long a client may take to take leave of TLS
_TLS_CLOSE_S = 5.0


class HttpServer:
    """Listens on one address and answers requests with a handler.

    Args:
        handler: called once a request, its body complete (or as `upload` where `uploads` says so).
        tls: None for plain TCP.
        identify: the user of a verified client certificate (as `ssl.SSLSocket.getpeercert` shows it, with its own bytes
            as `der` and those of its authority as `root`).
        uploads: whether the body of (method, target) is to be streamed rather than held.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        host: str,
        port: int,
        tls: ssl.SSLContext | None = None,
        identify: Callable[[Mapping[str, Any]], User | None] | None = None,
        uploads: Callable[[str, str], bool] | None = None,
        limits: HttpLimits | None = None,
    ) -> None:
        self.handler = handler
        self.host = host
        self.port = port
        self.limits = limits or HttpLimits()
        self.identify = identify
        self.uploads = uploads
        self.connections: dict[Connection, None] = {}
        self.stopping = False
        #: bytes of requests that are incomplete or unanswered
        self.received_bytes = 0
        #: those in the middle of a request, the oldest first
        self.receiving: dict[Receiver, None] = {}
        self._connections_max = self.limits.connections_max
        #: bytes that readers who stall have not taken, the one who stalls longest first
        self._unsent: dict[Connection, int] = {}
        self._unsent_bytes = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._date = (0, b"")

    async def start(self) -> None:
        """Listens; `port` is the real one afterwards.

        Raises:
            OSError: the address cannot be taken.
        """
        loop = asyncio.get_running_loop()
        descriptors = allow(self.limits.connections_max + _DESCRIPTORS_KEPT)
        self._connections_max = max(1, min(self._connections_max, descriptors - _DESCRIPTORS_KEPT))
        self._server = await loop.create_server(
            lambda: Connection(self),
            self.host,
            self.port,
            ssl=self._tls,
            backlog=1024,
            ssl_handshake_timeout=self.limits.header_timeout_s if self._tls else None,
            ssl_shutdown_timeout=_TLS_CLOSE_S if self._tls else None,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._sweeper = loop.create_task(self._sweep())

    async def stop(self, grace_s: float = 2.0) -> None:
        """Takes no more, lets running requests finish for `grace_s`, then closes what is left."""
        self.stopping = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.retire()
        tasks = [c.task for c in self.connections if c.task is not None and not c.streaming]
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
        left = [c.task for c in self.connections if c.task is not None]
        for connection in list(self.connections):
            connection.abort()
        if left:
            await asyncio.wait(left, timeout=grace_s)

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1.0)
            now = loop.time()
            for connection in list(self.connections):
                if connection.deadline < now:
                    connection.expire()
                elif connection.is_left():
                    connection.abort()

    def date(self) -> bytes:
        """The `Date` header's line, formatted once a second."""
        second = int(time.time())
        if self._date[0] != second:
            text = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(second))
            self._date = (second, f"Date: {text}\r\n".encode())
        return self._date[1]

    # ---- what connections hold together

    def admit(self, connection: Connection) -> bool:
        """Takes a new connection in; returns whether there is room for it."""
        if self.stopping:
            return False
        if len(self.connections) >= self._connections_max:
            idle = [other for other in self.connections if other.task is None]
            for other in heapq.nsmallest(_ROOM, idle, key=lambda other: other.deadline):
                self.forget(other)
                other.abort()
            if not idle:
                return False
        self.connections[connection] = None
        return True

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.pop(connection, None)
        self.flows(connection)

    def relieve(self) -> None:
        """Refuses incomplete requests, the oldest first, until the others' have room."""
        while self.received_bytes > self.limits.received_bytes_max and self.receiving:
            oldest = next(iter(self.receiving))
            del self.receiving[oldest]
            oldest.give_way()

    def stalls(self, connection: Connection, size_bytes: int) -> None:
        """A reader has fallen behind by so much."""
        self._unsent_bytes += size_bytes - self._unsent.get(connection, 0)
        self._unsent[connection] = size_bytes
        while self._unsent_bytes > self.limits.unsent_bytes_max:
            slowest = next(iter(self._unsent))
            self.flows(slowest)
            slowest.abort()

    def flows(self, connection: Connection) -> None:
        """A reader has caught up."""
        self._unsent_bytes -= self._unsent.pop(connection, 0)
