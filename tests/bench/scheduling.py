"""Pods scheduled a second on a cluster of simulated nodes, all writes included: API server, store, informers, bindings.

All in one process, as the peers' own benchmark does it; the nodes are objects only. The rate counts from the first
pod's creation to the last one's binding.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from typing import Any

import uvloop
from tests.bench.figures import Figure, median

from steersman.actors import collector
from steersman.actors.apiserver import ApiServer, ApiServerConfig
from steersman.actors.client import Client
from steersman.actors.embedded import ADMIN, LocalNodes, component_user, fresh_key
from steersman.actors.scheduler import Scheduler
from steersman.actors.store.disk import MemoryDisk
from steersman.actors.store.replica import Replica
from steersman.cluster.meta.resources import NODES, PODS, SERVICE_ACCOUNTS

SIZES = (1000, 5000)
PODS_COUNT, WRITERS, RUNS = 1000, 32, 3


def node(index: int) -> dict[str, Any]:
    name = f"node-{index}"
    labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": f"zone-{index % 10}"}
    room = {"cpu": "4", "memory": "32Gi", "pods": "110"}
    status = {"capacity": room, "allocatable": room, "conditions": [{"type": "Ready", "status": "True"}]}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "status": status}


async def ready_node(client: Client, index: int) -> None:
    """A new node is not ready and tainted so; nobody here would take the taint away."""
    live = await client.create(NODES, node(index))
    await client.patch(NODES, f"node-{index}", {"spec": {"taints": None}})
    assert live["status"]["allocatable"]["pods"] == "110"


def pod(name: str) -> dict[str, Any]:
    requests = {"cpu": "100m", "memory": "500Mi"}
    container = {"name": "pause", "image": "example.org/pause:1", "resources": {"requests": requests}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}


async def each(items: Iterator[Any], work: Any) -> None:
    """Runs `work` on every item, a few at once."""

    async def worker() -> None:
        for item in items:
            await work(item)

    await asyncio.gather(*(worker() for _ in range(WRITERS)))


async def batch(client: Client, run_number: int) -> tuple[float, float]:
    """Creates the pods and waits until each has a node; returns seconds of wall clock and of CPU."""
    version = (await client.list(PODS, "default", limit=1)).resource_version
    bound: set[str] = set()
    changes = client.watch(PODS, "default", resource_version=version)

    async def follow() -> None:
        async for _, live in changes:
            if (live.get("spec") or {}).get("nodeName"):
                bound.add(live["metadata"]["name"])
                if len(bound) == PODS_COUNT:
                    return

    following = asyncio.create_task(follow())
    began, cpu = time.monotonic(), time.process_time()
    names = iter([f"pod-{run_number}-{index}" for index in range(PODS_COUNT)])
    await each(names, lambda name: client.create(PODS, pod(name), "default"))
    await following
    took = time.monotonic() - began, time.process_time() - cpu
    await client.delete_collection(PODS, "default", grace_s=0)
    return took


async def measure(nodes: int) -> list[tuple[float, float]]:
    store = Replica(name="s", member_id=1, peers={}, disk=MemoryDisk(), transport=None, rng=random.Random(1))
    config = ApiServerConfig(port=None, service_account_key=fresh_key())
    api = ApiServer(store=store, nodes=LocalNodes(), config=config, now=time.time, rng=random.Random(2))
    scheduler = Scheduler(
        Client(api, user=component_user("system:kube-scheduler")), now=time.time, rng=random.Random(3)
    )
    client = Client(api, user=ADMIN)
    await store.start()
    await api.start()
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    await client.create(SERVICE_ACCOUNTS, account, "default")
    await each(iter(range(nodes)), lambda index: ready_node(client, index))
    await scheduler.start()
    try:
        await batch(client, 0)
        return [await batch(client, number) for number in range(1, RUNS + 1)]
    finally:
        await scheduler.stop()
        await api.stop()
        await store.stop()


def run() -> Iterator[Figure]:
    collector.relax()
    for nodes in SIZES:
        rows = uvloop.run(measure(nodes))
        yield median(f"scheduling.{nodes}_nodes.rate", [PODS_COUNT / wall for wall, _ in rows], "pods/s")
        yield median(f"scheduling.{nodes}_nodes.cpu", [1e6 * cpu / PODS_COUNT for _, cpu in rows], "us/pod")
