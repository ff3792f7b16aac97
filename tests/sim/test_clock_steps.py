"""The wall clock is set forward or back by hours: dates follow it, and nothing fires early or stands still."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from steersman import testing
from steersman.actors.client import Client
from steersman.actors.clocks import VirtualTimeLoop
from steersman.cluster.meta.errors import NotFound
from steersman.cluster.meta.objects import is_pod_ready
from steersman.cluster.meta.resources import EVENTS, NODES, PODS
from steersman.cluster.meta.times import parse_time

HOURS = [pytest.param(5 * 3600.0, id="forward"), pytest.param(-5 * 3600.0, id="back")]


def pod(name: str, simulation: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    annotations = {f"simulated.steersman/{key}": value for key, value in (simulation or {}).items()}
    container = {"name": "main", "image": "example.org/app:1", **spec.pop("container", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {"containers": [container], **spec},
    }


async def until(client: Client, name: str, holds: Callable[[dict[str, Any]], bool], within_s: float) -> float:
    """Waits until a pod is as wanted; returns after how many seconds."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not holds(await client.get(PODS, name, "default")):
        assert loop.time() - began < within_s, (await client.get(PODS, name, "default")).get("status")
        await asyncio.sleep(0.25)
    return loop.time() - began


def restarts(obj: dict[str, Any]) -> int:
    return int(obj["status"]["containerStatuses"][0]["restartCount"]) if obj["status"].get("containerStatuses") else 0


def play(scene: Callable[[Client, VirtualTimeLoop], Awaitable[Any]], **behaviour: Any) -> Any:
    with testing.simulation(nodes=2, seed=7, **behaviour) as c:

        async def whole() -> Any:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualTimeLoop)
            await asyncio.sleep(15)  # the nodes have told of themselves more than once
            return await scene(c.client, loop)

        return c.run(whole())


@pytest.mark.parametrize("by_s", HOURS)
def test_nobody_is_taken_for_silent_and_new_dates_are_the_new_ones(by_s: float) -> None:
    async def scene(client: Client, loop: VirtualTimeLoop) -> None:
        await client.create(PODS, pod("old"))
        await until(client, "old", is_pod_ready, 5)
        loop.step(by_s)
        for node in (await client.list(NODES)).items:  # has each looked at, before its next sign of life
            await client.patch(NODES, node["metadata"]["name"], {"metadata": {"labels": {"look": "now"}}})
        await asyncio.sleep(120)
        for node in (await client.list(NODES)).items:
            assert not node["spec"].get("taints")
        assert is_pod_ready(await client.get(PODS, "old", "default"))
        await client.create(PODS, pod("new"))
        assert await until(client, "new", is_pod_ready, 5) < 5
        new = await client.get(PODS, "new", "default")
        assert abs(parse_time(new["status"]["startTime"]) - loop.now()) < 10
        assert not [row for row in (await client.list(EVENTS)).items if row["reason"] == "NodeNotReady"]

    play(scene)


@pytest.mark.parametrize("by_s", HOURS)
def test_a_crash_loop_goes_on_at_its_pace(by_s: float) -> None:
    async def scene(client: Client, loop: VirtualTimeLoop) -> None:
        await client.create(PODS, pod("crashes", {"exit-after-s": "1", "exit-code": "1"}))
        await until(client, "crashes", lambda obj: restarts(obj) == 2, 60)  # the next comes after 20 s
        await until(client, "crashes", lambda obj: "waiting" in obj["status"]["containerStatuses"][0]["state"], 5)
        loop.step(by_s)
        again = await client.get(PODS, "crashes", "default")
        await client.patch(PODS, "crashes", {"metadata": {"labels": {"look": "now"}}}, "default")
        assert restarts(again) == 2
        assert 15 < await until(client, "crashes", lambda obj: restarts(obj) == 3, 60) < 25

    play(scene)


@pytest.mark.parametrize("by_s", HOURS)
def test_an_image_that_cannot_be_had_is_asked_for_at_its_pace(by_s: float) -> None:
    async def scene(client: Client, loop: VirtualTimeLoop) -> None:
        await client.create(PODS, pod("lacks", container={"image": "example.org/none:1"}))

        async def pulls() -> int:
            rows = [row for row in (await client.list(EVENTS)).items if row["reason"] == "Pulling"]
            return sum(int(row["count"]) for row in rows)

        while await pulls() < 2:  # noqa: ASYNC110  (the third comes 20 s after the second)
            await asyncio.sleep(0.25)
        loop.step(by_s)
        await client.patch(PODS, "lacks", {"metadata": {"labels": {"look": "now"}}}, "default")
        await asyncio.sleep(15)
        assert await pulls() == 2
        await asyncio.sleep(10)
        assert await pulls() == 3

    play(scene, missing_images=("example.org/none:1",))


@pytest.mark.parametrize("by_s", HOURS)
def test_a_pod_that_ends_has_the_whole_of_its_grace(by_s: float) -> None:
    async def scene(client: Client, loop: VirtualTimeLoop) -> None:
        hook = {"lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}}}
        slow = pod("slow", {"stop-after-s": "20"}, container=hook, terminationGracePeriodSeconds=60)
        await client.create(PODS, slow)
        await until(client, "slow", is_pod_ready, 5)
        began = loop.time()
        await client.delete(PODS, "slow", "default")
        await asyncio.sleep(2)
        loop.step(by_s)
        await client.patch(PODS, "slow", {"metadata": {"labels": {"look": "now"}}}, "default")
        with contextlib.suppress(NotFound):
            await until(client, "slow", lambda _: False, 100)
        assert 24 < loop.time() - began < 30

    play(scene)


@pytest.mark.parametrize("by_s", HOURS)
def test_probes_keep_their_period(by_s: float) -> None:
    async def scene(client: Client, loop: VirtualTimeLoop) -> None:
        probe = {"readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 5}}
        await client.create(PODS, pod("late", {"ready-after-s": "20"}, container=probe))
        await until(client, "late", lambda obj: obj["status"]["phase"] == "Running", 5)
        loop.step(by_s)
        assert 15 < await until(client, "late", is_pod_ready, 60) < 27

    play(scene)


@pytest.mark.parametrize("by_s", HOURS)
def test_a_pod_that_no_node_takes_is_tried_again_in_five_minutes(by_s: float) -> None:
    async def scene(client: Client, loop: VirtualTimeLoop) -> None:
        async def tries() -> int:
            rows = [row for row in (await client.list(EVENTS)).items if row["reason"] == "FailedScheduling"]
            return sum(int(row["count"]) for row in rows if row["involvedObject"]["name"] == "waits")

        await client.create(PODS, pod("waits", nodeSelector={"disk": "ssd"}))
        await asyncio.sleep(3)
        first = await tries()
        loop.step(by_s)
        await client.create(PODS, pod("other", nodeSelector={"disk": "tape"}))  # wakes the scheduler
        await asyncio.sleep(200)
        assert await tries() == first
        await asyncio.sleep(150)
        assert await tries() > first

    play(scene)
