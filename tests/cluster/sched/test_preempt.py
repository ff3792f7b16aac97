"""Whom preemption removes, where, and what it says when nothing helps."""

from __future__ import annotations

import random
from typing import Any

from steersman.cluster.meta.selectors import from_map
from steersman.cluster.sched.decide import Unschedulable, schedule
from steersman.cluster.sched.plugins import DEFAULT_PROFILE
from steersman.cluster.sched.preempt import Budget, Preemption, preempt


def run(world: Any, pod: Any, budgets: Any = ()) -> Preemption | str:
    refused = schedule(pod, world.snapshot, DEFAULT_PROFILE, random.Random(0))
    assert isinstance(refused, Unschedulable), refused
    before = world.snapshot.used.copy()
    found = preempt(refused, world.snapshot, DEFAULT_PROFILE, list(budgets), random.Random(0))
    assert (world.snapshot.used == before).all(), "preemption only thinks: the columns are as before"
    return found


def victims(found: Preemption | str) -> tuple[str, list[str]]:
    assert isinstance(found, Preemption), found
    return found.node, sorted(victim.name for victim in found.victims)


def test_the_node_with_the_lowest_victims_is_chosen(world: Any) -> None:
    for name, priority in (("a", 50), ("b", 10), ("c", 30)):
        world.node(name, cpu="2")
        world.pod(f"on-{name}", on=name, cpu="2", priority=priority)
    assert victims(run(world, world.pod("vip", cpu="1", priority=100))) == ("b", ["on-b"])


def test_no_more_pods_leave_than_must(world: Any) -> None:
    world.node("n", cpu="4")
    for index in range(4):
        world.pod(f"p{index}", on="n", cpu="1", priority=index)
    assert victims(run(world, world.pod("vip", cpu="2", priority=100))) == ("n", ["p0", "p1"])


def test_equal_or_higher_priority_is_never_displaced(world: Any) -> None:
    world.node("a", cpu="2")
    world.node("b", cpu="2")
    world.pod("peer", on="a", cpu="2", priority=100)
    world.pod("boss", on="b", cpu="2", priority=200)
    assert run(world, world.pod("vip", cpu="1", priority=100)) == (
        "0/2 nodes are available: 2 No preemption victims found for incoming pod."
    )


def test_nodes_that_no_removal_opens_are_told_apart(world: Any) -> None:
    world.node("tainted", taints=[{"key": "k", "effect": "NoSchedule"}])
    world.node("tiny", cpu="1")
    assert run(world, world.pod("vip", cpu="2", priority=100)) == (
        "0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    )


def test_a_pod_that_never_preempts_says_so(world: Any) -> None:
    world.node("n", cpu="1")
    world.pod("low", on="n", cpu="1")
    pod = world.pod("polite", cpu="1", priority=100, preemptionPolicy="Never")
    assert run(world, pod) == "not eligible due to preemptionPolicy=Never."


def test_budgets_are_respected_where_another_node_will_do(world: Any) -> None:
    for name in ("a", "b"):
        world.node(name, cpu="1")
    world.pod("guarded", on="a", cpu="1", priority=1, labels={"app": "db"})
    world.pod("free", on="b", cpu="1", priority=5)
    budgets = [Budget(namespace="default", selector=from_map({"app": "db"}), disruptions_allowed=0)]
    assert victims(run(world, world.pod("vip", cpu="1", priority=100), budgets)) == ("b", ["free"])
    world.snapshot.remove_node("b")
    found = run(world, world.pod("vip", cpu="1", priority=100), budgets)
    assert victims(found) == ("a", ["guarded"])
    assert isinstance(found, Preemption)
    assert found.violations == 1


def test_a_pod_waits_while_its_victims_end(world: Any) -> None:
    world.node("n", cpu="1")
    world.pod("going", on="n", cpu="1", terminating=True)
    pod = world.pod("vip", cpu="1", priority=100, status={"nominatedNodeName": "n"})
    assert run(world, pod) == "not eligible due to a terminating pod on the nominated node."


def test_victims_that_block_by_anti_affinity_leave(world: Any) -> None:
    world.node("n")
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}
    away = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    world.pod("shy", on="n", affinity=away)
    world.pod("neighbour", on="n")
    assert victims(run(world, world.pod("vip", labels={"app": "web"}, priority=100))) == ("n", ["shy"])


def test_a_taken_host_port_is_freed(world: Any) -> None:
    world.node("n")
    ports = [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "hostPort": 80}]}]
    world.pod("holder", on="n", containers=ports)
    world.pod("other", on="n")
    assert victims(run(world, world.pod("vip", containers=ports, priority=100))) == ("n", ["holder"])
