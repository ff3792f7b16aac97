"""NodeRestriction: what a node may not write of itself, its pods, their claims and tokens."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.api.admission import noderestriction
from steersman.cluster.api.admission.attempt import CREATE, DELETE, UPDATE, Attempt
from steersman.cluster.api.cel import Decision, Question
from steersman.cluster.api.context import WriteContext
from steersman.cluster.meta.errors import Forbidden
from steersman.cluster.meta.resources import CSI_DRIVERS, NODES, PERSISTENT_VOLUMES, PODS
from steersman.cluster.meta.resources import PERSISTENT_VOLUME_CLAIMS as CLAIMS

ME = {"user": "system:node:n1", "groups": ("system:nodes",)}
OWNER = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u1", "controller": True}
MIRROR = {"name": "p", "annotations": {"kubernetes.io/config.mirror": "x"}, "ownerReferences": [OWNER]}
VOLUMES = [
    {"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}, {"serviceAccountToken": {"audience": "own"}}]}},
    {"csi": {"driver": "csi.example"}},
    {"persistentVolumeClaim": {"claimName": "c"}},
]
PRESENT = {
    (NODES, "n1"): {"metadata": {"name": "n1", "uid": "u1"}},
    (PODS, "mine"): {"metadata": {"name": "mine", "uid": "p1"}, "spec": {"nodeName": "n1", "volumes": VOLUMES}},
    (CSI_DRIVERS, "csi.example"): {"spec": {"tokenRequests": [{"audience": "vault"}]}},
    (CLAIMS, "c"): {"spec": {"volumeName": "v"}},
    (PERSISTENT_VOLUMES, "v"): {"spec": {"csi": {"driver": "other.example"}}},
    (CSI_DRIVERS, "other.example"): {"spec": {"tokenRequests": [{"audience": "disks"}]}},
    (PODS, "other"): {"metadata": {"name": "other", "uid": "p2"}, "spec": {"nodeName": "n2"}},
}


def mirror(spec: Any = None, **meta: Any) -> Any:
    return {"metadata": {**MIRROR, **meta}, "spec": {"nodeName": "n1", **(spec or {})}}


def owned(**changes: Any) -> Any:
    return mirror(ownerReferences=[{**OWNER, **changes}])


def claim(**status: Any) -> Any:
    return {"metadata": {"name": "c"}, "spec": {"x": 1}, "status": {"phase": "Bound", **status}}


def token(*audiences: str, **reference: Any) -> Any:
    spec = {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", **reference}}
    return {"spec": {**spec, "audiences": list(audiences)}}


def ask(question: Question) -> Decision:
    return Decision(allowed=(question.verb, question.resource) == ("request-serviceaccounts-token-audience", "free"))


def find(resource: Any, _namespace: str, name: str) -> Any:
    return PRESENT.get((resource, name))


def refused(api: Any, operation: str, plural: str, obj: Any, old: Any = None, sub: str = "") -> str:
    """What a node is told that tries this; empty when it may."""
    kind = next(kind for kind in api.registry.all() if kind.resource.plural == plural)
    name = ((obj or old or {}).get("metadata") or {}).get("name", "default")
    place = {"namespace": "a", "name": name, "subresource": sub}
    attempt = Attempt(operation=operation, kind=kind, obj=obj, old=old, **place)
    context = WriteContext(now=0, new_uid=str, random_suffix=str, lookup=find, authorize=ask, **ME)
    try:
        noderestriction.admit(attempt, context)
    except Forbidden as error:
        return error.message.partition(" is forbidden: ")[2]
    return ""


@pytest.mark.parametrize(
    ("pod", "message"),
    [
        (mirror(), ""),
        (mirror(annotations={}), 'pod does not have "kubernetes.io/config.mirror" annotation, node "n1" can only'),
        (mirror({"nodeName": "n2"}), 'node "n1" can only create pods with spec.nodeName set to itself'),
        (mirror(ownerReferences=[]), 'node "n1" can only create pods with an owner reference set to itself'),
        (mirror(ownerReferences=[OWNER, OWNER]), "with a single owner reference set to itself"),
        (owned(name="n2"), 'node "n1" can only create pods with an owner reference set to itself'),
        (owned(controller=False), "with a controller owner reference set to itself"),
        (owned(blockOwnerDeletion=True), 'node "n1" must not set blockOwnerDeletion on an owner reference'),
        (owned(uid="u9"), "node n1 UID mismatch: expected u9 got u1"),
        (mirror({"serviceAccountName": "a"}), 'node "n1" can not create pods that reference a service account'),
        (mirror({"imagePullSecrets": [{"name": "a"}]}), "can not create pods that reference secrets"),
        (mirror({"volumes": [{"secret": {"secretName": "a"}}]}), "can not create pods that reference secrets"),
        (mirror({"containers": [{"envFrom": [{"configMapRef": {"name": "a"}}]}]}), "that reference configmaps"),
        (
            mirror({"volumes": [{"projected": {"sources": [{"clusterTrustBundle": {"name": "a"}}]}}]}),
            "can not create pods that reference clustertrustbundles",
        ),
        (mirror({"resourceClaims": [{"name": "a"}]}), "can not create pods that reference resourceclaims"),
        (mirror({"volumes": [{"persistentVolumeClaim": {"claimName": "a"}}]}), "reference persistentvolumeclaims"),
    ],
)
def test_a_node_creates_mirror_pods_alone(api: Any, pod: Any, message: str) -> None:
    found = refused(api, CREATE, "pods", pod)
    assert message in found and bool(message) is bool(found)


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        ((DELETE, "pods", None, PRESENT[PODS, "mine"]), ""),
        ((DELETE, "pods", None, PRESENT[PODS, "other"]), 'node "n1" can only delete pods with spec.nodeName set to'),
        ((UPDATE, "pods", mirror(), mirror()), 'unexpected operation "UPDATE", node "n1" can only create and'),
        ((UPDATE, "pods", mirror(), mirror(), "resize"), 'unexpected pod subresource "resize", only \'status\' and'),
        ((UPDATE, "pods", mirror(), mirror(), "status"), ""),
        ((UPDATE, "pods", mirror(), mirror({"nodeName": "n2"}), "status"), "can only update pod status for pods with"),
        ((UPDATE, "pods", mirror(labels={"a": "b"}), mirror(), "status"), "cannot update labels through pod status"),
        ((CREATE, "pods", PRESENT[PODS, "mine"], None, "eviction"), ""),
        ((CREATE, "pods", PRESENT[PODS, "other"], None, "eviction"), "node n1 can only evict pods with spec.nodeName"),
        ((UPDATE, "persistentvolumeclaims", claim(capacity={"storage": "2Gi"}), claim(), "status"), ""),
        ((UPDATE, "persistentvolumeclaims", claim(phase="Lost"), claim(), "status"), "is not allowed to update fields"),
        ((UPDATE, "persistentvolumeclaims", claim(), claim()), "may only update PVC status"),
        ((CREATE, "serviceaccounts", token(name="mine", uid="p1"), None, "token"), ""),
        *(
            ((CREATE, "serviceaccounts", token(audience, name="mine", uid="p1"), None, "token"), "")
            for audience in ("own", "vault", "disks", "free")
        ),
        ((CREATE, "serviceaccounts", token("a", name="mine", uid="p1"), None, "token"), 'audience "a" not found in'),
        ((CREATE, "serviceaccounts", token("a", "b", name="mine", uid="p1"), None, "token"), "may only request 0 or 1"),
        ((CREATE, "resourceslices", {"metadata": {"name": "s"}, "spec": {"nodeName": "n2"}}), "can only create"),
        ((DELETE, "resourceslices", None, {"metadata": {"name": "s"}, "spec": {"nodeName": "n1"}}), ""),
        ((CREATE, "serviceaccounts", {"spec": {}}, None, "token"), "node requested token not bound to a pod"),
        ((CREATE, "serviceaccounts", token(name="mine"), None, "token"), "token with a pod binding without a uid"),
        ((CREATE, "serviceaccounts", token(name="mine", uid="x"), None, "token"), "does not match the UID in record"),
        ((CREATE, "serviceaccounts", token(name="other", uid="p2"), None, "token"), "scheduled on a different node"),
        ((UPDATE, "nodes", {"metadata": {"name": "n2"}}, {"metadata": {"name": "n2"}}), "not allowed to modify node"),
        ((CREATE, "csinodes", {"metadata": {"name": "n2"}}), "can only access CSINode with the same name as the"),
        ((CREATE, "leases", {"metadata": {"name": "n1"}}), 'can only access leases in the "kube-node-lease" system'),
    ],
)  # fmt: skip
def test_a_node_writes_what_is_its_own(api: Any, attempt: Any, message: str) -> None:
    found = refused(api, *attempt)
    assert message in found and bool(message) is bool(found)


@pytest.mark.parametrize(
    ("label", "allowed"),
    [
        ("kubernetes.io/hostname", True),
        ("topology.kubernetes.io/zone", True),
        ("node.kubernetes.io/anything", True),
        ("kubelet.kubernetes.io/anything", True),
        ("example.com/team", True),
        ("node-role.kubernetes.io/control-plane", False),
        ("node-role.kubernetes.io/worker", False),
        ("team.node-restriction.kubernetes.io/a", False),
        ("k8s.io/a", False),
    ],
)
def test_a_node_registers_with_the_labels_that_it_may_have(api: Any, label: str, allowed: bool) -> None:
    found = refused(api, CREATE, "nodes", {"metadata": {"name": "n1", "labels": {label: ""}}})
    assert (found == f'node "n1" is not allowed to set the following labels: {label}') is not allowed
