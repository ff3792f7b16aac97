from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.cluster.control.indexes import tracked
from steersman.cluster.control.job import Abandoned, Observed, reconcile
from steersman.cluster.control.jobcount import counting_status, tally
from steersman.cluster.control.jobpods import FINALIZER, INDEX, format_indexes, judge, parse_indexes
from steersman.cluster.control.plan import Batch, Create, Delete, Patch
from steersman.cluster.meta.times import format_time

NOW = 1767225600.0


def job(status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "j", "namespace": "d", "uid": "job", "resourceVersion": "5"},
        "spec": {
            "parallelism": 2,
            "completions": 3,
            "backoffLimit": 2,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}},
            **spec,
        },
        "status": {"startTime": format_time(NOW - 10), **(status or {})},
    }


def pod(name: str, phase: str = "", held: bool = True, index: int | None = None, **meta: Any) -> dict[str, Any]:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "job", "controller": True}
    metadata = {
        "name": name,
        "namespace": "d",
        "uid": f"uid-{name}",
        "labels": {"a": "b"},
        "ownerReferences": [owner],
        "creationTimestamp": format_time(NOW - 1000),
        **meta,
    }
    if held:
        metadata["finalizers"] = [FINALIZER]
    if index is not None:
        metadata["annotations"] = {INDEX: str(index)}
    return {"metadata": metadata, "spec": {}, "status": {"phase": phase} if phase else {}}


def plan_of(found: dict[str, Any], *pods: dict[str, Any]) -> Any:
    return reconcile(Observed(job=found, pods=pods), NOW)


def status_of(plan: Any) -> dict[str, Any]:
    return next(dict(a.patch["status"]) for a in plan.actions if isinstance(a, Patch) and a.subresource == "status")


def kinds(plan: Any) -> dict[str, str]:
    return {row["type"]: row["reason"] for row in status_of(plan).get("conditions", ()) if row["status"] == "True"}


@pytest.mark.parametrize(
    ("spec", "pods", "creations"),
    [
        pytest.param({}, [], 2, id="as-many-as-run-side-by-side"),
        pytest.param({"completions": 1}, [], 1, id="no-more-than-are-wanted"),
        pytest.param({}, [pod("a")], 1, id="the-running-count"),
        pytest.param({"completions": None}, [pod("a", "Succeeded", held=False)], 2, id="a-work-queue-fills-up"),
        pytest.param({"parallelism": 0}, [], 0, id="none-allowed"),
        pytest.param({"suspend": True}, [], 0, id="suspended"),
    ],
)
def test_missing_pods_are_created(spec: dict[str, Any], pods: list[Any], creations: int) -> None:
    plan = plan_of(job(**spec), *pods)
    assert len([action for action in plan.actions if isinstance(action, Create)]) == creations


def test_new_pods_carry_the_finalizer_and_indexed_ones_their_index() -> None:
    plan = plan_of(job({"completedIndexes": "1"}, completionMode="Indexed", parallelism=3))
    made = [action.obj for action in plan.actions if isinstance(action, Create)]
    assert [row["metadata"]["annotations"][INDEX] for row in made] == ["0", "2"]
    assert [row["spec"]["hostname"] for row in made] == ["j-0", "j-2"]
    assert all(FINALIZER in row["metadata"]["finalizers"] for row in made)
    assert made[0]["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"


def test_a_finished_pod_is_noted_before_its_finalizer_goes() -> None:
    plan = plan_of(job(), pod("a", "Succeeded"), pod("b"))
    noted = next(n for n, a in enumerate(plan.actions) if isinstance(a, Patch) and a.subresource == "status")
    freed = next(n for n, a in enumerate(plan.actions) if isinstance(a, Patch) and a.name == "a")
    assert status_of(plan)["uncountedTerminatedPods"] == {"succeeded": ["uid-a"]}
    assert "succeeded" not in status_of(plan)
    assert noted < freed
    assert plan.actions[noted].resource_version == "5"


def test_the_last_success_completes_the_job_only_when_all_is_counted() -> None:
    found = job({"succeeded": 2, "uncountedTerminatedPods": {"succeeded": ["uid-c"]}})
    plan = plan_of(found, pod("c", "Succeeded"))
    assert kinds(plan) == {"SuccessCriteriaMet": "CompletionsReached"}
    found["status"] |= {"conditions": status_of(plan)["conditions"]}
    plan = plan_of(found, pod("c", "Succeeded", held=False))
    assert status_of(plan)["succeeded"] == 3
    assert kinds(plan)["Complete"] == "CompletionsReached"
    assert status_of(plan)["completionTime"] == format_time(NOW)


@pytest.mark.parametrize(
    ("spec", "status", "pods", "reason"),
    [
        pytest.param({}, {"failed": 3}, [], "BackoffLimitExceeded", id="too-many-failures"),
        pytest.param({"activeDeadlineSeconds": 5}, {}, [], "DeadlineExceeded", id="too-long"),
        pytest.param(
            {"podFailurePolicy": {"rules": [{"action": "FailJob", "onPodConditions": [{"type": "ConfigIssue"}]}]}},
            {},
            [
                pod("a", "Failed")
                | {"status": {"phase": "Failed", "conditions": [{"type": "ConfigIssue", "status": "True"}]}}
            ],
            "PodFailurePolicy",
            id="a-policy-says-so",
        ),
    ],
)
def test_a_failing_job_deletes_what_runs(spec: Any, status: Any, pods: list[Any], reason: str) -> None:
    plan = plan_of(job(status, **spec), pod("running"), *pods)
    assert kinds(plan) == {"FailureTarget": reason}
    assert [action.name for action in plan.actions if isinstance(action, Delete)] == ["running"]
    assert not [action for action in plan.actions if isinstance(action, Create)]


def test_a_failed_pod_is_replaced_only_after_a_pause() -> None:
    failed = pod("a", "Failed", held=False, creationTimestamp=format_time(NOW - 4))
    plan = plan_of(job({"failed": 1}), failed)
    assert not [action for action in plan.actions if isinstance(action, Create)]
    assert plan.requeue_after_s == pytest.approx(6)


def test_an_index_that_failed_too_often_is_given_up_alone() -> None:
    spec = {"completionMode": "Indexed", "backoffLimitPerIndex": 0, "backoffLimit": 99, "parallelism": 3}
    plan = plan_of(job(**spec), pod("a", "Failed", index=0), pod("b", index=1), pod("c", index=2))
    assert status_of(plan)["failedIndexes"] == "0"
    assert not [action for action in plan.actions if isinstance(action, Create)]


def test_a_success_policy_ends_the_job_early() -> None:
    spec = {"completionMode": "Indexed", "successPolicy": {"rules": [{"succeededIndexes": "0"}]}}
    plan = plan_of(job({"completedIndexes": "0"}, **spec), pod("b", index=1))
    assert kinds(plan) == {"SuccessCriteriaMet": "SuccessPolicy"}
    assert [action.name for action in plan.actions if isinstance(action, Delete)] == ["b"]


def test_two_pods_of_one_index_are_one_too_many() -> None:
    spec = {"completionMode": "Indexed"}
    younger = pod("b", index=0, creationTimestamp=format_time(NOW))
    plan = plan_of(job(**spec), pod("a", index=0), younger)
    assert [action.name for action in plan.actions if isinstance(action, Delete)] == ["b"]


def test_a_finished_job_lets_its_pods_go() -> None:
    done = job({"conditions": [{"type": "Complete", "status": "True"}]})
    plan = plan_of(done, pod("a", "Succeeded"), pod("b", "Failed", held=False))
    (step,) = plan.steps
    assert isinstance(step, Batch)
    assert [action.name for action in step.actions] == ["a"]


@given(st.sets(st.integers(0, 60)))
def test_indexes_survive_being_written(indexes: set[int]) -> None:
    assert parse_indexes(format_indexes(indexes), 61) == indexes


def test_indexes_are_written_as_ranges() -> None:
    assert format_indexes([1, 3, 4, 5, 8, 9]) == "1,3-5,8-9"
    assert parse_indexes("0-5", 3) == {0, 1, 2}


@pytest.mark.parametrize(
    ("operator", "values", "action"),
    [
        pytest.param("In", [42], "FailJob", id="in"),
        pytest.param("In", [1], "Count", id="not-in-the-list"),
        pytest.param("NotIn", [1], "FailJob", id="not-in"),
    ],
)
def test_a_failure_policy_looks_at_exit_codes(operator: str, values: list[int], action: str) -> None:
    ended = {"containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 42}}}]}
    policy = {"rules": [{"action": "FailJob", "onExitCodes": {"operator": operator, "values": values}}]}
    verdict = judge(policy, pod("a") | {"status": ended})
    assert verdict.action == action
    if action == "FailJob":
        assert verdict.message == "Container c for pod d/a failed with exit code 42 matching FailJob rule at index 0"


@given(st.data())
def test_no_pod_is_counted_twice_whatever_is_interrupted(data: st.DataObject) -> None:
    """Pods end, statuses are written or not, finalizers go or not, pods vanish or not: the sum stays true."""
    found = job()
    pods: dict[str, dict[str, Any]] = {}
    ended: dict[str, str] = {}
    for number in range(data.draw(st.integers(1, 12))):
        move = data.draw(st.sampled_from(["start", "end", "count"]))
        if move == "start":
            pods[f"p{number}"] = pod(f"p{number}")
        elif move == "end" and pods:
            name = data.draw(st.sampled_from(sorted(pods)))
            if name not in ended:
                ended[name] = data.draw(st.sampled_from(["Succeeded", "Failed"]))
                pods[name]["status"] = {"phase": ended[name]}
        else:
            _count(found, pods, data)
    for _ in range(3):
        _count(found, pods, None)
    status = found["status"]
    assert status.get("succeeded", 0) == list(ended.values()).count("Succeeded")
    assert status.get("failed", 0) == list(ended.values()).count("Failed")
    assert status["uncountedTerminatedPods"] == {}


def _count(found: dict[str, Any], pods: dict[str, Any], data: st.DataObject | None) -> None:
    """One turn of counting, broken off at any point."""
    result = tally(found, list(pods.values()))
    if data is not None and data.draw(st.booleans()):
        return
    found["status"] = {"startTime": found["status"]["startTime"], **counting_status(result, found)}
    for freed in result.freed:
        if data is not None and data.draw(st.booleans()):
            continue
        freed["metadata"].pop("finalizers", None)
        if data is not None and data.draw(st.booleans()):
            pods.pop(freed["metadata"]["name"])


def test_pods_held_for_a_job_that_is_gone_are_let_go() -> None:
    plan = reconcile(Abandoned((pod("a", "Failed"), pod("b", deletionTimestamp=format_time(NOW)))), NOW)
    freed = [action for action in plan.actions if isinstance(action, Patch)]
    assert [row.patch["metadata"]["finalizers"] for row in freed] == [None, None]


def test_held_pods_are_found_by_their_job_with_and_without_its_reference() -> None:
    assert list(tracked(pod("a"))) == ["d/j"]
    assert list(tracked(pod("a", held=False))) == []
    labels = {"batch.kubernetes.io/job-name": "j"}
    assert list(tracked(pod("a", ownerReferences=[], labels=labels))) == ["d/j"]
