"""A whole cluster in one process on one event loop, without Ray: the same components, called directly.

With a `VirtualTimeLoop` and `port=None` it opens no socket, file or thread, and everything in it follows from the seed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from steersman.actors.apiserver.config import ApiServerConfig
from steersman.actors.apiserver.server import ApiServer
from steersman.actors.client import Client
from steersman.actors.controllers import ControllerHost
from steersman.actors.nodeagent import NodeAgent
from steersman.actors.nodeagent.agent import no_pressure
from steersman.actors.ports import Component, NodeStreams, Now, User
from steersman.actors.scheduler import Scheduler
from steersman.actors.simulatednodes import simulated_config
from steersman.actors.store.disk import Disk
from steersman.actors.store.replica import Replica
from steersman.actors.store.settings import ReplicaSettings
from steersman.cluster.config import SimulatedNodes
from steersman.cluster.control import CONTROLLERS
from steersman.cluster.control.spec import ControlSettings
from steersman.cluster.meta.errors import ServiceUnavailable
from steersman.cluster.meta.objects import Obj, is_true
from steersman.cluster.meta.resources import NODES
from steersman.cluster.node.config import NodeConfig
from steersman.cluster.node.eviction import Pressure
from steersman.cluster.topology import ROLE_AGGREGATION, ROLE_AGGREGATION_USER, controller_groups
from steersman.runtime.protocol import Runtime, Volumes
from steersman.runtime.simulated import SimulatedRuntime
from steersman.runtime.simulated_volumes import SimulatedVolumes

ADMIN = User("kubernetes-admin", ("system:masters", "system:authenticated"))


def component_user(name: str, *groups: str) -> User:
    """The user that a component's certificate would make it."""
    return User(name, (*groups, "system:authenticated"))


@dataclass(frozen=True, slots=True)
class NodeParts:
    """One node of an embedded cluster. Args: pressure: measures what its machine has left."""

    config: NodeConfig
    runtime: Runtime
    volumes: Volumes
    pressure: Callable[[], Pressure] = no_pressure


class LocalNodes:
    """Finds node agents of this process (`ports.NodeDirectory`)."""

    def __init__(self) -> None:
        self.agents: dict[str, NodeStreams] = {}

    async def connect(self, node: str) -> NodeStreams:
        agent = self.agents.get(node)
        if agent is None:
            raise ServiceUnavailable(f'node "{node}" has no agent here')
        return agent


class EmbeddedCluster:
    """Store, API server, controllers, scheduler and node agents as one component.

    Args:
        api: how the API server listens; with `port=None` it does not.
        disk: where the store's state lives.
        nodes: the nodes, each with its runtime.
        settings: what the controllers are told.
        extras: make further components, started last.
    """

    def __init__(
        self,
        *,
        api: ApiServerConfig,
        disk: Disk,
        nodes: Sequence[NodeParts],
        now: Now,
        rng: random.Random,
        settings: ControlSettings | None = None,
        extras: Sequence[Callable[[EmbeddedCluster], Component]] = (),
        store_settings: ReplicaSettings | None = None,
    ) -> None:
        def chance() -> random.Random:
            return random.Random(rng.getrandbits(64))

        self.store = Replica(
            name="store-0",
            member_id=1,
            peers={},
            disk=disk,
            transport=None,
            rng=chance(),
            settings=store_settings,
        )
        directory = LocalNodes()
        self.api = ApiServer(store=self.store, nodes=directory, config=api, now=now, rng=chance())
        self.client = Client(self.api, user=ADMIN)
        users = {ROLE_AGGREGATION: ROLE_AGGREGATION_USER}
        hosts = [
            ControllerHost(
                Client(self.api, user=component_user(users.get(names[0], "system:kube-controller-manager"))),
                names,
                now=now,
                rng=chance(),
                settings=settings,
            )
            for names in controller_groups(sorted(CONTROLLERS), "packed").values()
        ]
        self.agents: list[NodeAgent] = []
        for parts in nodes:
            name = parts.config.name
            client = Client(self.api, user=component_user(f"system:node:{name}", "system:nodes"))
            agent = NodeAgent(
                client, parts.runtime, parts.volumes, parts.config, now=now, rng=chance(), pressure=parts.pressure
            )
            directory.agents[name] = agent
            self.agents.append(agent)
        client = Client(self.api, user=component_user("system:kube-scheduler"))
        scheduler = Scheduler(client, now=now, rng=chance())
        self.api.beside["scheduler"] = lambda: scheduler.failure
        self.api.beside["controller-manager"] = lambda: "; ".join(text for host in hosts for text in host.troubles)
        self._components: list[Component] = [
            self.store,
            self.api,
            *hosts,
            scheduler,
            *self.agents,
            *(make(self) for make in extras),
        ]
        self._started: list[Component] = []

    async def start(self) -> None:
        """Returns when pods can be scheduled to every node."""
        try:
            for component in self._components:
                self._started.append(component)
                await component.start()
            await self._nodes_are_open()
        except BaseException:
            await self.stop()
            raise

    async def _nodes_are_open(self) -> None:
        await asyncio.gather(*(agent.serving.wait() for agent in self.agents))
        listed = await self.client.list(NODES)
        waiting = {agent.name for agent in self.agents} - {_name(node) for node in listed.items if _is_open(node)}
        if not waiting:
            return
        changes = self.client.watch(NODES, resource_version=listed.resource_version)
        try:
            async for _, node in changes:
                if _is_open(node):
                    waiting.discard(_name(node))
                if not waiting:
                    return
        finally:
            await changes.aclose()  # type: ignore[attr-defined]

    async def stop(self) -> None:
        while self._started:
            await self._started.pop().stop()


def _name(node: Obj) -> str:
    return str(node["metadata"]["name"])


#: put on nodes that cannot take pods for the moment
_CLOSING = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable", "node.kubernetes.io/network-unavailable")


def _is_open(node: Obj) -> bool:
    taints = (node.get("spec") or {}).get("taints") or ()
    return is_true(node, "Ready") and not any(taint["key"] in _CLOSING for taint in taints)


def simulated_node(
    name: str, shape: SimulatedNodes, api: ApiServerConfig, *, now: Now, rng: random.Random, **behaviour: Any
) -> NodeParts:
    """A node without containers, of the given shape."""
    dns = str(ipaddress.ip_network(api.service_cidr)[10])
    config = simulated_config(name, shape, api.kubernetes_version, dns)
    runtime = SimulatedRuntime(now=now, rng=random.Random(rng.getrandbits(64)), **behaviour)
    return NodeParts(config, runtime, SimulatedVolumes())


def fresh_key() -> bytes:
    """A key for service account tokens of a cluster that lives as long as its process."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
