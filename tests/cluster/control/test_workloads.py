from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.control import deployment, endpointslice, garbage, nodelifecycle, replicaset
from steersman.cluster.control.nodeipam import free_range
from steersman.cluster.control.nodelifecycle import patience_s
from steersman.cluster.control.plan import Create, Delete, ExpectAlive, ExpectGone, Patch, merge_difference
from steersman.cluster.control.pods import deletion_order, new_names, template_hash
from steersman.cluster.control.revisions import DESIRED_REPLICAS, MAX_REPLICAS, REVISION, new_replica_set
from steersman.cluster.control.rollout import Bounds
from steersman.cluster.meta.resources import REPLICA_SETS
from steersman.cluster.meta.times import format_time

NOW = 1767225600.0


def pod(name: str, *, node: str = "n", ready_for: float | None = 100.0, **extra: Any) -> dict[str, Any]:
    status: dict[str, Any] = {"phase": "Running"}
    if ready_for is not None:
        stamp = format_time(NOW - ready_for)
        status["conditions"] = [{"type": "Ready", "status": "True", "lastTransitionTime": stamp}]
    meta = {
        "name": name,
        "namespace": "d",
        "uid": f"uid-{name}",
        "labels": {"app": "web"},
        "creationTimestamp": format_time(NOW - 500),
        "ownerReferences": [
            {"kind": "ReplicaSet", "uid": "rs", "name": "web", "apiVersion": "apps/v1", "controller": True}
        ],
        "resourceVersion": "7",
    }
    return {"metadata": meta | extra.pop("metadata", {}), "spec": {"nodeName": node}, "status": status | extra}


def replica_set(replicas: int, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "web", "namespace": "d", "uid": "rs", "generation": 2, "resourceVersion": "3"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {}},
            **spec,
        },
    }


@pytest.mark.parametrize(
    ("victim", "other"),
    [
        pytest.param(pod("v", node=""), pod("o"), id="unassigned"),
        pytest.param(pod("v", phase="Pending"), pod("o"), id="pending"),
        pytest.param(pod("v", ready_for=None), pod("o"), id="not-ready"),
        pytest.param(
            pod("v", metadata={"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-1"}}),
            pod("o"),
            id="cheap",
        ),
        pytest.param(pod("v", ready_for=2), pod("o", ready_for=400), id="ready-for-a-shorter-time"),
        pytest.param(pod("v", containerStatuses=[{"restartCount": 3}]), pod("o"), id="restarted"),
        pytest.param(pod("v", metadata={"creationTimestamp": format_time(NOW - 3)}), pod("o"), id="younger"),
    ],
)
def test_the_pod_that_is_missed_least_goes_first(victim: Any, other: Any) -> None:
    assert deletion_order([other, victim], [other, victim], NOW)[0] is victim


def test_pods_on_crowded_nodes_go_first() -> None:
    pods = [pod("a", node="n1"), pod("b", node="n2"), pod("c", node="n2")]
    assert deletion_order(pods, pods, NOW)[-1]["metadata"]["name"] == "a"


def test_the_same_observation_gives_the_same_names_and_a_change_gives_others() -> None:
    owner, pods = replica_set(3), [pod("a")]
    assert new_names("web-", owner, pods, 3) == new_names("web-", owner, pods, 3)
    changed = [pod("a", metadata={"resourceVersion": "9"})]
    assert not set(new_names("web-", owner, pods, 3)) & set(new_names("web-", owner, changed, 3))


def test_template_hashes_do_not_depend_on_the_order_of_fields() -> None:
    assert template_hash({"a": 1, "b": {"c": 2, "d": 3}}) == template_hash({"b": {"d": 3, "c": 2}, "a": 1})
    assert template_hash({"a": 1}) != template_hash({"a": 1}, 1)


def plan_of(found: Any, pods: list[Any], orphans: tuple[Any, ...] = ()) -> Any:
    observed = replicaset.Observed(replica_set=found, pods=tuple(pods), orphans=orphans, neighbours=tuple(pods))
    return replicaset.reconcile(observed, NOW)


def test_missing_pods_are_created_and_surplus_ones_deleted() -> None:
    made = [action for action in plan_of(replica_set(3), [pod("a")]).actions if isinstance(action, Create)]
    assert len({action.obj["metadata"]["name"] for action in made}) == 2
    assert all(action.owner_uid == "rs" for action in made)
    gone = [a for a in plan_of(replica_set(1), [pod("a"), pod("b", ready_for=None)]).actions if isinstance(a, Delete)]
    assert [(action.name, action.uid) for action in gone] == [("b", "uid-b")]


def test_finished_and_deleted_pods_do_not_count() -> None:
    pods = [pod("a"), pod("b", phase="Failed"), pod("c", metadata={"deletionTimestamp": format_time(NOW)})]
    plan = plan_of(replica_set(3), pods)
    assert len([action for action in plan.actions if isinstance(action, Create)]) == 2


def test_the_status_counts_what_is_available_and_says_when_to_look_again() -> None:
    found = replica_set(2, minReadySeconds=30)
    found["status"] = {"observedGeneration": 2, "replicas": 0}
    plan = plan_of(found, [pod("a", ready_for=10), pod("b", ready_for=100)])
    (action,) = plan.actions
    assert isinstance(action, Patch)
    assert action.patch["status"] == {
        "replicas": 2,
        "fullyLabeledReplicas": 2,
        "readyReplicas": 2,
        "availableReplicas": 1,
        "terminatingReplicas": 0,
    }
    assert plan.requeue_after_s == pytest.approx(20)


def test_a_matching_orphan_is_adopted_after_a_look_at_the_owner_and_a_stranger_released() -> None:
    orphan = pod("o", metadata={"ownerReferences": []})
    stranger = pod("s", metadata={"labels": {"app": "other"}})
    released, alive, adopted = plan_of(replica_set(1), [stranger], (orphan,)).actions
    assert isinstance(alive, ExpectAlive)
    assert isinstance(released, Patch)
    assert released.patch == {"metadata": {"ownerReferences": None}}
    assert isinstance(adopted, Patch)
    assert adopted.patch["metadata"]["ownerReferences"][0]["uid"] == "rs"
    assert adopted.resource_version == "7"


def web(replicas: int = 10, image: str = "1", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "d", "uid": "dep", "generation": 1, "resourceVersion": "3"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"image": image}]}},
            **spec,
        },
    }


def child(image: str, size: int, revision: int, desired: int = 10, **status: int) -> dict[str, Any]:
    made = new_replica_set(web(image=image), Bounds(replicas=desired, surge=3, unavailable=2), size, revision)
    made["metadata"] |= {"uid": f"uid-{image}", "creationTimestamp": format_time(NOW + revision), "generation": 1}
    made["status"] = {"observedGeneration": 1, **status}
    return made


def decide(found: Any, *children: Any, running_old: bool = False) -> Any:
    observed = deployment.Observed(deployment=found, replica_sets=children, running_old=running_old)
    return deployment.reconcile(observed, NOW)


def sizes(plan: Any) -> dict[str, int]:
    return {
        action.name: action.patch["spec"]["replicas"]
        for action in plan.actions
        if isinstance(action, Patch) and action.resource == REPLICA_SETS and "replicas" in action.patch.get("spec", {})
    }


def test_a_new_template_is_never_observed_together_with_the_old_count_of_updated_replicas() -> None:
    changed = web(image="2")
    changed["metadata"]["generation"] = 2
    changed["status"] = {"observedGeneration": 1, "replicas": 10, "updatedReplicas": 10, "availableReplicas": 10}
    plan = decide(changed, child("1", 10, 1, replicas=10, availableReplicas=10))
    (status,) = [row.patch["status"] for row in plan.actions if isinstance(row, Patch) and "status" in row.patch]
    assert status["observedGeneration"] == 2
    assert status["updatedReplicas"] is None


def test_a_new_deployment_creates_its_replica_set_with_revision_and_hash() -> None:
    plan = decide(web())
    (made,) = [action.obj for action in plan.actions if isinstance(action, Create)]
    digest = made["metadata"]["labels"]["pod-template-hash"]
    assert made["metadata"]["name"] == f"web-{digest}"
    assert made["spec"]["selector"]["matchLabels"]["pod-template-hash"] == digest
    assert made["spec"]["replicas"] == 10
    notes = made["metadata"]["annotations"]
    assert (notes[REVISION], notes[DESIRED_REPLICAS], notes[MAX_REPLICAS]) == ("1", "10", "13")
    assert [event.message for event in plan.events] == [f"Scaled up replica set web-{digest} from 0 to 10"]


def test_a_new_template_starts_within_the_surge() -> None:
    old = child("1", 10, 1, replicas=10, availableReplicas=10)
    (made,) = [a.obj for a in decide(web(image="2"), old).actions if isinstance(a, Create)]
    assert made["spec"]["replicas"] == 3
    assert made["metadata"]["annotations"][REVISION] == "2"


def test_a_paused_deployment_scales_but_does_not_roll() -> None:
    old = child("1", 10, 1, replicas=10, availableReplicas=10)
    plan = decide(web(12, image="2", paused=True), old)
    assert not [action for action in plan.actions if isinstance(action, Create)]
    assert sizes(plan) == {old["metadata"]["name"]: 12}


def test_scaling_in_the_middle_of_a_rollout_is_shared_out() -> None:
    old = child("1", 8, 1, replicas=8, availableReplicas=8)
    new = child("2", 5, 2, replicas=5, availableReplicas=2)
    found = web(20, image="2")
    found["metadata"]["annotations"] = {REVISION: "2"}
    plan = decide(found, old, new)
    assert sum(sizes(plan).values()) == 25


def test_recreate_waits_for_old_pods_to_end() -> None:
    strategy = {"type": "Recreate"}
    old = child("1", 0, 1)
    waiting = decide(web(image="2", strategy=strategy), old, running_old=True)
    assert not [action for action in waiting.actions if isinstance(action, Create)]
    free = decide(web(image="2", strategy=strategy), old)
    assert [action.obj["spec"]["replicas"] for action in free.actions if isinstance(action, Create)] == [10]


def test_a_rollout_that_stands_still_is_told_after_its_deadline() -> None:
    new = child("1", 10, 1, replicas=10, availableReplicas=3)
    found = web(progressDeadlineSeconds=60)
    found["metadata"]["annotations"] = {REVISION: "1"}
    begun = {
        "type": "Progressing",
        "status": "True",
        "reason": "ReplicaSetUpdated",
        "lastUpdateTime": format_time(NOW - 61),
    }
    found["status"] = {"replicas": 10, "updatedReplicas": 10, "availableReplicas": 3, "conditions": [begun]}
    (action,) = [a for a in decide(found, new).actions if isinstance(a, Patch) and a.subresource == "status"]
    (row,) = [row for row in action.patch["status"]["conditions"] if row["type"] == "Progressing"]
    assert (row["status"], row["reason"]) == ("False", "ProgressDeadlineExceeded")
    assert row["message"] == f'ReplicaSet "{new["metadata"]["name"]}" has timed out progressing.'


def test_history_beyond_its_limit_is_forgotten_oldest_first() -> None:
    new = child("9", 10, 9, replicas=10, availableReplicas=10)
    old = [child(str(number), 0, number) for number in range(1, 5)]
    found = web(image="9", revisionHistoryLimit=2)
    found["metadata"]["annotations"] = {REVISION: "9"}
    gone = [action.name for action in decide(found, new, *old).actions if isinstance(action, Delete)]
    assert gone == [old[0]["metadata"]["name"], old[1]["metadata"]["name"]]


def served(number: int, **extra: Any) -> dict[str, Any]:
    found = pod(f"p{number:03}", **extra)
    found["status"] |= {"podIP": f"10.0.{number // 250}.{number % 250}"}
    return found


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "d", "uid": "svc"},
    "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
}


def slice_plan(pods: list[Any], slices: list[Any]) -> Any:
    observed = endpointslice.Observed(service=SERVICE, pods=tuple(pods), slices=tuple(slices))
    return endpointslice.reconcile(observed, NOW)


def test_slices_hold_a_hundred_and_a_change_touches_one() -> None:
    pods = [served(number) for number in range(150)]
    made = [action.obj for action in slice_plan(pods, []).actions if isinstance(action, Create)]
    assert [len(found["endpoints"]) for found in made] == [100, 50]
    for number, found in enumerate(made):
        found["metadata"] |= {"uid": f"s{number}", "resourceVersion": "1"}
    assert slice_plan(pods, made).actions == []
    (action,) = slice_plan([*pods[:-1], served(200)], made).actions
    assert isinstance(action, Patch)
    assert (action.name, len(action.patch["endpoints"])) == (made[1]["metadata"]["name"], 50)


def test_a_terminating_pod_serves_but_is_not_ready() -> None:
    going = served(1, metadata={"deletionTimestamp": format_time(NOW)})
    (made,) = [action.obj for action in slice_plan([going], []).actions if isinstance(action, Create)]
    assert made["endpoints"][0]["conditions"] == {"ready": False, "serving": True, "terminating": True}


def owner(state: garbage.OwnerState, name: str = "o") -> garbage.Owner:
    gone = None
    if state is garbage.OwnerState.ABSENT:
        gone = ExpectGone(resource=REPLICA_SETS, namespace="d", name=name, uid=name)
    return garbage.Owner({"kind": "X", "name": name, "uid": name, "apiVersion": "v1"}, state, gone)


@pytest.mark.parametrize(
    ("states", "wanted"),
    [
        pytest.param(["SOLID"], [], id="an-owner-lives"),
        pytest.param(["ABSENT"], [ExpectGone, Delete], id="the-owner-is-gone"),
        pytest.param(["SOLID", "ABSENT"], [ExpectGone, Patch], id="one-of-two-is-gone"),
        pytest.param(["WAITING"], [Delete], id="the-owner-waits"),
        pytest.param(["ABSENT", "UNKNOWN"], [], id="one-cannot-be-looked-up"),
    ],
)
def test_an_object_lives_as_long_as_one_owner_does(states: list[str], wanted: list[type]) -> None:
    owners = tuple(owner(garbage.OwnerState[state], state) for state in states)
    observed = garbage.Observed(resource=REPLICA_SETS, obj=replica_set(1), owners=owners)
    assert [type(action) for action in garbage.reconcile(observed, NOW).actions] == wanted


def test_ranges_are_the_lowest_free_ones_and_odd_ones_are_respected() -> None:
    assert free_range("10.0.0.0/22", 24, ["10.0.0.0/24"]) == "10.0.1.0/24"
    assert free_range("10.0.0.0/22", 24, ["10.0.0.0/23"]) == "10.0.2.0/24"
    assert free_range("10.0.0.0/24", 24, ["10.0.0.0/24"]) is None


TAINT = {"key": "k", "effect": "NoExecute", "timeAdded": format_time(NOW - 10)}


@pytest.mark.parametrize(
    ("tolerations", "left"),
    [
        pytest.param([], 0.0, id="none"),
        pytest.param([{"operator": "Exists"}], None, id="everything-for-ever"),
        pytest.param([{"key": "k", "operator": "Exists", "tolerationSeconds": 30}], 20.0, id="for-a-while"),
        pytest.param([{"key": "k", "value": "x"}], 0.0, id="another-value"),
        pytest.param([{"key": "k", "operator": "Exists", "effect": "NoSchedule"}], 0.0, id="another-effect"),
    ],
)
def test_tolerations_give_patience(tolerations: list[Any], left: float | None) -> None:
    assert patience_s({"metadata": {}, "spec": {"tolerations": tolerations}}, [TAINT], NOW) == left


def test_a_taint_set_by_hand_runs_from_when_it_is_seen() -> None:
    by_hand = {"key": "k", "effect": "NoExecute"}
    node = {"metadata": {"name": "n", "uid": "n", "resourceVersion": "1"}, "spec": {"taints": [by_hand]}, "status": {}}
    tolerations = [{"key": "k", "operator": "Exists", "tolerationSeconds": 30}]
    pod = {"metadata": {"name": "p", "namespace": "d", "uid": "p"}, "spec": {"tolerations": tolerations}}
    observed = nodelifecycle.Observed(node=node, silent_s=0.0, grace_s=100.0, pods=(pod,))
    (dating,) = nodelifecycle.reconcile(observed, NOW).actions
    assert isinstance(dating, Patch)
    dated = dating.patch["spec"]["taints"]
    assert dated == [{**by_hand, "timeAdded": format_time(NOW)}]
    node["spec"] = {"taints": dated}
    assert not nodelifecycle.reconcile(observed, NOW + 29).actions
    assert nodelifecycle.reconcile(observed, NOW + 31).actions


def test_a_difference_names_what_is_gone() -> None:
    old = {"a": {"x": 1, "y": 2}, "b": [1], "c": 3}
    assert merge_difference(old, {"a": {"x": 1}, "b": [2]}) == {"a": {"y": None}, "b": [2], "c": None}
