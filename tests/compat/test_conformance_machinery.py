"""What the conformance suite asks of namespaces, discovery, tables and the garbage collector (sig-api-machinery).

Source: kubernetes/test/e2e/apimachinery/*.go
"""

from __future__ import annotations

from typing import Any

import orjson
import pytest

NAMESPACES = "/api/v1/namespaces"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
PAUSE = {"containers": [{"name": "pause", "image": "registry.k8s.io/pause:3.10.1"}]}


def test_a_finalizer_is_applied_to_a_namespace_and_taken_off(house: Any) -> None:
    name, finalizer = house.namespace(), "e2e.example.com/fakeFinalizer"
    found = house.ok("GET", f"{NAMESPACES}/{name}")
    found["spec"]["finalizers"].append(finalizer)
    found = house.ok("PUT", f"{NAMESPACES}/{name}/finalize", found)
    assert found["spec"]["finalizers"] == ["kubernetes", finalizer]
    found["spec"]["finalizers"] = ["kubernetes"]
    assert house.ok("PUT", f"{NAMESPACES}/{name}/finalize", found)["spec"]["finalizers"] == ["kubernetes"]
    found = house.ok("GET", f"{NAMESPACES}/{name}")
    found["spec"]["finalizers"] = ["fake"]
    refused = house.refused(422, "PUT", f"{NAMESPACES}/{name}/finalize", found)
    assert [(row["field"], row["message"]) for row in refused["details"]["causes"]] == [
        ("spec.finalizers[0]",
         'Invalid value: "fake": name is neither a standard finalizer name nor is it fully qualified'),
    ]  # fmt: skip


def test_a_namespace_is_updated_patched_and_its_status_changed(house: Any) -> None:
    name = house.namespace()
    one = f"{NAMESPACES}/{name}"
    found = house.ok("GET", one)
    found["metadata"]["labels"]["updated"] = name
    assert house.ok("PUT", one, found)["metadata"]["labels"]["updated"] == name
    found = house.ok("PATCH", one, {"metadata": {"labels": {"testLabel": "testValue"}}})
    assert found["metadata"]["labels"]["testLabel"] == "testValue"
    assert house.ok("GET", f"{one}/status")["status"]["phase"] == "Active"
    condition = {"type": "StatusPatch", "status": "True", "reason": "E2E", "message": "Patched by an e2e test"}
    found = house.ok("PATCH", f"{one}/status", {
        "metadata": {"annotations": {"e2e-patched-ns-status": name}}, "status": {"conditions": [condition]},
    })  # fmt: skip
    assert found["metadata"]["annotations"]["e2e-patched-ns-status"] == name
    assert found["status"]["conditions"][0].items() >= condition.items()
    update = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Updated by an e2e test"}
    found["status"]["conditions"].append(update)
    found = house.ok("PUT", f"{one}/status", found)
    assert [row["type"] for row in found["status"]["conditions"]] == ["StatusPatch", "StatusUpdate"]
    refused = house.refused(422, "PATCH", f"{one}/status", {"status": {"phase": "Terminating"}})
    assert refused["details"]["causes"][0] == {
        "reason": "FieldValueInvalid", "field": "status.Phase",
        "message": "Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty",
    }  # fmt: skip


def test_all_services_are_removed_with_their_namespace(house: Any) -> None:
    name = house.namespace()
    spec = {"selector": {"foo": "bar"}, "ports": [{"port": 80, "targetPort": 80}]}
    house.ok("POST", f"{NAMESPACES}/{name}/services", {"metadata": {"name": "test-service"}, "spec": spec})
    house.ok("DELETE", f"{NAMESPACES}/{name}")
    house.gone(f"{NAMESPACES}/{name}")
    house.ok("POST", NAMESPACES, {"metadata": {"name": name}})
    house.refused(404, "GET", f"{NAMESPACES}/{name}/services/test-service")


def test_every_group_names_versions_and_resources_and_prefers_one(house: Any) -> None:
    groups = house.ok("GET", "/apis")["groups"]
    assert groups
    for group in groups:
        versions = [row["groupVersion"] for row in group["versions"]]
        assert group["preferredVersion"]["groupVersion"] in versions
        assert house.ok("GET", f"/apis/{group['name']}")["name"] == group["name"]
        for version in versions:
            found = house.ok("GET", f"/apis/{version}")
            assert found["groupVersion"] == version
            assert all(row["name"] and row["kind"] and row["verbs"] for row in found["resources"])
            assert found["resources"]


def test_the_aggregated_discovery_holds_every_builtin_resource(house: Any) -> None:
    found = {}
    for path in ("/api", "/apis"):
        response = house.call("GET", path, accept=AGGREGATED)
        assert response.headers["content-type"] == AGGREGATED
        document = orjson.loads(response.body)
        assert (document["kind"], document["apiVersion"]) == ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2")
        for group in document["items"]:
            for version in group["versions"]:
                assert version["freshness"] == "Current"
                name = (group["metadata"].get("name", ""), version["version"])
                found[name] = {row["resource"] for row in version["resources"]}
    wanted = {
        ("", "v1"): "namespaces pods events secrets configmaps services serviceaccounts",
        ("apps", "v1"): "deployments replicasets", ("batch", "v1"): "jobs cronjobs",
        ("admissionregistration.k8s.io", "v1"): "mutatingwebhookconfigurations validatingwebhookconfigurations",
        ("apiextensions.k8s.io", "v1"): "customresourcedefinitions",
        ("apiregistration.k8s.io", "v1"): "apiservices",
        ("authentication.k8s.io", "v1"): "selfsubjectreviews tokenreviews",
        ("rbac.authorization.k8s.io", "v1"): "clusterroles roles",
    }  # fmt: skip
    for version, names in wanted.items():
        assert found[version] >= set(names.split()), version
    response = house.call("GET", "/apis", accept=f"{AGGREGATED},application/json;q=0.9")
    assert response.headers["content-type"] == AGGREGATED
    assert orjson.loads(house.call("GET", "/apis", accept="application/json").body)["kind"] == "APIGroupList"


def test_the_servers_version_is_numbers(house: Any) -> None:
    found = house.ok("GET", "/version")
    assert found["major"].isdecimal() and found["minor"].isdecimal()


def test_a_review_as_a_table_is_not_acceptable(house: Any) -> None:
    body = {"spec": {"resourceAttributes": {"namespace": "default", "resource": "pods", "verb": "list"}}}
    found = house.refused(
        406, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body,
        accept="application/json;as=Table;v=v1;g=meta.k8s.io",
    )  # fmt: skip
    assert found["reason"] == "NotAcceptable"


def owner(obj: Any, **more: Any) -> Any:
    return {
        "apiVersion": obj["apiVersion"], "kind": obj["kind"], "name": obj["metadata"]["name"],
        "uid": obj["metadata"]["uid"], **more,
    }  # fmt: skip


def controller(house: Any, space: str, name: str, replicas: int) -> Any:
    """A ReplicationController whose pods are there."""
    many = f"{NAMESPACES}/{space}/replicationcontrollers"
    template = {"metadata": {"labels": {"name": name}}, "spec": PAUSE}
    spec = {"replicas": replicas, "selector": {"name": name}, "template": template}
    house.ok("POST", many, {"metadata": {"name": name}, "spec": spec})
    return house.until(f"{many}/{name}", lambda found: (found.get("status") or {}).get("readyReplicas", 0) == replicas)


def test_the_pods_of_a_controller_go_after_it_in_the_background(house: Any, space: str) -> None:
    made = controller(house, space, "simpletest.rc", 2)
    house.ok("DELETE", f"{NAMESPACES}/{space}/replicationcontrollers/simpletest.rc", {
        "propagationPolicy": "Background", "preconditions": {"uid": made["metadata"]["uid"]},
    })  # fmt: skip
    house.gone(f"{NAMESPACES}/{space}/replicationcontrollers/simpletest.rc")
    house.until(f"{NAMESPACES}/{space}/pods", lambda found: not found["items"])


def test_a_controller_stays_until_its_pods_are_gone_in_the_foreground(house: Any, space: str) -> None:
    controller(house, space, "simpletest.rc", 10)
    pods = house.ok("GET", f"{NAMESPACES}/{space}/pods")["items"]
    held = f"{NAMESPACES}/{space}/pods/{pods[0]['metadata']['name']}"
    house.ok("PATCH", held, {"metadata": {"finalizers": ["e2e.example.com/held"]}})
    one = f"{NAMESPACES}/{space}/replicationcontrollers/simpletest.rc"
    house.ok("DELETE", one, {"propagationPolicy": "Foreground"})
    house.until(f"{NAMESPACES}/{space}/pods", lambda found: len(found["items"]) == 1)
    found = house.ok("GET", one)
    assert found["metadata"]["deletionTimestamp"] and found["metadata"]["finalizers"] == ["foregroundDeletion"]
    house.ok("PATCH", held, {"metadata": {"finalizers": None}})
    house.gone(one)
    assert not house.ok("GET", f"{NAMESPACES}/{space}/pods")["items"]


def test_pods_with_another_owner_outlive_one_that_waits_for_them(house: Any, space: str) -> None:
    controller(house, space, "gone", 6)
    second = controller(house, space, "stays", 0)
    pods = house.ok("GET", f"{NAMESPACES}/{space}/pods")["items"]
    shared = {pod["metadata"]["name"] for pod in pods[:3]}
    for name in shared:
        patch = {"metadata": {"ownerReferences": [owner(second)]}}
        media = "application/strategic-merge-patch+json"
        house.ok("PATCH", f"{NAMESPACES}/{space}/pods/{name}", patch, content_type=media)
    one = f"{NAMESPACES}/{space}/replicationcontrollers/gone"
    house.ok("DELETE", one, {"propagationPolicy": "Foreground"})
    house.gone(one)
    left = house.until(f"{NAMESPACES}/{space}/pods", lambda found: len(found["items"]) == 3)["items"]
    assert {pod["metadata"]["name"] for pod in left} == shared
    assert not any(pod["metadata"].get("deletionTimestamp") for pod in left)
    assert all([row["name"] for row in pod["metadata"]["ownerReferences"]] == ["stays"] for pod in left)


def test_a_circle_of_owners_blocks_nobody(house: Any, space: str) -> None:
    body = {"metadata": {"generateName": "gc-"}, "spec": PAUSE}
    pods = [house.ok("POST", f"{NAMESPACES}/{space}/pods", body) for _ in range(3)]
    for index, pod in enumerate(pods):
        reference = owner(pods[index - 1], controller=True, blockOwnerDeletion=True)
        house.ok("PATCH", f"{NAMESPACES}/{space}/pods/{pod['metadata']['name']}", {
            "metadata": {"ownerReferences": [reference]}})  # fmt: skip
    house.ok("DELETE", f"{NAMESPACES}/{space}/pods/{pods[0]['metadata']['name']}", {"propagationPolicy": "Foreground"})
    house.until(f"{NAMESPACES}/{space}/pods", lambda found: not found["items"])


def test_what_a_deployment_made_is_orphaned_by_policy(house: Any, space: str) -> None:
    base = f"/apis/apps/v1/namespaces/{space}"
    template = {"metadata": {"labels": {"app": "gc"}}, "spec": PAUSE}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "gc"}}, "template": template}
    house.ok("POST", f"{base}/deployments", {"metadata": {"name": "simpletest.deployment"}, "spec": spec})
    house.until(f"{base}/replicasets", lambda found: found["items"])
    house.until(f"{NAMESPACES}/{space}/pods", lambda found: len(found["items"]) == 2)
    house.ok("DELETE", f"{base}/deployments/simpletest.deployment", {"propagationPolicy": "Orphan"})
    house.gone(f"{base}/deployments/simpletest.deployment")
    (left,) = house.ok("GET", f"{base}/replicasets")["items"]
    assert not left["metadata"].get("ownerReferences") and not left["metadata"].get("deletionTimestamp")
    assert len(house.ok("GET", f"{NAMESPACES}/{space}/pods")["items"]) == 2


@pytest.mark.parametrize("policy", ["Nonsense", None])
def test_a_policy_of_nonsense_is_refused(house: Any, space: str, policy: str | None) -> None:
    house.ok("POST", f"{NAMESPACES}/{space}/configmaps", {"metadata": {"name": "a"}})
    options = {"propagationPolicy": "Nonsense"} if policy else {"propagationPolicy": "Orphan", "orphanDependents": True}
    assert house.refused(422, "DELETE", f"{NAMESPACES}/{space}/configmaps/a", options)["reason"] == "Invalid"
