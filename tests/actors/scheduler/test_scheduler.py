"""The scheduler against an API server in memory: bindings, refusals, preemption and failures."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from steersman.actors.clocks import VirtualTimeLoop
from steersman.actors.scheduler import Scheduler
from steersman.cluster.meta.errors import InternalError

PODS = "/api/v1/namespaces/default/pods"
NODES = "/api/v1/nodes"
EVENTS = "/api/v1/namespaces/default/events"


def node(name: str, cpu: str = "4", **spec: Any) -> dict[str, Any]:
    status = {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}
    return {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": spec, "status": status}


def pod(name: str, cpu: str = "1", **spec: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}
    meta = {"name": name, "namespace": "default", "uid": f"uid-of-{name}", "creationTimestamp": "2026-01-01T00:00:00Z"}
    body = {"schedulerName": "default-scheduler", "containers": [container], **spec}
    return {"metadata": meta, "spec": body, "status": {"phase": "Pending"}}


@pytest.fixture
async def scheduler(api: Any) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(api.client(), now=lambda: 1_800_000_000.0, rng=random.Random(0))
    await scheduler.start()
    yield scheduler
    await scheduler.stop()


def bound(api: Any) -> dict[str, str]:
    pods = api.objects.get(PODS, {})
    return {name: obj["spec"]["nodeName"] for name, obj in pods.items() if obj["spec"].get("nodeName")}


def events(api: Any) -> list[tuple[str, str, str]]:
    rows = api.objects.get(EVENTS, {}).values()
    return sorted((row["involvedObject"]["name"], row["reason"], row["message"]) for row in rows)


def scheduled_condition(api: Any, name: str) -> dict[str, Any]:
    rows = api.objects[PODS][name]["status"].get("conditions") or [{}]
    return next((row for row in rows if row.get("type") == "PodScheduled"), {})


async def test_pods_are_bound_and_told_so(api: Any, scheduler: Scheduler) -> None:
    await api.put(NODES, node("a"))
    await api.put(PODS, pod("web"))
    await api.put(PODS, pod("foreign", schedulerName="other"))
    await api.until(lambda: events(api))
    assert bound(api) == {"web": "a"}
    assert events(api) == [("web", "Scheduled", "Successfully assigned default/web to a")]


async def test_a_pod_that_fits_nowhere_says_why_and_is_bound_when_a_node_comes(api: Any, scheduler: Scheduler) -> None:
    await api.put(NODES, node("small", cpu="1"))
    await api.put(PODS, pod("big", cpu="2"))
    await api.until(lambda: events(api) and scheduled_condition(api, "big"))
    sentence = (
        "0/1 nodes are available: 1 Insufficient cpu. "
        "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )
    assert events(api) == [("big", "FailedScheduling", sentence)]
    condition = scheduled_condition(api, "big")
    assert (condition["status"], condition["reason"], condition["message"]) == ("False", "Unschedulable", sentence)
    await api.put(NODES, node("large"))
    await api.until(lambda: bound(api) == {"big": "large"})


async def test_a_failed_binding_is_forgotten_and_retried(api: Any, scheduler: Scheduler) -> None:
    api.failures[f"{PODS}/web/binding"] = [InternalError("disk on fire")]
    await api.put(NODES, node("a", cpu="1"))
    await api.put(PODS, pod("web"))
    await api.until(lambda: any(reason == "FailedScheduling" for _, reason, _ in events(api)))
    assert bound(api) == {}
    assert scheduler.snapshot.used.sum() == 0
    assert scheduler.queue.counts()["penalty"] == 1


async def test_preemption_evicts_nominates_and_binds_when_the_room_is_there(api: Any, scheduler: Scheduler) -> None:
    await api.put(NODES, node("a", cpu="1"))
    await api.put(PODS, pod("low", priority=1))
    await api.until(lambda: bound(api) == {"low": "a"})
    await api.put(PODS, pod("vip", priority=100))
    await api.until(lambda: bound(api) == {"vip": "a"})
    assert "low" not in api.objects[PODS]
    reasons = [(name, reason) for name, reason, _ in events(api)]
    assert ("low", "Preempted") in reasons
    patches = [(path, body) for method, path, body in api.log if method == "PATCH"]
    assert any(path == f"{PODS}/low/status" and "DisruptionTarget" in str(body) for path, body in patches)
    assert any(body["status"].get("nominatedNodeName") == "a" for path, body in patches if path == f"{PODS}/vip/status")


async def test_a_gated_pod_waits(api: Any, scheduler: Scheduler) -> None:
    await api.put(NODES, node("a"))
    await api.put(PODS, pod("gated", schedulingGates=[{"name": "example.com/wait"}]))
    await api.until(lambda: scheduled_condition(api, "gated"))
    assert scheduled_condition(api, "gated")["reason"] == "SchedulingGated"
    await api.put(PODS, {**pod("gated"), "spec": pod("gated")["spec"]})
    await api.until(lambda: bound(api) == {"gated": "a"})


async def test_a_pod_that_cannot_be_read_is_told_so_and_stops_nobody(api: Any, scheduler: Scheduler) -> None:
    await api.put(NODES, node("a"))
    await api.put(PODS, pod("broken", cpu="lots"))
    await api.put(PODS, pod("web"))
    await api.until(lambda: bound(api) == {"web": "a"} and len(events(api)) == 2)
    assert events(api)[0][:2] == ("broken", "FailedScheduling")
    assert scheduler.failure == ""


async def test_a_pod_of_the_same_name_born_again_is_another_pod(api: Any, scheduler: Scheduler) -> None:
    await api.put(NODES, node("a", cpu="1"))
    await api.put(PODS, pod("web"))
    await api.until(lambda: bound(api) == {"web": "a"})
    await api.remove(PODS, "web")
    again = pod("web")
    again["metadata"]["uid"] = "another"
    await api.put(PODS, again)
    await api.until(lambda: bound(api) == {"web": "a"})
    await api.until(lambda: list(scheduler.snapshot.placed) == ["another"])


def test_five_hundred_pods_on_twenty_nodes_under_virtual_time_twice_the_same(api_factory: Any) -> None:
    def once() -> dict[str, str]:
        loop = VirtualTimeLoop()
        try:
            return loop.run_until_complete(_schedule_many(api_factory(), loop))
        finally:
            loop.close()

    first = once()
    assert len(first) == 500
    assert max(list(first.values()).count(name) for name in set(first.values())) <= 26
    assert first == once()


async def _schedule_many(api: Any, loop: VirtualTimeLoop) -> dict[str, str]:
    scheduler = Scheduler(api.client(), now=loop.now, rng=random.Random(5), leader_election=True, identity="one")
    await scheduler.start()
    for index in range(20):
        await api.put(NODES, node(f"n{index}", cpu="8"))
    for index in range(500):
        await api.put(PODS, pod(f"p{index}", cpu="100m"))
    await api.until(lambda: len(bound(api)) == 500, 60.0)
    found = bound(api)
    await scheduler.stop()
    return found
