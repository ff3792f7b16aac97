from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from steersman.cluster.api import write
from steersman.cluster.api.steps import settled
from steersman.cluster.meta.errors import (
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    UnsupportedMediaType,
)
from steersman.cluster.meta.objects import Obj


def test_a_new_object_gets_what_only_the_server_gives(api: Any) -> None:
    sent = api.deployment()
    sent["metadata"] |= {"uid": "mine", "generation": 9, "creationTimestamp": "2001-01-01T00:00:00Z"}
    sent["status"] = {"replicas": 7}
    found = api.create("deployments", sent)
    meta = found["metadata"]
    assert (meta["generation"], meta["creationTimestamp"]) == (1, "2025-10-09T08:53:20Z")
    assert meta["uid"] != "mine"
    assert found["status"] == {}
    assert meta["managedFields"][0]["manager"] == "test"


def test_a_generated_name_ends_in_the_suffix(api: Any) -> None:
    found = api.create("configmaps", {"metadata": {"generateName": "x" * 70}})
    assert len(found["metadata"]["name"]) == 63
    with pytest.raises(Invalid, match="name or generateName is required"):
        api.create("configmaps", {"metadata": {}})


def test_creating_in_no_or_a_dying_namespace_is_refused(api: Any) -> None:
    with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
        api.prepare("configmaps", {"metadata": {"name": "a"}}, "nowhere")
    with pytest.raises(BadRequest, match="does not match the namespace sent"):
        api.prepare("configmaps", {"metadata": {"name": "a", "namespace": "other"}})
    with pytest.raises(BadRequest, match="resourceVersion should not be set"):
        api.prepare("configmaps", {"metadata": {"name": "a", "resourceVersion": "1"}})
    api.create("namespaces", {"metadata": {"name": "dying"}})
    kind = api.row("namespaces")
    marked = write.delete(api.registry, kind, api.get("namespaces", "dying", ""), None, api.context())
    api.objects[kind.key("", "dying")] = marked.obj
    with pytest.raises(Forbidden, match="because it is being terminated") as refused:
        api.prepare("configmaps", {"metadata": {"name": "a"}}, "dying")
    assert refused.value.causes[0].reason == "NamespaceTerminating"


def test_generation_counts_changes_of_the_spec_alone(api: Any) -> None:
    api.create("deployments", api.deployment())
    found = api.change("deployments", "web", lambda obj: obj["metadata"].update(labels={"a": "b"}))
    assert found["metadata"]["generation"] == 1
    found = api.change("deployments", "web", lambda obj: obj["spec"].update(replicas=3))
    assert found["metadata"]["generation"] == 2
    found = api.change("deployments", "web", lambda obj: obj.update(status={"replicas": 3}), "status")
    assert (found["metadata"]["generation"], found["status"]) == (2, {"replicas": 3})


def test_spec_and_status_are_written_apart(api: Any) -> None:
    api.create("deployments", api.deployment())
    api.change("deployments", "web", lambda obj: obj.update(status={"replicas": 1}), "status")

    def both(obj: Any) -> None:
        obj["status"] = {"replicas": 99}
        obj["spec"]["replicas"] = 5

    found = api.change("deployments", "web", both)
    assert (found["status"], found["spec"]["replicas"]) == ({"replicas": 1}, 5)

    def other(obj: Any) -> None:
        obj["status"] = {"replicas": 2}
        obj["spec"]["replicas"] = 8

    found = api.change("deployments", "web", other, "status")
    assert (found["status"], found["spec"]["replicas"]) == ({"replicas": 2}, 5)


def test_an_update_of_nothing_changes_nothing(api: Any) -> None:
    old = api.create("deployments", api.deployment())
    new = api.decode("deployments", old)
    written = settled(write.update(api.registry, api.row("deployments"), new, old, "", api.context(now=api.now + 60)))
    assert not written.changed
    sent = api.decode("deployments", api.deployment())  # the defaults come back by themselves
    assert not settled(write.update(api.registry, api.row("deployments"), sent, old, "", api.context())).changed


@pytest.mark.parametrize(
    ("plural", "key"),
    [
        ("pods", "pods/ns/a"), ("services", "services/specs/ns/a"), ("endpoints", "services/endpoints/ns/a"),
        ("nodes", "minions/a"), ("replicationcontrollers", "controllers/ns/a"), ("ingresses", "ingress/ns/a"),
        ("deployments", "deployments/ns/a"), ("apiservices", "apiregistration.k8s.io/apiservices/a"),
        ("customresourcedefinitions", "apiextensions.k8s.io/customresourcedefinitions/a"),
    ],
)  # fmt: skip
def test_an_object_of_another_uid_is_told_by_its_key_in_etcd(api: Any, plural: str, key: str) -> None:
    with pytest.raises(Conflict) as caught:
        write.check_uid(api.row(plural), {"metadata": {"uid": "1"}}, "ns", "a", "2")
    said = "Precondition failed: UID in precondition: 1, UID in object meta: 2"
    place = f"Key: /registry/{key}, ResourceVersion: 0, AdditionalErrorMsg: {said}"
    assert caught.value.message.endswith(f'"a": StorageError: invalid object, Code: 4, {place}')


@pytest.mark.parametrize(
    ("edit", "error", "detail"),
    [
        ({"resourceVersion": "999"}, Conflict, "the object has been modified; please apply your changes to the latest"),
        ({"uid": "other"}, Conflict, "Precondition failed: UID in precondition: other"),
        ({"name": "other"}, BadRequest, "does not match the name on the URL"),
        ({"namespace": "other"}, BadRequest, "does not match the namespace"),
        ({"labels": {"-bad": "x"}}, Invalid, "metadata.labels: Invalid value"),
        ({"finalizers": ["a/b", "nodomain"]}, Invalid,
         r'metadata.finalizers\[1\]: Invalid value: "nodomain": name is neither a standard finalizer name nor'),
        ({"finalizers": ["orphan", "foregroundDeletion"]}, Invalid,
         r'metadata.finalizers: Invalid value: \["orphan","foregroundDeletion"\]: finalizer orphan and foreground'
         "Deletion cannot be both set"),
        ({"ownerReferences": [{"kind": "Pod", "name": "a", "uid": ""}]}, Invalid, "ownerReferences"),
        ({"annotations": {"a": "x" * 300_000}}, Invalid, "Too long: may not be more than 262144 bytes"),
        ({"name": ""}, BadRequest,
         r"the name of the object \(a based on URL\) was undeterminable: name must be provided"),
        ({"deletionTimestamp": "2020-01-01T00:00:00Z"}, Invalid,
         'metadata.deletionTimestamp: Invalid value: "2020-01-01T00:00:00Z": field is immutable'),
        ({"ownerReferences": [{"apiVersion": "apps/", "kind": "Pod", "name": "a", "uid": "1"}]}, Invalid,
         r'metadata.ownerReferences\[0\].apiVersion: Invalid value: "apps/": version must not be empty'),
        ({"managedFields": [{"manager": "m" * 129, "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
                             "fieldsV1": {"f:data": {}}}]}, Invalid,
         r"metadata.managedFields\[0\].manager: Too long: may not be more than 128 bytes"),
    ],
)  # fmt: skip
def test_metadata_that_may_not_be_is_refused(api: Any, edit: Any, error: type[Exception], detail: str) -> None:
    old = api.create("configmaps", {"metadata": {"name": "a"}})
    new = {**api.decode("configmaps", old), "metadata": {**old["metadata"], **edit}}
    with pytest.raises(error, match=detail):
        settled(write.update(api.registry, api.row("configmaps"), new, old, "", api.context()))


def test_a_patch_to_another_uid_breaks_a_rule_and_is_no_conflict(api: Any) -> None:
    api.create("configmaps", {"metadata": {"name": "a"}})
    with pytest.raises(Invalid, match=r'metadata\.uid: Invalid value: "other": field is immutable'):
        api.patch("configmaps", "a", {"metadata": {"uid": "other"}})
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b", "uid": "other"}}
    with pytest.raises(Conflict, match="uid mismatch: the provided object specified uid other, and no existing object"):
        api.patch("configmaps", "b", config, write.APPLY_PATCH, field_manager="me")


def test_resource_version_zero_is_none(api: Any) -> None:
    made = api.create("configmaps", {"metadata": {"name": "a", "resourceVersion": "0"}})
    new = {**made, "metadata": {**made["metadata"], "resourceVersion": "0"}, "data": {"k": "v"}}
    written = settled(write.update(api.registry, api.row("configmaps"), new, made, "", api.context()))
    assert written.obj["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    lease = api.create("leases", {"metadata": {"name": "a"}})
    new = {**lease, "metadata": {"name": "a", "namespace": "default"}}
    told = (
        'leases.coordination.k8s.io "a" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for'
    )
    with pytest.raises(Invalid, match=told):
        settled(write.update(api.registry, api.row("leases"), new, lease, "", api.context()))


def test_an_owner_named_twice_is_named_once_and_warned_of(api: Any) -> None:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1"}
    warnings: list[str] = []
    obj = {"metadata": {"name": "a", "ownerReferences": [owner, {**owner, "uid": "2"}, owner]}}
    made = api.create("configmaps", obj, warn=warnings.append)
    assert [row["uid"] for row in made["metadata"]["ownerReferences"]] == ["1", "2"]
    assert len(warnings) == 1 and warnings[0].startswith(".metadata.ownerReferences contains duplicate entries; API")
    assert warnings[0].endswith("please fix your requests; duplicate UID(s) observed: 1")
    operations = [{"op": "add", "path": "/metadata/ownerReferences/-", "value": owner}]
    patched = api.patch("configmaps", "a", operations, write.JSON_PATCH, warn=warnings.append)
    assert patched["metadata"]["ownerReferences"] == made["metadata"]["ownerReferences"]
    assert "contains duplicate entries after mutating admission happens; API" in warnings[1]


def test_an_apply_that_leaves_its_metadata_out_takes_nothing_of_others(api: Any) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"x": "y"}}}
    api.patch("configmaps", "a", config, write.APPLY_PATCH, field_manager="me")
    api.delete("configmaps", "a", {"propagationPolicy": "Foreground"})
    config["metadata"] = {"name": "a"}
    left = api.patch("configmaps", "a", config, write.APPLY_PATCH, field_manager="me")["metadata"]
    assert left["finalizers"] == ["foregroundDeletion"] and "labels" not in left


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"uid": "x"}, Invalid, 'ConfigMap "a" is invalid: metadata.uid: Invalid value: "x": field is immutable'),
        ({"namespace": "other"}, BadRequest,
         "the namespace of the provided object does not match the namespace sent on the request"),
        ({"name": "b"}, BadRequest, "the name of the object (b) does not match the name on the URL (a)"),
        ({"managedFields": []}, BadRequest, "metadata.managedFields must be nil"),
    ],
)  # fmt: skip
def test_an_apply_is_about_the_object_on_the_url(api: Any, change: Any, error: type[ApiError], message: str) -> None:
    api.create("configmaps", {"metadata": {"name": "a"}})
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", **change}}
    with pytest.raises(error) as refused:
        api.patch("configmaps", "a", config, write.APPLY_PATCH, field_manager="me")
    assert refused.value.message == message


def test_what_is_in_no_namespace_forgets_that_one_was_named(api: Any) -> None:
    made = api.create("nodes", {"metadata": {"name": "n", "namespace": "default"}})
    assert "namespace" not in made["metadata"]
    assert "namespace" not in api.patch("nodes", "n", {"metadata": {"namespace": "other"}})["metadata"]


def test_the_four_patches_change_what_they_say(api: Any) -> None:
    api.create("deployments", api.deployment())
    found = api.patch("deployments", "web", {"spec": {"replicas": 2}})
    assert found["spec"]["replicas"] == 2
    ops = [
        {"op": "test", "path": "/spec/replicas", "value": 2},
        {"op": "replace", "path": "/spec/replicas", "value": 3},
    ]
    assert api.patch("deployments", "web", ops, write.JSON_PATCH)["spec"]["replicas"] == 3
    containers = [{"name": "main", "image": "nginx:2"}, {"name": "side", "image": "busybox:1"}]
    found = api.patch(
        "deployments", "web", {"spec": {"template": {"spec": {"containers": containers}}}}, write.STRATEGIC_PATCH
    )
    assert [one["image"] for one in found["spec"]["template"]["spec"]["containers"]] == ["nginx:2", "busybox:1"]
    applied = {**api.deployment(replicas=7), "apiVersion": "apps/v1", "kind": "Deployment"}
    with pytest.raises(Conflict):
        api.patch("deployments", "web", applied, write.APPLY_PATCH, field_manager="other")
    found = api.patch("deployments", "web", applied, write.APPLY_PATCH, force=True, field_manager="other")
    assert found["spec"]["replicas"] == 7


def test_apply_creates_what_is_not_there(api: Any) -> None:
    applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}}
    found = api.patch("configmaps", "a", applied, write.APPLY_PATCH, field_manager="me")
    assert (found["data"], found["metadata"]["namespace"]) == ({"k": "v"}, "default")
    entry = found["metadata"]["managedFields"][0]
    assert (entry["manager"], entry["operation"]) == ("me", "Apply")
    with pytest.raises(NotFound):
        api.patch("configmaps", "b", {"data": {}}, write.MERGE_PATCH)


def test_an_applied_resource_version_is_a_precondition(api: Any) -> None:
    before = api.create("configmaps", {"metadata": {"name": "a"}})["metadata"]["resourceVersion"]

    def applied(version: str) -> Obj:
        meta = {"name": "a", "resourceVersion": version}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"k": version}}
        return api.patch("configmaps", "a", body, write.APPLY_PATCH, field_manager="me")

    assert applied(before)["data"] == {"k": before}
    with pytest.raises(Conflict, match="the object has been modified"):
        applied(before)


@pytest.mark.parametrize(
    ("media", "patch", "error"),
    [
        (write.MERGE_PATCH, [], BadRequest),
        (write.JSON_PATCH, {}, BadRequest),
        ("text/plain", {}, UnsupportedMediaType),
        (write.MERGE_PATCH, {"spec": {"replicas": "x"}}, Invalid),
        (write.MERGE_PATCH, {"spec": {"nonsense": 1}}, Invalid),
        (write.MERGE_PATCH, {"spec": {"replicas": -1}}, Invalid),
        (write.MERGE_PATCH, {"spec": {"selector": {"matchLabels": {"app": "other"}}}}, Invalid),
        (write.MERGE_PATCH, {"metadata": {"resourceVersion": "1"}}, Conflict),
        (write.APPLY_PATCH, {"kind": "Deployment"}, BadRequest),
    ],
)
def test_a_patch_to_something_wrong_is_refused(api: Any, media: str, patch: Any, error: type[Exception]) -> None:
    api.create("deployments", api.deployment())
    with pytest.raises(error):
        api.patch("deployments", "web", patch, media)


def test_an_apply_says_the_version_of_the_object_it_is_about(api: Any) -> None:
    with pytest.raises(BadRequest) as refused:
        api.patch("pods", "web", {"apiVersion": "apps/v1", "kind": "Deployment"}, write.APPLY_PATCH)
    assert refused.value.message == "invalid object type: apps/v1, Kind=Deployment"


def test_a_scale_shows_and_sets_the_replicas(api: Any) -> None:
    kind = api.row("deployments")
    old = api.create("deployments", api.deployment())
    scale = write.representation(kind, old, "scale")
    assert scale["spec"] == {"replicas": 1}
    assert scale["status"] == {"replicas": 0, "selector": "app=web"}
    scale["spec"]["replicas"] = 4
    written = settled(write.update(api.registry, kind, scale, old, "scale", api.context()))
    assert (written.obj["spec"]["replicas"], written.obj["metadata"]["generation"]) == (4, 2)
    assert api.patch("deployments", "web", {"spec": {"replicas": 6}}, subresource="scale")["spec"]["replicas"] == 6
    with pytest.raises(Invalid, match="must be greater than or equal to 0"):
        api.patch("deployments", "web", {"spec": {"replicas": -1}}, subresource="scale")
    # as Ansible does, which names the kind that it scales
    wrong = {"kind": "Deployment", "spec": {"replicas": 7}}
    assert api.patch("deployments", "web", wrong, write.STRATEGIC_PATCH, "scale")["spec"]["replicas"] == 7


def test_an_ephemeral_container_comes_only_through_its_subresource(api: Any) -> None:
    api.create("pods", api.pod())
    extra = {"spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox:1", "targetContainerName": "main"}]}}
    found = api.patch("pods", "web", extra, write.STRATEGIC_PATCH, "ephemeralcontainers")
    assert found["spec"]["ephemeralContainers"][0]["terminationMessagePath"] == "/dev/termination-log"
    with pytest.raises(Invalid, match="pod updates may not change fields other than"):
        api.patch("pods", "web", {"spec": {"ephemeralContainers": None}})
    with pytest.raises(Invalid, match="may not be removed"):
        api.patch("pods", "web", {"spec": {"ephemeralContainers": None}}, subresource="ephemeralcontainers")


def owned(obj: Obj, manager: str = "test") -> list[str]:
    """The paths below the spec, and the other parts, that a manager owns."""
    rows = [row for row in obj["metadata"]["managedFields"] if row["manager"] == manager]
    tree = rows[0]["fieldsV1"]
    return sorted([*tree, *tree.get("f:spec", {})])


def test_nobody_owns_what_the_server_adds(api: Any) -> None:
    pod = api.create("pods", api.pod())
    assert "tolerations" in pod["spec"] and "serviceAccountName" in pod["spec"] and pod["status"]
    assert owned(pod) == [
        "f:containers", "f:dnsPolicy", "f:enableServiceLinks", "f:restartPolicy", "f:schedulerName",
        "f:securityContext", "f:spec", "f:terminationGracePeriodSeconds",
    ]  # fmt: skip
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    found = api.create("persistentvolumeclaims", {"metadata": {"name": "data"}, "spec": claim})
    assert found["metadata"]["finalizers"] and "f:metadata" not in owned(found)
    service = api.create("services", {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}})
    assert service["spec"]["clusterIP"] and "f:clusterIP" not in owned(service)


def test_a_status_sent_with_an_object_is_nobodys(api: Any) -> None:
    node = {"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "1"}}}
    assert "f:status" not in owned(api.create("nodes", {**node, "spec": {"unschedulable": True}}))
    found = api.change("nodes", "n", lambda obj: obj["status"].update(phase="x"), "status", field_manager="kubelet")
    rows = [(row["manager"], row.get("subresource")) for row in found["metadata"]["managedFields"]]
    assert ("kubelet", "status") in rows


#: what else of an object's metadata a change through a subresource takes along, as the strategies of Kubernetes do
METADATA_OF_PARTS = {
    "a pod's status": ("pods", "status", {"annotations", "finalizers", "labels"}),
    "a deployment's status": ("deployments", "status", {"annotations", "finalizers", "ownerReferences"}),
    "a node's status": ("nodes", "status", {"annotations", "finalizers", "labels", "ownerReferences"}),
    "a flow schema's status": ("flowschemas", "status", set()),
    "a pod's debugging": ("pods", "ephemeralcontainers", set()),
    "a pod's resize": ("pods", "resize", set()),
}
OWN_META: Obj = {
    "annotations": {"a.example/b": "c"},
    "finalizers": ["a.example/b"],
    "labels": {"x": "y"},
    "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}],
}


@pytest.mark.parametrize("way", ["update", "apply"])
@pytest.mark.parametrize("case", METADATA_OF_PARTS)
def test_a_subresource_takes_as_much_of_the_metadata_along_as_in_kubernetes(api: Any, case: str, way: str) -> None:
    plural, part, wanted = METADATA_OF_PARTS[case]
    made: Obj = {"metadata": {"name": "web"}, "spec": {}}
    if plural in ("pods", "deployments"):
        made = api.pod() if plural == "pods" else api.deployment()
    elif plural == "flowschemas":
        made["spec"] = {"priorityLevelConfiguration": {"name": "exempt"}}
    made["metadata"]["labels"] = {"app": "web"}
    before = api.create(plural, made)["metadata"]
    if way == "update":
        found = api.change(plural, "web", lambda obj: obj["metadata"].update(OWN_META), part)["metadata"]
    else:
        row = api.row(plural)
        body = {"apiVersion": row.api_version, "kind": row.resource.kind, "metadata": {"name": "web", **OWN_META}}
        found = api.patch(plural, "web", body, write.APPLY_PATCH, part, field_manager="me")["metadata"]
    assert {key for key in OWN_META if found.get(key) != before.get(key)} == wanted
    mine = [row["fieldsV1"] for row in found.get("managedFields", ()) if row.get("subresource") == part]
    assert {key[2:] for row in mine for key in row.get("f:metadata", {})} == wanted


DEBUGGER: Obj = {"name": "debug", "image": "debug:1"}
#: what is applied through a part of a pod, what changes, and what its applier owns then
APPLIED_PARTS: dict[str, tuple[str, Obj, set[str], Obj]] = {
    "debugging": (
        "ephemeralcontainers",
        {"ephemeralContainers": [DEBUGGER], "containers": [{"name": "c", "image": "other"}]},
        {"ephemeralContainers"},
        {"f:ephemeralContainers": {'k:{"name":"debug"}': {".": {}, "f:name": {}, "f:image": {}}}},
    ),
    "resize": (
        "resize",
        {
            "nodeName": "n",
            "containers": [{"name": "c", "image": "other", "resources": {"requests": {"memory": "2Gi"}}}],
        },
        {"containers"},
        {"f:containers": {'k:{"name":"c"}': {"f:resources": {"f:requests": {"f:memory": {}}}}}},
    ),
}


@pytest.mark.parametrize("case", APPLIED_PARTS)
def test_who_applies_a_part_owns_no_more_than_that_and_clashes_over_nothing_else(api: Any, case: str) -> None:
    part, spec, changed, owns = APPLIED_PARTS[case]
    resources = {"requests": {"cpu": "1", "memory": "1Gi"}}
    made = api.pod(nodeName="node", containers=[{"name": "c", "image": "web:1", "resources": resources}])
    made = api.create("pods", made, field_manager="creator")
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"a": "b"}}, "spec": spec}
    if part == "resize":
        with pytest.raises(Conflict, match="memory"):
            api.patch("pods", "web", body, write.APPLY_PATCH, part, field_manager="me")
    found = api.patch("pods", "web", body, write.APPLY_PATCH, part, part == "resize", field_manager="me")
    assert {
        key for key in {**found["spec"], **made["spec"]} if found["spec"].get(key) != made["spec"].get(key)
    } == changed
    assert found["spec"]["containers"][0]["image"] == "web:1" and "labels" not in found["metadata"]
    (mine,) = [row for row in found["metadata"]["managedFields"] if row["manager"] == "me"]
    assert (mine["subresource"], mine["fieldsV1"]) == (part, {"f:spec": owns})


@pytest.mark.parametrize(("part", "wanted"), [("", ["f:metadata", "f:spec"]), ("status", ["f:metadata", "f:status"])])
def test_what_was_there_before_the_first_apply_is_owned_as_far_as_it_can_be_written(
    api: Any, part: str, wanted: list[str]
) -> None:
    api.create("pods", api.pod())
    reset = api.change("pods", "web", lambda obj: obj["metadata"].update(managedFields=[{}], labels={"a": "b"}))
    assert "managedFields" not in reset["metadata"]
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "annotations": {"x": "y"}}}
    found = api.patch("pods", "web", body, write.APPLY_PATCH, part, field_manager="me")
    (before,) = [row for row in found["metadata"]["managedFields"] if row["manager"] == "before-first-apply"]
    assert (before["operation"], before.get("subresource", ""), sorted(before["fieldsV1"])) == ("Update", part, wanted)


def test_nobody_comes_to_own_the_metadata_of_a_definition_through_its_status(api: Any) -> None:
    schema = {"openAPIV3Schema": {"type": "object"}}
    names = {"plural": "foos", "kind": "Foo"}
    spec = {"group": "example.com", "scope": "Cluster", "names": names}
    spec["versions"] = [{"name": "v1", "served": True, "storage": True, "schema": schema}]
    api.create("customresourcedefinitions", {"metadata": {"name": "foos.example.com"}, "spec": spec})

    def edit(obj: Obj) -> None:
        obj["metadata"]["labels"] = {"x": "y"}
        obj["status"]["storedVersions"] = ["v1", "v2"]

    found = api.change("customresourcedefinitions", "foos.example.com", edit, "status")
    assert found["metadata"]["labels"] == {"x": "y"}
    rows = [row["fieldsV1"] for row in found["metadata"]["managedFields"] if row.get("subresource") == "status"]
    assert rows == [{"f:status": {"f:storedVersions": {}}}]


def test_what_a_signing_request_keeps_as_it_is_belongs_to_nobody(api: Any) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    wanted = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    spec = {
        "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"],
        "request": base64.b64encode(wanted.public_bytes(Encoding.PEM)).decode(),
    }  # fmt: skip
    made = api.create("certificatesigningrequests", {"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": spec})
    assert owned(made) == ["f:metadata"]
    row = {"type": "Approved", "status": "True", "reason": "x"}
    api.change("certificatesigningrequests", "a", lambda obj: obj["status"].update(conditions=[row]), "approval")
    body = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "a"}}
    body["status"] = {"conditions": [{**row, "type": "Other"}], "certificate": ""}
    found = api.patch("certificatesigningrequests", "a", body, write.APPLY_PATCH, "status", field_manager="signer")
    rows = {(row["manager"], row.get("subresource")): row["fieldsV1"] for row in found["metadata"]["managedFields"]}
    assert list(rows["signer", "status"]) == ["f:status"] and list(rows["signer", "status"]["f:status"]) == [
        "f:certificate"
    ]
