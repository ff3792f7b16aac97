"""What each plugin accepts, refuses and prefers, and the sentence that explains a refusal."""

from __future__ import annotations

import random
from typing import Any

import pytest

from steersman.cluster.sched.decide import Placement, Unschedulable, feasible_rows, schedule, schedule_batch
from steersman.cluster.sched.explain import explain
from steersman.cluster.sched.plugins import DEFAULT_PROFILE

HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"


def place(world: Any, pod: Any) -> Placement | Unschedulable:
    return schedule(pod, world.snapshot, DEFAULT_PROFILE, random.Random(0))


def message(world: Any, pod: Any) -> str:
    found = place(world, pod)
    assert isinstance(found, Unschedulable), found
    return found.message


def nodes_for(world: Any, pod: Any) -> list[str]:
    mask = feasible_rows(pod, world.snapshot, DEFAULT_PROFILE)
    return sorted(name for name, row in world.snapshot.row_of.items() if mask[row])


def test_the_message_counts_nodes_by_the_first_filter_that_refuses_them(world: Any) -> None:
    for index in range(3):
        world.node(f"small-{index}", cpu="1")
    for index in range(2):
        world.node(f"gpu-{index}", taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}])
    assert message(world, world.pod("p", cpu="2")) == (
        "0/5 nodes are available: 2 node(s) had untolerated taint {gpu: yes}, 3 Insufficient cpu."
    )


def test_no_nodes_has_a_sentence_of_its_own(world: Any) -> None:
    assert message(world, world.pod("p")) == "no nodes available to schedule pods"


def test_one_node_may_lack_several_resources(world: Any) -> None:
    world.node("n", cpu="1", memory="1Gi", pods="1")
    world.pod("there", on="n", cpu="500m")
    wanted = {"cpu": "2", "memory": "2Gi", "example.com/gpu": "1"}
    assert message(world, world.pod("p", requests=wanted)) == (
        "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient example.com/gpu, "
        "1 Insufficient memory, 1 Too many pods."
    )


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({"nodeSelector": {"disk": "ssd"}}, ["b"], id="node selector"),
        pytest.param({"tolerations": [{"key": "t", "operator": "Exists"}]}, ["a", "b", "c"], id="tolerates any value"),
        pytest.param({"tolerations": [{"key": "t", "value": "v"}]}, ["a", "b", "c"], id="tolerates the value"),
        pytest.param({"tolerations": [{"key": "t", "value": "x"}]}, ["a", "b"], id="tolerates another value"),
        pytest.param({"tolerations": [{"operator": "Exists"}]}, ["a", "b", "c", "cordoned"], id="tolerates everything"),
    ],
)
def test_nodes_are_chosen_by_label_and_taint(world: Any, spec: Any, expected: list[str]) -> None:
    world.node("a")
    world.node("b", labels={"disk": "ssd"})
    world.node("c", taints=[{"key": "t", "value": "v", "effect": "NoExecute"}])
    world.node("cordoned", unschedulable=True)
    assert nodes_for(world, world.pod("p", **spec)) == expected


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [
        ("In", ["1", "5"], ["five"]),
        ("NotIn", ["5"], ["nine", "none"]),
        ("Exists", [], ["five", "nine"]),
        ("DoesNotExist", [], ["none"]),
        ("Gt", ["5"], ["nine"]),
        ("Lt", ["9"], ["five"]),
    ],
)
def test_required_node_affinity_knows_every_operator(
    world: Any, operator: str, values: list[str], expected: list[str]
) -> None:
    world.node("five", labels={"n": "5"})
    world.node("nine", labels={"n": "9"})
    world.node("none")
    terms = [{"matchExpressions": [{"key": "n", "operator": operator, "values": values}]}]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    assert nodes_for(world, world.pod("p", affinity=affinity)) == expected


def test_a_daemon_pod_names_its_node_and_all_others_count_as_not_meant(world: Any) -> None:
    world.node("a", cpu="1")
    world.node("b")
    world.node("c")
    terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    assert nodes_for(world, world.pod("fits", affinity=affinity)) == ["a"]
    assert message(world, world.pod("p", cpu="2", affinity=affinity)) == (
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]."
    )


def test_preferred_node_affinity_outweighs_an_emptier_node(world: Any) -> None:
    world.node("empty")
    world.node("wanted", labels={"disk": "ssd"})
    world.pod("there", on="wanted", cpu="1")
    preferred = [
        {"weight": 10, "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}}
    ]
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    found = place(world, world.pod("p", cpu="1", affinity=affinity))
    assert isinstance(found, Placement)
    assert (found.node, found.feasible) == ("wanted", 2)


def test_soft_taints_repel(world: Any) -> None:
    world.node("clean")
    world.node("soft", taints=[{"key": "k", "effect": "PreferNoSchedule"}], cpu="64", memory="128Gi")
    found = place(world, world.pod("p", cpu="1"))
    assert isinstance(found, Placement)
    assert found.node == "clean"


def test_the_emptiest_node_is_preferred(world: Any) -> None:
    world.node("a")
    world.node("b")
    world.pod("there", on="a", requests={"cpu": "2", "memory": "4Gi"})
    found = place(world, world.pod("p", requests={"cpu": "1", "memory": "2Gi"}))
    assert isinstance(found, Placement)
    assert found.node == "b"


def test_a_large_image_draws_pods_to_its_node(world: Any) -> None:
    world.node("with", images=[{"names": ["web:latest"], "sizeBytes": 2_000_000_000}])
    world.node("without")
    found = place(world, world.pod("p"))
    assert isinstance(found, Placement)
    assert found.node == "with"


@pytest.mark.parametrize(
    ("port", "free"),
    [
        ({"hostPort": 80}, False),
        ({"hostPort": 80, "hostIP": "10.0.0.2"}, False),
        ({"hostPort": 80, "protocol": "UDP"}, True),
        ({"hostPort": 81}, True),
        ({"hostPort": 90, "hostIP": "10.0.0.2"}, True),
        ({"hostPort": 90, "hostIP": "10.0.0.1"}, False),
    ],
)
def test_a_host_port_is_taken_once_per_node(world: Any, port: dict[str, Any], free: bool) -> None:
    world.node("n")
    taken = [{"containerPort": 80, "hostPort": 80}, {"containerPort": 9, "hostPort": 90, "hostIP": "10.0.0.1"}]
    world.pod("there", on="n", containers=[{"name": "c", "image": "web", "ports": taken}])
    wanted = world.pod("p", containers=[{"name": "c", "image": "web", "ports": [{"containerPort": 80, **port}]}])
    if free:
        assert nodes_for(world, wanted) == ["n"]
    else:
        assert message(world, wanted) == (
            "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
        )


def spread(key: str, skew: int, **more: Any) -> dict[str, Any]:
    row = {"topologyKey": key, "maxSkew": skew, "labelSelector": {"matchLabels": {"app": "web"}}, **more}
    return {"topologySpreadConstraints": [{"whenUnsatisfiable": "DoNotSchedule", **row}]}


def test_hard_spreading_keeps_the_skew_between_zones(world: Any) -> None:
    for name, zone in (("a1", "a"), ("a2", "a"), ("b1", "b")):
        world.node(name, zone=zone)
    world.node("nowhere")
    web = {"app": "web"}
    world.pod("w1", on="a1", labels=web)
    assert nodes_for(world, world.pod("p", labels=web, **spread(ZONE, 1))) == ["b1"]
    assert nodes_for(world, world.pod("q", labels=web, **spread(ZONE, 2))) == ["a1", "a2", "b1"]
    world.snapshot.remove_node("b1")
    world.pod("w2", on="a2", labels=web)
    assert nodes_for(world, world.pod("r", labels=web, **spread(ZONE, 1))) == ["a1", "a2"]
    assert message(world, world.pod("s", labels=web, **spread(ZONE, 1, minDomains=2))) == (
        "0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label), "
        "2 node(s) didn't match pod topology spread constraints."
    )


def test_pods_being_deleted_do_not_count_for_spreading(world: Any) -> None:
    world.node("a", zone="a")
    world.node("b", zone="b")
    world.pod("going", on="a", labels={"app": "web"}, terminating=True)
    assert nodes_for(world, world.pod("p", labels={"app": "web"}, **spread(ZONE, 1))) == ["a", "b"]


def test_replicas_spread_over_nodes_by_default(world: Any) -> None:
    for index in range(4):
        world.node(f"n{index}", cpu="64", memory="256Gi")
    pods = [world.pod(f"p{i}", labels={"app": "web"}, owner="ReplicaSet") for i in range(8)]
    found = list(schedule_batch(pods, world.snapshot, DEFAULT_PROFILE, random.Random(1)))
    counts = [sum(isinstance(f, Placement) and f.node == f"n{index}" for f in found) for index in range(4)]
    assert counts == [2, 2, 2, 2]


def near(kind: str, key: str, labels: dict[str, str], **more: Any) -> dict[str, Any]:
    term = {"topologyKey": key, "labelSelector": {"matchLabels": labels}, **more}
    return {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}


def test_required_affinity_follows_the_other_pod_into_its_zone(world: Any) -> None:
    for name, zone in (("a1", "a"), ("a2", "a"), ("b1", "b")):
        world.node(name, zone=zone)
    wanted = near("podAffinity", ZONE, {"app": "db"})
    assert (
        message(world, world.pod("p", **wanted))
        == "0/3 nodes are available: 3 node(s) didn't match pod affinity rules."
    )
    world.pod("db", on="a1", labels={"app": "db"})
    assert nodes_for(world, world.pod("q", **wanted)) == ["a1", "a2"]
    world.pod("db2", on="b1", labels={"app": "db"}, namespace="other")
    assert nodes_for(world, world.pod("r", **wanted)) == ["a1", "a2"]
    assert nodes_for(world, world.pod("s", **near("podAffinity", ZONE, {"app": "db"}, namespaces=["other"]))) == ["b1"]


def test_the_first_of_a_group_with_affinity_to_itself_may_go_anywhere(world: Any) -> None:
    world.node("a", zone="a")
    world.node("b", zone="b")
    web = {"app": "web"}
    first = world.pod("p", labels=web, **near("podAffinity", ZONE, web))
    assert nodes_for(world, first) == ["a", "b"]
    world.pod("there", on="b", labels=web)
    assert nodes_for(world, first) == ["b"]


def test_anti_affinity_works_in_both_directions(world: Any) -> None:
    world.node("a", zone="a")
    world.node("b", zone="b")
    away = near("podAntiAffinity", ZONE, {"app": "web"})
    world.pod("web", on="a", labels={"app": "web"})
    assert nodes_for(world, world.pod("p", **away)) == ["b"]
    world.pod("shy", on="b", **away)
    assert message(world, world.pod("q", labels={"app": "web"}, **away)) == (
        "0/2 nodes are available: 1 node(s) didn't match pod anti-affinity rules, "
        "1 node(s) didn't satisfy existing pods anti-affinity rules."
    )


def test_a_namespace_selector_follows_the_labels_of_namespaces(world: Any) -> None:
    world.node("a")
    world.node("b")
    world.pod("db", on="a", labels={"app": "db"}, namespace="team")
    wanted = near("podAffinity", HOST, {"app": "db"}, namespaceSelector={"matchLabels": {"env": "prod"}})
    assert nodes_for(world, world.pod("p", **wanted)) == []
    world.snapshot.set_namespace("team", {"env": "prod"})
    assert nodes_for(world, world.pod("p", **wanted)) == ["a"]
    world.snapshot.set_namespace("team", {"env": "test"})
    assert nodes_for(world, world.pod("p", **wanted)) == []


def test_placed_pods_preferences_count_for_the_new_one(world: Any) -> None:
    world.node("a")
    world.node("b")
    term = {"topologyKey": HOST, "labelSelector": {"matchLabels": {"app": "web"}}}
    lonely = {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]
        }
    }
    world.pod("lonely", on="a", affinity=lonely)
    world.pod("ballast", on="b", requests={"cpu": "1", "memory": "2Gi"})
    found = place(world, world.pod("p", labels={"app": "web"}))
    assert isinstance(found, Placement)
    assert found.node == "b"


def test_equal_pods_never_overfill_a_node_and_the_rest_are_refused(world: Any) -> None:
    for index in range(3):
        world.node(f"n{index}", cpu="2")
    pods = [world.pod(f"p{index}", cpu="900m") for index in range(8)]
    found = list(schedule_batch(pods, world.snapshot, DEFAULT_PROFILE, random.Random(3)))
    assert sum(isinstance(f, Placement) for f in found) == 6
    assert {f.message for f in found if isinstance(f, Unschedulable)} == {
        "0/3 nodes are available: 3 Insufficient cpu."
    }
    assert (world.snapshot.used <= world.snapshot.allocatable).all()


def test_ties_are_broken_by_the_chance_given(world: Any) -> None:
    for index in range(8):
        world.node(f"n{index}")
    pod = world.pod("p")
    picks = [schedule(pod, world.snapshot, DEFAULT_PROFILE, random.Random(seed)) for seed in (1, 1, 2, 3, 4, 5)]
    names = [found.node for found in picks if isinstance(found, Placement)]
    assert names[0] == names[1]
    assert len(set(names)) > 1


def test_room_nominated_for_a_higher_priority_is_not_given_away(world: Any) -> None:
    world.node("n", cpu="2")
    world.snapshot.nominate(world.pod("vip", cpu="2", priority=100), "n")
    assert isinstance(place(world, world.pod("low", cpu="1")), Unschedulable)
    assert isinstance(place(world, world.pod("higher", cpu="1", priority=200)), Placement)
    assert world.snapshot.placed == {}


def test_explain_tells_for_every_node_its_score_or_the_reasons_against_it(world: Any) -> None:
    world.node("good")
    world.node("small", cpu="1", memory="1Gi")
    world.node("cordoned", unschedulable=True)
    rows = {row.node: row for row in explain(world.pod("p", requests={"cpu": "2", "memory": "2Gi"}), world.snapshot)}
    assert rows["good"].feasible
    assert dict(rows["good"].parts)["NodeResourcesFit"] > 0
    assert rows["small"].reasons == ("Insufficient cpu", "Insufficient memory")
    assert rows["cordoned"].reasons == ("node(s) were unschedulable",)
