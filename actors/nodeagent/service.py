"""A node agent with its door: the component together with the gRPC server through which the API server reaches it."""

from __future__ import annotations

import grpc
import grpc.aio

from steersman.actors.nodeagent.agent import NodeAgent
from steersman.actors.rpc.node import CALLERS, serve_node

#: how long conversations under way may go on when the agent stops
CLOSING_S = 0.5


class NodeService:
    """Component: serves the agent's streams, and runs the agent.

    Args:
        address: `host:port` to listen on; the port is the one in the agent's configuration.
        credentials: of the server, with client certificates required; None for plain text.
    """

    def __init__(self, agent: NodeAgent, address: str, credentials: grpc.ServerCredentials | None) -> None:
        self.agent = agent
        self._address = address
        self._credentials = credentials
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Raises `steersman.actors.rpc.node.AddressInUse` before anything else has begun."""
        self._server, _ = await serve_node(self.agent, self._address, self._credentials, callers=CALLERS)
        await self.agent.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(CLOSING_S)
            self._server = None
        await self.agent.stop()
