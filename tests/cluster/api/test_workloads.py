from __future__ import annotations

import re
from typing import Any

import pytest

from steersman.cluster.meta.errors import Invalid


def job(name: str = "j", **spec: Any) -> dict[str, Any]:
    containers = [{"name": "main", "image": "x:1"}]
    template = {"spec": {"restartPolicy": "Never", "containers": containers}}
    return {"metadata": {"name": name}, "spec": {"template": template, **spec}}


def test_workloads_are_filled_in_as_kubernetes_does(api: Any) -> None:
    spec = api.create("deployments", api.deployment())["spec"]
    assert (spec["replicas"], spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (1, 10, 600)
    rolling = {"maxUnavailable": "25%", "maxSurge": "25%"}
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": rolling}
    template = spec["template"]["spec"]
    assert "enableServiceLinks" not in template
    assert template["containers"][0]["resources"] == {}
    assert api.create("replicasets", api.deployment("rs"))["status"] == {"replicas": 0}
    stateful = api.create("statefulsets", api.deployment("sts", serviceName="sts"))["spec"]
    assert stateful["podManagementPolicy"] == "OrderedReady"
    assert stateful["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
    daemon = api.create("daemonsets", api.deployment("ds"))["spec"]
    assert daemon["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}


def test_the_templates_of_a_daemon_set_are_counted(api: Any) -> None:
    def count(obj: Any) -> str:
        return str(obj["metadata"]["annotations"]["deprecated.daemonset.template.generation"])

    def retouched(obj: Any) -> None:
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = "x:2"
        del obj["metadata"]["annotations"]

    def kept(obj: Any) -> None:
        obj["spec"]["minReadySeconds"] = 3
        obj["metadata"]["annotations"] = {"deprecated.daemonset.template.generation": "9"}

    assert count(api.create("daemonsets", api.deployment("ds"))) == "1"
    assert count(api.change("daemonsets", "ds", retouched)) == "2"
    assert count(api.change("daemonsets", "ds", kept)) == "2"


@pytest.mark.parametrize(
    ("spec", "field", "detail"),
    [
        ({"replicas": -1}, "spec.replicas", "must be greater than or equal to 0"),
        ({"selector": None}, "spec.selector", "Required value"),
        ({"selector": {}}, "spec.selector", "empty selector is invalid for deployment"),
        ({"selector": {"matchLabels": {"app": "other"}}}, "spec.template.metadata.labels", "`selector` does not match"),
        ({"selector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}},
         "spec.selector.matchExpressions[0].operator", "not a valid selector operator"),
        ({"strategy": {"type": "Magic"}}, "spec.strategy", "Unsupported value"),
        ({"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}, "spec.strategy.rollingUpdate",
         "may not be specified when strategy `type` is 'Recreate'"),
        ({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}},
         "spec.strategy.rollingUpdate.maxUnavailable", "may not be 0 when `maxSurge` is 0"),
        ({"strategy": {"rollingUpdate": {"maxSurge": "many"}}}, "spec.strategy.rollingUpdate.maxSurge",
         "a valid percent string"),
        ({"progressDeadlineSeconds": 5, "minReadySeconds": 5}, "spec.progressDeadlineSeconds",
         "must be greater than minReadySeconds"),
    ],
)  # fmt: skip
def test_a_broken_deployment_is_refused_field_by_field(api: Any, spec: Any, field: str, detail: str) -> None:
    with pytest.raises(Invalid) as refused:
        api.create("deployments", api.deployment(**spec))
    assert any(cause.field == field and detail in cause.message for cause in refused.value.causes), refused.value.causes


def test_a_template_is_checked_as_a_pod_that_always_restarts(api: Any) -> None:
    broken = api.deployment()
    broken["spec"]["template"]["spec"] |= {"restartPolicy": "Never", "containers": [{"name": "a"}]}
    with pytest.raises(Invalid) as refused:
        api.create("deployments", broken)
    found = {cause.field for cause in refused.value.causes}
    assert found == {"spec.template.spec.containers[0].image", "spec.template.spec.restartPolicy"}


@pytest.mark.parametrize("plural", ["deployments", "replicasets", "daemonsets"])
def test_a_selector_never_changes(api: Any, plural: str) -> None:
    api.create(plural, api.deployment())

    def edit(obj: Any) -> None:
        obj["spec"]["selector"]["matchLabels"] = obj["spec"]["template"]["metadata"]["labels"] = {"app": "new"}

    with pytest.raises(Invalid, match=r"spec\.selector: Invalid value: .*: field is immutable"):
        api.change(plural, "web", edit)


def test_a_stateful_set_changes_in_few_places(api: Any) -> None:
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
             "resources": {"requests": {"storage": "1Gi"}}}}  # fmt: skip
    template = api.template()
    template["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    api.create("statefulsets", api.deployment(serviceName="web", volumeClaimTemplates=[claim], template=template))
    assert api.patch("statefulsets", "web", {"spec": {"replicas": 3}})["spec"]["replicas"] == 3
    with pytest.raises(Invalid, match="updates to statefulset spec for fields other than"):
        api.patch("statefulsets", "web", {"spec": {"serviceName": "other"}})


def test_a_job_gets_a_selector_of_its_own_pods(api: Any) -> None:
    found = api.create("jobs", job())
    uid, spec = found["metadata"]["uid"], found["spec"]
    assert spec["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert spec["template"]["metadata"]["labels"] == {
        "batch.kubernetes.io/controller-uid": uid,
        "controller-uid": uid,
        "batch.kubernetes.io/job-name": "j",
        "job-name": "j",
    }
    assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (1, 1, 6)
    assert (spec["completionMode"], spec["suspend"]) == ("NonIndexed", False)
    assert spec["podReplacementPolicy"] == "TerminatingOrFailed"
    with pytest.raises(Invalid, match=r"spec\.template: Invalid value"):
        api.change("jobs", "j", lambda obj: obj["spec"]["template"]["spec"]["containers"][0].update(image="y:2"))


@pytest.mark.parametrize(
    ("spec", "detail"),
    [
        ({"template": {"spec": {"containers": [{"name": "a", "image": "x"}]}}}, 'valid values: "OnFailure", "Never"'),
        ({"parallelism": -1}, "spec.parallelism: Invalid value"),
        ({"completionMode": "Indexed", "parallelism": 2}, "when completion mode is Indexed"),
        ({"manualSelector": True}, "spec.selector: Required value"),
    ],
)
def test_a_broken_job_is_refused(api: Any, spec: Any, detail: str) -> None:
    with pytest.raises(Invalid, match=detail):
        api.create("jobs", job(**spec))


@pytest.mark.parametrize("schedule", ["*/5 * * * *", "@hourly", "0 0 1 1 MON"])
def test_a_cron_job_is_filled_in(api: Any, schedule: str) -> None:
    cron = {"metadata": {"name": "c"}, "spec": {"schedule": schedule, "jobTemplate": {"spec": job()["spec"]}}}
    spec = api.create("cronjobs", cron)["spec"]
    assert (spec["concurrencyPolicy"], spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"]) == (
        "Allow",
        3,
        1,
    )
    cron["spec"]["schedule"] = "* * *"
    with pytest.raises(Invalid, match="expected exactly 5 fields, found 3"):
        api.create("cronjobs", cron)


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"failed": 0}, "status.failed: Invalid value: 0: cannot decrease the failed counter"),
        ({"succeeded": 0}, "status.succeeded: Invalid value: 0: cannot decrease the succeeded counter"),
        ({"startTime": None}, "status.startTime: Required value: startTime cannot be removed for unsuspended job"),
        ({"completionTime": "2026-01-03T00:00:00Z"}, "field is immutable"),
        ({"conditions": [{"type": "SuccessCriteriaMet", "status": "True"}], "completionTime": None},
         "status.conditions: Invalid value: cannot disable the terminal Complete=True condition"),
        ({"conditions": [{"type": "Complete", "status": "True"}]}, "disable the SuccessCriteriaMet=True condition"),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_job_has_said_is_not_taken_back(api: Any, change: Any, detail: str) -> None:
    api.create("jobs", job())
    said = {
        "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-02T00:00:00Z", "failed": 1, "succeeded": 1,
        "conditions": [{"type": kind, "status": "True"} for kind in ("SuccessCriteriaMet", "Complete")],
    }  # fmt: skip
    api.patch("jobs", "j", {"status": said}, subresource="status")
    with pytest.raises(Invalid, match=re.escape(detail)):
        api.patch("jobs", "j", {"status": change}, subresource="status")


def test_a_container_that_is_to_begin_again_may(api: Any) -> None:
    for name, policy, code, again in (
        ("a", "Never", 1, False),
        ("b", "OnFailure", 1, True),
        ("c", "OnFailure", 0, False),
    ):
        container = {"name": "main", "image": "x"}
        api.create("pods", {"metadata": {"name": name}, "spec": {"restartPolicy": policy, "containers": [container]}})
        row = {"name": "main", "image": "x", "imageID": "x", "ready": False, "restartCount": 0}
        ended = {**row, "state": {"terminated": {"exitCode": code}}}
        api.patch("pods", name, {"status": {"containerStatuses": [ended]}}, subresource="status")
        running = {"status": {"containerStatuses": [{**row, "state": {"running": {}}}]}}
        if again:
            api.patch("pods", name, running, subresource="status")
            continue
        with pytest.raises(Invalid, match=r"status.containerStatuses\[0\].state: Forbidden: may not be transitioned"):
            api.patch("pods", name, running, subresource="status")
