"""Replicas over real gRPC on loopback."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.actors.pki import Pki, free_ports

from steersman.actors.rpc.h2.server import Server
from steersman.actors.rpc.raft import GrpcTransport
from steersman.actors.rpc.store import serve_store
from steersman.actors.store.client import StoreClient
from steersman.actors.store.disk import Disk, MemoryDisk
from steersman.actors.store.replica import Replica
from steersman.actors.store.settings import ReplicaSettings


async def until(state: Callable[[], Any], deadline_s: float = 60.0) -> Any:
    """Waits for a state, looking every few milliseconds; a busy machine may give a test a hundredth of a core."""
    async with asyncio.timeout(deadline_s):
        while not (found := state()):  # noqa: ASYNC110  (a state of several objects has no event)
            await asyncio.sleep(0.005)
    return found


class Served:
    """A group of replicas in this process, over gRPC."""

    def __init__(self, size: int, disks: dict[int, Disk], pki: Pki | None) -> None:
        #: of the founders; and of those that were added later
        self.peers = {n: f"127.0.0.1:{port}" for n, port in enumerate(free_ports(size), start=1)}
        self.added: dict[int, str] = {}
        self.disks, self.pki = disks, pki
        self.replicas: dict[int, Replica] = {}
        self._servers: dict[int, Server] = {}
        self._clients: list[StoreClient] = []

    async def start(self, member: int, **settings: Any) -> Replica:
        address = (self.peers | self.added)[member]
        transport = GrpcTransport(member, self.pki.client() if self.pki else None, address=address)
        replica = Replica(
            name=f"s{member}", member_id=member, peers=self.peers, disk=self.disks.setdefault(member, MemoryDisk()),
            transport=transport, rng=random.Random(),
            settings=ReplicaSettings(**settings),
        )  # fmt: skip
        server = await serve_store(
            replica,
            address,
            self.pki.server() if self.pki else None,
            names={"store"} if self.pki else None,
            meet=transport.meet,
        )
        await replica.start()
        self.replicas[member], self._servers[member] = replica, server
        return replica

    async def stop(self, member: int) -> None:
        await self._servers.pop(member).stop(0)
        await self.replicas.pop(member).stop()

    def leader(self) -> int:
        return next((n for n, replica in self.replicas.items() if replica.is_leader), 0)

    async def client(self) -> StoreClient:
        client = StoreClient(list(self.peers.values()), self.pki.client() if self.pki else None)
        await client.start()
        self._clients.append(client)
        return client

    async def close(self) -> None:
        for client in self._clients:
            await client.stop()
        for member in list(self.replicas):
            await self.stop(member)


@pytest.fixture
def served() -> Callable[..., Any]:
    """Returns a context manager: `async with served(3) as group`."""

    @asynccontextmanager
    async def make(size: int, pki: Pki | None = None, **settings: Any) -> AsyncIterator[Served]:
        group = Served(size, {}, pki)
        try:
            for member in group.peers:
                await group.start(member, **settings)
            yield group
        finally:
            await group.close()

    return make


@pytest.fixture
def wait_until() -> Callable[..., Awaitable[Any]]:
    return until
