"""Many nodes without containers in one process: real agents over the simulated runtime."""

from __future__ import annotations

import asyncio
import random

from steersman.actors.client import Client
from steersman.actors.nodeagent import NodeAgent
from steersman.actors.ports import Now
from steersman.cluster.config import SimulatedNodes
from steersman.cluster.node.config import NodeConfig
from steersman.runtime.simulated import SimulatedRuntime
from steersman.runtime.simulated_volumes import SimulatedVolumes


def simulated_config(name: str, shape: SimulatedNodes, kubernetes_version: str, cluster_dns: str) -> NodeConfig:
    """What the agent of a simulated node is told."""
    return NodeConfig(
        name=name,
        address="127.0.0.1",
        labels={"steersman/runtime": "simulated"},
        capacity={"cpu": shape.cpu, "memory": shape.memory, "pods": str(shape.pods), "ephemeral-storage": "100Gi"},
        cluster_dns=(cluster_dns,),
        kubelet_version=f"v{kubernetes_version}.0",
        memory_available_bytes_min=0,
    )


class SimulatedNodesService:
    """The simulated nodes of a cluster.

    Args:
        client: of a user that may act for every node.
        shape: their number and size.
    """

    def __init__(
        self,
        client: Client,
        shape: SimulatedNodes,
        *,
        kubernetes_version: str,
        cluster_dns: str,
        now: Now,
        rng: random.Random,
    ) -> None:
        self.agents = [
            NodeAgent(
                client,
                SimulatedRuntime(now=now, rng=random.Random(rng.getrandbits(64))),
                SimulatedVolumes(),
                simulated_config(f"simulated-{index}", shape, kubernetes_version, cluster_dns),
                now=now,
                rng=random.Random(rng.getrandbits(64)),
            )
            for index in range(shape.count)
        ]

    async def start(self) -> None:
        for agent in self.agents:
            await agent.start()

    async def stop(self) -> None:
        await asyncio.gather(*(agent.stop() for agent in self.agents))
