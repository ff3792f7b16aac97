"""Custom resources as a client of the API server sees them: from the definition to its end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from steersman.cluster.meta.objects import condition

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "/apis/example.com"
V1, V2 = f"{GROUP}/v1/namespaces/default/gadgets", f"{GROUP}/v2/namespaces/default/gadgets"


def version(name: str, properties: Any = None, *, storage: bool = False, **more: Any) -> dict[str, Any]:
    spec = {"type": "object", "properties": properties or {"size": {"type": "integer"}}}
    schema = {"type": "object", "properties": {"spec": spec}}
    return {"name": name, "served": True, "storage": storage, "schema": {"openAPIV3Schema": schema}, **more}


def crd(*versions: Any, plural: str = "gadgets", kind: str = "Gadget", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{plural}.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": list(versions) or [version("v1", storage=True)], **spec,
        },
    }  # fmt: skip


def gadget(name: str = "g", api_version: str = "v1", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"example.com/{api_version}", "kind": "Gadget", "metadata": {"name": name}, "spec": spec,
    }  # fmt: skip


async def edit(api: Any, change: Any, name: str = "gadgets.example.com") -> Any:
    found = await api.ok("GET", f"{CRDS}/{name}")
    change(found)
    return await api.ok("PUT", f"{CRDS}/{name}", found)


async def ends(api: Any, reason: str, message: str) -> None:
    """Returns when the definition says so of its end."""
    for _ in range(1000):
        found = condition(await api.ok("GET", f"{CRDS}/gadgets.example.com"), "Terminating")
        if found and (found["status"], found["reason"], found["message"]) == ("True", reason, message):
            return
        await asyncio.sleep(0.01)
    raise TimeoutError(f"the definition does not say {reason}")


async def answers(api: Any, path: str, status: int) -> None:
    """Returns when a path answers so."""
    for _ in range(1000):
        if (await api.call("GET", path)).status == status:
            return
        await asyncio.sleep(0.01)
    raise TimeoutError(f"{path} does not answer {status}")


async def test_a_kind_is_served_as_soon_as_its_definition_is_written(api: Any) -> None:
    made = await api.ok("POST", CRDS, crd())
    assert {row["type"]: row["status"] for row in made["status"]["conditions"]} == {
        "NamesAccepted": "True", "Established": "True",
    }  # fmt: skip
    assert (await api.ok("POST", V1, gadget(size=1)))["spec"] == {"size": 1}
    served = await api.ok("GET", f"{GROUP}/v1")
    assert [row["name"] for row in served["resources"]] == ["gadgets"]


async def test_a_rule_is_evaluated_and_what_stays_may_stay_broken(api: Any) -> None:
    await api.ok("POST", CRDS, crd())
    await api.ok("POST", V1, gadget(size=9))

    def restrict(found: Any) -> None:
        schema = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        schema["properties"]["spec"]["properties"]["size"] |= {
            "x-kubernetes-validations": [{"rule": "self < 5", "message": "too big"}]
        }

    await edit(api, restrict)
    refused = await api.refused(422, "POST", V1, gadget("h", size=9))
    assert refused["message"] == 'Gadget.example.com "h" is invalid: spec.size: Invalid value: 9: too big'
    label = {"metadata": {"labels": {"a": "b"}}}
    response = await api.call("PATCH", f"{V1}/g", label, content_type="application/merge-patch+json")
    assert response.status == 200
    assert response.headers["warning"] == '299 - "spec.size: Invalid value: 9: too big"'
    refused = await api.refused(
        422, "PATCH", f"{V1}/g", {"spec": {"size": 8}}, content_type="application/merge-patch+json"
    )
    assert "too big" in refused["message"]


async def test_what_was_stored_before_is_shown_as_the_definition_is_now(api: Any) -> None:
    await api.ok("POST", CRDS, crd(version("v1", {"old": {"type": "string"}}, storage=True)))
    await api.ok("POST", V1, gadget(old="x"))

    def change(found: Any) -> None:
        properties = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        properties.pop("old")
        properties["new"] = {"type": "integer", "default": 7}

    await edit(api, change)
    assert (await api.ok("GET", f"{V1}/g"))["spec"] == {"new": 7}
    listed = await api.ok("GET", V1)
    assert listed["items"][0]["spec"] == {"new": 7}
    await api.ok("PATCH", f"{V1}/g", {"spec": {"new": 8}}, content_type="application/merge-patch+json")
    assert (await api.ok("GET", f"{V1}/g"))["spec"] == {"new": 8}


async def test_versions_differ_in_their_name_alone_without_a_webhook(api: Any) -> None:
    await api.ok("POST", CRDS, crd(version("v1", storage=True), version("v2")))
    await api.ok("POST", V2, gadget(api_version="v2", size=3))
    found = await api.ok("GET", f"{V1}/g")
    assert (found["apiVersion"], found["spec"]) == ("example.com/v1", {"size": 3})
    watch = await api.watch(f"{V2}?watch=1&resourceVersion=0")
    assert (await watch.next())[1]["apiVersion"] == "example.com/v2"
    await watch.close()


async def test_a_version_that_is_no_longer_served_is_gone(api: Any) -> None:
    await api.ok("POST", CRDS, crd(version("v1", storage=True), version("v2")))
    watch = await api.watch(f"{V2}?watch=1")
    await edit(api, lambda found: found["spec"]["versions"][1].update(served=False))
    await api.refused(404, "GET", V2)
    with pytest.raises(StopAsyncIteration):
        while True:
            await watch.next()
    index = await api.ok("GET", "/openapi/v3")
    assert "apis/example.com/v1" in index["paths"] and "apis/example.com/v2" not in index["paths"]


async def test_a_deprecated_version_warns(api: Any) -> None:
    await api.ok("POST", CRDS, crd(version("v1", storage=True), version("v1beta1", deprecated=True)))
    response = await api.call("GET", f"{GROUP}/v1beta1/namespaces/default/gadgets")
    warning = "example.com/v1beta1 Gadget is deprecated; use example.com/v1 Gadget"
    assert response.headers["warning"] == f'299 - "{warning}"'
    assert "warning" not in (await api.call("GET", V1)).headers


async def test_selectable_fields_select(api: Any) -> None:
    await api.ok("POST", CRDS, crd(version("v1", storage=True, selectableFields=[{"jsonPath": ".spec.size"}])))
    for name, size in (("a", 1), ("b", 2)):
        await api.ok("POST", V1, gadget(name, size=size))
    listed = await api.ok("GET", f"{V1}?fieldSelector=spec.size%3D2")
    assert [item["metadata"]["name"] for item in listed["items"]] == ["b"]
    await api.refused(400, "GET", f"{V1}?fieldSelector=spec.color%3Dred")
    watch = await api.watch(
        f"{V1}?watch=1&fieldSelector=spec.size%3D2&resourceVersion={listed['metadata']['resourceVersion']}"
    )
    await api.ok("PATCH", f"{V1}/a", {"spec": {"size": 2}}, content_type="application/merge-patch+json")
    kind, obj = await watch.next()
    assert (kind, obj["metadata"]["name"]) == ("ADDED", "a")
    await watch.close()
    await api.ok("DELETE", f"{V1}?fieldSelector=spec.size%3D2")
    assert (await api.ok("GET", V1))["items"] == []


async def test_objects_go_with_their_definition(api: Any) -> None:
    await api.ok("POST", CRDS, crd())
    await api.ok("POST", V1, gadget("free", size=1))
    held = gadget("held", size=1)
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await api.ok("POST", V1, held)
    watch = await api.watch(f"{V1}?watch=1&resourceVersion=0")
    assert [(await watch.next())[0] for _ in range(2)] == ["ADDED", "ADDED"]
    marked = await api.ok("DELETE", f"{CRDS}/gadgets.example.com")
    assert marked["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    await answers(api, f"{V1}/free", 404)
    await ends(api, "InstanceDeletionInProgress", "CustomResource deletion is in progress")
    refused = await api.refused(405, "POST", V1, gadget("late", size=1))
    assert refused["message"] == "create not allowed while custom resource definition is terminating"
    await api.ok("PATCH", f"{V1}/held", {"metadata": {"finalizers": None}}, content_type="application/merge-patch+json")
    await answers(api, f"{CRDS}/gadgets.example.com", 404)
    await api.refused(404, "GET", V1)
    seen = []
    with pytest.raises(StopAsyncIteration):
        while True:
            kind, obj = await watch.next()
            seen.append((kind, obj["metadata"]["name"]))
    assert ("DELETED", "free") in seen and seen[-1] == ("DELETED", "held")
    await api.ok("POST", CRDS, crd())
    assert (await api.ok("GET", V1))["items"] == []


@pytest.mark.parametrize(
    ("api_version", "plural", "status"), [("v1", "ingresses", 200), ("v1", "things", 404), ("v9", "ingresses", 404)]
)
async def test_what_kubernetes_serves_itself_is_not_for_definitions(
    api: Any, api_version: str, plural: str, status: int
) -> None:
    group = "networking.k8s.io"
    built_in = f"/apis/{group}/v1/namespaces/default/ingresses"
    ingress = {"metadata": {"name": "kept"}, "spec": {"defaultBackend": {"resource": {"kind": "A", "name": "a"}}}}
    await api.ok("POST", built_in, ingress)
    wanted = crd(version(api_version, storage=True), plural=plural, kind="Ingress" if status == 200 else "Thing")
    wanted["metadata"] = {"name": f"{plural}.{group}", "annotations": {"api-approved.kubernetes.io": "https://a/b"}}
    wanted["spec"]["group"] = group
    made = await api.ok("POST", CRDS, wanted)
    found = condition(made, "Established")
    assert found is not None and found["status"] == "True"
    assert (await api.call("GET", f"/apis/{group}/{api_version}/{plural}")).status == status
    await api.ok("DELETE", f"{CRDS}/{plural}.{group}")
    await answers(api, f"{CRDS}/{plural}.{group}", 404)
    assert (await api.ok("GET", f"{built_in}/kept"))["spec"] == ingress["spec"]


async def test_objects_that_are_served_no_more_go_with_their_definition(api: Any) -> None:
    await api.ok("POST", CRDS, crd(version("v1"), version("v2", storage=True)))
    await api.ok("POST", V1, gadget())

    def unserve(found: Any) -> None:
        for row in found["spec"]["versions"]:
            row["served"] = False

    await edit(api, unserve)
    await api.ok("DELETE", f"{CRDS}/gadgets.example.com")
    await answers(api, f"{CRDS}/gadgets.example.com", 404)
    await api.ok("POST", CRDS, crd())
    assert (await api.ok("GET", V1))["items"] == []


async def test_a_list_has_the_kind_that_its_definition_names(api: Any) -> None:
    wanted = crd()
    wanted["spec"]["names"]["listKind"] = "Gadgetry"
    await api.ok("POST", CRDS, wanted)
    assert (await api.ok("GET", V1))["kind"] == "Gadgetry"
    third = (await api.ok("GET", "/openapi/v3/apis/example.com/v1"))["components"]["schemas"]
    second = (await api.ok("GET", "/openapi/v2"))["definitions"]
    for schemas, place in ((third, "components/schemas"), (second, "definitions")):
        found = schemas["com.example.v1.Gadgetry"]
        assert found["properties"]["items"]["items"] == {"$ref": f"#/{place}/com.example.v1.Gadget"}
        assert found["x-kubernetes-group-version-kind"][0]["kind"] == "Gadgetry"


async def test_a_name_that_becomes_free_is_given_to_the_next(api: Any) -> None:
    await api.ok("POST", CRDS, crd())
    await api.ok("POST", CRDS, crd(plural="things"))
    await api.refused(404, "GET", f"{GROUP}/v1/things")
    await api.ok("DELETE", f"{CRDS}/gadgets.example.com")
    await answers(api, f"{GROUP}/v1/things", 200)


async def test_a_name_that_a_definition_gives_up_is_given_to_the_next(api: Any) -> None:
    first, second = crd(), crd(plural="things", kind="Thing")
    first["spec"]["names"]["shortNames"] = second["spec"]["names"]["shortNames"] = ["gd"]
    await api.ok("POST", CRDS, first)
    await api.ok("POST", CRDS, second)
    await api.refused(404, "GET", f"{GROUP}/v1/things")
    await edit(api, lambda found: found["spec"]["names"].pop("shortNames"))
    await answers(api, f"{GROUP}/v1/things", 200)


async def test_unknown_metadata_of_an_object_and_of_one_within_it_is_told(api: Any) -> None:
    inner = {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True}
    await api.ok("POST", CRDS, crd(version("v1", {"template": inner}, storage=True)))
    body = gadget(template={"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "odd": 1}, "any": 1})
    body["metadata"]["strange"] = 1
    refused = await api.refused(400, "POST", f"{V1}?fieldValidation=Strict", body)
    assert 'unknown field "metadata.strange"' in refused["message"]
    assert 'unknown field "spec.template.metadata.odd"' in refused["message"]
    made = await api.ok("POST", V1, body)
    assert made["spec"]["template"] == {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "any": 1}


async def test_status_and_scale_are_written_apart(api: Any) -> None:
    scale = {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size", "labelSelectorPath": ".status.sel"}
    row = version("v1", storage=True, subresources={"status": {}, "scale": scale})
    row["schema"]["openAPIV3Schema"]["properties"]["status"] = {"type": "object", "properties": {
        "size": {"type": "integer"}, "sel": {"type": "string"}}}  # fmt: skip
    await api.ok("POST", CRDS, crd(row))
    made = await api.ok("POST", V1, {**gadget(size=1), "status": {"size": 9}})
    assert "status" not in made
    patch = {"content_type": "application/merge-patch+json"}
    await api.ok("PATCH", f"{V1}/g/status", {"spec": {"size": 5}, "status": {"size": 1, "sel": "a=b"}}, **patch)
    scaled = await api.ok("PATCH", f"{V1}/g/scale", {"spec": {"replicas": 4}}, **patch)
    assert (scaled["spec"], scaled["status"]) == ({"replicas": 4}, {"replicas": 1, "selector": "a=b"})
    found = await api.ok("GET", f"{V1}/g")
    assert (found["spec"], found["metadata"]["generation"]) == ({"size": 4}, 2)
    other = {"metadata": {"labels": {"a": "b"}, "finalizers": ["a/b"]}, "status": {"size": 2}}
    found = await api.ok("PATCH", f"{V1}/g/status", other, **patch)
    assert (found["status"]["size"], found["metadata"].keys() & {"labels", "finalizers"}) == (2, set())
    applied = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "g"}, "spec": {"replicas": 5}}
    apply = {"content_type": "application/apply-patch+yaml"}
    scaled = await api.ok("PATCH", f"{V1}/g/scale?fieldManager=m&force=true", applied, **apply)
    assert scaled["spec"] == {"replicas": 5}
    found = await api.ok("GET", f"{V1}/g")
    assert (found["spec"], found["metadata"]["generation"]) == ({"size": 5}, 3)
    assert {"f:spec": {"f:size": {}}} in [row["fieldsV1"] for row in found["metadata"]["managedFields"]]


async def test_an_object_without_replicas_is_not_scaled_to_none_by_the_way(api: Any) -> None:
    scale = {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}
    await api.ok("POST", CRDS, crd(version("v1", storage=True, subresources={"scale": scale})))
    await api.ok("POST", V1, gadget())
    patch = {"content_type": "application/merge-patch+json"}
    refused = await api.refused(400, "PATCH", f"{V1}/g/scale", {"metadata": {"labels": {"a": "b"}}}, **patch)
    assert refused["message"] == 'the spec replicas field ".spec.size" cannot be empty'
    assert (await api.ok("PATCH", f"{V1}/g/scale", {"spec": {"replicas": 2}}, **patch))["spec"] == {"replicas": 2}


async def test_a_watch_of_definitions_shows_each_change(api: Any) -> None:
    watch = await api.watch(f"{CRDS}?watch=1")
    await api.ok("POST", CRDS, crd())
    await edit(api, lambda found: found["metadata"].setdefault("labels", {}).update(a="b"))
    await api.ok("DELETE", f"{CRDS}/gadgets.example.com")
    seen = [await watch.next() for _ in range(4)]
    assert [kind for kind, _ in seen] == ["ADDED", "MODIFIED", "MODIFIED", "DELETED"]
    await watch.close()


async def test_definitions_are_listed_and_deleted_by_their_labels(api: Any) -> None:
    for index in range(3):
        labelled = crd(plural=f"things{index}", kind=f"Thing{index}")
        labelled["metadata"]["labels"] = {"group": "things"}
        await api.ok("POST", CRDS, labelled)
    await api.ok("POST", CRDS, crd())
    listed = await api.ok("GET", f"{CRDS}?labelSelector=group%3Dthings")
    assert [item["metadata"]["name"] for item in listed["items"]] == [
        f"things{index}.example.com" for index in range(3)
    ]
    await api.ok("DELETE", f"{CRDS}?labelSelector=group%3Dthings")
    for index in range(3):
        await answers(api, f"{CRDS}/things{index}.example.com", 404)
    assert [item["metadata"]["name"] for item in (await api.ok("GET", CRDS))["items"]] == ["gadgets.example.com"]


async def test_the_status_of_a_definition_is_written_apart(api: Any) -> None:
    await api.ok("POST", CRDS, crd())
    path = f"{CRDS}/gadgets.example.com/status"
    found = await api.ok("GET", path)
    found["status"]["conditions"].append({"type": "Tested", "status": "True", "reason": "E2E", "message": "m"})
    await api.ok("PUT", path, found)
    patch = {"metadata": {"annotations": {"a": "b"}}, "spec": {"scope": "Cluster"}}
    patched = await api.ok("PATCH", path, patch, content_type="application/merge-patch+json")
    assert patched["spec"]["scope"] == "Namespaced"
    assert [row["type"] for row in patched["status"]["conditions"]] == ["NamesAccepted", "Established", "Tested"]
    assert (await api.ok("GET", V1))["items"] == []


async def test_an_object_is_written_anew_only_over_the_version_that_was_read(api: Any) -> None:
    scale = {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}
    await api.ok("POST", CRDS, crd(version("v1", storage=True, subresources={"scale": scale})))
    await api.ok("POST", V1, gadget(size=1))
    refused = await api.refused(422, "PUT", f"{V1}/g", gadget(size=2))
    told = "metadata.resourceVersion: Invalid value: 0: must be specified for an update"
    assert refused["message"] == f'gadgets.example.com "g" is invalid: {told}'
    wanted = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "g"}, "spec": {"replicas": 3}}
    assert (await api.ok("PUT", f"{V1}/g/scale", wanted))["spec"] == {"replicas": 3}
    await api.ok(
        "PATCH", f"{V1}/g?fieldManager=m&force=true", gadget(size=4), content_type="application/apply-patch+yaml"
    )
    assert (await api.ok("GET", f"{V1}/g"))["spec"] == {"size": 4}


async def test_replicas_that_are_no_count_are_refused(api: Any) -> None:
    scale = {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}
    await api.ok("POST", CRDS, crd(version("v1", storage=True, subresources={"scale": scale})))
    refused = await api.refused(422, "POST", V1, gadget(size=-1))
    assert refused["details"]["causes"][0]["message"] == "Invalid value: -1: should be a non-negative integer"


class Lagging:
    """A store whose watches tell of changes late."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def watch(self, *args: Any, **more: Any) -> Any:
        async for batch in self._store.watch(*args, **more):
            await asyncio.sleep(0.1)
            yield batch


async def test_every_server_serves_a_kind_once_its_definition_is_written(api: Any, make_api: Any) -> None:
    other = await make_api(Lagging(api.store))
    try:
        await api.ok("POST", CRDS, crd())
        assert (await other.ok("GET", V1))["items"] == []
    finally:
        await other.server.stop()
