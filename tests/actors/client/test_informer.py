from __future__ import annotations

import asyncio
import random
from typing import Any

from steersman.actors.http.messages import Request, Response
from steersman.actors.informer import Informer
from steersman.actors.recorder import BURST, EventRecorder
from steersman.actors.workqueue import WorkQueue
from steersman.cluster.meta.errors import ServiceUnavailable
from steersman.cluster.meta.resources import CONFIG_MAPS, EVENTS


def config_map(name: str, colour: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default", "labels": {"colour": colour}}, "data": {}}


def by_colour(obj: dict[str, Any]) -> list[str]:
    return [obj["metadata"]["labels"]["colour"]]


def test_changes_are_told_in_order_and_indexes_follow(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        told: list[tuple[str, str]] = []

        def on_change(before: Any, after: Any) -> None:
            what = "added" if before is None else "gone" if after is None else "changed"
            told.append((what, (after or before)["metadata"]["name"]))

        world.api.create(CONFIG_MAPS, config_map("a", "red"))
        informer = Informer(world.client, CONFIG_MAPS, on_change=on_change, indexes={"colour": by_colour})
        await informer.start()
        await informer.synced.wait()
        assert told == [("added", "a")]
        made = world.api.create(CONFIG_MAPS, config_map("b", "red"))
        world.api.update(CONFIG_MAPS, {**made, "metadata": {**made["metadata"], "labels": {"colour": "blue"}}})
        world.api.delete(CONFIG_MAPS, "default", "a")
        await world.until(lambda: len(told) == 4)
        assert told[1:] == [("added", "b"), ("changed", "b"), ("gone", "a")]
        assert informer.by_index("colour", "red") == []
        assert [obj["metadata"]["name"] for obj in informer.by_index("colour", "blue")] == ["b"]
        assert informer.index_values("colour") == ["blue"]
        await informer.stop()

    virtually(scenario)


def test_it_lists_anew_when_the_history_is_gone_and_tells_only_differences(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        told: list[tuple[Any, Any]] = []
        down = False

        def fail(request: Request) -> Response | None:
            if down:
                raise ServiceUnavailable("away")
            return None

        world.api.hooks.append(fail)
        for name in "abc":
            world.api.create(CONFIG_MAPS, config_map(name, "red"))
        informer = Informer(world.client, CONFIG_MAPS, on_change=lambda before, after: told.append((before, after)))
        await informer.start()
        await informer.synced.wait()
        down = True
        world.api.delete(CONFIG_MAPS, "default", "b")
        world.api.create(CONFIG_MAPS, config_map("d", "red"))
        told.clear()
        world.api.compact()
        await asyncio.sleep(30)
        assert "away" in informer.trouble
        down = False
        await world.until(lambda: informer.get("default/d") is not None, within_s=60)
        assert informer.get("default/b") is None
        assert sorted(obj["metadata"]["name"] for pair in told for obj in pair if obj) == ["b", "d"]
        assert informer.trouble == ""
        await informer.stop()

    virtually(scenario)


def test_ones_own_writes_are_seen_at_once_but_never_bring_back_the_dead(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.api.create(CONFIG_MAPS, config_map("a", "red"))
        informer = Informer(world.client, CONFIG_MAPS)
        await informer.start()
        await informer.synced.wait()
        made = world.api.create(CONFIG_MAPS, config_map("b", "red"))
        informer.observe(made)
        assert informer.get("default/b") is made
        world.api.delete(CONFIG_MAPS, "default", "b")
        await world.until(lambda: informer.get("default/b") is None)
        informer.observe(made)
        assert informer.get("default/b") is None
        await informer.stop()

    virtually(scenario)


def test_a_key_waits_once_and_is_worked_on_by_one_at_a_time(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        queue = WorkQueue(0.0, random.Random(1))
        for key in ("a", "b", "a"):
            queue.add(key)
        assert [await queue.take(), await queue.take()] == ["a", "b"]
        queue.add("a")
        assert len(queue) == 0
        queue.done("a")
        assert await queue.take() == "a"
        queue.done("a")
        queue.done("b")
        assert queue.idle

    virtually(scenario)


def test_failures_come_back_ever_later_and_success_forgives(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        queue = WorkQueue(0.0, random.Random(1))
        queue.add("a")
        waits = []
        for _ in range(16):
            await queue.take()
            started = world.loop.time()
            queue.done("a", failed=True)
            await world.until(lambda: len(queue) == 1)
            waits.append(world.loop.time() - started)
        assert waits[0] < 0.2
        assert waits == sorted(waits) or max(waits) > 40
        assert max(waits) <= 73
        await queue.take()
        queue.done("a")
        queue.add("a")
        assert len(queue) == 1

    virtually(scenario)


def test_turns_of_a_key_keep_their_distance(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        queue = WorkQueue(1.0, random.Random(1))
        turns = []
        queue.add("a")
        while len(turns) < 3:
            key = await queue.take()
            turns.append(world.loop.time())
            queue.done(key)
            for _ in range(50):
                queue.add("a")
        assert turns == [0.0, 1.0, 2.0]
        queue.close()

    virtually(scenario)


def test_events_sort_by_name_as_they_happened(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        obj = world.api.create(CONFIG_MAPS, config_map("a", "red"))
        recorder = EventRecorder(world.client, "tester", "node-1", world.now, random.Random(1))
        reasons = [f"Step{number}" for number in range(9)]
        for reason in reasons:
            recorder.event(obj, "Normal", reason, "all in the same instant")
        await asyncio.sleep(1)
        found = sorted(world.api.of(EVENTS), key=lambda event: event["metadata"]["name"])
        assert [event["reason"] for event in found] == reasons

    virtually(scenario)


def test_repeated_events_are_counted_and_floods_are_cut(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        obj = world.api.create(CONFIG_MAPS, config_map("a", "red"))
        recorder = EventRecorder(world.client, "tester", "node-1", world.now, random.Random(1))
        for _ in range(5):
            recorder.event(obj, "Normal", "Tested", "it was tested", field_path="data")
            await asyncio.sleep(1)
        (event,) = world.api.of(EVENTS)
        assert (event["count"], event["type"], event["reason"]) == (5, "Normal", "Tested")
        assert event["involvedObject"]["fieldPath"] == "data"
        assert event["source"] == {"component": "tester", "host": "node-1"}
        assert event["metadata"]["namespace"] == "default"
        for number in range(100):
            recorder.event(obj, "Warning", "Flood", f"number {number}")
        await asyncio.sleep(1)
        assert len(world.api.of(EVENTS)) == 1 + BURST - 5
        assert recorder.dropped == 100 - (BURST - 5)
        await recorder.stop()

    virtually(scenario)


def test_events_that_cannot_be_sent_hinder_nobody(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        obj = world.api.create(CONFIG_MAPS, config_map("a", "red"))

        def fail(request: Request) -> Response | None:
            raise ServiceUnavailable("away")

        world.api.hooks.append(fail)
        recorder = EventRecorder(world.client, "tester", "", world.now, random.Random(1))
        recorder.event(obj, "Normal", "Tested", "it was tested")
        await asyncio.sleep(1)
        assert recorder.dropped == 1
        await recorder.stop()

    virtually(scenario)
