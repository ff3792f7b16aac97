"""The controllers over the real API server and store, on simulated nodes and virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from steersman.actors.apiserver.config import ApiServerConfig
from steersman.actors.clocks import VirtualTimeLoop
from steersman.actors.controllers import ControllerHost
from steersman.actors.embedded import EmbeddedCluster, SimulatedNodes, fresh_key, simulated_node
from steersman.actors.store.disk import MemoryDisk
from steersman.cluster.control.spec import ControlSettings
from steersman.cluster.meta.errors import NotFound
from steersman.cluster.meta.objects import is_pod_active, is_pod_ready
from steersman.cluster.meta.resources import (
    CLUSTER_ROLES,
    CONFIG_MAPS,
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    JOBS,
    NAMESPACES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    SERVICE_ACCOUNTS,
    SERVICES,
)

Scenario = Callable[[EmbeddedCluster, VirtualTimeLoop], Awaitable[Any]]


def run(scenario: Scenario, seed: int = 1, nodes: int = 3) -> Any:
    """Runs a scenario in a fresh cluster of simulated nodes."""
    loop = VirtualTimeLoop()
    asyncio.set_event_loop(loop)
    rng = random.Random(seed)
    api = ApiServerConfig(port=None, service_account_key=fresh_key())
    cluster = EmbeddedCluster(
        api=api,
        disk=MemoryDisk(),
        nodes=[simulated_node(f"n{n}", SimulatedNodes(), api, now=loop.now, rng=rng) for n in range(nodes)],
        now=loop.now,
        rng=rng,
        settings=ControlSettings(root_ca="PEM"),
    )

    async def whole() -> Any:
        await cluster.start()
        await asyncio.sleep(3)
        result = await scenario(cluster, loop)
        await cluster.stop()
        return result

    try:
        return loop.run_until_complete(asyncio.wait_for(whole(), 3600))
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        asyncio.set_event_loop(None)
        loop.close()


def deployment(replicas: int, image: str = "web:1") -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": image}], "terminationGracePeriodSeconds": 1},
            },
        },
    }


async def rolled_out(cluster: EmbeddedCluster, each: Callable[[list[dict[str, Any]]], None] | None = None) -> None:
    """Waits until the Deployment stands; `each` is shown the pods at every look."""
    for _ in range(6000):
        live = await cluster.client.get(DEPLOYMENTS, "web", "default")
        if each is not None:
            each((await cluster.client.list(PODS, "default")).items)
        status, wanted = live.get("status") or {}, live["spec"]["replicas"]
        counts = [status.get(field, 0) for field in ("replicas", "updatedReplicas", "availableReplicas")]
        if status.get("observedGeneration") == live["metadata"]["generation"] and counts == [wanted] * 3:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"the rollout stands still: {live.get('status')}")


@pytest.mark.parametrize("seed", [1, 2])
def test_a_rolling_update_keeps_its_bounds_and_its_endpoints(seed: int) -> None:
    async def scenario(cluster: EmbeddedCluster, loop: VirtualTimeLoop) -> None:
        client = cluster.client
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
        }
        await client.create(SERVICES, service)
        await client.create(DEPLOYMENTS, deployment(12))
        await rolled_out(cluster)
        change = {"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "web:2"}]}}}}
        await client.patch(DEPLOYMENTS, "web", change, "default", kind="strategic")

        def within_bounds(pods: list[dict[str, Any]]) -> None:
            active = [pod for pod in pods if is_pod_active(pod)]
            assert len(active) <= 15
            assert sum(map(is_pod_ready, active)) >= 9

        await rolled_out(cluster, within_bounds)
        await asyncio.sleep(2)
        slices = await client.list(ENDPOINT_SLICES, "default", label_selector="kubernetes.io/service-name=web")
        ready = [row for found in slices.items for row in found["endpoints"] if row["conditions"]["ready"]]
        assert len(ready) == 12

    run(scenario, seed)


def test_deleting_in_the_foreground_leaves_nothing() -> None:
    async def scenario(cluster: EmbeddedCluster, loop: VirtualTimeLoop) -> None:
        client = cluster.client
        await client.create(DEPLOYMENTS, deployment(5))
        await rolled_out(cluster)
        await client.delete(DEPLOYMENTS, "web", "default", propagation="Foreground")
        for _ in range(600):
            left = [len((await client.list(kind, "default")).items) for kind in (DEPLOYMENTS, REPLICA_SETS, PODS)]
            if left == [0, 0, 0]:
                return
            if not left[0]:
                raise AssertionError(f"the owner went before its dependents: {left}")
            await asyncio.sleep(0.1)
        raise AssertionError(f"left behind: {left}")

    run(scenario)


def test_a_namespace_with_a_running_job_comes_and_goes() -> None:
    async def scenario(cluster: EmbeddedCluster, loop: VirtualTimeLoop) -> None:
        client = cluster.client
        await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
        await asyncio.sleep(2)
        assert [row["metadata"]["name"] for row in (await client.list(SERVICE_ACCOUNTS, "team")).items] == ["default"]
        assert [row["metadata"]["name"] for row in (await client.list(CONFIG_MAPS, "team")).items] == [
            "kube-root-ca.crt"
        ]
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "work", "namespace": "team"},
            "spec": {
                "completions": 4,
                "parallelism": 2,
                "completionMode": "Indexed",
                "template": {
                    "metadata": {"annotations": {"simulated.steersman/exit-after-s": "3"}},
                    "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]},
                },
            },
        }
        await client.create(JOBS, job)
        await asyncio.sleep(30)
        status = (await client.get(JOBS, "work", "team"))["status"]
        assert (status["succeeded"], status["completedIndexes"]) == (4, "0-3")
        assert status["conditions"][-1]["type"] == "Complete"
        await client.create(JOBS, {**job, "metadata": {"name": "more", "namespace": "team"}})
        await asyncio.sleep(1)
        await client.delete(NAMESPACES, "team")
        for _ in range(600):
            await asyncio.sleep(0.1)
            try:
                await client.get(NAMESPACES, "team")
            except NotFound:
                return
        raise AssertionError("the namespace stays")

    run(scenario)


def test_the_same_seed_gives_the_same_history() -> None:
    async def scenario(cluster: EmbeddedCluster, loop: VirtualTimeLoop) -> list[tuple[str, ...]]:
        await cluster.client.create(DEPLOYMENTS, deployment(10))
        await rolled_out(cluster)
        pods = (await cluster.client.list(PODS, "default")).items
        return [
            (
                pod["metadata"]["name"],
                pod["metadata"]["uid"],
                pod["metadata"]["resourceVersion"],
                pod["spec"]["nodeName"],
            )
            for pod in pods
        ]

    assert run(scenario, seed=5) == run(scenario, seed=5)
    assert run(scenario, seed=5) != run(scenario, seed=6)


def test_daemons_cron_jobs_and_budgets_work_together() -> None:
    async def scenario(cluster: EmbeddedCluster, loop: VirtualTimeLoop) -> None:
        client = cluster.client
        template = deployment(1)["spec"]["template"]
        selector = deployment(1)["spec"]["selector"]
        daemon = {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "agent", "namespace": "default"},
            "spec": {"selector": selector, "template": template},
        }
        await client.create(DAEMON_SETS, daemon)
        await asyncio.sleep(10)
        found = await client.get(DAEMON_SETS, "agent", "default")
        assert (found["status"]["desiredNumberScheduled"], found["status"]["numberAvailable"]) == (3, 3)
        pods = (await client.list(PODS, "default")).items
        assert sorted(pod["spec"]["nodeName"] for pod in pods) == ["n0", "n1", "n2"]
        await client.delete(DAEMON_SETS, "agent", "default")
        await asyncio.sleep(10)
        assert (await client.list(PODS, "default")).items == []
        budget = {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"maxUnavailable": 1, "selector": selector},
        }
        await client.create(POD_DISRUPTION_BUDGETS, budget)
        await client.create(DEPLOYMENTS, deployment(4))
        await rolled_out(cluster)
        await asyncio.sleep(2)
        status = (await client.get(POD_DISRUPTION_BUDGETS, "web", "default"))["status"]
        assert (status["expectedPods"], status["desiredHealthy"], status["disruptionsAllowed"]) == (4, 3, 1)
        cron = {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": "tick", "namespace": "default"},
            "spec": {
                "schedule": "* * * * *",
                "jobTemplate": {
                    "spec": {
                        "template": {
                            "metadata": {"annotations": {"simulated.steersman/exit-after-s": "3"}},
                            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]},
                        }
                    }
                },
            },
        }
        await client.create(CRON_JOBS, cron)
        await asyncio.sleep(60 * 6)
        jobs = (await client.list(JOBS, "default")).items
        assert 3 <= len(jobs) <= 4
        assert [job["status"].get("succeeded") for job in jobs][:3] == [1, 1, 1]
        assert (await client.get(CRON_JOBS, "tick", "default"))["status"]["lastSuccessfulTime"]

    run(scenario)


def test_roles_are_gathered_by_an_identity_that_may_widen_them() -> None:
    async def scenario(cluster: EmbeddedCluster, loop: VirtualTimeLoop) -> None:
        host = ControllerHost(cluster.client, ["clusterrole-aggregation"], now=loop.now, rng=random.Random(1))
        await host.start()
        await host.ready()
        await asyncio.sleep(5)
        roles = [await cluster.client.get(CLUSTER_ROLES, name) for name in ("view", "edit", "admin")]
        sizes = [len(role["rules"]) for role in roles]
        assert 0 < sizes[0] < sizes[1] < sizes[2]
        await host.stop()
        assert host.bugs == []

    run(scenario)
