"""What the conformance suite asks of services, endpoints, ingresses and addresses, as far as the API answers it.

Source: kubernetes/test/e2e/network/*.go
"""

from __future__ import annotations

from typing import Any

import pytest

STRATEGIC = "application/strategic-merge-patch+json"
PAUSE = {"containers": [{"name": "pause", "image": "registry.k8s.io/pause:3.10.1",
                         "ports": [{"name": "example-name", "containerPort": 3000}]}]}  # fmt: skip


def test_the_kubernetes_service_is_there_and_secure(house: Any) -> None:
    found = house.ok("GET", "/api/v1/namespaces/default/services/kubernetes")
    assert found["spec"]["ports"][0].items() >= {"name": "https", "port": 443, "protocol": "TCP"}.items()
    everywhere = house.ok("GET", "/api/v1/services")["items"]
    assert ("default", "kubernetes") in [(row["metadata"]["namespace"], row["metadata"]["name"]) for row in everywhere]
    endpoints = house.ok("GET", "/api/v1/namespaces/default/endpoints/kubernetes")
    assert endpoints["subsets"][0]["ports"][0]["name"] == "https"
    slices = house.ok("GET", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector="
                             "kubernetes.io%2Fservice-name%3Dkubernetes")["items"]  # fmt: skip
    assert [row["addressType"] for row in slices] == ["IPv4"]


def test_endpoints_and_slices_of_a_service_without_pods_come_and_go(house: Any, space: str) -> None:
    core, slices = f"/api/v1/namespaces/{space}", f"/apis/discovery.k8s.io/v1/namespaces/{space}/endpointslices"
    spec = {"selector": {"does-not-match-anything": "endpoints-and-endpoint-slices-should-still-be-created"},
            "ports": [{"name": "example", "port": 80}]}  # fmt: skip
    house.ok("POST", f"{core}/services", {"metadata": {"name": "example-empty-selector"}, "spec": spec})
    house.until(f"{core}/endpoints/example-empty-selector", lambda found: found and not found.get("subsets"))
    selected = f"{slices}?labelSelector=kubernetes.io%2Fservice-name%3Dexample-empty-selector"
    (found,) = house.until(selected, lambda found: found["items"])["items"]
    assert not found["endpoints"] and found["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == (
        "endpointslice-controller.k8s.io"
    )
    assert found["metadata"]["ownerReferences"][0]["name"] == "example-empty-selector"
    house.ok("DELETE", f"{core}/services/example-empty-selector")
    house.gone(f"{core}/endpoints/example-empty-selector")
    house.until(selected, lambda found: not found["items"])


def test_endpoints_and_slices_follow_pods_by_address_and_named_port(house: Any, space: str) -> None:
    core, slices = f"/api/v1/namespaces/{space}", f"/apis/discovery.k8s.io/v1/namespaces/{space}/endpointslices"
    for name in ("pod1", "pod2"):
        house.ok(
            "POST", f"{core}/pods", {"metadata": {"name": name, "labels": {"foo": "bar", name: "x"}}, "spec": PAUSE}
        )
    services = {
        "example-int-port": ({"pod1": "x"}, {"name": "example", "port": 80, "targetPort": 3000}),
        "example-named-port": ({"foo": "bar"}, {"name": "http", "port": 80, "targetPort": "example-name"}),
        "example-no-match": ({"foo": "none"}, {"name": "example-no-match", "port": 80, "targetPort": 8080}),
    }
    for name, (selector, port) in services.items():
        spec = {"selector": selector, "ports": [port], "publishNotReadyAddresses": True}
        house.ok("POST", f"{core}/services", {"metadata": {"name": name}, "spec": spec})
    for name, (count, port) in {
        "example-int-port": (1, 3000), "example-named-port": (2, 3000), "example-no-match": (0, 0),
    }.items():  # fmt: skip
        selected = f"{slices}?labelSelector=kubernetes.io%2Fservice-name%3D{name}"

        def full(found: Any, count: int = count) -> bool:
            return bool(found["items"]) and len(found["items"][0].get("endpoints") or ()) == count

        (row,) = house.until(selected, full)["items"]
        if count:
            assert row["ports"][0]["port"] == port
            assert {end["targetRef"]["kind"] for end in row["endpoints"]} == {"Pod"}
            assert all(end["conditions"]["ready"] and end["nodeName"] for end in row["endpoints"])

        def listed(found: Any, count: int = count) -> bool:
            subsets = (found or {}).get("subsets") or ()
            return sum(len(subset.get("addresses") or ()) for subset in subsets) == count

        house.until(f"{core}/endpoints/{name}", listed)


def test_custom_endpoints_are_mirrored_through_their_life(house: Any, space: str) -> None:
    core, slices = f"/api/v1/namespaces/{space}", f"/apis/discovery.k8s.io/v1/namespaces/{space}/endpointslices"
    ports = [{"name": "example", "port": 80}]
    house.ok("POST", f"{core}/services", {"metadata": {"name": "example-custom"}, "spec": {"ports": ports}})
    subset = {"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}
    house.ok("POST", f"{core}/endpoints", {"metadata": {"name": "example-custom"}, "subsets": [subset]})
    selected = f"{slices}?labelSelector=kubernetes.io%2Fservice-name%3Dexample-custom"
    (found,) = house.until(selected, lambda found: found["items"])["items"]
    assert (found["endpoints"][0]["addresses"], found["ports"][0]["port"]) == (["10.1.2.3"], 80)
    assert found["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == (
        "endpointslicemirroring-controller.k8s.io"
    )
    house.ok("PATCH", f"{core}/endpoints/example-custom", {
        "subsets": [{"addresses": [{"ip": "10.2.3.4"}], "ports": [{"port": 9090}]}]})  # fmt: skip
    house.until(selected, lambda found: [
        (row["endpoints"][0]["addresses"], row["ports"][0]["port"]) for row in found["items"]
    ] == [(["10.2.3.4"], 9090)])  # fmt: skip
    house.ok("DELETE", f"{core}/endpoints/example-custom")
    house.until(selected, lambda found: not found["items"])


def test_the_lifecycle_of_endpoints(house: Any, space: str) -> None:
    many = f"/api/v1/namespaces/{space}/endpoints"
    watch = house.watch(f"{many}?watch=1&labelSelector=test-endpoint-static%3Dtrue")
    subset = {"addresses": [{"ip": "10.0.0.24"}], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}
    body = {"metadata": {"name": "testservice", "labels": {"test-endpoint-static": "true"}}, "subsets": [subset]}
    house.ok("POST", many, body)
    watch.until("ADDED")
    (found,) = house.ok("GET", "/api/v1/endpoints?labelSelector=test-endpoint-static%3Dtrue")["items"]
    found["metadata"]["labels"]["test-service"] = "updated"
    house.ok("PUT", f"{many}/testservice", found)
    watch.until("MODIFIED", lambda obj: obj["metadata"]["labels"]["test-service"] == "updated")
    patch = {
        "metadata": {"labels": {"test-service": "patched"}},
        "subsets": [{"addresses": [{"ip": "10.0.0.25"}], "ports": [{"name": "b", "port": 8080, "protocol": "TCP"}]}],
    }
    house.ok("PATCH", f"{many}/testservice", patch, content_type=STRATEGIC)
    found = watch.until("MODIFIED", lambda obj: obj["metadata"]["labels"]["test-service"] == "patched")
    assert found["subsets"] == patch["subsets"]
    house.ok("DELETE", f"{many}?labelSelector=test-endpoint-static%3Dtrue")
    watch.until("DELETED")
    house.refused(404, "GET", f"{many}/testservice")
    watch.close()


def test_services_are_deleted_as_a_collection(house: Any, space: str) -> None:
    many = f"/api/v1/namespaces/{space}/services"
    for index, labels in enumerate(({"e2e": "yes"}, {"e2e": "yes"}, {"e2e": "no"})):
        spec = {"type": "ClusterIP", "ports": [{"name": "https", "port": 8443 + index, "protocol": "TCP"}]}
        house.ok("POST", many, {"metadata": {"name": f"e2e-svc-{index}", "labels": labels}, "spec": spec})
    assert len(house.ok("GET", many)["items"]) == 3
    house.ok("DELETE", f"{many}?labelSelector=e2e%3Dyes")
    (left,) = house.ok("GET", many)["items"]
    assert left["metadata"]["name"] == "e2e-svc-2"


def test_the_status_of_a_service_is_read_patched_and_updated(house: Any, space: str) -> None:
    many = f"/api/v1/namespaces/{space}/services"
    spec = {"type": "LoadBalancer", "ports": [{"name": "http", "port": 80}]}
    house.ok("POST", many, {"metadata": {"name": "test", "labels": {"static": "true"}}, "spec": spec})
    one = f"{many}/test"
    patch = {
        "metadata": {"annotations": {"patchedstatus": "true"}},
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}},
    }
    found = house.ok("PATCH", f"{one}/status", patch)
    assert found["status"]["loadBalancer"]["ingress"] == [{"ip": "203.0.113.1", "ipMode": "VIP"}]
    found = house.ok("GET", f"{one}/status")
    condition = {
        "type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    found["status"]["conditions"] = [condition]
    assert house.ok("PUT", f"{one}/status", found)["status"]["conditions"] == [condition]
    patch = {"metadata": {"labels": {"static": "patched"}}, "spec": {"ports": [{"name": "other", "port": 8080}]}}
    found = house.ok("PATCH", one, patch, content_type=STRATEGIC)
    assert [row["port"] for row in found["spec"]["ports"]] == [8080, 80]
    house.ok("DELETE", f"{many}?labelSelector=static%3Dpatched")
    house.gone(one)


TYPES = [("ClusterIP", "ExternalName"), ("NodePort", "ExternalName"), ("ExternalName", "ClusterIP"),
         ("ExternalName", "NodePort")]  # fmt: skip


@pytest.mark.parametrize(("before", "after"), TYPES)
def test_a_service_changes_its_type(house: Any, space: str, before: str, after: str) -> None:
    many = f"/api/v1/namespaces/{space}/services"
    ports = [{"port": 80, "name": "http", "protocol": "TCP"}]
    specs: dict[str, Any] = {name: {"type": name, "ports": ports} for name in ("ClusterIP", "NodePort")}
    specs["ExternalName"] = {"type": "ExternalName", "externalName": "foo.example.com"}
    found = house.ok("POST", many, {"metadata": {"name": "s"}, "spec": specs[before]})
    if after == "ExternalName":
        found["spec"]["type"], found["spec"]["externalName"] = "ExternalName", "foo.example.com"
        found["spec"].pop("clusterIP")
        found["spec"].pop("clusterIPs")
        found = house.ok("PUT", f"{many}/s", found)
        assert not found["spec"].get("clusterIP") and not found["spec"]["ports"][0].get("nodePort")
    else:
        found["spec"] = {**found["spec"], **specs[after], "externalName": ""}
        found = house.ok("PUT", f"{many}/s", found)
        assert found["spec"]["clusterIP"] and found["spec"].get("externalName", "") == ""
        assert bool(found["spec"]["ports"][0].get("nodePort")) is (after == "NodePort")


def test_session_affinity_is_switched(house: Any, space: str) -> None:
    many = f"/api/v1/namespaces/{space}/services"
    spec = {"ports": [{"port": 80}], "sessionAffinity": "None"}
    found = house.ok("POST", many, {"metadata": {"name": "affinity"}, "spec": spec})
    found["spec"]["sessionAffinity"] = "ClientIP"
    found = house.ok("PUT", f"{many}/affinity", found)
    assert found["spec"]["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}
    found["spec"]["sessionAffinity"] = "None"
    assert "sessionAffinityConfig" not in house.ok("PUT", f"{many}/affinity", found)["spec"]
