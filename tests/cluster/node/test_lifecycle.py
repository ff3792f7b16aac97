"""What is done next for a pod, step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from steersman.cluster.meta.times import format_time
from steersman.cluster.node.backoff import Backoff, Failure
from steersman.cluster.node.containers import spec_hash
from steersman.cluster.node.observed import (
    DeletePod,
    Kill,
    MountVolumes,
    RemoveContainer,
    RemoveSandbox,
    RunSandbox,
    StartContainer,
    StopContainer,
    StopSandboxes,
    Teardown,
    Verdict,
)

NOW = 1_767_225_600.0
SIDECAR = {"name": "side", "image": "s:1", "restartPolicy": "Always"}
INIT = {"name": "init", "image": "i:1"}


def _names(decision: Any) -> list[str]:
    """The actions in short: `start main.0`, `stop main.0`, ..."""
    names = []
    for action in decision.actions:
        match action:
            case StartContainer(name=name, attempt=attempt):
                names.append(f"start {name}.{attempt}")
            case StopContainer(id=container_id):
                names.append(f"stop {container_id}")
            case RunSandbox(attempt=attempt):
                names.append(f"sandbox {attempt}")
            case RemoveContainer(id=found) | RemoveSandbox(id=found):
                names.append(f"remove {found}")
            case StopSandboxes(ids=ids):
                names.append(f"stop {' '.join(ids)}")
            case _:
                names.append(type(action).__name__)
    return names


def test_volumes_come_first_then_the_sandbox_then_the_container(node: Any, pod_of: Any, ran: Any) -> None:
    pod = pod_of()
    assert _names(node.decide(pod, mounted=False, sandboxes=())) == ["MountVolumes"]
    assert _names(node.decide(pod, mounted=False, sandboxes=(), busy=frozenset({"volumes"}))) == []
    assert _names(node.decide(pod, sandboxes=())) == ["sandbox 0"]
    assert _names(node.decide(pod)) == ["start main.0"]
    assert _names(node.decide(pod, containers=(ran(),))) == []


def test_a_failed_mount_is_tried_again_when_its_time_has_come(node: Any, pod_of: Any) -> None:
    failure = Failure(
        reason="FailedMount", message="x", at=NOW, retry_at=NOW + 5, backoff=Backoff(delay_s=5, since=NOW)
    )
    early = node.decide(pod_of(), mounted=False, mount_failure=failure)
    assert (early.actions, early.wake_at) == ((), NOW + 5)
    assert node.decide(pod_of(), NOW + 5, mounted=False, mount_failure=failure).actions == (MountVolumes(),)


def test_a_node_without_addresses_makes_no_sandbox(node: Any, pod_of: Any) -> None:
    assert _names(node.decide(pod_of(), sandboxes=(), prepared=False)) == []


def test_one_container_is_started_at_a_time_in_order(node: Any, pod_of: Any, ran: Any) -> None:
    pod = pod_of(containers=[{"name": "a", "image": "x"}, {"name": "b", "image": "x"}])
    assert _names(node.decide(pod)) == ["start a.0"]
    assert _names(node.decide(pod, busy=frozenset({"start"}), starting="a")) == []
    assert _names(node.decide(pod, containers=(ran("a"),))) == ["start b.0"]


def test_a_container_that_waits_does_not_hold_the_next_one_back(node: Any, pod_of: Any) -> None:
    pod = pod_of(containers=[{"name": "a", "image": "x"}, {"name": "b", "image": "x"}])
    backoff = Backoff(delay_s=10, since=NOW)
    failure = Failure(reason="ErrImagePull", message="no", at=NOW, retry_at=NOW + 10, backoff=backoff)
    assert _names(node.decide(pod, failures={"a": failure})) == ["start b.0"]


RESTARTS = [
    ("Always", 0, True),
    ("Always", 1, True),
    ("OnFailure", 0, False),
    ("OnFailure", 1, True),
    ("Never", 0, False),
    ("Never", 1, False),
]


@pytest.mark.parametrize(("policy", "code", "again"), RESTARTS, ids=lambda value: str(value))
def test_restart_policies(node: Any, pod_of: Any, ran: Any, policy: str, code: int, again: bool) -> None:
    exited = ran(state="exited", exit_code=code)
    decision = node.decide(pod_of(restartPolicy=policy), containers=(exited,))
    assert _names(decision) == (["start main.1"] if again else ["stop s0"])
    assert decision.ending is not again


def test_restart_rules_of_a_container_win_over_the_policy(node: Any, pod_of: Any, ran: Any) -> None:
    rules = [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]
    main = {"name": "main", "image": "web:1", "restartPolicy": "Never", "restartPolicyRules": rules}
    pod = pod_of(containers=[main], restartPolicy="Never")
    assert _names(node.decide(pod, containers=(ran(state="exited", exit_code=42),))) == ["start main.1"]
    assert node.decide(pod, containers=(ran(state="exited", exit_code=1),)).ending


def test_the_second_crash_waits_ten_seconds(node: Any, pod_of: Any, ran: Any) -> None:
    exited = ran(state="exited", exit_code=1)
    first = node.decide(pod_of(), containers=(exited,)).actions[0]
    assert first.backoff == Backoff(delay_s=10, since=NOW)
    again = ran(state="exited", exit_code=1, attempt=1)
    waiting = node.decide(pod_of(), containers=(exited, again), crash={"main": first.backoff})
    assert _names(waiting) == []
    assert waiting.wake_at == NOW + 10
    assert waiting.notes[0].reason == "BackOff"
    starting = node.decide(pod_of(), containers=(exited,), crash={"main": first.backoff}, busy=frozenset({"start"}))
    assert (starting.notes, starting.actions) == ((), ())
    due = node.decide(pod_of(), NOW + 10, containers=(exited, again), crash={"main": first.backoff})
    assert due.actions[0].backoff == Backoff(delay_s=20, since=NOW + 10)


def test_ten_good_minutes_forget_the_back_off(node: Any, pod_of: Any, ran: Any) -> None:
    exited = ran(state="exited", exit_code=1, attempt=5)
    old = Backoff(delay_s=300, since=NOW - 601)
    decision = node.decide(pod_of(), containers=(exited,), crash={"main": old})
    assert decision.actions[0].backoff == Backoff(delay_s=10, since=NOW)


def test_init_containers_run_one_after_the_other(node: Any, pod_of: Any, ran: Any) -> None:
    pod = pod_of(initContainers=[INIT, {"name": "next", "image": "i:1"}])
    done = ran("init", "exited")
    assert _names(node.decide(pod)) == ["start init.0"]
    assert _names(node.decide(pod, containers=(ran("init"),))) == []
    assert _names(node.decide(pod, containers=(done,))) == ["start next.0"]
    assert _names(node.decide(pod, containers=(done, ran("next", "exited")))) == ["start main.0"]


def test_a_new_sandbox_runs_init_containers_again(node: Any, pod_of: Any, ran: Any, box: Any) -> None:
    pod = pod_of(initContainers=[INIT])
    old = (ran("init", "exited"), ran("main", "exited", exit_code=137))
    boxes = (box(0, ready=False), box(1))
    assert _names(node.decide(pod, sandboxes=boxes, containers=old)) == ["start init.1"]
    fresh = ran("init", "exited", attempt=1, sandbox_id="s1")
    assert _names(node.decide(pod, sandboxes=boxes, containers=(*old, fresh)))[-1] == "start main.1"


def test_a_dead_sandbox_is_replaced_after_its_containers_are_stopped(
    node: Any, pod_of: Any, ran: Any, box: Any
) -> None:
    dead = (box(0, ready=False),)
    assert _names(node.decide(pod_of(), sandboxes=dead, containers=(ran(),))) == ["stop main.0"]
    assert _names(node.decide(pod_of(), sandboxes=dead, containers=(ran(state="exited"),))) == ["sandbox 1"]
    never = pod_of(restartPolicy="Never")
    assert _names(node.decide(never, sandboxes=dead, containers=(ran(state="exited"),))) == []


def test_sidecars_gate_the_main_containers(node: Any, pod_of: Any, ran: Any) -> None:
    pod = pod_of(initContainers=[SIDECAR])
    assert _names(node.decide(pod)) == ["start side.0"]
    side = ran("side")
    pending = {"side.0": Verdict(started=False, ready=False)}
    assert _names(node.decide(pod, containers=(side,), verdicts=pending)) == []
    assert _names(node.decide(pod, containers=(side,), starting="side")) == []
    assert _names(node.decide(pod, containers=(side,))) == ["start main.0"]


def test_a_sidecar_that_dies_is_restarted_whatever_the_policy(node: Any, pod_of: Any, ran: Any) -> None:
    pod = pod_of(initContainers=[SIDECAR], restartPolicy="Never")
    assert _names(node.decide(pod, containers=(ran("side", "exited"), ran()))) == ["start side.1"]


def test_probes_kill_with_their_own_grace(node: Any, pod_of: Any, ran: Any) -> None:
    kill = Verdict(kill=Kill(message="Container main failed liveness probe, will be restarted", grace_s=3))
    pod = pod_of(terminationGracePeriodSeconds=60)
    action = node.decide(pod, containers=(ran(),), verdicts={"main.0": kill}).actions[0]
    assert (action.grace_s, action.message) == (3, "Container main failed liveness probe, will be restarted")
    assert not node.decide(pod, containers=(ran(),), verdicts={"main.0": kill}, stopping={"main.0": NOW + 3}).actions
    plain = replace(kill, kill=replace(kill.kill, grace_s=None))
    assert node.decide(pod, containers=(ran(),), verdicts={"main.0": plain}).actions[0].grace_s == 60


def test_a_changed_image_stops_the_container(node: Any, pod_of: Any, ran: Any) -> None:
    pod = pod_of()
    same = ran(spec_hash=spec_hash(pod["spec"]["containers"][0]))
    assert _names(node.decide(pod, containers=(same,))) == []
    assert _names(node.decide(pod, containers=(replace(same, spec_hash="other"),))) == ["stop main.0"]


def test_what_was_created_and_never_started_is_removed(node: Any, pod_of: Any, ran: Any) -> None:
    decision = node.decide(pod_of(), containers=(ran(state="created"),))
    assert _names(decision) == ["remove main.0", "start main.0"]
    starting = node.decide(pod_of(), containers=(ran(state="created"),), starting="main", busy=frozenset({"start"}))
    assert _names(starting) == []


def test_ephemeral_containers_start_once(node: Any, pod_of: Any, ran: Any) -> None:
    pod = pod_of(ephemeralContainers=[{"name": "debug", "image": "d:1"}])
    assert _names(node.decide(pod, containers=(ran(),))) == ["start debug.0"]
    assert _names(node.decide(pod, containers=(ran(), ran("debug", "exited")))) == []


# --- ends


def _deleted(pod: Any, grace_s: int = 30) -> Any:
    marks = {"deletionTimestamp": format_time(NOW + grace_s), "deletionGracePeriodSeconds": grace_s}
    return {**pod, "metadata": {**pod["metadata"], **marks}}


def test_a_deleted_pod_is_stopped_removed_and_then_deleted(node: Any, pod_of: Any, ran: Any, box: Any) -> None:
    pod = _deleted(pod_of())
    stop = node.decide(pod, containers=(ran(),)).actions
    assert stop == (StopContainer(id="main.0", name="main", grace_s=30, message="Stopping container main", hook=True),)
    exited = ran(state="exited", exit_code=143)
    assert _names(node.decide(pod, containers=(exited,))) == ["stop s0"]
    down = {"containers": (exited,), "sandboxes": (box(ready=False),)}
    assert node.decide(pod, **down).actions == (Teardown(containers=("main.0",), sandboxes=("s0",)),)
    assert node.decide(pod, sandboxes=(), torn_down=True, saved=False).actions == ()
    assert node.decide(pod, sandboxes=(), torn_down=True).actions == (DeletePod(),)
    assert node.decide(pod, sandboxes=(), torn_down=True, gone=True).finished


def test_sidecars_stop_after_the_main_containers_in_reverse_order(node: Any, pod_of: Any, ran: Any) -> None:
    one, two = {**SIDECAR, "name": "one"}, {**SIDECAR, "name": "two"}
    pod = _deleted(pod_of(initContainers=[one, two]))
    running = (ran("one"), ran("two"), ran("main"))
    assert _names(node.decide(pod, containers=running)) == ["stop main.0"]
    after = (ran("one"), ran("two"), ran("main", "exited"))
    assert _names(node.decide(pod, NOW + 5, containers=after, ending_since=NOW)) == ["stop two.0"]
    last = (ran("one"), ran("two", "exited"), ran("main", "exited"))
    stop = node.decide(pod, NOW + 10, containers=last, ending_since=NOW)
    assert _names(stop) == ["stop one.0"]
    assert stop.actions[0].grace_s == 20
    late = node.decide(pod, NOW + 31, containers=running, ending_since=NOW)
    assert sorted(_names(late)) == ["stop main.0", "stop one.0", "stop two.0"]
    assert {action.grace_s for action in late.actions} == {2.0}


def test_a_shortened_grace_stops_again_without_the_hook(node: Any, pod_of: Any, ran: Any) -> None:
    pod = _deleted(pod_of(), 5)
    running = {"containers": (ran(),), "ending_since": NOW}
    assert _names(node.decide(pod, **running, stopping={"main.0": NOW + 5})) == []
    action = node.decide(pod, **running, stopping={"main.0": NOW + 600}).actions[0]
    assert (action.grace_s, action.hook) == (5, False)


def test_a_finished_pod_stops_its_sidecars_then_its_sandbox(node: Any, pod_of: Any, ran: Any) -> None:
    pod = pod_of(initContainers=[SIDECAR], restartPolicy="Never")
    done = ran("main", "exited")
    assert _names(node.decide(pod, containers=(ran("side"), done))) == ["stop side.0"]
    assert _names(node.decide(pod, containers=(ran("side", "exited"), done))) == ["stop s0"]


def test_a_pod_past_its_deadline_fails(node: Any, pod_of: Any, ran: Any) -> None:
    pod = pod_of(activeDeadlineSeconds=60)
    pod["status"] = {"phase": "Running", "startTime": format_time(NOW - 30)}
    assert node.decide(pod, containers=(ran(),)).wake_at == NOW + 30
    late = node.decide(pod, NOW + 30, containers=(ran(),))
    assert _names(late) == ["stop main.0"]
    assert (late.status["reason"], late.status["phase"]) == ("DeadlineExceeded", "Running")
    over = node.decide(pod, NOW + 31, containers=(ran(state="exited"),), sandboxes=())
    assert over.status["phase"] == "Failed"
