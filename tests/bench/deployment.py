"""A Deployment from 0 to 1,000 ready pods on 100 simulated nodes, its rolling update, and its end.

Real time is what a user waits, everything in one process with the store in memory; virtual time tells what the whole
control plane computes for it, in seconds of CPU.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.bench.figures import Figure, median

from steersman import testing
from steersman.cluster.config import SimulatedNodes
from steersman.cluster.meta.resources import DEPLOYMENTS

REPLICAS, NODES, RUNS = 1000, 100, 3
SHAPE = SimulatedNodes(cpu="4", memory="32Gi", pods=110)


def deployment(image: str) -> dict[str, Any]:
    container = {"name": "web", "image": image, "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}},
        },
    }


async def settled(c: testing.Cluster, replicas: int) -> None:
    """Returns when so many pods of the newest template are available and no others are left."""
    listed = await c.client.list(DEPLOYMENTS, "default")

    def done(live: dict[str, Any]) -> bool:
        status = live.get("status") or {}
        counts = {status.get(key, 0) for key in ("availableReplicas", "updatedReplicas", "replicas")}
        return live["metadata"]["generation"] == status.get("observedGeneration") and counts == {replicas}

    if any(done(live) for live in listed.items):
        return
    changes = c.client.watch(DEPLOYMENTS, "default", resource_version=listed.resource_version)
    async with contextlib.aclosing(changes):  # type: ignore[type-var]
        async for kind, live in changes:
            if kind == "MODIFIED" and done(live):
                return


async def loop_time() -> float:
    return asyncio.get_running_loop().time()


def rollout(c: testing.Cluster, clocks: dict[str, Callable[[], float]]) -> Iterator[tuple[str, float]]:
    """Yields, for each step, what each clock showed of it."""
    second = {"spec": {"template": deployment("example.org/web:2")["spec"]["template"]}}
    steps = {
        "up": (lambda: c.client.create(DEPLOYMENTS, deployment("example.org/web:1"), "default"), REPLICAS),
        "rolling_update": (lambda: c.client.patch(DEPLOYMENTS, "web", second, "default", kind="strategic"), REPLICAS),
        "down": (lambda: c.client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 0}}, "default"), 0),
    }
    for step, (act, replicas) in steps.items():
        began = {name: clock() for name, clock in clocks.items()}
        c.run(act())
        c.run(settled(c, replicas))
        for name, clock in clocks.items():
            yield f"{step}_{REPLICAS}.{name}", clock() - began[name]


def real_time() -> dict[str, float]:
    with testing.cluster(nodes=NODES, shape=SHAPE) as c:
        return dict(rollout(c, {"wall": time.monotonic, "cpu": time.process_time}))


def virtual_time() -> dict[str, float]:
    with testing.simulation(nodes=NODES, shape=SHAPE, seed=1) as c:
        return dict(rollout(c, {"cpu": time.process_time, "simulated": lambda: c.run(loop_time())}))


def run() -> Iterator[Figure]:
    for measure in (real_time, virtual_time):
        rows = [measure() for _ in range(RUNS)]
        for name in rows[0]:
            yield median(f"deployment.{measure.__name__}.{name}", [row[name] for row in rows], "s")
