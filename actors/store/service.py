"""A store member as a component: a replica on this machine's disk, served over gRPC to its peers and its clients."""

from __future__ import annotations

import random
import ssl
from collections.abc import Collection, Mapping
from pathlib import Path

from steersman.actors.rpc.h2.server import Server
from steersman.actors.rpc.raft import GrpcTransport
from steersman.actors.rpc.store import serve_store
from steersman.actors.store.filedisk import FileDisk
from steersman.actors.store.replica import Replica
from steersman.actors.store.settings import ReplicaSettings


class StoreService:
    """One member of the group.

    Args:
        address: `host:port` at which this member serves.
        founders: member id to `host:port` of the group as it began; this member is not among them when it was added
            later, and then it learns the rest from the leader.
        directory: the member's own data directory.
        server, client: to listen and to call others with.
        names: common names of the certificates that may use the store.
        settings: how the replica behaves.
    """

    def __init__(
        self,
        *,
        name: str,
        member_id: int,
        address: str,
        founders: Mapping[int, str],
        directory: Path,
        server: ssl.SSLContext,
        client: ssl.SSLContext,
        names: Collection[str],
        settings: ReplicaSettings,
        rng: random.Random,
    ) -> None:
        self._address = address
        self._tls, self._names = server, names
        self._server: Server | None = None
        self._transport = GrpcTransport(member_id, client, address=address)
        self.replica = Replica(
            name=name,
            member_id=member_id,
            peers=founders,
            disk=FileDisk(directory),
            transport=self._transport,
            rng=rng,
            settings=settings,
        )

    async def start(self) -> None:
        await self.replica.start()
        self._server = await serve_store(
            self.replica, self._address, self._tls, names=self._names, meet=self._transport.meet
        )

    async def wait_failed(self) -> str:
        """Returns why the replica can go on no more; it must be started anew from what its disk holds."""
        await self.replica.failed.wait()
        return self.replica.failure or ""

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0.2)
        await self.replica.stop()
