"""Every kind goes through the life that the conformance suite's "API operations" tests ask of it.

Create (from JSON, protobuf and YAML, dry and in earnest), get, list, watch, the four sorts of patch, update, status by
get, patch and update, delete, deletecollection.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from steersman.cluster.api.protobuf.codec import encode
from steersman.cluster.api.row import ALL_VERBS
from steersman.cluster.api.rows import ROWS

_SAMPLES: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "samples.yaml").read_text())
_KINDS = [f"{row.api_version}/{row.resource.plural}" for row in ROWS if not row.virtual]
_ROWS = {f"{row.api_version}/{row.resource.plural}": row for row in ROWS}
_MERGE = "application/merge-patch+json"
_PATCHES = {
    _MERGE: {"metadata": {"annotations": {"merge": "1"}}},
    "application/strategic-merge-patch+json": {"metadata": {"annotations": {"strategic": "1"}}},
    "application/json-patch+json": [{"op": "add", "path": "/metadata/annotations/json", "value": "1"}],
}
#: kinds that must be told which version of the object an update is meant for
_NEVER_BLIND = {
    "apiservices", "csidrivers", "csinodes", "csistoragecapacities", "customresourcedefinitions", "leases",
    "mutatingadmissionpolicies", "mutatingadmissionpolicybindings", "mutatingwebhookconfigurations",
    "poddisruptionbudgets", "runtimeclasses", "validatingadmissionpolicies", "validatingadmissionpolicybindings",
    "validatingwebhookconfigurations", "volumeattachments",
}  # fmt: skip
#: kinds whose delete is answered with the object, as the published OpenAPI says, or as there is more to do for it
_SHOWN = {
    "csidrivers", "csinodes", "customresourcedefinitions", "deviceclasses", "persistentvolumeclaims",
    "persistentvolumes", "pods", "podtemplates", "resourceclaims", "resourceclaimtemplates", "resourcequotas",
    "resourceslices", "serviceaccounts", "services", "storageclasses", "volumeattachments", "volumeattributesclasses",
}  # fmt: skip
#: kinds of which a change of the status leaves all other metadata as it is, too
_STATUS_ALONE = (
    "apiservices", "flowschemas", "prioritylevelconfigurations", "resourceclaims", "validatingadmissionpolicies",
    "volumeattachments",
)  # fmt: skip
#: kinds whose status the server itself writes as well
_OWN_STATUS = ("customresourcedefinitions", "flowschemas")
_BODIES = {
    "application/vnd.kubernetes.protobuf": encode,
    "application/yaml": lambda obj: yaml.safe_dump(obj).encode(),
}
#: what still waits for somebody when it is deleted: a controller is to take its finalizer off
_LINGER = {
    "v1/namespaces", "v1/persistentvolumeclaims", "v1/persistentvolumes", "v1/replicationcontrollers", "batch/v1/jobs",
    "storage.k8s.io/v1/volumeattributesclasses",
}  # fmt: skip
#: whose objects the server itself clears away, a moment later
_DEFINITIONS = "apiextensions.k8s.io/v1/customresourcedefinitions"


def sample(key: str, number: int) -> dict[str, Any]:
    """The object of a kind, with a name and a label of its own."""
    name = f"ops{'abcd'[number]}"
    text = orjson.dumps(_SAMPLES[key]).decode()
    for word, value in (("KNAME", name.capitalize()), ("NAME", name), ("NUMBER", str(number + 1))):
        text = re.sub(word, value, text)
    obj: dict[str, Any] = orjson.loads(text)
    meta = obj.setdefault("metadata", {})
    meta.setdefault("name", name)
    meta["labels"] = {"ops": "yes"}
    row = _ROWS[key]
    return {"apiVersion": row.api_version, "kind": row.resource.kind, **obj}


def test_there_is_a_sample_of_every_kind() -> None:
    assert set(_SAMPLES) == set(_KINDS)


async def changed(api: Any, watch: Any, target: str) -> Any:
    """The object after a change, which the watch has shown as well."""
    obj = await api.ok("GET", target)
    while True:
        kind, seen = await watch.next()
        if seen["metadata"]["resourceVersion"] == obj["metadata"]["resourceVersion"]:
            assert kind == "MODIFIED" and seen["kind"] == obj["kind"]
            return obj


@pytest.mark.parametrize("version", sorted({key.rpartition("/")[0] for key in _SAMPLES}))
async def test_the_kinds_of_a_group_live_through_every_operation(api: Any, version: str) -> None:
    for key in _SAMPLES:
        if key.rpartition("/")[0] == version:
            await lived(api, key)


async def lived(api: Any, key: str) -> None:
    row = _ROWS[key]
    space = "default" if row.resource.namespaced else None
    many, selected = row.resource.path(space), "labelSelector=ops%3Dyes"
    made = await api.ok("POST", many, sample(key, 0))
    one = f"{many}/{made['metadata']['name']}"
    if row.resource.plural == "flowschemas":
        await looked_at(api, many, made["metadata"]["name"])
    assert (await api.ok("GET", one))["metadata"]["uid"] == made["metadata"]["uid"]
    for path in {many, row.resource.path()}:
        listed = await api.ok("GET", f"{path}?{selected}")
        assert [item["metadata"]["name"] for item in listed["items"]] == [made["metadata"]["name"]]
        assert listed["kind"] == f"{row.resource.kind}List"
    version = listed["metadata"]["resourceVersion"]
    watch = await api.watch(f"{many}?watch=1&{selected}&resourceVersion={version}")
    for media, patch in _PATCHES.items():
        await api.ok("PATCH", one, patch, content_type=media)
        obj = await changed(api, watch, one)
    await applied(api, one, obj)
    obj = await changed(api, watch, one)
    assert obj["metadata"]["annotations"].keys() >= {"merge", "strategic", "json", "applied"}
    obj["metadata"]["annotations"]["update"] = "1"
    assert (await api.ok("PUT", one, obj))["metadata"]["annotations"]["update"] == "1"
    await changed(api, watch, one)
    await api.refused(409, "PUT", one, {**obj, "metadata": {**obj["metadata"], "annotations": {}}})
    unsaid = {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}
    blind = await api.call("PUT", one, {**obj, "metadata": unsaid})
    assert blind.status == (422 if row.resource.plural in _NEVER_BLIND else 200), blind.body
    if "status" in row.subresources:
        await status(api, watch, one)
    if "scale" in row.subresources:
        await scale(api, one)
    await deleted(api, watch, key, one)
    await watch.close()
    if "deletecollection" in row.verbs:
        await collection(api, key, many, selected)
    assert {*row.verbs} <= {*ALL_VERBS}


async def looked_at(api: Any, many: str, name: str) -> None:
    """Returns once the server has said what it thinks of the object."""
    watch = await api.watch(f"{many}?watch=1&fieldSelector=metadata.name%3D{name}")
    while not ((await watch.next())[1].get("status") or {}).get("conditions"):
        pass
    await watch.close()


async def applied(api: Any, one: str, obj: Any) -> None:
    meta = {"name": obj["metadata"]["name"], "annotations": {"applied": "1"}}
    body = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": meta}
    target = f"{one}?fieldManager=ops"
    found = await api.ok("PATCH", target, body, content_type="application/apply-patch+yaml")
    owners = [(entry["manager"], entry["operation"]) for entry in found["metadata"]["managedFields"]]
    assert ("ops", "Apply") in owners


async def status(api: Any, watch: Any, one: str) -> None:
    """A status is written apart: annotations go with it, the rest of the object stays, and the other way round."""
    obj = await api.ok("GET", f"{one}/status")
    spec = obj.get("spec")
    is_alone = any(word in one for word in _STATUS_ALONE)
    patch = {"metadata": {"annotations": {"patched": "status"}}, "spec": {"junk": None}}
    found = await api.ok("PATCH", f"{one}/status", patch, content_type="application/merge-patch+json")
    assert ("patched" in found["metadata"]["annotations"]) is not is_alone and found.get("spec") == spec
    found = found if is_alone else await changed(api, watch, one)
    generation = found["metadata"].get("generation")
    found["metadata"]["annotations"]["updated"] = "status"
    found = await api.ok("PUT", f"{one}/status", found)
    assert ("updated" in found["metadata"]["annotations"]) is not is_alone
    assert found["metadata"].get("generation") == generation
    if not is_alone:
        await changed(api, watch, one)
    condition = {"type": "Tried", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "E2E"}
    patch = {"status": {"conditions": [{**condition, "message": "Set from a test"}]}}
    found = await api.call("PATCH", f"{one}/status", patch, content_type="application/merge-patch+json")
    assert found.status == 200, found.body
    before = orjson.loads(found.body).get("status")
    if "conditions" in (before or {}):
        assert before["conditions"][-1].items() >= condition.items()
    junk = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    main = await api.call("PATCH", one, junk, content_type="application/merge-patch+json")
    if main.status == 200 and not any(word in one for word in _OWN_STATUS):
        assert orjson.loads(main.body).get("status") == before


async def scale(api: Any, one: str) -> None:
    found = await api.ok("GET", f"{one}/scale")
    assert (found["kind"], found["apiVersion"], found["spec"]) == ("Scale", "autoscaling/v1", {"replicas": 1})
    found["spec"]["replicas"] = 2
    assert (await api.ok("PUT", f"{one}/scale", found))["spec"]["replicas"] == 2
    await api.refused(409, "PUT", f"{one}/scale", found)
    applied = {"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": 5}}
    patches = {
        "application/merge-patch+json": {"spec": {"replicas": 3}},
        "application/json-patch+json": [{"op": "replace", "path": "/spec/replicas", "value": 4}],
        "application/apply-patch+yaml": applied,
    }
    for replicas, (media, patch) in enumerate(patches.items(), 3):
        target = f"{one}/scale?fieldManager=scaler&force=true" if "apply" in media else f"{one}/scale"
        assert (await api.ok("PATCH", target, patch, content_type=media))["spec"]["replicas"] == replicas
    obj = await api.ok("GET", one)
    assert obj["spec"]["replicas"] == 5
    table = await api.ok("GET", f"{one}/scale", accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Desired", "Available", "Age"]
    assert table["rows"][0]["cells"][1:3] == [5, obj["status"].get("replicas", 0)]
    owners = [row for row in obj["metadata"]["managedFields"] if row.get("subresource") == "scale"]
    assert [(row["manager"], row["fieldsV1"]) for row in owners] == [("scaler", {"f:spec": {"f:replicas": {}}})]
    refused = await api.refused(422, "PATCH", f"{one}/scale", {"spec": {"replicas": -1}}, content_type=_MERGE)
    assert "spec.replicas" in refused["message"]


async def deleted(api: Any, watch: Any, key: str, one: str) -> None:
    gone = await api.ok("DELETE", one)
    if key not in _LINGER:
        assert gone["kind"] == (_ROWS[key].resource.kind if key.rpartition("/")[2] in _SHOWN else "Status")
        while (await watch.next())[0] != "DELETED":
            pass
        await api.refused(404, "GET", one)
        return
    obj = await api.ok("GET", one)
    assert obj["metadata"]["deletionTimestamp"]
    if key == "v1/namespaces":
        await api.ok("PUT", f"{one}/finalize", {**obj, "spec": {"finalizers": []}})
    else:
        patch = {"metadata": {"finalizers": None}}
        await api.call("PATCH", one, patch, content_type="application/merge-patch+json")
    while (await watch.next())[0] != "DELETED":
        pass


async def collection(api: Any, key: str, many: str, selected: str) -> None:
    names = []
    for number, (media, encoded) in enumerate(_BODIES.items(), 1):
        body = encoded(sample(key, number))
        tried = await api.ok("POST", f"{many}?dryRun=All", body, content_type=media)
        await api.refused(404, "GET", f"{many}/{tried['metadata']['name']}")
        made = await api.ok("POST", f"{many}?fieldValidation=Strict", body, content_type=media)
        names.append(made["metadata"]["name"])
    other = sample(key, 3)
    other["metadata"]["labels"] = {"ops": "no"}
    await api.ok("POST", many, other)
    gone = await api.ok("DELETE", f"{many}?{selected}")
    assert sorted(item["metadata"]["name"] for item in gone["items"]) == names
    left = (await api.ok("GET", f"{many}?{selected}"))["items"]
    assert all(item["metadata"].get("deletionTimestamp") for item in left)
    assert key == _DEFINITIONS or bool(left) is (key in _LINGER)
    assert (await api.ok("GET", f"{many}?labelSelector=ops%3Dno"))["items"]
