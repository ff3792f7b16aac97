"""Phases, conditions and container rows, as the kubelet writes them."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.meta.times import format_time
from steersman.cluster.node.backoff import Backoff, Failure
from steersman.cluster.node.observed import Refusal, Verdict
from steersman.cluster.node.status import is_urgent, status_patch, with_foreign

NOW = 1_767_225_600.0
STAMP = format_time(NOW)
TWO = [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]


def _conditions(status: Any) -> dict[str, str]:
    return {row["type"]: row["status"] for row in status["conditions"]}


def _reason(status: Any, kind: str) -> str:
    return next(row.get("reason", "") for row in status["conditions"] if row["type"] == kind)


def test_a_pod_that_is_being_set_up(node: Any, pod_of: Any) -> None:
    status = node.decide(pod_of(), mounted=False, sandboxes=()).status
    assert status["phase"] == "Pending"
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert _conditions(status) == {
        "PodReadyToStartContainers": "False",
        "Initialized": "True",
        "Ready": "False",
        "ContainersReady": "False",
        "PodScheduled": "True",
    }
    assert (status["startTime"], status["hostIP"], status["qosClass"]) == (STAMP, "10.0.0.1", "BestEffort")
    assert "podIP" not in status


def test_a_running_pod(node: Any, pod_of: Any, ran: Any) -> None:
    pod = pod_of()
    pod["metadata"]["generation"] = 3
    status = node.decide(pod, containers=(ran(),)).status
    assert status["phase"] == "Running"
    assert set(_conditions(status).values()) == {"True"}
    assert (status["podIP"], status["observedGeneration"]) == ("10.1.0.5", 3)
    assert {row["observedGeneration"] for row in status["conditions"]} == {3}
    row = status["containerStatuses"][0]
    assert row["state"] == {"running": {"startedAt": format_time(NOW - 60)}}
    assert (row["containerID"], row["imageID"], row["ready"]) == ("simulated://main.0", "sha256:1", True)


@pytest.mark.parametrize(
    ("policy", "state", "phase"),
    [("Never", "terminated", "Failed"), ("OnFailure", "waiting", "Running"), ("Always", "waiting", "Running")],
)
def test_a_container_that_the_runtime_has_lost_ends_where_it_may_not_run_again(
    node: Any, pod_of: Any, ran: Any, policy: str, state: str, phase: str
) -> None:
    pod = pod_of(restartPolicy=policy)
    pod["status"] = node.decide(pod, containers=(ran(),)).status
    status = node.decide(pod, containers=()).status
    assert (list(status["containerStatuses"][0]["state"]), status["phase"]) == ([state], phase)


PHASES = [
    ("Always", [("a", "running", 0), ("b", "running", 0)], "Running"),
    ("Always", [("a", "running", 0)], "Pending"),
    ("Always", [("a", "exited", 0), ("b", "exited", 0)], "Running"),
    ("OnFailure", [("a", "exited", 0), ("b", "exited", 1)], "Running"),
    ("OnFailure", [("a", "exited", 0), ("b", "exited", 0)], "Succeeded"),
    ("Never", [("a", "exited", 0), ("b", "exited", 0)], "Succeeded"),
    ("Never", [("a", "exited", 0), ("b", "exited", 3)], "Failed"),
    ("Never", [("a", "running", 0), ("b", "exited", 3)], "Running"),
]


@pytest.mark.parametrize(("policy", "rows", "phase"), PHASES, ids=lambda value: str(value)[:40])
def test_phases(node: Any, pod_of: Any, ran: Any, policy: str, rows: Any, phase: str) -> None:
    containers = tuple(ran(name, state, exit_code=code) for name, state, code in rows)
    pod = pod_of(containers=TWO, restartPolicy=policy)
    assert node.decide(pod, containers=containers).status["phase"] == phase


def test_a_succeeded_pod_is_complete(node: Any, pod_of: Any, ran: Any) -> None:
    status = node.decide(pod_of(restartPolicy="Never"), containers=(ran(state="exited"),)).status
    assert _reason(status, "Ready") == _reason(status, "ContainersReady") == "PodCompleted"
    assert _conditions(status)["Initialized"] == "True"


def test_a_terminal_phase_stays(node: Any, pod_of: Any) -> None:
    pod = pod_of()
    pod["status"] = {"phase": "Failed", "reason": "Evicted", "message": "low", "startTime": STAMP}
    status = node.decide(pod, sandboxes=()).status
    assert (status["phase"], status["reason"], status["message"]) == ("Failed", "Evicted", "low")


def test_initialisation_is_told(node: Any, pod_of: Any, ran: Any) -> None:
    pod = pod_of(initContainers=[{"name": "one", "image": "i"}, {"name": "two", "image": "i"}])
    status = node.decide(pod, containers=(ran("one", "exited"), ran("two"))).status
    assert status["phase"] == "Pending"
    row = next(row for row in status["conditions"] if row["type"] == "Initialized")
    assert (row["reason"], row["message"]) == (
        "ContainersNotInitialized",
        "containers with incomplete status: [two]",
    )
    assert status["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"
    assert [row["ready"] for row in status["initContainerStatuses"]] == [True, False]


def test_a_failed_init_container_fails_a_pod_that_never_restarts(node: Any, pod_of: Any, ran: Any) -> None:
    pod = pod_of(initContainers=[{"name": "one", "image": "i"}], restartPolicy="Never")
    assert node.decide(pod, containers=(ran("one", "exited", exit_code=1),)).status["phase"] == "Failed"


def test_a_sidecar_counts_for_readiness(node: Any, pod_of: Any, ran: Any) -> None:
    pod = pod_of(initContainers=[{"name": "side", "image": "s", "restartPolicy": "Always"}])
    verdicts = {"side.0": Verdict(started=True, ready=False)}
    status = node.decide(pod, containers=(ran("side"), ran()), verdicts=verdicts).status
    assert status["phase"] == "Running"
    message = next(row["message"] for row in status["conditions"] if row["type"] == "Ready")
    assert message == "containers with unready status: [side]"


def test_a_crash_loop_shows_the_wait_and_the_last_end(node: Any, pod_of: Any, ran: Any) -> None:
    exited = ran(state="exited", exit_code=2, attempt=3)
    crash = {"main": Backoff(delay_s=80, since=NOW - 100)}
    status = node.decide(pod_of(), containers=(exited,), crash=crash, messages={"main.3": "bye"}).status
    row = status["containerStatuses"][0]
    assert row["state"]["waiting"] == {
        "reason": "CrashLoopBackOff",
        "message": "back-off 1m20s restarting failed container=main pod=web_default(u1)",
    }
    ended = row["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (2, "Error", "bye")
    assert (row["restartCount"], row["ready"], row["started"]) == (3, False, False)
    assert status["phase"] == "Running"


def test_a_failed_pull_turns_into_its_back_off(node: Any, pod_of: Any) -> None:
    failure = Failure(
        reason="ErrImagePull", message="not found", at=NOW, retry_at=NOW + 10, backoff=Backoff(delay_s=10, since=NOW)
    )
    fresh = node.decide(pod_of(), failures={"main": failure})
    assert fresh.status["containerStatuses"][0]["state"]["waiting"] == {
        "reason": "ErrImagePull",
        "message": "not found",
    }
    assert fresh.wake_at == NOW + 3
    later = node.decide(pod_of(), NOW + 3, failures={"main": failure})
    assert later.status["containerStatuses"][0]["state"]["waiting"] == {
        "reason": "ImagePullBackOff",
        "message": 'Back-off pulling image "web:1": ErrImagePull: not found',
    }


def test_a_container_that_the_runtime_has_lost_is_told(node: Any, pod_of: Any) -> None:
    pod = pod_of(restartPolicy="Never")
    row = {"name": "main", "containerID": "simulated://x", "imageID": "i", "state": {"running": {}}, "restartCount": 2}
    pod["status"] = {"phase": "Running", "containerStatuses": [row]}
    pod["metadata"]["deletionTimestamp"] = STAMP
    status = node.decide(pod, sandboxes=()).status
    ended = status["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "ContainerStatusUnknown")
    assert (status["phase"], status["containerStatuses"][0]["restartCount"]) == ("Failed", 2)


def test_a_container_that_the_runtime_has_lost_runs_again_as_a_restart(node: Any, pod_of: Any) -> None:
    pod = pod_of()
    row = {"name": "main", "containerID": "simulated://x", "imageID": "i", "state": {"running": {}}, "restartCount": 2}
    pod["status"] = {"phase": "Running", "containerStatuses": [row]}
    (start,) = node.decide(pod).actions
    assert (start.name, start.attempt) == ("main", 3)
    pod["status"]["containerStatuses"] = [{**row, "containerID": "", "restartCount": 0}]
    (start,) = node.decide(pod).actions
    assert start.attempt == 0


GATES = [
    ([], "False", 'corresponding condition of pod readiness gate "g" does not exist.'),
    (["False"], "False", 'the status of pod readiness gate "g" is not "True", but False'),
    (["True"], "True", ""),
]


@pytest.mark.parametrize(("found", "ready", "message"), GATES, ids=["missing", "false", "true"])
def test_readiness_gates(node: Any, pod_of: Any, ran: Any, found: Any, ready: str, message: str) -> None:
    pod = pod_of(readinessGates=[{"conditionType": "g"}])
    pod["status"]["conditions"] = [{"type": "g", "status": value} for value in found]
    status = node.decide(pod, containers=(ran(),)).status
    row = next(row for row in status["conditions"] if row["type"] == "Ready")
    assert (row["status"], row.get("message", "")) == (ready, message)
    assert _conditions(status)["ContainersReady"] == "True"
    assert [row["type"] for row in status["conditions"] if row["type"] == "g"] == ["g"] * len(found)


def test_a_refused_pod_has_failed_with_the_reason(node: Any, pod_of: Any) -> None:
    status = node.decide(pod_of(), sandboxes=(), refusal=Refusal(reason="OutOfcpu", message="too big")).status
    assert (status["phase"], status["reason"], status["message"]) == ("Failed", "OutOfcpu", "too big")


def test_transitions_keep_their_time_while_nothing_turns(node: Any, pod_of: Any, ran: Any) -> None:
    pod = pod_of()
    pod["status"] = node.decide(pod, containers=(ran(),)).status
    later = node.decide(pod, NOW + 60, containers=(ran(),)).status
    assert later == pod["status"]
    down = node.decide(pod, NOW + 60, containers=(ran(),), verdicts={"main.0": Verdict(ready=False)}).status
    moved = {row["type"] for row in down["conditions"] if row["lastTransitionTime"] != STAMP}
    assert moved == {"Ready", "ContainersReady"}


# --- what is sent


def test_only_what_changed_is_sent(node: Any, pod_of: Any, ran: Any) -> None:
    pod = pod_of()
    pod["status"] = node.decide(pod, containers=(ran(),)).status
    assert status_patch(pod, pod["status"]) is None
    down = node.decide(pod, containers=(ran(),), verdicts={"main.0": Verdict(ready=False)}).status
    patch = status_patch(pod, down)
    assert patch is not None
    assert set(patch["status"]) == {"conditions", "containerStatuses"}
    assert {row["type"] for row in patch["status"]["conditions"]} == {"Ready", "ContainersReady"}
    assert patch["metadata"] == {"uid": "u1"}
    assert is_urgent(pod, patch)


def test_a_changed_address_replaces_the_old_one(node: Any, pod_of: Any) -> None:
    pod = pod_of()
    pod["status"] = {"podIP": "10.1.0.4", "podIPs": [{"ip": "10.1.0.4"}], "phase": "Running"}
    patch = status_patch(pod, {"podIP": "10.1.0.5", "podIPs": [{"ip": "10.1.0.5"}], "phase": "Running"})
    assert patch is not None
    assert patch["status"]["podIPs"] == [{"$patch": "replace"}, {"ip": "10.1.0.5"}]


def test_setting_up_is_not_urgent(node: Any, pod_of: Any) -> None:
    pod = pod_of()
    patch = status_patch(pod, node.decide(pod, mounted=False, sandboxes=()).status)
    assert patch is not None
    assert not is_urgent(pod, patch)


def test_foreign_conditions_come_from_the_api() -> None:
    ours = {"conditions": [{"type": "Ready", "status": "True"}, {"type": "g", "status": "False"}], "phase": "Running"}
    api = {"conditions": [{"type": "Ready", "status": "False"}, {"type": "g", "status": "True"}]}
    merged = with_foreign(ours, api)
    assert merged["conditions"] == [{"type": "Ready", "status": "True"}, {"type": "g", "status": "True"}]
    ended = with_foreign(ours, {"phase": "Failed", "reason": "Evicted"})
    assert (ended["phase"], ended["reason"]) == ("Failed", "Evicted")


def test_a_condition_that_loses_its_reason_says_so(node: Any, pod_of: Any, ran: Any) -> None:
    pod = pod_of()
    pod["status"] = node.decide(pod, containers=(ran(),), verdicts={"main.0": Verdict(ready=False)}).status
    patch = status_patch(pod, node.decide(pod, containers=(ran(),)).status)
    assert patch is not None
    ready = next(row for row in patch["status"]["conditions"] if row["type"] == "Ready")
    assert (ready["status"], ready["reason"], ready["message"]) == ("True", None, None)
