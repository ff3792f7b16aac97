"""The order of pending pods, and what brings a refused one back."""

from __future__ import annotations

from typing import Any

from steersman.cluster.sched.queue import UNSCHEDULABLE_MAX_S, Change, Queue


def names(pods: list[Any]) -> list[str]:
    return [pod.name for pod in pods]


def test_high_priority_comes_first_then_the_oldest(world: Any) -> None:
    queue = Queue()
    queue.put(world.pod("old"), 1.0)
    queue.put(world.pod("young"), 2.0)
    queue.put(world.pod("vip", priority=9), 3.0)
    assert names(queue.take(10, 4.0)) == ["vip"]
    assert names(queue.take(10, 4.0)) == ["old", "young"]
    assert queue.take(10, 4.0) == []


def test_only_equal_pods_are_taken_together(world: Any) -> None:
    queue = Queue()
    for index, cpu in enumerate(("1", "1", "2", "1")):
        queue.put(world.pod(f"p{index}", cpu=cpu), float(index))
    assert [names(queue.take(10, 9.0)) for _ in range(3)] == [["p0", "p1"], ["p2"], ["p3"]]


def test_a_refused_pod_returns_only_for_a_change_that_may_help(world: Any) -> None:
    queue = Queue()
    pod = world.pod("p")
    queue.put(pod, 0.0)
    queue.take(1, 0.0)
    queue.refused(pod.uid, ["NodeAffinity"], 0.0)
    queue.moved(Change.POD_REMOVED)
    assert not queue.ready(1.0)
    queue.moved(Change.NODE_CHANGED)
    assert names(queue.take(1, 1.0)) == ["p"]


def test_a_pod_backing_off_lets_active_ones_go_first(world: Any) -> None:
    queue = Queue()
    refused, fresh = world.pod("refused", cpu="1"), world.pod("fresh")
    queue.put(refused, 0.0)
    queue.take(1, 0.0)
    queue.refused(refused.uid, ["NodeResourcesFit"], 0.0)
    queue.moved(Change.POD_REMOVED)
    queue.put(fresh, 0.1)
    assert names(queue.take(1, 0.2)) == ["fresh"]
    assert names(queue.take(1, 0.2)) == ["refused"]


def test_a_failed_binding_waits_out_its_growing_back_off(world: Any) -> None:
    queue = Queue()
    pod = world.pod("p")
    queue.put(pod, 0.0)
    now = 0.0
    for wait_s in (1.0, 2.0, 4.0, 8.0, 10.0, 10.0):
        assert names(queue.take(1, now)) == ["p"]
        queue.failed(pod.uid, now)
        assert queue.next_wake() == now + wait_s
        assert not queue.ready(now + wait_s - 0.1)
        now += wait_s


def test_a_gated_pod_waits_for_its_gates(world: Any) -> None:
    queue = Queue()
    queue.put(world.pod("p", schedulingGates=[{"name": "g"}]), 0.0)
    assert not queue.ready(1000.0)
    queue.put(world.pod("p"), 1.0)
    assert names(queue.take(1, 1.0)) == ["p"]


def test_a_refused_pod_is_tried_again_after_five_minutes(world: Any) -> None:
    queue = Queue()
    pod = world.pod("p")
    queue.put(pod, 0.0)
    queue.take(1, 0.0)
    queue.refused(pod.uid, ["NodeName"], 5.0)
    assert queue.next_wake() == 5.0 + UNSCHEDULABLE_MAX_S
    assert not queue.ready(UNSCHEDULABLE_MAX_S)
    assert queue.ready(5.0 + UNSCHEDULABLE_MAX_S)


def test_a_removed_pod_is_never_taken(world: Any) -> None:
    queue = Queue()
    pod = world.pod("p")
    queue.put(pod, 0.0)
    queue.remove(pod.uid)
    assert queue.take(1, 0.0) == []
    assert len(queue) == 0
