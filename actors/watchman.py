"""Asks actors how they are, over connections that stay open."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import grpc

from steersman.actors.site import Site
from steersman.actors.tls import Channels, client_credentials
from steersman.cluster.topology import ActorSpec
from steersman.pb import actor_pb2, actor_pb2_grpc

_OPTIONS = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]


class Watchman:
    """Calls `steersman.actor.Actor` of every actor of a site."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._channels = Channels(client_credentials(site.credentials("component")), _OPTIONS)

    def _stub(self, spec: ActorSpec) -> actor_pb2_grpc.ActorStub:
        address = f"{self._site.host(spec.host).address}:{spec.status_port}"
        return actor_pb2_grpc.ActorStub(self._channels.to(address))

    async def status(self, spec: ActorSpec, deadline_s: float = 2.0) -> actor_pb2.StatusReply | None:
        """Returns how an actor is, or None when it does not answer in time."""
        try:
            reply: actor_pb2.StatusReply = await self._stub(spec).Status(actor_pb2.StatusRequest(), timeout=deadline_s)
        except grpc.aio.AioRpcError:
            return None
        return reply

    async def statuses(
        self, specs: Iterable[ActorSpec], deadline_s: float = 2.0
    ) -> Mapping[str, actor_pb2.StatusReply | None]:
        """Returns actor name to status, asked all at once."""
        wanted = list(specs)
        replies = await asyncio.gather(*(self.status(spec, deadline_s) for spec in wanted))
        return {spec.name: reply for spec, reply in zip(wanted, replies, strict=True)}

    async def stop(self, spec: ActorSpec, deadline_s: float = 15.0) -> bool:
        """Asks an actor to stop for good; returns whether it answered."""
        try:
            await self._stub(spec).Stop(actor_pb2.StopRequest(), timeout=deadline_s)
        except grpc.aio.AioRpcError:
            return False
        return True

    async def close(self) -> None:
        await self._channels.close()
