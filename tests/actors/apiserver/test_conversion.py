"""Versions that a webhook converts, over HTTPS at a server of its own."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from steersman.actors.http.limits import HttpLimits
from steersman.actors.http.messages import Request, Response
from steersman.actors.http.server import HttpServer
from steersman.runtime.pki import Authority, Identity

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
V1, V2 = (f"/apis/example.com/{name}/namespaces/default/hosts" for name in ("v1", "v2"))
MERGE = {"content_type": "application/merge-patch+json"}


def split(obj: Any, target: str) -> Any:
    """`spec.address` of v1 is `spec.host` and `spec.port` of v2."""
    spec = dict(obj["spec"])
    if target.endswith("v2"):
        host, _, port = spec.pop("address").partition(":")
        spec |= {"host": host, "port": int(port)}
    else:
        spec["address"] = f"{spec.pop('host')}:{spec.pop('port')}"
    return {**obj, "apiVersion": target, "spec": spec}


@dataclass
class Converting:
    """A conversion webhook; `change` makes its answer wrong."""

    ca: str
    port: int = 0
    asked: list[Any] = field(default_factory=list)
    change: Callable[[Any], Any] = lambda response: response

    async def __call__(self, request: Request) -> Response:
        review = orjson.loads(request.body)
        asked = review["request"]
        self.asked.append(asked)
        objects = [split(obj, asked["desiredAPIVersion"]) for obj in asked["objects"]]
        response = {"uid": asked["uid"], "result": {"status": "Success"}, "convertedObjects": objects}
        body = {"apiVersion": review["apiVersion"], "kind": "ConversionReview", "response": self.change(response)}
        return Response(200, {"content-type": "application/json"}, orjson.dumps(body))

    def crd(self, **config: Any) -> Any:
        v1 = {"address": {"type": "string"}, "note": {"type": "string", "default": "none"}}
        v2 = {"host": {"type": "string"}, "port": {"type": "integer"}, "note": {"type": "string"}}
        rows = [
            {
                "name": name, "served": True, "storage": name == "v1",
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": properties}}}},
                **({"selectableFields": [{"jsonPath": ".spec.host"}]} if name == "v2" else {}),
            }
            for name, properties in (("v1", v1), ("v2", v2))
        ]  # fmt: skip
        client = config or {"url": f"https://127.0.0.1:{self.port}/convert"}
        return {
            "metadata": {"name": "hosts.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced", "names": {"plural": "hosts", "kind": "Host"},
                "versions": rows,
                "conversion": {"strategy": "Webhook", "webhook": {
                    "clientConfig": {"caBundle": self.ca, **client}, "conversionReviewVersions": ["v1"]}},
            },
        }  # fmt: skip


@pytest.fixture
async def webhook(tmp_path: Path) -> AsyncIterator[Converting]:
    authority = Authority(tmp_path)
    authority.ensure()
    pair = authority.issue(Identity(file="hook", common_name="hook", hosts=("127.0.0.1", "hook.default.svc")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    found = Converting(base64.b64encode(authority.ca.read_bytes()).decode())
    server = HttpServer(
        found, host="127.0.0.1", port=0, tls=context, identify=lambda _cert: None,
        uploads=lambda _method, _target: False, limits=HttpLimits(),
    )  # fmt: skip
    await server.start()
    found.port = server.port
    yield found
    await server.stop()


def host_v1(name: str = "h", address: str = "a:1") -> Any:
    return {
        "apiVersion": "example.com/v1", "kind": "Host", "metadata": {"name": name}, "spec": {"address": address},
    }  # fmt: skip


def host_v2(name: str = "h", host: str = "b", port: int = 2) -> Any:
    spec = {"host": host, "port": port}
    return {"apiVersion": "example.com/v2", "kind": "Host", "metadata": {"name": name}, "spec": spec}


async def test_an_object_is_read_and_written_in_every_version(api: Any, webhook: Converting) -> None:
    await api.ok("POST", CRDS, webhook.crd())
    await api.ok("POST", V1, host_v1())
    assert webhook.asked == []
    found = await api.ok("GET", f"{V2}/h")
    assert (found["apiVersion"], found["spec"]) == ("example.com/v2", {"host": "a", "port": 1, "note": "none"})
    await api.ok("GET", f"{V2}/h")
    assert len(webhook.asked) == 1
    made = await api.ok("POST", V2, host_v2("i"))
    assert (made["apiVersion"], made["spec"]) == ("example.com/v2", {"host": "b", "port": 2})
    assert (await api.ok("GET", f"{V1}/i"))["spec"] == {"address": "b:2", "note": "none"}
    patched = await api.ok("PATCH", f"{V2}/h", {"spec": {"port": 9}}, **MERGE)
    assert patched["spec"]["port"] == 9
    assert (await api.ok("GET", f"{V1}/h"))["spec"]["address"] == "a:9"
    deleted = await api.ok("DELETE", f"{V2}/h")
    assert deleted["status"] == "Success"


async def test_a_list_of_several_versions_is_converted_in_one_call(api: Any, webhook: Converting) -> None:
    await api.ok("POST", CRDS, webhook.crd())
    for index in range(3):
        await api.ok("POST", V1, host_v1(f"h{index}", f"h{index}:{index}"))
    crd = await api.ok("GET", f"{CRDS}/hosts.example.com")
    crd["spec"]["versions"][0]["storage"], crd["spec"]["versions"][1]["storage"] = False, True
    updated = await api.ok("PUT", f"{CRDS}/hosts.example.com", crd)
    assert updated["status"]["storedVersions"] == ["v1", "v2"]
    await api.ok("POST", V2, host_v2("h3"))
    listed = await api.ok("GET", V2)
    assert [item["spec"].get("host") for item in listed["items"]] == ["h0", "h1", "h2", "b"]
    assert {item["apiVersion"] for item in listed["items"]} == {"example.com/v2"}
    assert [len(asked["objects"]) for asked in webhook.asked] == [3]
    chosen = await api.ok("GET", f"{V2}?fieldSelector=spec.host%3Dh1")
    assert [item["metadata"]["name"] for item in chosen["items"]] == ["h1"]
    table = await api.ok("GET", V2, accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    assert len(table["rows"]) == 4


async def test_a_watch_shows_converted_changes_in_order(api: Any, webhook: Converting) -> None:
    await api.ok("POST", CRDS, webhook.crd())
    await api.ok("POST", V1, host_v1("first"))
    watch = await api.watch(f"{V2}?watch=1&resourceVersion=0")
    selecting = await api.watch(f"{V2}?watch=1&fieldSelector=spec.host%3Dx&resourceVersion=0")
    await api.ok("POST", V1, host_v1("second", "x:1"))
    await api.ok("PATCH", f"{V1}/second", {"spec": {"address": "y:2"}}, **MERGE)
    await api.ok("DELETE", f"{V1}/second")
    seen = [await watch.next() for _ in range(4)]
    assert [(kind, obj["metadata"]["name"], obj["spec"]["host"]) for kind, obj in seen] == [
        ("ADDED", "first", "a"), ("ADDED", "second", "x"), ("MODIFIED", "second", "y"), ("DELETED", "second", "y"),
    ]  # fmt: skip
    chosen = [await selecting.next() for _ in range(2)]
    assert [(kind, obj["spec"]["host"]) for kind, obj in chosen] == [("ADDED", "x"), ("DELETED", "x")]
    await watch.close()
    await selecting.close()


async def test_metadata_is_kept_but_for_labels_and_annotations(api: Any, webhook: Converting) -> None:
    def label(response: Any) -> Any:
        for obj in response["convertedObjects"]:
            obj["metadata"] |= {"labels": {"by": "hook"}, "generation": 99, "finalizers": ["a/b"]}
        return response

    webhook.change = label
    await api.ok("POST", CRDS, webhook.crd())
    made = await api.ok("POST", V1, host_v1())
    found = await api.ok("GET", f"{V2}/h")
    assert found["metadata"] == {**made["metadata"], "labels": {"by": "hook"}}


def _renamed(response: Any) -> Any:
    response["convertedObjects"][0]["metadata"]["name"] = "other"
    return response


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda response: {**response, "uid": "x"}, 'failed: expected response.uid="'),
        (lambda response: {**response, "result": {"status": "Failure", "message": "no way"}}, "failed: no way"),
        (lambda response: {**response, "result": {}}, "failed: response.result.status was '', not 'Success'"),
        (lambda response: {**response, "convertedObjects": []}, "returned 0 objects, expected 1"),
        (_renamed, "returned invalid converted object at index 0: must have the same name: h != other"),
        (lambda response: None, "failed: no response provided"),
        (
            lambda response: {**response, "result": "x"},
            "json: cannot unmarshal string into Go struct field ConversionResponse.response.result of type v1.Status",
        ),
    ],
)
async def test_a_wrong_answer_is_told(api: Any, webhook: Converting, change: Any, text: str) -> None:
    webhook.change = change
    await api.ok("POST", CRDS, webhook.crd())
    await api.ok("POST", V1, host_v1())
    for method, path, body in (("GET", f"{V2}/h", None), ("GET", V2, None), ("DELETE", f"{V2}/h", None)):
        refused = await api.refused(500, method, path, body)
        assert refused["message"].startswith("conversion webhook for example.com/v1, Kind=Host ")
        assert text in refused["message"]
    assert (await api.ok("GET", f"{V1}/h"))["spec"]["address"] == "a:1"
    webhook.change = lambda response: response
    assert (await api.ok("GET", f"{V2}/h"))["spec"]["host"] == "a"


async def test_a_webhook_that_does_not_answer_is_told_with_its_address(api: Any, webhook: Converting) -> None:
    await api.ok("POST", CRDS, webhook.crd(url="https://127.0.0.1:1/convert"))
    await api.ok("POST", V1, host_v1())
    refused = await api.refused(500, "GET", f"{V2}/h")
    assert refused["message"] == (
        'conversion webhook for example.com/v1, Kind=Host failed: Post "https://127.0.0.1:1/convert?timeout=30s": '
        "dial tcp 127.0.0.1:1: connect: connection refused"
    )
    await api.ok("DELETE", f"{CRDS}/hosts.example.com")
    for _ in range(500):
        if (await api.call("GET", f"{CRDS}/hosts.example.com")).status == 404:
            return
        await asyncio.sleep(0.01)
    raise TimeoutError("a definition waits for its webhook")


async def test_a_webhook_is_found_by_its_service(api: Any, webhook: Converting) -> None:
    service = {"name": "hook", "namespace": "default", "path": "/convert"}
    await api.ok("POST", CRDS, webhook.crd(service=service))
    await api.ok("POST", V1, host_v1())
    assert 'service "hook" not found' in (await api.refused(500, "GET", f"{V2}/h"))["message"]
    await api.ok("POST", "/api/v1/namespaces/default/services", {
        "metadata": {"name": "hook"}, "spec": {"ports": [{"port": 443}]}})  # fmt: skip
    await api.ok("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", {
        "metadata": {"name": "hook", "labels": {"kubernetes.io/service-name": "hook"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"]}], "ports": [{"port": webhook.port}],
    })  # fmt: skip
    assert (await api.ok("GET", f"{V2}/h"))["spec"]["host"] == "a"


async def test_a_conversion_is_part_of_no_dry_run_that_fails(api: Any, webhook: Converting) -> None:
    await api.ok("POST", CRDS, webhook.crd())
    made = await api.ok("POST", f"{V2}?dryRun=All", host_v2())
    assert made["spec"] == {"host": "b", "port": 2}
    await api.refused(404, "GET", f"{V2}/h")


async def test_a_webhook_is_sent_what_the_stored_version_says_now(api: Any, webhook: Converting) -> None:
    await api.ok("POST", CRDS, webhook.crd())
    await api.ok("POST", V1, host_v1())
    crd = await api.ok("GET", f"{CRDS}/hosts.example.com")
    properties = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    properties.pop("note")
    properties["extra"] = {"type": "integer", "default": 3}
    await api.ok("PUT", f"{CRDS}/hosts.example.com", crd)
    await api.ok("GET", f"{V2}/h")
    assert webhook.asked[-1]["objects"][0]["spec"] == {"address": "a:1", "extra": 3}


def _owned(obj: Any) -> list[tuple[str, Any]]:
    return [(row["manager"], row["fieldsV1"].get("f:spec")) for row in obj["metadata"].get("managedFields", ())]


async def test_fields_are_owned_across_versions_of_another_structure(api: Any, webhook: Converting) -> None:
    apply = {"content_type": "application/apply-patch+yaml"}
    await api.ok("POST", CRDS, webhook.crd())
    await api.ok("PATCH", f"{V1}/h?fieldManager=a", host_v1(), **apply)
    refused = await api.refused(409, "PATCH", f"{V2}/h?fieldManager=b", host_v2(), **apply)
    assert refused["message"] == 'Apply failed with 1 conflict: conflict with "a": .spec.address'
    found = await api.ok("PATCH", f"{V2}/h?fieldManager=b&force=true", host_v2(), **apply)
    assert _owned(found) == [("b", {"f:host": {}, "f:port": {}})]
    found = await api.ok("PATCH", f"{V1}/h?fieldManager=c", {"spec": {"address": "b:3"}}, **MERGE)
    assert _owned(found) == [("b", {"f:host": {}}), ("c", {"f:address": {}})]
    webhook.change = lambda response: {**response, "result": {"status": "Failure", "message": "no"}}
    await api.refused(500, "PATCH", f"{V1}/h?fieldManager=a&force=true", host_v1(), **apply)
    assert _owned(await api.ok("PATCH", f"{V1}/h?fieldManager=c", {"spec": {"address": "b:4"}}, **MERGE)) == []
