"""What the conformance suite asks of leases, nodes, pods, templates, secrets, config maps, runtime classes and devices.

Source: kubernetes/test/e2e/{node,common/node,common/storage,dra}/*.go
"""

from __future__ import annotations

from typing import Any

import pytest

STRATEGIC = "application/strategic-merge-patch+json"
PAUSE = {"name": "pause", "image": "registry.k8s.io/pause:3.10.1"}


def pod(name: str, **spec: Any) -> Any:
    return {"metadata": {"name": name, "labels": {"time": name}}, "spec": {"containers": [PAUSE], **spec}}


@pytest.mark.parametrize("plural", ["configmaps", "secrets"])
def test_an_empty_key_is_refused(house: Any, space: str, plural: str) -> None:
    body = {"metadata": {"name": "emptykey"}, "data": {"": "dmFsdWUtMQ=="}}
    found = house.refused(422, "POST", f"/api/v1/namespaces/{space}/{plural}", body)
    assert found["details"]["causes"][0]["field"] == "data[]"


@pytest.mark.parametrize("plural", ["configmaps", "secrets"])
def test_the_lifecycle_of_a_configuration(house: Any, space: str, plural: str) -> None:
    many = f"/api/v1/namespaces/{space}/{plural}"
    static = f"test-{plural}-static"
    watch = house.watch(f"{many}?watch=1&labelSelector={static}%3Dtrue")
    house.ok(
        "POST", many, {"metadata": {"name": "test", "labels": {static: "true"}}, "data": {"valueName": "dmFsdWU="}}
    )
    watch.until("ADDED")
    patch = {"metadata": {"labels": {"patched": "true"}}, "data": {"valueName": "dmFsdWUx"}}
    house.ok("PATCH", f"{many}/test", patch, content_type=STRATEGIC)
    found = watch.until("MODIFIED")
    assert found["data"]["valueName"] == "dmFsdWUx" and found["metadata"]["labels"]["patched"] == "true"
    assert house.ok("GET", f"{many}/test")["data"] == {"valueName": "dmFsdWUx"}
    (listed,) = house.ok("GET", f"/api/v1/{plural}?labelSelector={static}%3Dtrue")["items"]
    assert listed["data"] == {"valueName": "dmFsdWUx"}
    house.ok("DELETE", f"{many}?labelSelector={static}%3Dtrue")
    watch.until("DELETED")
    watch.close()
    assert house.ok("GET", f"/api/v1/{plural}?labelSelector={static}%3Dtrue")["items"] == []


@pytest.mark.parametrize("plural", ["configmaps", "secrets"])
def test_what_is_immutable_cannot_be_changed_but_for_its_labels(house: Any, space: str, plural: str) -> None:
    many = f"/api/v1/namespaces/{space}/{plural}"
    found = house.ok("POST", many, {"metadata": {"name": "immutable"}, "data": {"data-1": "dmFsdWUtMQ=="}})
    found["data"]["data-4"] = "dmFsdWUtNA=="
    found = house.ok("PUT", f"{many}/immutable", found)
    found["immutable"] = True
    found = house.ok("PUT", f"{many}/immutable", found)
    refused = house.refused(422, "PUT", f"{many}/immutable", {**found, "data": {**found["data"], "data-5": ""}})
    assert refused["details"]["causes"][0] == {
        "reason": "FieldValueForbidden", "field": "data",
        "message": "Forbidden: field is immutable when `immutable` is set",
    }  # fmt: skip
    refused = house.refused(422, "PUT", f"{many}/immutable", {**found, "immutable": False})
    assert refused["details"]["causes"][0]["field"] == "immutable"
    found["metadata"]["labels"] = {"label-1": "value-1"}
    house.ok("PUT", f"{many}/immutable", found)
    house.ok("DELETE", f"{many}/immutable")


def test_a_lease_is_created_updated_patched_and_deleted_with_others(house: Any, space: str) -> None:
    many = f"/apis/coordination.k8s.io/v1/namespaces/{space}/leases"
    spec = {"holderIdentity": "holder", "leaseDurationSeconds": 30, "acquireTime": "2026-01-01T00:00:00.000000Z",
            "renewTime": "2026-01-01T00:00:00.123456Z", "leaseTransitions": 0}  # fmt: skip
    house.ok("POST", many, {"metadata": {"name": "lease"}, "spec": spec})
    found = house.ok("GET", f"{many}/lease")
    assert found["spec"] == spec
    found["spec"] = {**spec, "holderIdentity": "holder2", "leaseDurationSeconds": 60, "leaseTransitions": 1}
    house.ok("PUT", f"{many}/lease", found)
    assert house.ok("GET", f"{many}/lease")["spec"]["holderIdentity"] == "holder2"
    patch = {"spec": {"holderIdentity": "holder3", "renewTime": "2026-01-01T00:00:05.000000Z"}}
    house.ok("PATCH", f"{many}/lease", patch, content_type=STRATEGIC)
    assert house.ok("GET", f"{many}/lease")["spec"].items() >= patch["spec"].items()
    house.ok("POST", many, {"metadata": {"name": "lease2", "labels": {"deletecollection": "true"}}, "spec": spec})
    assert len(house.ok("GET", many)["items"]) == 2
    house.ok("DELETE", f"{many}?labelSelector=deletecollection%3Dtrue")
    assert [row["metadata"]["name"] for row in house.ok("GET", many)["items"]] == ["lease"]
    house.ok("DELETE", f"{many}/lease")
    house.refused(404, "GET", f"{many}/lease")


def test_the_lifecycle_of_a_node(house: Any) -> None:
    name = "e2e-fake-node"
    one = f"/api/v1/nodes/{name}"
    status = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True", "message": "Set from e2e test", "reason": "E2E"}],
        "nodeInfo": dict.fromkeys(
            ("machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion",
             "kubeletVersion", "kubeProxyVersion", "operatingSystem", "architecture"), ""),
    }  # fmt: skip
    made = house.ok("POST", "/api/v1/nodes", {"metadata": {"name": name}, "status": status})
    assert house.ok("GET", one)["metadata"]["uid"] == made["metadata"]["uid"]
    house.ok("PATCH", one, {"metadata": {"labels": {name: "patched"}}}, content_type=STRATEGIC)
    (found,) = house.ok("GET", f"/api/v1/nodes?labelSelector={name}%3Dpatched")["items"]
    found["metadata"]["labels"][name] = "updated"
    house.until(one, lambda now: house.call("PUT", one, {**now, "metadata": {
        **now["metadata"], "labels": {**now["metadata"]["labels"], name: "updated"}}}).status == 200)  # fmt: skip
    assert house.ok("GET", one)["metadata"]["labels"][name] == "updated"
    condition = {"type": "E2E", "status": "True", "reason": "Test", "message": "patched"}
    patched = house.ok("PATCH", f"{one}/status", {"status": {"conditions": [condition]}}, content_type=STRATEGIC)
    assert {"E2E", "Ready"} <= {row["type"] for row in patched["status"]["conditions"]}
    house.ok("DELETE", one, {"preconditions": {"uid": made["metadata"]["uid"]}})
    house.refused(404, "GET", one)


def test_pod_templates_live_are_replaced_and_go_together(house: Any, space: str) -> None:
    many = f"/api/v1/namespaces/{space}/podtemplates"
    template = {"spec": {"containers": [{"name": "e2e-pt", "image": "nginx:1"}]}}
    for number in range(3):
        labels = {"podtemplate": space, "set": "yes"}
        house.ok("POST", many, {"metadata": {"name": f"pt-{number}", "labels": labels}, "template": template})
    patch = {"metadata": {"labels": {"podtemplate": "patched"}}}
    house.ok("PATCH", f"{many}/pt-0", patch, content_type=STRATEGIC)
    assert house.ok("GET", f"{many}/pt-0")["metadata"]["labels"]["podtemplate"] == "patched"
    (found,) = house.ok("GET", "/api/v1/podtemplates?labelSelector=podtemplate%3Dpatched")["items"]
    found["metadata"]["annotations"] = {"updated": "true"}
    assert house.ok("PUT", f"{many}/pt-0", found)["metadata"]["annotations"] == {"updated": "true"}
    house.ok("DELETE", f"{many}/pt-0")
    house.ok("DELETE", f"{many}?labelSelector=set%3Dyes")
    assert house.ok("GET", many)["items"] == []


def test_the_class_of_a_pods_quality_is_set(house: Any, space: str) -> None:
    both = {"cpu": "100m", "memory": "100Mi"}
    container = {**PAUSE, "resources": {"limits": both, "requests": both}}
    made = house.ok("POST", f"/api/v1/namespaces/{space}/pods", pod("qos", containers=[container]))
    assert made["status"]["qosClass"] == "Guaranteed"


def test_a_pod_of_a_runtime_class_is_refused_or_gets_its_overhead(house: Any, space: str) -> None:
    pods, classes = f"/api/v1/namespaces/{space}/pods", "/apis/node.k8s.io/v1/runtimeclasses"
    found = house.refused(403, "POST", pods, pod("none", runtimeClassName="nonexistent"))
    assert found["message"] == ('pods "none" is forbidden: pod rejected: RuntimeClass "nonexistent" not found')
    fixed = {"cpu": "10m", "memory": "1Mi"}
    body = {"metadata": {"name": "e2e-overhead"}, "handler": "runc", "overhead": {"podFixed": fixed}}
    house.ok("POST", classes, body)
    house.ok("POST", classes, {"metadata": {"name": "e2e-plain"}, "handler": "runc"})
    made = house.ok("POST", pods, pod("with", runtimeClassName="e2e-overhead"))
    assert made["spec"]["overhead"] == fixed
    assert "overhead" not in house.ok("POST", pods, pod("without", runtimeClassName="e2e-plain"))["spec"]
    for name in ("with", "without"):
        house.until(f"{pods}/{name}", lambda found: found["spec"].get("nodeName"))
    for name in ("e2e-overhead", "e2e-plain"):
        house.ok("DELETE", f"{classes}/{name}")


def test_sysctls_that_are_none_are_refused(house: Any, space: str) -> None:
    rows = [{"name": name, "value": "0"} for name in ("foo-", "kernel.shmmax", "safe-and-unsafe", "bar..")]
    found = house.refused(422, "POST", f"/api/v1/namespaces/{space}/pods", pod(
        "sysctl", securityContext={"sysctls": rows}))  # fmt: skip
    wrong = [row["field"] for row in found["details"]["causes"]]
    assert wrong == ["spec.securityContext.sysctls[0].name", "spec.securityContext.sysctls[3].name"]
    assert 'Invalid value: "foo-": must have at most 253 characters and match regex ' in found["message"]


def test_generations_of_pods_count_updates_alone(house: Any, space: str) -> None:
    pods = f"/api/v1/namespaces/{space}/pods"
    body = pod("g")
    body["metadata"]["generation"] = 100
    made = house.ok("POST", pods, body)
    assert made["metadata"]["generation"] == 1
    one = f"{pods}/g"
    steps = [
        ({"spec": {"activeDeadlineSeconds": 5000}}, 2), ({"spec": {"activeDeadlineSeconds": 4000}}, 3),
        ({"spec": {"tolerations": [{"key": "foo", "operator": "Exists", "effect": "NoSchedule"}]}}, 4),
        ({"metadata": {"labels": {"new": "label"}}}, 4), ({"metadata": {"annotations": {"new": "label"}}}, 4),
    ]  # fmt: skip
    house.until(one, lambda found: found["spec"].get("nodeName"))
    for patch, generation in steps:
        if "tolerations" in patch.get("spec", {}):
            patch["spec"]["tolerations"] += house.ok("GET", one)["spec"]["tolerations"]
        assert house.ok("PATCH", one, patch)["metadata"]["generation"] == generation, patch
    container = {"name": "ephemeral", "image": "busybox:1"}
    patch = {"spec": {"ephemeralContainers": [container]}}
    found = house.ok("PATCH", f"{one}/ephemeralcontainers", patch, content_type=STRATEGIC)
    assert found["metadata"]["generation"] == 5
    found = house.ok("DELETE", f"{one}?gracePeriodSeconds=100000")
    assert found["metadata"]["generation"] == 6
    house.until(one, lambda found: found is None or (found.get("status") or {}).get("observedGeneration", 6) == 6)
    house.call("DELETE", f"{one}?gracePeriodSeconds=0")


def test_pods_are_updated_and_deleted_as_a_collection(house: Any, space: str) -> None:
    pods = f"/api/v1/namespaces/{space}/pods"
    for number in range(3):
        body = pod(f"test-pod-{number}", terminationGracePeriodSeconds=1)
        body["metadata"]["labels"] = {"type": "Testing"}
        house.ok("POST", pods, body)
    house.until(f"{pods}/test-pod-0", lambda found: found["spec"].get("nodeName"))

    def updated(found: Any) -> bool:
        found["metadata"]["labels"]["time"] = "updated"
        return house.call("PUT", f"{pods}/test-pod-0", found).status == 200

    house.until(f"{pods}/test-pod-0", updated)
    assert len(house.ok("GET", f"{pods}?labelSelector=time%3Dupdated")["items"]) == 1
    house.ok("DELETE", f"{pods}?labelSelector=type%3DTesting")
    house.until(pods, lambda found: not found["items"])


def test_the_status_of_a_pod_is_patched_and_updated_through_its_life(house: Any, space: str) -> None:
    pods = f"/api/v1/namespaces/{space}/pods"
    body = pod("pod-test", schedulerName="nobody")
    body["metadata"]["labels"] = {"test-pod-static": "true"}
    watch = house.watch(f"{pods}?watch=1&labelSelector=test-pod-static%3Dtrue")
    house.ok("POST", pods, body)
    watch.until("ADDED")
    patch = {
        "metadata": {"labels": {"test-pod": "patched"}},
        "spec": {"terminationGracePeriodSeconds": 60, "containers": [{"name": "pause", "image": "pause:patched"}]},
    }
    house.refused(422, "PATCH", f"{pods}/pod-test", patch, content_type=STRATEGIC)
    del patch["spec"]["terminationGracePeriodSeconds"]  # type: ignore[attr-defined]
    found = house.ok("PATCH", f"{pods}/pod-test", patch, content_type=STRATEGIC)
    assert found["spec"]["containers"][0]["image"] == "pause:patched"
    watch.until("MODIFIED", lambda obj: obj["metadata"]["labels"].get("test-pod") == "patched")
    found = house.ok("GET", f"{pods}/pod-test/status")
    for condition in found["status"].setdefault("conditions", []):
        condition["message"] = "updated"
    found["status"]["conditions"].append({"type": "Ready", "status": "False", "message": "The status was updated"})
    found = house.ok("PUT", f"{pods}/pod-test/status", found)
    assert found["status"]["conditions"][-1]["message"] == "The status was updated"
    patch = {"status": {"message": "Patched by e2e test", "reason": "E2E"}}
    found = house.ok("PATCH", f"{pods}/pod-test/status", patch, content_type=STRATEGIC)
    assert (found["status"]["message"], found["status"]["reason"]) == ("Patched by e2e test", "E2E")
    house.ok("DELETE", f"{pods}?labelSelector=test-pod-static%3Dtrue")
    watch.until("DELETED")
    watch.close()


DEVICES = {"devices": {"requests": [{"name": "req-0", "exactly": {"deviceClassName": "my-class"}}]}}
DRA: dict[str, Any] = {
    "deviceclasses": {"spec": {"selectors": [{"cel": {"expression": 'device.driver == "dra.example.com"'}}]}},
    "resourceclaims": {"spec": DEVICES},
    "resourceclaimtemplates": {"spec": {"spec": DEVICES}},
    "resourceslices": {"spec": {
        "driver": "dra.example.com", "nodeName": "no-such-node",
        "pool": {"name": "e2e", "resourceSliceCount": 1, "generation": 1}, "devices": [{"name": "device-0"}]}},
}  # fmt: skip


@pytest.mark.parametrize("plural", DRA)
def test_devices_are_created_read_updated_patched_and_deleted(house: Any, space: str, plural: str) -> None:
    scope = f"namespaces/{space}/" if "claim" in plural else ""
    many, name = f"/apis/resource.k8s.io/v1/{scope}{plural}", f"e2e-{plural}"
    house.ok("POST", many, {"metadata": {"name": name, "labels": {"crud": space}}, **DRA[plural]})
    selected = f"{many}?labelSelector=crud%3D{space}"
    version = house.ok("GET", selected)["metadata"]["resourceVersion"]
    watch = house.watch(f"{selected}&watch=1&resourceVersion={version}")
    found = house.ok("GET", f"{many}/{name}")
    found["metadata"]["labels"]["updated"] = "yes"
    house.ok("PUT", f"{many}/{name}", found)
    watch.until("MODIFIED", lambda obj: obj["metadata"]["labels"].get("updated") == "yes")
    for media in (STRATEGIC, "application/merge-patch+json"):
        house.ok("PATCH", f"{many}/{name}", {"metadata": {"labels": {"patched": media[12:17]}}}, content_type=media)
    applied = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": found["kind"],
        "metadata": {"name": name, "labels": {"a": "b"}},
    }
    media = "application/apply-patch+yaml"
    assert house.ok("PATCH", f"{many}/{name}?fieldManager=e2e", applied, content_type=media)["metadata"]["labels"]["a"]
    if plural == "resourceclaims":
        allocation = {"devices": {"results": [
            {"request": "req-0", "driver": "dra.example.com", "pool": "e2e", "device": "device-0"}]}}  # fmt: skip
        found = house.ok("PATCH", f"{many}/{name}/status", {"status": {"allocation": allocation}})
        assert found["status"]["allocation"]["devices"]["results"][0]["device"] == "device-0"
        found["status"] = {}
        assert not house.ok("PUT", f"{many}/{name}/status", found).get("status")
    house.ok("DELETE", selected)
    watch.until("DELETED")
    watch.close()
    house.gone(f"{many}/{name}")
