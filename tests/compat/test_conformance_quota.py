"""What the conformance suite asks of quotas, limit ranges and priority classes.

Source: kubernetes/test/e2e/apimachinery/resource_quota.go, kubernetes/test/e2e/scheduling/{limit_range,preemption}.go
"""

from __future__ import annotations

from typing import Any

import pytest

LIMITED = {"requests": {"cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi", "example.com/dongle": "2"},
           "limits": {"example.com/dongle": "2"}}  # fmt: skip


def pod(name: str, resources: Any = None, **spec: Any) -> Any:
    container = {"name": "pause", "image": "registry.k8s.io/pause:3.10.1", "resources": resources or {}}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


def used(house: Any, quotas: str, name: str, **wanted: str) -> Any:
    """Waits until a quota's status says that so much is used; dashes and slashes are written as __ and ___."""
    names = {key.replace("___", "/").replace("__", "."): value for key, value in wanted.items()}

    def is_so(found: Any) -> bool:
        status = found.get("status") or {}
        return status.get("hard") == found["spec"]["hard"] and names.items() <= (status.get("used") or {}).items()

    return house.until(f"{quotas}/{name}", is_so)


def test_the_status_of_a_quota_is_calculated_promptly_and_follows_its_update(house: Any, space: str) -> None:
    quotas = f"/api/v1/namespaces/{space}/resourcequotas"
    house.ok("POST", quotas, {"metadata": {"name": "test"}, "spec": {"hard": {"cpu": "1", "memory": "500Mi"}}})
    found = used(house, quotas, "test", cpu="0", memory="0")
    found["spec"]["hard"] = {"cpu": "2", "memory": "1Gi"}
    found = house.ok("PUT", f"{quotas}/test", found)
    assert found["spec"]["hard"] == {"cpu": "2", "memory": "1Gi"}
    used(house, quotas, "test", cpu="0", memory="0")
    house.ok("DELETE", f"{quotas}/test")
    house.refused(404, "GET", f"{quotas}/test")


def test_the_status_of_a_quota_is_updated_and_patched_apart(house: Any, space: str) -> None:
    quotas = f"/api/v1/namespaces/{space}/resourcequotas"
    one = f"{quotas}/e2e"
    hard = {"cpu": "500m", "memory": "500Mi"}
    house.ok("POST", quotas, {"metadata": {"name": "e2e", "labels": {"e2e": "status"}}, "spec": {"hard": hard}})
    found = used(house, quotas, "e2e", cpu="0")
    watch = house.watch(f"{quotas}?watch=1&labelSelector=e2e%3Dstatus&resourceVersion=0")
    found["status"] = {"hard": {"cpu": "250m", "memory": "250Mi"}}
    answered = house.ok("PUT", f"{one}/status", found)
    assert answered["status"]["hard"] == {"cpu": "250m", "memory": "250Mi"} and answered["spec"]["hard"] == hard
    used(house, quotas, "e2e", cpu="0", memory="0")
    house.ok("PATCH", one, {"spec": {"hard": {"cpu": "1", "memory": "1Gi"}}})
    used(house, quotas, "e2e")
    patch = {"spec": {"hard": {"cpu": "9"}}, "status": {"hard": {"cpu": "2", "memory": "2Gi"}}}
    answered = house.ok("PATCH", f"{one}/status", patch)
    assert answered["status"]["hard"] == {"cpu": "2", "memory": "2Gi"}
    assert answered["spec"]["hard"] == {"cpu": "1", "memory": "1Gi"}
    watch.until("MODIFIED", lambda obj: obj["status"]["hard"] == {"cpu": "2", "memory": "2Gi"})
    watch.until("MODIFIED", lambda obj: obj["status"]["hard"] == {"cpu": "1", "memory": "1Gi"})
    assert house.ok("GET", f"{one}/status")["status"]["hard"] == {"cpu": "1", "memory": "1Gi"}
    watch.close()


def test_the_lifecycle_of_a_quota(house: Any, space: str) -> None:
    quotas = f"/api/v1/namespaces/{space}/resourcequotas"
    hard = {"cpu": "1", "memory": "500Mi"}
    house.ok("POST", quotas, {"metadata": {"name": "test", "labels": {"quota": space}}, "spec": {"hard": hard}})
    (found,) = house.ok("GET", f"/api/v1/resourcequotas?labelSelector=quota%3D{space}")["items"]
    patch = {"metadata": {"labels": {"patched": "true"}}, "spec": {"hard": {"memory": "750Mi"}}}
    found = house.ok("PATCH", f"{quotas}/test", patch, content_type="application/strategic-merge-patch+json")
    assert found["metadata"]["labels"]["patched"] == "true"
    assert found["spec"]["hard"] == {"cpu": "1", "memory": "750Mi"}
    house.ok("DELETE", f"{quotas}?labelSelector=patched%3Dtrue")
    house.until(f"{quotas}?labelSelector=quota%3D{space}", lambda found: not found["items"])


def test_a_quota_captures_the_life_of_a_pod(house: Any, space: str) -> None:
    quotas, pods = (f"/api/v1/namespaces/{space}/{plural}" for plural in ("resourcequotas", "pods"))
    hard = {
        "pods": "5", "cpu": "1", "memory": "500Mi", "ephemeral-storage": "50Gi", "requests.example.com/dongle": "3",
    }  # fmt: skip
    house.ok("POST", quotas, {"metadata": {"name": "test"}, "spec": {"hard": hard}})
    used(house, quotas, "test", pods="0")
    house.ok("POST", pods, pod("test-pod", LIMITED))
    found = used(house, quotas, "test", pods="1", cpu="500m", memory="252Mi", requests__example__com___dongle="2")
    assert found["status"]["used"]["ephemeral-storage"] == "30Gi"
    over = {"requests": {"cpu": "600m", "memory": "100Mi", "ephemeral-storage": "30Gi"}}
    refused = house.refused(403, "POST", pods, pod("fail-pod", over))
    assert refused["message"] == (
        'pods "fail-pod" is forbidden: exceeded quota: test, requested: cpu=600m,ephemeral-storage=30Gi, '
        "used: cpu=500m,ephemeral-storage=30Gi, limited: cpu=1,ephemeral-storage=50Gi"
    )
    dongle = {"example.com/dongle": "2"}
    wants = {"requests": {"cpu": "1m", "memory": "1Mi", "ephemeral-storage": "1", **dongle}, "limits": dongle}
    refused = house.refused(403, "POST", pods, pod("fail-pod-for-extended-resource", wants))
    assert (
        "requested: requests.example.com/dongle=2, used: requests.example.com/dongle=2, limited: "
        in (refused["message"])
    )
    refused = house.refused(403, "POST", pods, pod("unsaid"))
    assert refused["message"].endswith("failed quota: test: must specify cpu for: pause; memory for: pause")
    patch = {"spec": {"containers": [{"name": "pause", "resources": {"requests": {"cpu": "100m"}}}]}}
    house.refused(422, "PATCH", f"{pods}/test-pod", patch, content_type="application/strategic-merge-patch+json")
    used(house, quotas, "test", pods="1", cpu="500m")
    house.ok("DELETE", f"{pods}/test-pod?gracePeriodSeconds=0")
    used(house, quotas, "test", pods="0", cpu="0", memory="0", requests__example__com___dongle="0")


def test_a_quota_with_a_scope_counts_best_effort_pods_or_the_others(house: Any, space: str) -> None:
    quotas, pods = (f"/api/v1/namespaces/{space}/{plural}" for plural in ("resourcequotas", "pods"))
    for name, scope in (("besteffort", "BestEffort"), ("not-besteffort", "NotBestEffort")):
        house.ok("POST", quotas, {"metadata": {"name": name}, "spec": {"hard": {"pods": "5"}, "scopes": [scope]}})
        used(house, quotas, name, pods="0")
    burst = {"requests": {"cpu": "100m", "memory": "100Mi"}, "limits": {"cpu": "200m", "memory": "200Mi"}}
    for name, resources, mine, other in (
        ("best", None, "besteffort", "not-besteffort"), ("burst", burst, "not-besteffort", "besteffort"),
    ):  # fmt: skip
        house.ok("POST", pods, pod(name, resources))
        used(house, quotas, mine, pods="1")
        used(house, quotas, other, pods="0")
        house.ok("DELETE", f"{pods}/{name}?gracePeriodSeconds=0")
        used(house, quotas, mine, pods="0")


SCOPES: dict[str, tuple[Any, Any, Any]] = {
    "Terminating": ({"scopes": ["Terminating"]}, {"activeDeadlineSeconds": 3600}, {}),
    "NotTerminating": ({"scopes": ["NotTerminating"]}, {}, {"activeDeadlineSeconds": 3600}),
    "PriorityClass": (
        {"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": "In", "values": ["system-node-critical"]}]}},
        {"priorityClassName": "system-node-critical"}, {},
    ),
    "CrossNamespacePodAffinity": (
        {"scopes": ["CrossNamespacePodAffinity"]},
        {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "zone", "namespaceSelector": {}, "labelSelector": {"matchLabels": {"none": "at-all"}}}]}}},
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("scope", SCOPES)
def test_a_quota_counts_the_pods_of_its_scope(house: Any, space: str, scope: str) -> None:
    quotas, pods = (f"/api/v1/namespaces/{space}/{plural}" for plural in ("resourcequotas", "pods"))
    limits, inside, outside = SCOPES[scope]
    house.ok("POST", quotas, {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}, **limits}})
    used(house, quotas, "q", pods="0")
    house.ok("POST", pods, pod("outside", **outside))
    house.ok("POST", pods, pod("inside", **inside))
    used(house, quotas, "q", pods="1")
    house.refused(403, "POST", pods, pod("second", **inside))


def test_a_quota_counts_custom_resources(house: Any, space: str) -> None:
    quotas = f"/api/v1/namespaces/{space}/resourcequotas"
    names = {"plural": "quotatests", "singular": "quotatest", "kind": "QuotaTest"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": schema}]
    house.ok("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", {
        "metadata": {"name": "quotatests.e2e.example.com"},
        "spec": {"group": "e2e.example.com", "scope": "Namespaced", "names": names, "versions": versions},
    })  # fmt: skip
    bound = "count/quotatests.e2e.example.com"
    house.ok("POST", quotas, {"metadata": {"name": "q"}, "spec": {"hard": {bound: "1"}}})
    house.until(f"{quotas}/q", lambda found: (found.get("status") or {}).get("used") == {bound: "0"})
    many = f"/apis/e2e.example.com/v1/namespaces/{space}/quotatests"
    body = {"apiVersion": "e2e.example.com/v1", "kind": "QuotaTest"}
    house.ok("POST", many, {**body, "metadata": {"name": "one"}})
    house.until(f"{quotas}/q", lambda found: found["status"]["used"] == {bound: "1"})
    house.refused(403, "POST", many, {**body, "metadata": {"name": "two"}})
    house.ok("DELETE", f"{many}/one")
    house.until(f"{quotas}/q", lambda found: found["status"]["used"] == {bound: "0"})
    house.ok("DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/quotatests.e2e.example.com")


def test_a_limit_range_gives_pods_its_defaults_and_bounds(house: Any, space: str) -> None:
    limits, pods = (f"/api/v1/namespaces/{space}/{plural}" for plural in ("limitranges", "pods"))
    row = {
        "type": "Container",
        "min": {"cpu": "50m", "memory": "100Mi", "ephemeral-storage": "100Gi"},
        "max": {"cpu": "500m", "memory": "500Mi", "ephemeral-storage": "500Gi"},
        "default": {"cpu": "500m", "memory": "500Mi", "ephemeral-storage": "500Gi"},
        "defaultRequest": {"cpu": "100m", "memory": "200Mi", "ephemeral-storage": "200Gi"},
    }
    found = house.ok("POST", limits, {"metadata": {"name": "limit-range"}, "spec": {"limits": [row]}})
    assert found["spec"]["limits"] == [row]
    made = house.ok("POST", pods, pod("pod-no-resources"))
    assert made["spec"]["containers"][0]["resources"] == {"limits": row["default"], "requests": row["defaultRequest"]}
    partial = {"requests": {"cpu": "150m", "memory": "150Mi", "ephemeral-storage": "150Gi"},
               "limits": {"cpu": "300m"}}  # fmt: skip
    made = house.ok("POST", pods, pod("pod-partial-resources", partial))
    assert made["spec"]["containers"][0]["resources"] == {
        "requests": partial["requests"], "limits": {**row["default"], "cpu": "300m"},
    }  # fmt: skip
    refused = house.refused(403, "POST", pods, pod("too-small", {"requests": {"cpu": "10m"}}))
    assert refused["message"] == (
        'pods "too-small" is forbidden: minimum cpu usage per Container is 50m, but request is 10m'
    )
    refused = house.refused(403, "POST", pods, pod("too-large", {"limits": {"cpu": "600m"}}))
    assert refused["message"].endswith("maximum cpu usage per Container is 500m, but limit is 600m")
    found["spec"]["limits"][0]["min"]["cpu"] = "5m"
    house.ok("PUT", f"{limits}/limit-range", found)
    house.ok("POST", pods, pod("small", {"requests": {"cpu": "10m"}}))
    house.refused(403, "POST", pods, pod("still-too-large", {"limits": {"cpu": "600m"}}))
    house.ok("DELETE", f"{limits}/limit-range")
    house.until(limits, lambda found: not found["items"])
    house.ok("POST", pods, pod("large", {"limits": {"cpu": "600m"}}))


def test_limit_ranges_are_listed_patched_and_deleted_as_a_collection(house: Any, space: str) -> None:
    other = house.namespace()
    row = {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}}
    body = {"metadata": {"name": "e2e", "labels": {"limits": space}}, "spec": {"limits": [row]}}
    for name in (space, other):
        house.ok("POST", f"/api/v1/namespaces/{name}/limitranges", body)
    everywhere = f"/api/v1/limitranges?labelSelector=limits%3D{space}"
    assert len(house.ok("GET", everywhere)["items"]) == 2
    one = f"/api/v1/namespaces/{space}/limitranges/e2e"
    patch = {"metadata": {"labels": {"e2e": "patched"}}, "spec": {"limits": [{**row, "max": {"cpu": "1"}}]}}
    found = house.ok("PATCH", one, patch, content_type="application/strategic-merge-patch+json")
    assert found["metadata"]["labels"]["e2e"] == "patched" and found["spec"]["limits"][0]["max"] == {"cpu": "1"}
    house.ok("DELETE", f"/api/v1/namespaces/{space}/limitranges?labelSelector=e2e%3Dpatched")
    house.gone(one)
    assert [item["metadata"]["namespace"] for item in house.ok("GET", everywhere)["items"]] == [other]


def test_a_priority_class_keeps_its_value_through_every_method(house: Any) -> None:
    many = "/apis/scheduling.k8s.io/v1/priorityclasses"
    for name, value in (("p1", 1), ("p2", 2)):
        house.ok("POST", many, {"metadata": {"name": name}, "value": value})
    assert {"p1", "p2", "system-node-critical"} <= {item["metadata"]["name"] for item in house.ok("GET", many)["items"]}
    for change, path in (({"value": 3}, "value"), ({"preemptionPolicy": "Never"}, "preemptionPolicy")):
        refused = house.refused(422, "PATCH", f"{many}/p1", change)
        assert refused["details"]["causes"][0]["field"] == path
        body = {"metadata": {"name": "p1"}, "value": 1, "preemptionPolicy": "PreemptLowerPriority", **change}
        house.refused(422, "PUT", f"{many}/p1", body)
    assert refused["message"].endswith('preemptionPolicy: Invalid value: "Never": field is immutable')
    assert house.ok("PATCH", f"{many}/p1", {"description": "patched"})["description"] == "patched"
    body = {"metadata": {"name": "p2"}, "value": 2, "description": "updated", "globalDefault": False}
    assert house.ok("PUT", f"{many}/p2", body)["description"] == "updated"
    for name in ("p1", "p2"):
        assert house.ok("GET", f"{many}/{name}")["value"] == int(name[1])
        house.ok("DELETE", f"{many}/{name}")
