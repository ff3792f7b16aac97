"""What nodes may do, who may act as whom, and what everybody may ask."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.auth import node
from steersman.cluster.auth.attributes import Attributes, read_attributes
from steersman.cluster.auth.identity import from_certificate, is_anonymous_path

POD = {
    "metadata": {"name": "web", "namespace": "a"},
    "spec": {
        "nodeName": "n1",
        "serviceAccountName": "robot",
        "imagePullSecrets": [{"name": "pull"}],
        "volumes": [
            {"name": "s", "secret": {"secretName": "tls"}},
            {"name": "data", "persistentVolumeClaim": {"claimName": "disk"}},
            {"name": "fuse", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "fuse"}}},
            {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}},
            {"name": "p", "projected": {"sources": [{"configMap": {"name": "settings"}}]}},
        ],
        "containers": [
            {
                "name": "c",
                "envFrom": [{"configMapRef": {"name": "env"}}],
                "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}],
            }
        ],
    },
}


def pods_on(name: str) -> list[dict[str, Any]]:
    return [POD] if name == "n1" else []


@pytest.mark.parametrize(
    ("verb", "resource", "subresource", "namespace", "name", "allowed"),
    [
        ("update", "nodes", "status", "", "n1", True),
        ("update", "nodes", "status", "", "n2", True),
        ("delete", "nodes", "", "", "n1", False),
        ("list", "pods", "", "", "", False),
        ("get", "pods", "", "a", "web", True),
        ("get", "pods", "", "a", "other", False),
        ("get", "nodes", "", "", "n1", True),
        ("get", "nodes", "", "", "n2", False),
        ("list", "nodes", "", "", "", False),
        ("watch", "nodes", "", "", "n1", True),
        ("get", "persistentvolumeclaims", "", "a", "disk", True),
        ("get", "persistentvolumeclaims", "", "a", "web-scratch", True),
        ("get", "persistentvolumeclaims", "", "a", "other", False),
        ("list", "persistentvolumeclaims", "", "a", "", False),
        ("get", "persistentvolumes", "", "", "bound", True),
        ("get", "persistentvolumes", "", "", "free", False),
        ("delete", "pods", "", "a", "web", True),
        ("delete", "pods", "", "a", "other", True),
        ("patch", "pods", "status", "a", "web", True),
        ("create", "pods", "exec", "a", "web", False),
        ("get", "secrets", "", "a", "tls", True),
        ("get", "secrets", "", "a", "key", True),
        ("get", "secrets", "", "a", "pull", True),
        ("get", "secrets", "", "b", "tls", False),
        ("get", "secrets", "", "a", "other", False),
        ("list", "secrets", "", "a", "", False),
        ("delete", "secrets", "", "a", "tls", False),
        ("get", "configmaps", "", "a", "settings", True),
        ("watch", "configmaps", "", "a", "env", True),
        ("get", "configmaps", "", "a", "tls", False),
        ("create", "serviceaccounts", "token", "a", "robot", True),
        ("create", "serviceaccounts", "token", "a", "default", False),
    ],
)
def test_a_node_reads_itself_its_pods_and_what_they_use_and_its_writes_are_for_admission(
    verb: str, resource: str, subresource: str, namespace: str, name: str, allowed: bool
) -> None:
    attributes = Attributes(verb, "", "", "v1", resource, subresource, namespace, name)
    assert node.judge("n1", attributes, pods_on, find).allowed is allowed


OBJECTS: dict[tuple[str, str], Any] = {
    ("persistentvolumes", "bound"): {"spec": {"claimRef": {"namespace": "a", "name": "disk"}}},
    ("persistentvolumes", "free"): {"spec": {}},
    ("volumeattachments", "mine"): {"spec": {"nodeName": "n1"}},
    ("volumeattachments", "theirs"): {"spec": {"nodeName": "n2"}},
    ("resourceslices", "mine"): {"spec": {"nodeName": "n1"}},
    ("resourceslices", "theirs"): {"spec": {"nodeName": "n2"}},
}


def find(resource: Any, _namespace: str, name: str) -> Any:
    return OBJECTS.get((resource.plural, name))


@pytest.mark.parametrize(
    ("method", "target", "why"),
    [
        ("GET", "/api/v1/pods?fieldSelector=spec.nodeName=n1", ""),
        ("GET", "/api/v1/pods?fieldSelector=spec.nodeName=n2", "can only list/watch pods with spec.nodeName field"),
        ("GET", "/api/v1/pods?fieldSelector=spec.nodeName!=n1", "can only list/watch pods with spec.nodeName field"),
        ("GET", "/api/v1/nodes?fieldSelector=metadata.name=n1&watch=1", ""),
        ("GET", "/api/v1/nodes/n2", "node 'n1' cannot read 'n2', only its own Node object"),
        ("GET", "/api/v1/namespaces/a/secrets/x", "no relationship found between node 'n1' and this object"),
        ("GET", "/api/v1/namespaces/a/secrets", "No Object name found"),
        ("DELETE", "/api/v1/namespaces/a/secrets/tls", "can only read resources of this type"),
        ("GET", "/api/v1/secrets", "can only read namespaced object of this type"),
        ("GET", "/api/v1/namespaces/a/secrets/tls/status", "cannot read subresource"),
        ("GET", "/api/v1/namespaces/a/secrets/fuse", ""),
        ("GET", "/api/v1/namespaces/a/persistentvolumeclaims", "can only get individual resources of this type"),
        ("PATCH", "/api/v1/namespaces/a/persistentvolumeclaims/disk/status", ""),
        ("GET", "/api/v1/namespaces/a/persistentvolumeclaims/disk/status", "can only get/update/patch this type"),
        ("GET", "/api/v1/namespaces/a/serviceaccounts/robot", ""),
        ("GET", "/api/v1/namespaces/a/serviceaccounts", "can only create tokens for individual service accounts"),
        ("POST", "/api/v1/namespaces/a/serviceaccounts/robot/x", "can only create token subresource of service"),
        ("GET", "/apis/coordination.k8s.io/v1/leases", "can only get, create, update, patch, or delete a node lease"),
        ("GET", "/apis/storage.k8s.io/v1/csinodes", "can only get, create, update, patch, or delete a CSINode"),
        ("GET", "/apis/resource.k8s.io/v1/resourceslices/none", "no relationship found"),
        ("GET", "/apis/storage.k8s.io/v1/csinodes/n1", ""),
        ("PUT", "/apis/storage.k8s.io/v1/csinodes/n2", "can only access CSINode with the same name"),
        ("POST", "/apis/storage.k8s.io/v1/csinodes", ""),
        ("GET", "/apis/storage.k8s.io/v1/volumeattachments/mine", ""),
        ("GET", "/apis/storage.k8s.io/v1/volumeattachments/theirs", "no relationship found"),
        ("GET", "/apis/resource.k8s.io/v1/resourceslices", "can only list/watch/deletecollection resourceslices"),
        ("GET", "/apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.nodeName=n1", ""),
        ("PUT", "/apis/resource.k8s.io/v1/resourceslices/mine", ""),
        ("DELETE", "/apis/resource.k8s.io/v1/resourceslices/theirs", "no relationship found"),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/a/leases/n1", 'in the "kube-node-lease" system namespace'),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2", "node lease with the same name"),
    ],
)
def test_a_node_is_told_why_not(method: str, target: str, why: str) -> None:
    path, _, query = target.partition("?")
    attributes = read_attributes(method, path, dict(part.split("=", 1) for part in query.split("&") if part))
    verdict = node.judge("n1", attributes, pods_on, find)
    assert verdict.allowed is not bool(why) and why in verdict.reason


@pytest.mark.parametrize(
    ("namespace", "name", "allowed"),
    [("kube-node-lease", "n1", True), ("kube-node-lease", "n2", False), ("a", "n1", False)],
)
def test_a_node_renews_its_own_lease_only(namespace: str, name: str, allowed: bool) -> None:
    attributes = Attributes("update", "", "coordination.k8s.io", "v1", "leases", "", namespace, name)
    assert node.judge("n1", attributes, pods_on, find).allowed is allowed


def test_only_members_of_the_nodes_group_are_nodes() -> None:
    assert node.node_of("system:node:n1", ("system:nodes",)) == "n1"
    assert node.node_of("system:node:n1", ()) == "" and node.node_of("jane", ("system:nodes",)) == ""


X_SHA256 = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"


def test_a_certificate_names_the_user_and_groups() -> None:
    subject = ((("organizationName", "devs"),), (("organizationName", "ops"),), (("commonName", "jane"),))
    identity = from_certificate({"subject": subject})
    assert identity is not None and (identity.name, identity.groups) == (
        "jane",
        ("devs", "ops", "system:authenticated"),
    )
    assert from_certificate({"subject": ()}) is None
    uid = (("1.3.6.1.4.1.57683.2", "7"),)
    identity = from_certificate({"subject": (*subject, uid), "der": b"x"})
    assert identity is not None and identity.uid == "7"
    assert dict(identity.extra)["authentication.kubernetes.io/credential-id"] == (f"X509SHA256={X_SHA256}",)
    with pytest.raises(ValueError, match="expected 1 UID"):
        from_certificate({"subject": (*subject, uid, uid)})


def test_only_health_and_version_are_for_everybody() -> None:
    assert all(
        is_anonymous_path(path) for path in ("/healthz", "/livez", "/readyz", "/version", "/version/", "/readyz/store")
    )
    assert not any(is_anonymous_path(path) for path in ("/", "/api", "/metrics", "/versions", "/healthzz"))
