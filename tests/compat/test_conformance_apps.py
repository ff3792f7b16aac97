"""What the conformance suite asks of workloads: their lives, status, scale, what they make, adopt and leave behind.

Source: kubernetes/test/e2e/apps/*.go
"""

from __future__ import annotations

from typing import Any

import pytest

STRATEGIC = "application/strategic-merge-patch+json"
CONTAINER = {"name": "httpd", "image": "registry.k8s.io/e2e-test-images/httpd:2.4.38-4"}


def template(name: str, image: str = "") -> Any:
    container = {**CONTAINER, "image": image} if image else CONTAINER
    return {"metadata": {"labels": {"name": name}}, "spec": {"containers": [container]}}


def workload(name: str, replicas: int = 1, **spec: Any) -> Any:
    return {
        "metadata": {"name": name, "labels": {"name": name, "e2e": name}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"name": name}}, "template": template(name), **spec},
    }  # fmt: skip


def ready(count: int) -> Any:
    def is_so(found: Any) -> bool:
        return bool(found) and (found.get("status") or {}).get("readyReplicas", 0) == count

    return is_so


STATUSES = ["deployments", "replicasets", "daemonsets"]


@pytest.mark.parametrize("plural", STATUSES)
def test_the_status_of_a_workload_is_read_updated_and_patched(house: Any, space: str, plural: str) -> None:
    many = f"/apis/apps/v1/namespaces/{space}/{plural}"
    body = workload("status")
    if plural == "daemonsets":
        del body["spec"]["replicas"]
    watch = house.watch(f"{many}?watch=1&labelSelector=e2e%3Dstatus")
    house.ok("POST", many, body)
    condition = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test"}

    def update(found: Any) -> bool:
        found["status"]["conditions"] = [*(found["status"].get("conditions") or ()), condition]
        return house.call("PUT", f"{many}/status/status", found).status == 200

    house.until(f"{many}/status/status", lambda found: (found.get("status") or {}) and update(found))
    watch.until("MODIFIED", lambda obj: condition.items() <= (
        (obj["status"].get("conditions") or [{}])[-1]).items())  # fmt: skip
    patch = {"status": {"conditions": [{"type": "StatusPatched", "status": "True"}]}}
    house.ok("PATCH", f"{many}/status/status", patch)
    watch.until("MODIFIED", lambda obj: "StatusPatched" in {
        row["type"] for row in obj["status"].get("conditions") or ()})  # fmt: skip
    watch.close()


@pytest.mark.parametrize("plural", ["deployments", "replicasets", "statefulsets"])
def test_a_workload_has_a_working_scale(house: Any, space: str, plural: str) -> None:
    many = f"/apis/apps/v1/namespaces/{space}/{plural}"
    house.ok("POST", many, workload("scaled"))
    house.until(f"{many}/scaled", ready(1))
    scale = house.ok("GET", f"{many}/scaled/scale")
    assert (scale["spec"]["replicas"], scale["status"]["selector"]) == (1, "name=scaled")
    scale["spec"]["replicas"], scale["metadata"]["resourceVersion"] = 2, ""
    assert house.ok("PUT", f"{many}/scaled/scale", scale)["spec"]["replicas"] == 2
    assert house.ok("GET", f"{many}/scaled")["spec"]["replicas"] == 2
    patched = house.ok("PATCH", f"{many}/scaled/scale", {"spec": {"replicas": 4}}, content_type=STRATEGIC)
    assert patched["spec"]["replicas"] == 4 and house.ok("GET", f"{many}/scaled")["spec"]["replicas"] == 4
    house.until(f"{many}/scaled", ready(4))


@pytest.mark.parametrize("plural", ["deployments", "replicasets", "statefulsets", "daemonsets"])
def test_workloads_are_listed_patched_and_deleted_as_a_collection(house: Any, space: str, plural: str) -> None:
    many = f"/apis/apps/v1/namespaces/{space}/{plural}"
    body = workload("life")
    if plural == "daemonsets":
        del body["spec"]["replicas"]
    house.ok("POST", many, body)
    everywhere = f"/apis/apps/v1/{plural}?labelSelector=e2e%3Dlife"
    assert len(house.ok("GET", everywhere)["items"]) == 1
    patch = {"metadata": {"labels": {"patched": "true"}}, "spec": {"template": {"spec": {
        "terminationGracePeriodSeconds": 0, "containers": [{"name": "httpd", "image": "pause:patched"}]}}}}  # fmt: skip
    if plural != "daemonsets":
        patch["spec"]["replicas"] = 2
    found = house.ok("PATCH", f"{many}/life", patch, content_type=STRATEGIC)
    assert found["metadata"]["labels"]["patched"] == "true"
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "pause:patched"
    assert found["metadata"]["generation"] == 2
    house.ok("DELETE", f"{many}?labelSelector=e2e%3Dlife")
    house.until(everywhere, lambda found: not found["items"])
    house.until(f"/api/v1/namespaces/{space}/pods", lambda found: not found["items"])


def test_a_deployment_lives_through_updates_to_its_end(house: Any, space: str) -> None:
    many = f"/apis/apps/v1/namespaces/{space}/deployments"
    watch = house.watch(f"{many}?watch=1&labelSelector=e2e%3Dlife")
    house.ok("POST", many, workload("life", 2))
    house.until(f"{many}/life", ready(2))
    patch = {"spec": {"replicas": 3, "template": {"spec": {"containers": [{"name": "httpd", "image": "pause:2"}]}}}}
    house.ok("PATCH", f"{many}/life", patch, content_type=STRATEGIC)
    watch.until("MODIFIED", lambda obj: obj["status"].get("updatedReplicas") == 3 == obj["status"].get("readyReplicas"))
    house.ok("DELETE", f"{many}?labelSelector=e2e%3Dlife")
    watch.until("DELETED")
    watch.close()


def test_a_recreated_deployment_never_runs_old_and_new_pods_together(house: Any, space: str) -> None:
    many = f"/apis/apps/v1/namespaces/{space}/deployments"
    house.ok("POST", many, workload("test-recreate", 2, strategy={"type": "Recreate"}))
    house.until(f"{many}/test-recreate", ready(2))
    pods = f"/api/v1/namespaces/{space}/pods"
    listed = house.ok("GET", pods)
    watch = house.watch(f"{pods}?watch=1&resourceVersion={listed['metadata']['resourceVersion']}")
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "httpd", "image": "new:1"}]}}}}
    house.ok("PATCH", f"{many}/test-recreate", patch, content_type=STRATEGIC)
    gone = 0
    while True:
        kind, obj = watch.next()
        image = obj["spec"]["containers"][0]["image"]
        gone += kind == "DELETED"
        if kind == "ADDED":
            assert image == "new:1" and gone == 2
            break
    watch.close()
    house.until(f"{many}/test-recreate", lambda found: found["status"].get("updatedReplicas") == 2)


def test_old_replica_sets_are_deleted_beyond_the_limit(house: Any, space: str) -> None:
    base = f"/apis/apps/v1/namespaces/{space}"
    house.ok("POST", f"{base}/deployments", workload("cleanup", 1, revisionHistoryLimit=0))
    house.until(f"{base}/deployments/cleanup", ready(1))
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "httpd", "image": "new:1"}]}}}}
    house.ok("PATCH", f"{base}/deployments/cleanup", patch, content_type=STRATEGIC)
    house.until(f"{base}/replicasets", lambda found: [
        row["spec"]["template"]["spec"]["containers"][0]["image"] for row in found["items"]] == ["new:1"])  # fmt: skip


def test_a_replica_set_is_replaced_and_patched(house: Any, space: str) -> None:
    many = f"/apis/apps/v1/namespaces/{space}/replicasets"
    house.ok("POST", many, workload("test-rs", 1))
    house.until(f"{many}/test-rs", ready(1))
    scale = house.ok("GET", f"{many}/test-rs/scale")
    scale["spec"]["replicas"] = 2
    scale["metadata"].pop("resourceVersion")
    house.ok("PUT", f"{many}/test-rs/scale", scale)
    house.until(f"{many}/test-rs", ready(2))
    patch = {"metadata": {"labels": {"test-rs": "patched"}}, "spec": {"replicas": 3, "template": {"spec": {
        "terminationGracePeriodSeconds": 0, "containers": [{"name": "httpd", "image": "pause:patched"}]}}}}  # fmt: skip
    house.ok("PATCH", f"{many}/test-rs", patch, content_type=STRATEGIC)
    found = house.until(f"{many}/test-rs", ready(3))
    assert found["metadata"]["labels"]["test-rs"] == "patched"


ADOPTERS = {
    "replicasets": ("/apis/apps/v1", "ReplicaSet"), "replicationcontrollers": ("/api/v1", "ReplicationController"),
}  # fmt: skip


@pytest.mark.parametrize("plural", ADOPTERS)
def test_matching_pods_are_adopted_and_released_when_they_match_no_longer(house: Any, space: str, plural: str) -> None:
    base, kind = ADOPTERS[plural]
    pods, many = f"/api/v1/namespaces/{space}/pods", f"{base}/namespaces/{space}/{plural}"
    adoptable = {"metadata": {"name": "pod-adoption", "labels": {"name": "adopt"}}, "spec": template("adopt")["spec"]}
    house.ok("POST", pods, adoptable)
    body = workload("adopt")
    if plural == "replicationcontrollers":
        body["spec"]["selector"] = {"name": "adopt"}
    made = house.ok("POST", many, body)
    found = house.until(f"{pods}/pod-adoption", lambda found: found["metadata"].get("ownerReferences"))
    (reference,) = found["metadata"]["ownerReferences"]
    assert (reference["kind"], reference["uid"], reference["controller"]) == (kind, made["metadata"]["uid"], True)
    house.ok("PATCH", f"{pods}/pod-adoption", {"metadata": {"labels": {"name": "released"}}})
    house.until(f"{pods}/pod-adoption", lambda found: not found["metadata"].get("ownerReferences"))
    house.until(f"{many}/adopt", ready(1))


def controller(name: str, replicas: int = 1) -> Any:
    labels = {"name": name}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"replicas": replicas, "selector": labels, "template": template(name)},
    }


def test_a_replication_controller_lives_is_scaled_and_goes(house: Any, space: str) -> None:
    many = f"/api/v1/namespaces/{space}/replicationcontrollers"
    watch = house.watch(f"{many}?watch=1&labelSelector=name%3Drc-test")
    house.ok("POST", many, controller("rc-test"))
    watch.until("ADDED")
    watch.until("MODIFIED", lambda obj: obj["status"].get("readyReplicas") == 1)
    patch = {"metadata": {"labels": {"test-rc": "patched"}}, "spec": {"replicas": 2}}
    house.ok("PATCH", f"{many}/rc-test", patch, content_type=STRATEGIC)
    watch.until("MODIFIED", lambda obj: obj["status"].get("availableReplicas") == 2)
    patched = house.ok("PATCH", f"{many}/rc-test/status", {"status": {"readyReplicas": 0, "availableReplicas": 0}})
    assert not patched["status"].get("readyReplicas")
    watch.until("MODIFIED", lambda obj: obj["status"].get("readyReplicas") == 2)
    scale = house.ok("GET", f"{many}/rc-test/scale")
    assert (scale["status"]["replicas"], scale["status"]["selector"]) == (2, "name=rc-test")
    scale["spec"]["replicas"] = 1
    scale["metadata"].pop("resourceVersion")
    house.ok("PUT", f"{many}/rc-test/scale", scale)
    watch.until("MODIFIED", lambda obj: obj["status"].get("replicas") == 1)
    (found,) = house.ok("GET", "/api/v1/replicationcontrollers?labelSelector=test-rc%3Dpatched")["items"]
    assert found["status"].keys() >= {"replicas", "fullyLabeledReplicas", "observedGeneration"}
    house.ok("DELETE", f"{many}?labelSelector=test-rc%3Dpatched&propagationPolicy=Background")
    watch.until("DELETED")
    watch.close()
    house.until(f"/api/v1/namespaces/{space}/pods", lambda found: not found["items"])


def test_a_replication_controller_says_that_a_quota_is_exceeded(house: Any, space: str) -> None:
    many = f"/api/v1/namespaces/{space}/replicationcontrollers"
    quotas = f"/api/v1/namespaces/{space}/resourcequotas"
    house.ok("POST", quotas, {"metadata": {"name": "condition-test"}, "spec": {"hard": {"pods": "2"}}})
    house.ok("POST", many, controller("condition-test", 3))
    found = house.until(f"{many}/condition-test", lambda found: (found.get("status") or {}).get("conditions"))
    (row,) = found["status"]["conditions"]
    assert (row["type"], row["status"], row["reason"]) == ("ReplicaFailure", "True", "FailedCreate")
    assert "exceeded quota: condition-test, requested: pods=1, used: pods=2, limited: pods=2" in row["message"]
    house.ok("PATCH", f"{many}/condition-test", {"spec": {"replicas": 2}})
    house.until(f"{many}/condition-test", lambda found: not found["status"].get("conditions"))


def test_revisions_of_daemons_live_and_go(house: Any, space: str) -> None:
    base = f"/apis/apps/v1/namespaces/{space}"
    body = workload("e2e-daemon")
    del body["spec"]["replicas"]
    house.ok("POST", f"{base}/daemonsets", body)
    selected = f"{base}/controllerrevisions?labelSelector=name%3De2e-daemon"
    (first,) = house.until(selected, lambda found: found["items"])["items"]
    assert first["metadata"]["ownerReferences"][0]["kind"] == "DaemonSet" and first["revision"] == 1
    one = f"{base}/controllerrevisions/{first['metadata']['name']}"
    patched = house.ok("PATCH", one, {"metadata": {"labels": {"patched": "yes"}}}, content_type=STRATEGIC)
    assert patched["metadata"]["labels"]["patched"] == "yes"
    made = house.ok("POST", f"{base}/controllerrevisions", {
        "metadata": {"name": "initial-copy", "labels": {"name": "e2e-daemon"},
                     "ownerReferences": first["metadata"]["ownerReferences"]},
        "data": first["data"], "revision": first["revision"] + 1,
    })  # fmt: skip
    refused = house.refused(422, "PATCH", f"{base}/controllerrevisions/initial-copy", {"data": {"other": 1}})
    assert refused["details"]["causes"][0]["field"] == "data"
    # the controller keeps one of two that are equal, the later one, and may come first
    assert house.call("DELETE", one).status in (200, 404)
    house.gone(one)
    made["metadata"]["labels"]["updated"] = "yes"
    house.ok("PATCH", f"{base}/controllerrevisions/initial-copy", {"metadata": {"labels": {"updated": "yes"}}})
    patch = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 5}}}}
    house.ok("PATCH", f"{base}/daemonsets/e2e-daemon", patch)
    house.until(selected, lambda found: len(found["items"]) >= 2)
    house.ok("DELETE", f"{base}/controllerrevisions?labelSelector=updated%3Dyes")
    house.gone(f"{base}/controllerrevisions/initial-copy")


def test_daemons_that_fail_are_made_again_and_roll_on(house: Any, space: str) -> None:
    many, pods = f"/apis/apps/v1/namespaces/{space}/daemonsets", f"/api/v1/namespaces/{space}/pods"
    body = workload("daemon-set")
    del body["spec"]["replicas"]
    house.ok("POST", many, body)
    house.until(f"{many}/daemon-set", lambda found: found["status"].get("numberReady") == 2)
    victim = house.ok("GET", pods)["items"][0]["metadata"]["name"]
    house.ok("PATCH", f"{pods}/{victim}/status", {"status": {"phase": "Failed"}})
    house.gone(f"{pods}/{victim}")
    house.until(f"{many}/daemon-set", lambda found: found["status"].get("numberReady") == 2)
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "httpd", "image": "new:1"}]}}}}
    house.ok("PATCH", f"{many}/daemon-set", patch, content_type=STRATEGIC)
    house.until(pods, lambda found: [
        row["spec"]["containers"][0]["image"] for row in found["items"]] == ["new:1"] * 2)  # fmt: skip


def job(name: str, **spec: Any) -> Any:
    pod = {"metadata": {"labels": {"job": name}}, "spec": {"restartPolicy": "Never", "containers": [CONTAINER]}}
    return {"metadata": {"name": name}, "spec": {"parallelism": 2, "completions": 4, "template": pod, **spec}}


def test_the_status_of_a_job_is_patched_updated_and_read(house: Any, space: str) -> None:
    many = f"/apis/batch/v1/namespaces/{space}/jobs"
    made = house.ok("POST", many, job("suspend-false-to-true", parallelism=1, completions=1, backoffLimit=2))
    house.until(f"{many}/suspend-false-to-true", lambda found: (found.get("status") or {}).get("startTime"))
    one = f"{many}/suspend-false-to-true"
    condition = {"type": "CustomConditionType", "status": "True", "reason": "E2E",
                 "lastTransitionTime": made["metadata"]["creationTimestamp"]}  # fmt: skip
    patch = {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"conditions": [condition]}}
    found = house.ok("PATCH", f"{one}/status", patch)
    assert found["status"]["conditions"][0].items() >= condition.items()
    assert found["metadata"]["annotations"]["patchedstatus"] == "true"

    def updated(found: Any) -> bool:
        found["status"]["conditions"] = [*found["status"]["conditions"], {**condition, "type": "Another"}]
        return house.call("PUT", f"{one}/status", found).status == 200

    house.until(f"{one}/status", updated)
    assert house.ok("GET", f"{one}/status")["status"]["conditions"][-1]["type"] == "Another"


def test_a_job_lives_is_updated_and_takes_its_pods_with_it(house: Any, space: str) -> None:
    many, pods = f"/apis/batch/v1/namespaces/{space}/jobs", f"/api/v1/namespaces/{space}/pods"
    house.ok("POST", many, {**job("e2e"), "metadata": {"name": "e2e", "labels": {"e2e-job": space}}})
    house.until(pods, lambda found: len(found["items"]) == 2)
    house.ok("PATCH", f"{many}/e2e", {"metadata": {"labels": {"e2e": "patched"}}}, content_type=STRATEGIC)
    house.until(f"{many}/e2e", lambda now: house.call("PUT", f"{many}/e2e", {
        **now, "metadata": {**now["metadata"], "annotations": {"updated": "true"}}}).status == 200)  # fmt: skip
    (found,) = house.ok("GET", f"/apis/batch/v1/jobs?labelSelector=e2e-job%3D{space}")["items"]
    assert found["metadata"]["annotations"]["updated"] == "true"
    house.ok("DELETE", f"{many}?labelSelector=e2e%3Dpatched&propagationPolicy=Background")
    house.gone(f"{many}/e2e")
    house.until(pods, lambda found: not found["items"])


def test_a_disruption_budget_lives_through_its_operations(house: Any, space: str) -> None:
    many = f"/apis/policy/v1/namespaces/{space}/poddisruptionbudgets"
    other = house.namespace()
    for name in (space, other):
        house.ok("POST", f"/apis/policy/v1/namespaces/{name}/poddisruptionbudgets", {
            "metadata": {"name": "foo", "labels": {"budgets": space}},
            "spec": {"minAvailable": "1%", "selector": {"matchLabels": {"foo": "bar"}}}})  # fmt: skip
    everywhere = f"/apis/policy/v1/poddisruptionbudgets?labelSelector=budgets%3D{space}"
    assert len(house.ok("GET", everywhere)["items"]) == 2
    house.until(f"{many}/foo", lambda found: (found.get("status") or {}).get("observedGeneration") == 1)
    patch = {"metadata": {"annotations": {"patched": "yes"}}, "status": {"disruptedPods": {
        "pod-0": "2026-01-01T00:00:00Z"}}}  # fmt: skip
    found = house.ok("PATCH", f"{many}/foo/status", patch)
    assert "pod-0" in found["status"]["disruptedPods"] and found["metadata"]["annotations"]["patched"] == "yes"
    house.ok("PATCH", f"{many}/foo", {"spec": {"minAvailable": 3}})
    house.until(f"{many}/foo", lambda found: found["status"]["observedGeneration"] == 2)
    house.ok("DELETE", f"{many}?labelSelector=budgets%3D{space}")
    house.until(everywhere, lambda found: len(found["items"]) == 1)
