"""This machine as a node: its facts, its runtime, and its agent served over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from pathlib import Path

import grpc

from steersman.actors.client import Client
from steersman.actors.nodeagent import NodeAgent
from steersman.actors.ports import Now
from steersman.actors.rpc.node import serve_node
from steersman.actors.site import Site
from steersman.cluster.meta.errors import ApiError
from steersman.cluster.meta.resources import NODES
from steersman.cluster.node.config import NodeConfig
from steersman.cluster.node.eviction import Pressure
from steersman.cluster.node.values import DnsConfig
from steersman.cluster.topology import cluster_dns
from steersman.runtime import machine
from steersman.runtime.detect import Choice, detect

_CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
_RETRY_S = 1.0


def choose_runtime(site: Site, *, now: Now, rng: random.Random) -> Choice:
    """The runtime and volumes of this machine; nothing is started."""
    node = site.config.node
    return detect(
        node.engine if node.engine and site.here.runtime == "oci" else site.here.runtime,
        site.node_dir,
        now=now,
        rng=rng,
        insecure_registries=node.insecure_registries,
        cri_endpoint=node.cri_endpoint,
    )


def node_config(site: Site, runtime: str) -> NodeConfig:
    """What the agent of this machine is told."""
    config, facts = site.config, machine.look(site.data_dir)
    version = f"v{config.kubernetes_version}.0"
    return NodeConfig(
        name=site.here.name,
        address=site.here.address,
        hostname=facts.hostname,
        labels={"kubernetes.io/arch": facts.architecture, **config.node.labels},
        taints=tuple(_taint(text) for text in config.node.taints),
        capacity={**facts.capacity(), "pods": str(config.node.max_pods)},
        cluster_dns=(cluster_dns(config),),
        cluster_domain=config.networking.cluster_domain,
        host_dns=_host_dns(),
        port=config.ports.node_agent,
        node_info=facts.node_info(runtime, version),
        kubelet_version=version,
    )


def _taint(text: str) -> dict[str, str]:
    pair, _, effect = text.rpartition(":")
    key, equals, value = pair.partition("=")
    return {"key": key, "effect": effect, **({"value": value} if equals else {})}


def _host_dns() -> DnsConfig:
    rows: dict[str, list[str]] = {"nameserver": [], "search": [], "options": []}
    try:
        lines = Path("/etc/resolv.conf").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, *values = line.split()[:7] or [""]
        if name in rows:
            rows[name] += values
    return DnsConfig(servers=tuple(rows["nameserver"]), searches=tuple(rows["search"]), options=tuple(rows["options"]))


def measure_pressure(data_dir: Path) -> Pressure:
    """What this machine has left of memory, disk and process numbers."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    disk = os.statvfs(data_dir)
    processes = int(Path("/proc/loadavg").read_text().split()[3].split("/")[1])
    return Pressure(
        memory_available_bytes=int(fields["MemAvailable"].split()[0]) * 1024,
        disk_available_percent=100 * disk.f_bavail / max(1, disk.f_blocks),
        pids_available=int(Path("/proc/sys/kernel/pid_max").read_text()) - processes,
    )


class ControlPlaneMark:
    """Labels the node of the head's machine, which no node may do itself; a Component.

    Args:
        client: of an administrator.
    """

    def __init__(self, client: Client, node: str) -> None:
        self._client = client
        self._node = node
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._mark())

    async def _mark(self) -> None:
        while True:
            with contextlib.suppress(ApiError, OSError):
                await self._client.patch(NODES, self._node, {"metadata": {"labels": {_CONTROL_PLANE: ""}}})
                return
            await asyncio.sleep(_RETRY_S)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class NodeService:
    """The agent of this machine as a component that API servers reach over gRPC.

    Args:
        administrator: a client for the mark of the control plane; None on other machines than the head's.
    """

    def __init__(
        self,
        client: Client,
        site: Site,
        *,
        credentials: grpc.ServerCredentials,
        now: Now,
        rng: random.Random,
        administrator: Client | None = None,
    ) -> None:
        self._mark = ControlPlaneMark(administrator, site.here.name) if administrator is not None else None
        self.choice = choose_runtime(site, now=now, rng=rng)
        config = node_config(site, self.choice.name)
        self._address = f"{site.here.address}:{config.port}"
        self._credentials = credentials
        self._server: grpc.aio.Server | None = None
        self.agent = NodeAgent(
            client,
            self.choice.runtime,
            self.choice.volumes,
            config,
            now=now,
            rng=rng,
            pressure=lambda: measure_pressure(site.data_dir),
        )

    async def start(self) -> None:
        self._server, _ = await serve_node(self.agent, self._address, self._credentials)
        await self.agent.start()
        if self._mark is not None:
            await self._mark.start()

    async def stop(self) -> None:
        if self._mark is not None:
            await self._mark.stop()
        await self.agent.stop()
        if self._server is not None:
            await self._server.stop(0.2)
