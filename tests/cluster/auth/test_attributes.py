"""What a request asks for, read from its method and path."""

from __future__ import annotations

import pytest

from steersman.cluster.auth.attributes import Attributes, forbidden_message, read_attributes

#: method, path, query, (verb, group, resource, subresource, namespace, name)
READINGS = [
    ("GET", "/api/v1/pods", {}, ("list", "", "pods", "", "", "")),
    ("GET", "/api/v1/pods", {"watch": "1"}, ("watch", "", "pods", "", "", "")),
    ("GET", "/api/v1/watch/pods", {}, ("watch", "", "pods", "", "", "")),
    ("GET", "/api/v1/namespaces/a/pods/web", {}, ("get", "", "pods", "", "a", "web")),
    ("GET", "/api/v1/namespaces/a/pods/web/log", {}, ("get", "", "pods", "log", "a", "web")),
    ("POST", "/api/v1/namespaces/a/pods/web/exec", {}, ("create", "", "pods", "exec", "a", "web")),
    ("GET", "/api/v1/namespaces/a", {}, ("get", "", "namespaces", "", "a", "a")),
    ("PUT", "/api/v1/namespaces/a/finalize", {}, ("update", "", "namespaces", "finalize", "a", "a")),
    ("PATCH", "/api/v1/namespaces/a/status", {}, ("patch", "", "namespaces", "status", "a", "a")),
    ("GET", "/api/v1/namespaces/a/status/x", {}, ("get", "", "namespaces", "status", "a", "a")),
    ("DELETE", "/apis/apps/v1/namespaces/a/deployments", {}, ("deletecollection", "apps", "deployments", "", "a", "")),
    ("DELETE", "/apis/apps/v1/namespaces/a/deployments/d", {}, ("delete", "apps", "deployments", "", "a", "d")),
    ("GET", "/api/v1/pods", {"fieldSelector": "metadata.name=web"}, ("list", "", "pods", "", "", "web")),
    ("GET", "/api/v1/namespaces/a/services/a%3Ab/proxy/x/y", {}, ("get", "", "services", "proxy", "a", "a:b")),
    ("HEAD", "/api/v1/nodes/n", {}, ("get", "", "nodes", "", "", "n")),
    ("GET", "/apis/apps/v1", {}, ("get", "", "", "", "", "")),
    ("OPTIONS", "/api/v1/nodes", {}, ("", "", "nodes", "", "", "")),
    ("OPTIONS", "/version", {}, ("options", "", "", "", "", "")),
    ("GET", "/version/", {}, ("get", "", "", "", "", "")),
    ("GET", "/api/v1/namespaces/a/pods/web%2Flog", {}, ("get", "", "pods", "log", "a", "web")),
    ("GET", "/api%2fv1/namespaces%2fa/pods", {}, ("list", "", "pods", "", "a", "")),
    ("GET", "/api/v1/namespaces/a/pods//log", {}, ("list", "", "pods", "log", "a", "")),
    ("GET", "/api/v1/namespaces/a/pods/web//log", {}, ("get", "", "pods", "", "a", "web")),
    ("GET", "/api/v1/namespaces//pods", {}, ("list", "", "pods", "", "", "")),
    ("GET", "/api/v1/namespaces/a//pods/web", {}, ("get", "", "", "web", "a", "pods")),
    ("GET", "//api/v1/namespaces/a/pods//", {}, ("list", "", "pods", "", "a", "")),
    ("GET", "/apis//v1/pods", {}, ("list", "", "pods", "", "", "")),
    ("GET", "/api/v1/pods", {"fieldSelector": "metadata.name=.."}, ("list", "", "pods", "", "", "")),
    ("GET", "/api/v1/watch/pods", {"fieldSelector": "metadata.name=web"}, ("watch", "", "pods", "", "", "")),
    (
        "DELETE",
        "/api/v1/namespaces/a/pods",
        {"fieldSelector": "metadata.name=web"},
        ("deletecollection", "", "pods", "", "a", ""),
    ),
]


@pytest.mark.parametrize(("method", "path", "query", "wanted"), READINGS, ids=[f"{m} {p}" for m, p, _, _ in READINGS])
def test_paths_are_read_as_kubernetes_reads_them(
    method: str, path: str, query: dict[str, str], wanted: tuple[str, ...]
) -> None:
    found = read_attributes(method, path, query)
    assert (found.verb, found.group, found.resource, found.subresource, found.namespace, found.name) == wanted


def test_who_watches_by_path_is_not_judged_by_selectors() -> None:
    query = {"fieldSelector": "spec.nodeName=n1", "labelSelector": "a=b"}
    assert read_attributes("GET", "/api/v1/pods", query).selected == (("spec.nodeName", "n1"),)
    found = read_attributes("GET", "/api/v1/watch/pods", query)
    assert not found.fields and not found.labels


def test_what_follows_a_subresource_is_kept() -> None:
    assert read_attributes("GET", "/api/v1/nodes/n/proxy/stats/summary", {}).rest == ("stats", "summary")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            Attributes("list", "", "", "v1", "pods", "", "a", ""),
            'pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "a"',
        ),
        (
            Attributes("get", "", "apps", "v1", "deployments", "status", "", "d"),
            'deployments.apps "d" is forbidden: User "jane" cannot get resource "deployments/status" in API group '
            '"apps" at the cluster scope',
        ),
        (Attributes("get", "/metrics"), 'forbidden: User "jane" cannot get path "/metrics"'),
    ],
)
def test_a_refusal_reads_as_kubernetes_writes_it(attributes: Attributes, message: str) -> None:
    assert forbidden_message("jane", attributes) == message
