"""A rolling update of many simulated pods in an hour of virtual time; as a program it prints its history."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from typing import Any

from steersman import testing
from steersman.cluster.meta.resources import DEPLOYMENTS, PODS


def deployment(replicas: int, image: str) -> dict[str, Any]:
    """Waves of at most a quarter more and a quarter less, each proven for five minutes."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "minReadySeconds": 300,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": image, "resources": {"requests": {"cpu": "500m"}}}]},
            },
        },
    }


@dataclass
class Outcome:
    """Args: status: of the Deployment at the end; images: of its pods; finished_s: when the update was complete."""

    history: list[str]
    status: dict[str, Any]
    images: list[str]
    finished_s: float


def rolling_update(*, replicas: int, nodes: int, seed: int) -> Outcome:
    """Creates a Deployment, updates it ten minutes later, and looks again when the hour is over."""
    with testing.simulation(nodes=nodes, seed=seed, start_delay_s=2.5) as c:
        c.run(c.client.create(DEPLOYMENTS, deployment(replicas, "example.org/web:1"), "default"))
        c.run(asyncio.sleep(600))
        patch = {"spec": {"template": deployment(replicas, "example.org/web:2")["spec"]["template"]}}
        c.run(c.client.patch(DEPLOYMENTS, "web", patch, "default", kind="strategic"))
        finished_s = c.run(_until_updated(c, replicas))
        c.run(_until(3600.0))
        status = c.run(c.client.get(DEPLOYMENTS, "web", "default"))["status"]
        pods = c.run(c.client.list(PODS, "default")).items
        images = sorted({pod["spec"]["containers"][0]["image"] for pod in pods})
        return Outcome(list(c.history), status, images, finished_s)


async def _until_updated(c: testing.Cluster, replicas: int) -> float:
    async for _, live in c.client.watch(DEPLOYMENTS, "default", field_selector="metadata.name=web"):
        status = live.get("status") or {}
        if live["metadata"].get("generation", -1) == status.get("observedGeneration") and (
            status.get("availableReplicas") == status.get("updatedReplicas") == status.get("replicas") == replicas
        ):
            break
    return asyncio.get_running_loop().time()


async def _until(time_s: float) -> None:
    await asyncio.sleep(max(0.0, time_s - asyncio.get_running_loop().time()))


if __name__ == "__main__":
    outcome = rolling_update(replicas=int(sys.argv[1]), nodes=int(sys.argv[2]), seed=int(sys.argv[3]))
    json.dump(outcome.history, sys.stdout)
