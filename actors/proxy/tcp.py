"""Passes TCP connections on to endpoints, with back-pressure and half-closing in both directions."""

from __future__ import annotations

import asyncio
from typing import cast

from steersman.cluster.net.balance import Balancer
from steersman.cluster.net.services import Backend

#: how long one endpoint may take to accept, before the next is tried
CONNECT_S = 5.0
#: connections of one frontend at once; more are closed at once
CONNECTIONS_MAX = 10_000


class TcpFrontend:
    """One listening socket."""

    def __init__(self) -> None:
        self._balancer = Balancer()
        self._server: asyncio.Server | None = None
        self.connections: set[_Inward] = set()

    async def open(self, address: str, port: int) -> None:
        """Listens. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Inward(self), address, port, backlog=1024)

    def lead_to(self, backends: tuple[Backend, ...], affinity_s: int) -> None:
        """Where new connections go; those that stand go on."""
        self._balancer.set(backends, affinity_s)

    async def close(self) -> None:
        """Stops listening; connections that stand go on until `abort`."""
        if self._server is not None:
            # a connection accepted in the same turn in which the server closes would never be served nor closed
            for sock in self._server.sockets:
                asyncio.get_running_loop().remove_reader(sock.fileno())
            await asyncio.sleep(0)
            self._server.close()

    def abort(self) -> None:
        """Ends every connection."""
        for connection in list(self.connections):
            connection.abort()

    async def connect(self, inward: _Inward, client: str) -> _Outward | None:
        """Opens a connection to the first endpoint that accepts."""
        loop = asyncio.get_running_loop()
        for backend in self._balancer.pick(client, loop.time()):
            try:
                async with asyncio.timeout(CONNECT_S):
                    _, outward = await loop.create_connection(lambda: _Outward(inward), backend.ip, backend.port)
            except (OSError, TimeoutError):
                continue
            self._balancer.used(client, backend, loop.time())
            return outward
        return None


class _Half(asyncio.Protocol):
    """One side of a passed-on connection."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: _Half | None = None
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)

    def eof_received(self) -> bool:
        """Keeps the other direction open until it has ended as well."""
        self.ended = True
        peer = self.peer
        if peer is None or peer.transport is None or peer.ended:
            if peer is not None and peer.transport is not None:
                peer.transport.close()
            return False
        peer.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None and not self.peer.transport.is_closing():
            self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.peer is not None and self.peer.transport is not None:
            if exc is None:
                self.peer.transport.close()
            else:
                self.peer.transport.abort()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class _Outward(_Half):
    """The side of the endpoint."""

    def __init__(self, inward: _Inward) -> None:
        super().__init__()
        self.peer = inward


class _Inward(_Half):
    """The side of the client: keeps what comes before an endpoint has accepted, and reads no more until then."""

    def __init__(self, frontend: TcpFrontend) -> None:
        super().__init__()
        self._frontend = frontend
        self._task: asyncio.Task[None] | None = None
        #: a piece or two: some loops read once whatever they were told while the connection was made
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self._frontend.connections) >= CONNECTIONS_MAX:
            self.abort()
            return
        self._frontend.connections.add(self)
        cast(asyncio.Transport, transport).pause_reading()
        self._task = asyncio.create_task(self._join())

    async def _join(self) -> None:
        assert self.transport is not None
        client = self.transport.get_extra_info("peername")
        outward = await self._frontend.connect(self, client[0] if client else "")
        if outward is None:
            self.abort()
        elif self.transport.is_closing() or outward.transport is None:
            outward.abort()
        else:
            self.peer = outward
            outward.transport.writelines(self._early)
            self._early.clear()
            if self.ended:
                outward.transport.write_eof()
            else:
                self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self.peer is not None:
            super().data_received(data)
            return
        self._early.append(data)
        cast(asyncio.Transport, self.transport).pause_reading()

    def eof_received(self) -> bool:
        if self.peer is not None:
            return super().eof_received()
        self.ended = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._frontend.connections.discard(self)
        if self._task is not None and self.peer is None:
            self._task.cancel()
        super().connection_lost(exc)
