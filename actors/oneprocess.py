"""The cluster of `steer up --embedded`: every component of one machine in the keeper's own process.

The state lies in the same files as on Ray, so that a cluster may change from one form to the other between two runs.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable
from functools import partial

from steersman.actors import allocator
from steersman.actors.client import Client
from steersman.actors.embedded import EmbeddedCluster, NodeParts, component_user, simulated_node
from steersman.actors.parts import Part, Report, api_config, control_settings, make, node_report, store_settings
from steersman.actors.ports import Component, Now
from steersman.actors.rpc.h2.server import Server
from steersman.actors.rpc.store import serve_store
from steersman.actors.site import Site
from steersman.actors.store.filedisk import FileDisk
from steersman.actors.store.replica import Replica
from steersman.actors.thisnode import ControlPlaneMark, choose_runtime, measure_pressure, node_config
from steersman.actors.tls import server_context
from steersman.cluster.topology import ActorSpec
from steersman.runtime.detect import Choice

#: the users that the certificates of these files name
_USERS = {"proxy": "system:kube-proxy", "dns": "system:kube-dns"}
#: runtimes whose pods need Services and names on this machine
_REAL = ("oci", "process")


class OneProcess:
    """An embedded cluster on this machine's disk and ports, with this machine as a node."""

    def __init__(self, site: Site, *, now: Now, rng: random.Random) -> None:
        self._site, self._now, self._rng = site, now, rng
        self._choice: Choice | None = None
        self._parts: list[Part] = []
        config, api = site.config, api_config(site, 0)
        nodes = [
            simulated_node(f"simulated-{index}", config.simulated_nodes, api, now=now, rng=rng)
            for index in range(config.simulated_nodes.count)
        ]
        if site.here.runtime != "none":
            nodes.insert(0, self._this_node())
        extras: list[Callable[[EmbeddedCluster], Component]] = [
            partial(self._extra, role) for role in _USERS if site.here.runtime in _REAL
        ]
        if site.here.runtime != "none":
            extras.append(lambda cluster: ControlPlaneMark(cluster.client, site.here.name))
        self.cluster = EmbeddedCluster(
            api=api,
            disk=FileDisk(site.store_dir(1)),
            nodes=nodes,
            now=now,
            rng=rng,
            settings=control_settings(site),
            store_settings=store_settings(site),
            extras=[self._store_door, *extras],
        )

    def _this_node(self) -> NodeParts:
        site = self._site
        self._choice = choice = choose_runtime(site, now=self._now, rng=self._rng)
        config = node_config(site, choice.name)
        return NodeParts(config, choice.runtime, choice.volumes, lambda: measure_pressure(site.data_dir))

    def _store_door(self, cluster: EmbeddedCluster) -> Component:
        site = self._site
        address = site.store_peers[1]
        return _StoreDoor(cluster.store, address, server_context(site.credentials("component")))

    def _extra(self, role: str, cluster: EmbeddedCluster) -> Component:
        """The proxy or DNS of this machine as on Ray, but calling the API server directly."""

        def connect(file: str) -> Client:
            return Client(cluster.api, user=component_user(_USERS[file]))

        spec = ActorSpec(name=role, role=role, host=self._site.here.name, status_port=0)
        part = make(spec, self._site, now=self._now, rng=self._rng, connect=connect)
        self._parts.append(part)
        return part.component

    async def start(self) -> None:
        allocator.keep_freed()
        await self.cluster.start()

    async def stop(self) -> None:
        await self.cluster.stop()

    def report(self) -> Report:
        """How the whole is: it is as healthy as its worst node."""
        site, api = self._site, self.cluster.api.config
        addresses = (
            f"https://{api.host}:{api.port}",
            f"grpcs://{api.host}:{api.grpc_port}",
            f"https://{site.store_peers[1]}",
        )
        lost = [agent.name for agent in self.cluster.agents if not agent.is_ready]
        detail = f"node {lost[0]} is not ready" if lost else f"{len(self.cluster.agents)} nodes"
        reduced: tuple[str, ...] = ()
        if self._choice is not None:
            reduced = node_report(self.cluster.agents[0], self._choice.reasons).reduced
        for part in self._parts:
            reduced += part.report().reduced
        return Report(healthy=not lost, detail=detail, addresses=addresses, reduced=reduced)


class _StoreDoor:
    """The store's etcd API for clients outside."""

    def __init__(self, replica: Replica, address: str, tls: ssl.SSLContext) -> None:
        self._replica, self._address, self._tls = replica, address, tls
        self._server: Server | None = None

    async def start(self) -> None:
        self._server = await serve_store(self._replica, self._address, self._tls, names=("steersman",))

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0.2)
