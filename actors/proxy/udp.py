"""Passes UDP datagrams on to endpoints: a flow per client, that ends when it has been silent for a while."""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from typing import Any, cast

from steersman.cluster.net.balance import Balancer
from steersman.cluster.net.services import Backend

#: how long a flow may be silent
IDLE_S = 60.0
#: flows of one frontend at once; the longest silent one ends first
FLOWS_MAX = 4096
#: datagrams of a new flow that wait until its socket is open
WAITING_MAX = 16

Address = tuple[Any, ...]


class UdpFrontend(asyncio.DatagramProtocol):
    """One listening socket."""

    def __init__(self) -> None:
        self._balancer = Balancer()
        self._transport: asyncio.DatagramTransport | None = None
        self._flows: OrderedDict[Address, _Flow] = OrderedDict()

    async def open(self, address: str, port: int) -> None:
        """Listens. Raises OSError."""
        listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            listening.bind((address, port))  # here, since uvloop's error would not say why it cannot
        except OSError:
            listening.close()
            raise
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=listening)

    def lead_to(self, backends: tuple[Backend, ...], affinity_s: int) -> None:
        """Where new flows go; flows to endpoints that are gone end."""
        self._balancer.set(backends, affinity_s)
        for client in [client for client, flow in self._flows.items() if flow.backend not in self._balancer]:
            self._flows.pop(client).close()

    @property
    def connections(self) -> tuple[()]:
        """Flows end with their socket: none is left to wait for."""
        return ()

    def abort(self) -> None:
        """Has nothing left to end."""

    async def close(self) -> None:
        for flow in self._flows.values():
            flow.close()
        self._flows.clear()
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: Address) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        flow = self._flows.get(addr)
        if flow is not None and flow.closed:
            del self._flows[addr]
            flow = None
        if flow is None:
            self._drop_silent(now)
            backends = self._balancer.pick(str(addr[0]), now)
            if not backends:
                return
            flow = self._flows[addr] = _Flow(self, addr, backends[0])
            self._balancer.used(str(addr[0]), backends[0], now)
        flow.used_at = now
        self._flows.move_to_end(addr)
        flow.send(data)

    def _drop_silent(self, now: float) -> None:
        while self._flows:
            client, oldest = next(iter(self._flows.items()))
            if now - oldest.used_at < IDLE_S and len(self._flows) < FLOWS_MAX:
                return
            oldest.close()
            del self._flows[client]

    def answer(self, data: bytes, client: Address) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, client)


class _Flow(asyncio.DatagramProtocol):
    """The socket to the endpoint of one client."""

    def __init__(self, frontend: UdpFrontend, client: Address, backend: Backend) -> None:
        self._frontend = frontend
        self._client = client
        self.backend = backend
        self.used_at = 0.0
        self.closed = False
        self._transport: asyncio.DatagramTransport | None = None
        self._waiting: list[bytes] = []
        self._task = asyncio.create_task(self._open())

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_datagram_endpoint(lambda: self, remote_addr=(self.backend.ip, self.backend.port))
        except OSError:
            self.closed = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        for data in self._waiting:
            self._transport.sendto(data)
        self._waiting.clear()

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.sendto(data)
        elif len(self._waiting) < WAITING_MAX:
            self._waiting.append(data)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.used_at = asyncio.get_running_loop().time()
        self._frontend.answer(data, self._client)

    def error_received(self, exc: Exception) -> None:
        # the endpoint refused: the next datagram starts a new flow, perhaps to another
        self.close()

    def close(self) -> None:
        self.closed = True
        self._task.cancel()
        if self._transport is not None:
            self._transport.close()
