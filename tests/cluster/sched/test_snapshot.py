"""The columns after any history equal columns built at once from what is left."""

from __future__ import annotations

import random
from typing import Any

import pytest

from steersman.cluster.sched.decide import feasible_rows, total_scores
from steersman.cluster.sched.plugins import DEFAULT_PROFILE
from steersman.cluster.sched.snapshot import Snapshot

ZONE = "topology.kubernetes.io/zone"


def verdicts(snapshot: Snapshot, pods: list[Any]) -> list[dict[str, int]]:
    """Per pod: the score of every feasible node."""
    found = []
    for pod in pods:
        mask = feasible_rows(pod, snapshot, DEFAULT_PROFILE)
        total = total_scores(pod, snapshot, DEFAULT_PROFILE, mask)
        found.append({name: int(total[row]) for name, row in sorted(snapshot.row_of.items()) if mask[row]})
    return found


def probes(world: Any) -> list[Any]:
    term = {"topologyKey": ZONE, "labelSelector": {"matchLabels": {"app": "a"}}}
    hard = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    soft = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 7, "podAffinityTerm": term}]}
    skew = {**term, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
    return [
        world.pod("probe-plain", cpu="500m", labels={"app": "a"}),
        world.pod("probe-near", affinity={"podAffinity": hard}),
        world.pod("probe-far", labels={"app": "b"}, affinity={"podAntiAffinity": hard}),
        world.pod("probe-soft", affinity={"podAffinity": soft}),
        world.pod("probe-spread", labels={"app": "a"}, topologySpreadConstraints=[skew]),
        world.pod("probe-replica", labels={"app": "a"}, owner="ReplicaSet"),
        world.pod("probe-zone", nodeSelector={ZONE: "z1"}),
    ]


@pytest.mark.parametrize("seed", range(12))
def test_columns_kept_up_to_date_equal_columns_built_anew(world: Any, seed: int) -> None:
    rng = random.Random(seed)
    asked = probes(world)
    term = {"topologyKey": ZONE, "labelSelector": {"matchLabels": {"app": "b"}}}
    shy = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    nodes: dict[str, dict[str, Any]] = {}
    pods: dict[str, dict[str, Any]] = {}
    for step in range(120):
        action = rng.randrange(6)
        if action <= 1 or not nodes:
            name = f"n{rng.randrange(8)}"
            nodes[name] = {
                "zone": f"z{rng.randrange(3)}",
                "cpu": str(rng.choice((2, 4))),
                "unschedulable": rng.random() < 0.2,
            }
            world.node(name, **nodes[name])
        elif action <= 3:
            name = f"p{rng.randrange(30)}"
            pods[name] = {
                "on": rng.choice([f"n{i}" for i in range(8)]),
                "cpu": "300m",
                "labels": {"app": rng.choice("ab")},
                "terminating": rng.random() < 0.2,
                **({"affinity": shy} if rng.random() < 0.1 else {}),
            }
            world.pod(name, **pods[name])
        elif action == 4 and pods:
            gone = rng.choice(sorted(pods))
            del pods[gone]
            world.snapshot.remove_pod(f"uid-{gone}")
        elif action == 5 and rng.random() < 0.3:
            gone = rng.choice(sorted(nodes))
            del nodes[gone]
            world.snapshot.remove_node(gone)
        if step % 10 == 9:
            kept = verdicts(world.snapshot, asked)
            fresh = type(world)()
            fresh.compiler = world.compiler
            for name, node in nodes.items():
                fresh.node(name, **node)
            for name, pod in pods.items():
                fresh.pod(name, **pod)
            assert kept == verdicts(fresh.snapshot, asked), f"seed {seed} step {step}"


def test_a_pod_counts_as_soon_as_its_node_is_known_and_again_when_it_returns(world: Any) -> None:
    world.pod("early", on="late", cpu="3")
    world.node("late", cpu="4")
    assert world.snapshot.used[0, world.snapshot.row_of["late"]] == 3000
    world.snapshot.remove_node("late")
    world.node("late", cpu="4")
    assert world.snapshot.used[0, world.snapshot.row_of["late"]] == 3000
    world.snapshot.remove_pod("uid-early")
    assert world.snapshot.used.sum() == 0


def test_a_resource_offered_later_counts_the_pods_that_use_it(world: Any) -> None:
    world.node("n")
    world.pod("user", on="n", requests={"example.com/gpu": "1"})
    world.node("n", extended={"example.com/gpu": "2"})
    row = world.snapshot.row_of["n"]
    at = world.snapshot.resources["example.com/gpu"]
    assert (world.snapshot.used[at, row], world.snapshot.allocatable[at, row]) == (1, 2)


def test_a_heartbeat_changes_nothing(world: Any) -> None:
    world.node("n")
    generation = world.snapshot.generation
    world.node("n")
    assert world.snapshot.generation == generation
