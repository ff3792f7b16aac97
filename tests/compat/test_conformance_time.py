"""What the conformance suite asks of CronJobs, evictions and preemption, under virtual time.

Source: kubernetes/test/e2e/{apps/cronjob,node/taints,scheduling/preemption,scheduling/predicates}.go
"""

from __future__ import annotations

import asyncio
from typing import Any

from steersman import testing
from steersman.cluster.config import SimulatedNodes
from steersman.cluster.meta.errors import NotFound
from steersman.cluster.meta.objects import Obj, condition
from steersman.cluster.meta.resources import (
    CRON_JOBS,
    JOBS,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    REPLICA_SETS,
)

FOREVER = "simulated.steersman/exit-after-s"
TAINT = {"key": "kubernetes.io/e2e-evict-taint-key", "value": "evictTaintVal", "effect": "NoExecute"}


def pod(name: str, *, labels: Any = None, **spec: Any) -> Obj:
    container = {"name": "pause", "image": "pause:1", **spec.pop("container", {})}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": labels or {}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1, **spec},
    }  # fmt: skip


def cron(policy: str, *, suspend: bool = False, lasts_s: int = 300) -> Obj:
    template = {
        "metadata": {"annotations": {FOREVER: str(lasts_s)}},
        "spec": pod("x", restartPolicy="OnFailure")["spec"],
    }
    return {
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "cron", "namespace": "default"},
        "spec": {"schedule": "*/1 * * * ?", "concurrencyPolicy": policy, "suspend": suspend,
                 "jobTemplate": {"spec": {"parallelism": 1, "completions": 1, "template": template}}},
    }  # fmt: skip


async def active(c: Any) -> list[str]:
    found = await c.client.get(CRON_JOBS, "cron", "default")
    return [row["name"] for row in (found.get("status") or {}).get("active") or ()]


def test_cron_jobs_run_together() -> None:
    async def scenario(c: Any) -> None:
        await c.client.create(CRON_JOBS, cron("Allow"))
        await asyncio.sleep(185)
        assert len(await active(c)) >= 2
        running = [job for job in (await c.client.list(JOBS, "default")).items if job["status"].get("active")]
        assert len(running) >= 2

    with testing.simulation(nodes=2) as c:
        c.run(scenario(c))


def test_a_suspended_cron_job_makes_no_jobs() -> None:
    async def scenario(c: Any) -> None:
        await c.client.create(CRON_JOBS, cron("Allow", suspend=True))
        await asyncio.sleep(300)
        assert await active(c) == [] and (await c.client.list(JOBS, "default")).items == []

    with testing.simulation(nodes=1) as c:
        c.run(scenario(c))


def test_a_newer_job_takes_the_place_of_the_older() -> None:
    async def scenario(c: Any) -> None:
        await c.client.create(CRON_JOBS, cron("Replace"))
        await asyncio.sleep(65)
        (first,) = await active(c)
        await asyncio.sleep(60)
        (second,) = await active(c)
        assert second != first
        assert [job["metadata"]["name"] for job in (await c.client.list(JOBS, "default")).items] == [second]

    with testing.simulation(nodes=1) as c:
        c.run(scenario(c))


def test_a_forbidding_cron_job_lets_the_older_job_go_on() -> None:
    async def scenario(c: Any) -> None:
        await c.client.create(CRON_JOBS, cron("Forbid"))
        await asyncio.sleep(65)
        (first,) = await active(c)
        await asyncio.sleep(120)
        assert await active(c) == [first]

    with testing.simulation(nodes=1) as c:
        c.run(scenario(c))


async def tainted(c: Any, node: str, taints: list[Any]) -> None:
    await c.client.patch(NODES, node, {"spec": {"taints": taints}})


async def is_gone(c: Any, name: str) -> bool:
    try:
        return bool((await c.client.get(PODS, name, "default"))["metadata"].get("deletionTimestamp"))
    except NotFound:
        return True


def tolerating(seconds: int) -> list[Obj]:
    row = {"key": TAINT["key"], "value": TAINT["value"], "effect": "NoExecute", "operator": "Equal"}
    return [{**row, "tolerationSeconds": seconds}]


def test_pods_are_evicted_after_the_seconds_they_tolerate_unless_the_taint_goes() -> None:
    async def scenario(c: Any) -> None:
        for name, seconds in (("short", 10), ("long", 30), ("spared", 60)):
            await c.client.create(PODS, pod(name, tolerations=tolerating(seconds)))
        await asyncio.sleep(10)
        (node,) = {row["spec"]["nodeName"] for row in (await c.client.list(PODS, "default")).items}
        await tainted(c, node, [TAINT])
        await asyncio.sleep(5)
        assert not await is_gone(c, "short")
        await asyncio.sleep(10)
        assert await is_gone(c, "short") and not await is_gone(c, "long")
        await asyncio.sleep(20)
        assert await is_gone(c, "long") and not await is_gone(c, "spared")
        await tainted(c, node, [])
        await asyncio.sleep(90)
        assert not await is_gone(c, "spared")

    with testing.simulation(nodes=1) as c:
        c.run(scenario(c))


async def ranked(c: Any, name: str, value: int) -> None:
    """Makes a priority class."""
    kind = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass"}
    await c.client.create(PRIORITY_CLASSES, {**kind, "metadata": {"name": name}, "value": value})


def test_pods_are_preempted_by_more_important_and_by_critical_ones() -> None:
    async def scenario(c: Any) -> None:
        for name, value in (("low", 1), ("high", 1000)):
            await ranked(c, name, value)
        needs = {"resources": {"requests": {"cpu": "3"}, "limits": {"cpu": "3"}}}
        for name in ("low-0", "low-1"):
            await c.client.create(PODS, pod(name, priorityClassName="low", container=needs))
        await asyncio.sleep(10)
        await c.client.patch(PODS, "low-0", {"metadata": {"finalizers": ["e2e.example.com/held"]}}, "default")
        await c.client.patch(PODS, "low-1", {"metadata": {"finalizers": ["e2e.example.com/held"]}}, "default")
        await c.client.create(PODS, pod("preemptor", priorityClassName="high", container=needs))
        await asyncio.sleep(20)
        (victim,) = [
            row for row in (await c.client.list(PODS, "default")).items if row["metadata"].get("deletionTimestamp")
        ]
        found = condition(victim, "DisruptionTarget")
        assert found is not None
        assert (found["status"], found["reason"]) == ("True", "PreemptionByScheduler")
        await c.client.patch(PODS, victim["metadata"]["name"], {"metadata": {"finalizers": None}}, "default")
        await asyncio.sleep(20)
        assert (await c.client.get(PODS, "preemptor", "default"))["spec"]["nodeName"]
        critical = pod("critical", priorityClassName="system-cluster-critical", container=needs)
        critical["metadata"]["namespace"] = "kube-system"
        await c.client.create(PODS, critical)
        await asyncio.sleep(10)
        (left,) = [row for row in ("low-0", "low-1") if row != victim["metadata"]["name"]]
        assert await is_gone(c, left)
        await c.client.patch(PODS, left, {"metadata": {"finalizers": None}}, "default")
        await asyncio.sleep(20)
        assert (await c.client.get(PODS, "critical", "kube-system"))["spec"]["nodeName"]

    with testing.simulation(nodes=2, shape=SimulatedNodes(cpu="4")) as c:
        c.run(scenario(c))


def test_a_node_selector_and_a_port_of_the_host_are_respected() -> None:
    async def scenario(c: Any) -> None:
        nodes = [row["metadata"]["name"] for row in (await c.client.list(NODES)).items]
        assert len(nodes) == 2
        await c.client.create(PODS, pod("restricted", nodeSelector={"label": "nonempty"}))
        await asyncio.sleep(10)
        waiting = await c.client.get(PODS, "restricted", "default")
        found = condition(waiting, "PodScheduled")
        assert found is not None
        assert (found["status"], found["reason"]) == ("False", "Unschedulable")
        await c.client.patch(NODES, nodes[1], {"metadata": {"labels": {"label": "nonempty"}}})
        await asyncio.sleep(10)
        assert (await c.client.get(PODS, "restricted", "default"))["spec"]["nodeName"] == nodes[1]
        for name, address in (("port-a", ""), ("port-b", "127.0.0.1")):
            port = {"containerPort": 8080, "hostPort": 54322, "protocol": "TCP", "hostIP": address}
            here = {"kubernetes.io/hostname": nodes[0]}
            await c.client.create(PODS, pod(name, nodeSelector=here, container={"ports": [port]}))
            await asyncio.sleep(10)
        assert (await c.client.get(PODS, "port-a", "default"))["spec"]["nodeName"] == nodes[0]
        assert not (await c.client.get(PODS, "port-b", "default"))["spec"].get("nodeName")

    with testing.simulation(nodes=2) as c:
        c.run(scenario(c))


def test_replica_sets_of_rising_priority_push_each_other_out() -> None:
    async def scenario(c: Any) -> None:
        node = (await c.client.list(NODES)).items[0]["metadata"]["name"]
        scarce = [{"op": "add", "path": "/status/capacity/example.com~1fakecpu", "value": "3"},
                  {"op": "add", "path": "/status/allocatable/example.com~1fakecpu", "value": "3"}]  # fmt: skip
        await c.client.patch(NODES, node, scarce, kind="json", subresource="status")
        for value, size in enumerate((3, 2, 1), 1):
            name = f"p{value}"
            await ranked(c, name, value)
            amount = {"example.com/fakecpu": "1"}
            spec = pod("x", priorityClassName=name, container={"resources": {"requests": amount, "limits": amount}})[
                "spec"
            ]
            template = {"metadata": {"labels": {"name": name}}, "spec": spec}
            body = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name, "namespace": "default"}}
            body["spec"] = {"replicas": size, "selector": {"matchLabels": {"name": name}}, "template": template}
            await c.client.create(REPLICA_SETS, body)
            await asyncio.sleep(30)
        running: dict[str, int] = {}
        for row in (await c.client.list(PODS, "default")).items:
            if row["spec"].get("nodeName"):
                name = row["metadata"]["labels"]["name"]
                running[name] = running.get(name, 0) + 1
        assert running == {"p2": 2, "p3": 1}

    with testing.simulation(nodes=1) as c:
        c.run(scenario(c))
