from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.control import clusterroles, cronjob, daemonset, disruption
from steersman.cluster.control.history import History, history
from steersman.cluster.control.plan import Create, Delete, Patch
from steersman.cluster.meta.resources import DAEMON_SETS, STATEFUL_SETS
from steersman.cluster.meta.selectors import from_dict
from steersman.cluster.meta.times import format_time, parse_time

NOW = parse_time("2026-01-01T10:07:30Z")
SETS = (DAEMON_SETS, STATEFUL_SETS)


def cron(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "c", "namespace": "d", "uid": "cron", "creationTimestamp": "2026-01-01T10:00:30Z"},
        "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"x": 1}}, **spec},
    }


def test_a_distance_between_jobs_counts_from_the_last_one() -> None:
    seen = cron(schedule="@every 3m")
    first = cronjob.reconcile(cronjob.Observed(cron_job=seen), parse_time("2026-01-01T10:03:29Z"))
    assert not first.steps and first.requeue_after_s == 1
    second = cronjob.reconcile(cronjob.Observed(cron_job=seen), parse_time("2026-01-01T10:03:40Z"))
    made = next(step for step in second.steps if isinstance(step, Create))
    assert made.obj["metadata"]["annotations"][cronjob.SCHEDULED_AT] == "2026-01-01T10:03:30Z"
    assert second.requeue_after_s == 170


def job(name: str, ended: str = "", minute: int = 0) -> dict[str, Any]:
    meta = {"name": name, "namespace": "d", "uid": f"uid-{name}", "creationTimestamp": f"2026-01-01T09:{minute:02}:00Z"}
    status = {"conditions": [{"type": ended, "status": "True"}]} if ended else {}
    return {"metadata": meta, "spec": {}, "status": status}


def cron_plan(found: dict[str, Any], *jobs: dict[str, Any]) -> Any:
    return cronjob.reconcile(cronjob.Observed(cron_job=found, jobs=jobs), NOW)


@pytest.mark.parametrize(
    ("spec", "jobs", "creates", "deletes"),
    [
        pytest.param({}, [], 1, 0, id="due"),
        pytest.param({"suspend": True}, [], 0, 0, id="suspended"),
        pytest.param({"startingDeadlineSeconds": 60}, [], 0, 0, id="too-late"),
        pytest.param({}, [job("a")], 1, 0, id="side-by-side"),
        pytest.param({"concurrencyPolicy": "Forbid"}, [job("a")], 0, 0, id="forbidden-while-one-runs"),
        pytest.param({"concurrencyPolicy": "Replace"}, [job("a")], 1, 1, id="replaced"),
        pytest.param({"schedule": "x"}, [], 0, 0, id="no-schedule"),
        pytest.param({"suspend": True}, [job(f"j{n}", "Complete", n) for n in range(5)], 0, 2, id="history"),
        pytest.param({"suspend": True}, [job(f"j{n}", "Failed", n) for n in range(3)], 0, 2, id="failures"),
    ],
)
def test_a_cron_job_makes_jobs_and_forgets_old_ones(spec: Any, jobs: list[Any], creates: int, deletes: int) -> None:
    actions = cron_plan(cron(**spec), *jobs).actions
    assert len([action for action in actions if isinstance(action, Create)]) == creates
    assert len([action for action in actions if isinstance(action, Delete)]) == deletes


def test_a_moment_has_one_name_and_the_next_look_is_at_the_next_moment() -> None:
    plan = cron_plan(cron())
    (made,) = [action.obj for action in plan.actions if isinstance(action, Create)]
    assert made["metadata"]["name"] == f"c-{int(parse_time('2026-01-01T10:05:00Z') // 60)}"
    assert plan.requeue_after_s == pytest.approx(150)
    seen = cron()
    seen["status"] = {"lastScheduleTime": "2026-01-01T10:05:00Z"}
    assert not [action for action in cron_plan(seen).actions if isinstance(action, Create)]


def daemon(**template: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "ds", "namespace": "d", "uid": "ds", "generation": 1},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [], **template}},
        },
    }


def node(name: str, *taints: tuple[str, str], **labels: str) -> dict[str, Any]:
    rows = [{"key": key, "effect": effect} for key, effect in taints]
    return {"metadata": {"name": name, "labels": labels}, "spec": {"taints": rows}}


def daemon_plan(found: dict[str, Any], nodes: list[Any], pods: list[Any]) -> Any:
    """The plan of a set whose template has its revision."""
    (made,) = past(found).steps
    observed = daemonset.Observed(daemon_set=found, nodes=tuple(nodes), pods=tuple(pods), revisions=(made.obj,))
    return daemonset.reconcile(observed, NOW)


def past(found: dict[str, Any], *revisions: Any, pods: Any = ()) -> Any:
    return history(found, DAEMON_SETS, from_dict(found["spec"]["selector"]), revisions, (), pods)


def test_sets_of_two_kinds_with_one_name_and_template_have_revisions_of_their_own() -> None:
    found = daemon()
    digests = [history(found, kind, from_dict(found["spec"]["selector"]), (), (), ()).digest for kind in SETS]
    assert digests[0] != digests[1]


def test_each_template_is_kept_as_a_revision_and_the_oldest_go() -> None:
    found = daemon()
    (first,) = past(found).steps
    assert (first.obj["metadata"]["name"], first.obj["revision"]) == (f"ds-{past(found).digest}", 1)
    assert past(found, first.obj) == History(first.obj["metadata"]["labels"][daemonset.HASH_LABEL])
    other = daemon(hostNetwork=True)
    (second,) = past(other, first.obj).steps
    assert second.obj["revision"] == 2 and second.obj["data"]["spec"]["template"]["$patch"] == "replace"
    (back,) = past(found, first.obj, second.obj).steps
    assert (back.name, back.patch) == (first.obj["metadata"]["name"], {"revision": 3})
    other["spec"]["revisionHistoryLimit"] = 0
    (gone,) = past(other, first.obj, second.obj).steps
    assert gone.name == first.obj["metadata"]["name"]
    pod = {"metadata": {"labels": first.obj["metadata"]["labels"]}}
    assert past(other, first.obj, second.obj, pods=[pod]).steps == ()


def test_of_two_revisions_of_one_template_the_newer_stays_and_a_lost_one_is_adopted() -> None:
    found = daemon()
    (made,) = past(found).steps
    double = {**made.obj, "metadata": {**made.obj["metadata"], "name": "copy"}, "revision": 2}
    (gone,) = past(found, made.obj, double).steps
    assert gone.name == made.obj["metadata"]["name"]
    lost = {**made.obj, "metadata": {**made.obj["metadata"], "ownerReferences": []}}
    adopted = history(found, DAEMON_SETS, from_dict(found["spec"]["selector"]), (), (lost,), ())
    assert [type(step).__name__ for step in adopted.steps] == ["ExpectAlive", "Patch"]


def started(creation: Create, *, ready: bool = True, **labels: str) -> dict[str, Any]:
    made = creation.obj
    meta = {
        **made["metadata"],
        "uid": f"uid-{made['metadata']['name']}",
        "labels": {**made["metadata"]["labels"], **labels},
    }
    conditions = [{"type": "Ready", "status": str(ready), "lastTransitionTime": format_time(NOW - 60)}]
    return {**made, "metadata": meta, "status": {"phase": "Running", "conditions": conditions}}


def test_each_fitting_node_gets_one_pod() -> None:
    nodes = [
        node("a", disk="ssd"),
        node("b", disk="hdd"),
        node("c", ("own", "NoSchedule"), disk="ssd"),
        node("d", ("node.kubernetes.io/unschedulable", "NoSchedule"), disk="ssd"),
    ]
    plan = daemon_plan(daemon(nodeSelector={"disk": "ssd"}), nodes, [])
    made = [action for action in plan.actions if isinstance(action, Create)]
    assert [daemonset.node_of(action.obj) for action in made] == ["a", "d"]
    (status,) = [action.patch["status"] for action in plan.actions if isinstance(action, Patch)]
    assert status["desiredNumberScheduled"] == 2
    again = daemon_plan(daemon(nodeSelector={"disk": "ssd"}), nodes, [started(action) for action in made])
    assert not [action for action in again.actions if isinstance(action, Create | Delete)]
    moved = daemon_plan(daemon(nodeSelector={"disk": "ssd"}), nodes[1:], [started(action) for action in made])
    assert len([action for action in moved.actions if isinstance(action, Delete)]) == 1


def test_old_daemon_pods_go_one_by_one_and_broken_ones_at_once() -> None:
    nodes = [node(name) for name in "abc"]
    made = [action for action in daemon_plan(daemon(), nodes, []).actions if isinstance(action, Create)]
    old = {"controller-revision-hash": "old"}
    healthy = daemon_plan(daemon(), nodes, [started(action, **old) for action in made])
    assert len([action for action in healthy.actions if isinstance(action, Delete)]) == 1
    pods = [started(action, ready=number > 0, **old) for number, action in enumerate(made)]
    broken = [action for action in daemon_plan(daemon(), nodes, pods).actions if isinstance(action, Delete)]
    assert [action.name for action in broken] == [pods[0]["metadata"]["name"]]


def budget(**spec: Any) -> dict[str, Any]:
    meta = {"name": "b", "namespace": "d", "uid": "b", "generation": 1, "resourceVersion": "1"}
    return {"metadata": meta, "spec": {"selector": {"matchLabels": {"a": "b"}}, **spec}}


@pytest.mark.parametrize(
    ("spec", "ready", "expected", "allowed"),
    [
        pytest.param({"minAvailable": 2}, 3, 3, 1, id="number"),
        pytest.param({"minAvailable": "50%"}, 3, 4, 1, id="percent"),
        pytest.param({"maxUnavailable": 1}, 3, 3, 1, id="unavailable"),
        pytest.param({"maxUnavailable": 1}, 2, 3, 0, id="spent"),
        pytest.param({"maxUnavailable": "34%"}, 3, 3, 2, id="percent-up"),
        pytest.param({"minAvailable": 5}, 3, 3, 0, id="not-enough"),
    ],
)
def test_a_budget_says_how_many_may_be_evicted(spec: Any, ready: int, expected: int, allowed: int) -> None:
    pods = tuple(
        {
            "metadata": {"name": f"p{number}", "namespace": "d"},
            "status": {"conditions": [{"type": "Ready", "status": str(number < ready)}]},
        }
        for number in range(3)
    )
    plan = disruption.reconcile(disruption.Observed(budget=budget(**spec), pods=pods, expected=expected), NOW)
    (action,) = plan.actions
    assert isinstance(action, Patch)
    assert action.patch["status"]["disruptionsAllowed"] == allowed
    assert action.resource_version == "1"


def test_an_eviction_under_way_counts_until_it_is_done_or_forgotten() -> None:
    found = budget(minAvailable=1)
    found["status"] = {"disruptedPods": {"p0": format_time(NOW - 20), "p1": format_time(NOW - 200)}}
    pods = tuple(
        {
            "metadata": {"name": f"p{number}", "namespace": "d"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }
        for number in range(3)
    )
    plan = disruption.reconcile(disruption.Observed(budget=found, pods=pods, expected=3), NOW)
    (action,) = plan.actions
    assert isinstance(action, Patch)
    assert action.patch["status"]["disruptionsAllowed"] == 1
    assert action.patch["status"]["disruptedPods"] == {"p1": None}
    assert plan.requeue_after_s == pytest.approx(100)


def test_an_aggregated_role_has_the_rules_of_those_it_selects_once_each() -> None:
    role = {"metadata": {"name": "all", "uid": "r"}, "aggregationRule": {"clusterRoleSelectors": []}}
    rule = {"verbs": ["get"], "resources": ["pods"]}
    parts = [{"metadata": {"name": name}, "rules": rules} for name, rules in (("x", [rule]), ("y", [rule, {"z": 1}]))]
    (action,) = clusterroles.reconcile(clusterroles.Observed(role=role, selected=tuple(parts)), NOW).actions
    assert isinstance(action, Patch)
    assert action.patch["rules"] == [rule, {"z": 1}]
