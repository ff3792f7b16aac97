"""The forms of an answer: media types, shapes, indentation; and the documents that clients keep."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from steersman.cluster.api.protobuf.codec import decode
from steersman.cluster.api.protobuf.wire import fields
from steersman.cluster.meta import yamlio

MAPS = "/api/v1/namespaces/default/configmaps"
JSON, YAML, PROTOBUF = "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIAL_LIST = "as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": data}


def read(media: str, body: bytes) -> Any:
    if media == YAML:
        return yamlio.load(body)
    return decode(body) if media == PROTOBUF else orjson.loads(body)


@pytest.mark.parametrize("media", [YAML, PROTOBUF])
async def test_every_answer_comes_in_the_media_type_that_is_taken(api: Any, media: str) -> None:
    made = await api.call("POST", MAPS, config_map("a", x="1", y="yes"), accept=media)
    assert (made.status, made.headers["content-type"]) == (201, media)
    plain = await api.ok("GET", f"{MAPS}/a")
    assert read(media, made.body) == plain
    for target in (f"{MAPS}/a", MAPS, f"{MAPS}/none", "/apis/apps", "/api/v1", f"{MAPS}?limit=x"):
        wanted = await api.call("GET", target)
        shown = await api.call("GET", target, accept=media)
        assert (shown.status, shown.headers["content-type"]) == (wanted.status, media), target
        found, plain = read(media, shown.body), orjson.loads(wanted.body)
        if media == PROTOBUF:
            for item in plain.get("items", ()):
                del item["apiVersion"], item["kind"]
        assert found.pop("metadata", {}) == plain.pop("metadata", {}), target
        assert found == plain, target
    gone = await api.call("DELETE", f"{MAPS}/a", accept=media)
    assert read(media, gone.body)["status"] == "Success"


async def test_a_long_list_comes_whole_in_the_media_type_that_is_taken(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steersman.actors.apiserver.reads.LIST_WHOLE_MAX", 2)
    monkeypatch.setattr("steersman.actors.apiserver.rendering._INLINE_BYTES_MAX", 10)
    for n in range(4):
        await api.ok("POST", MAPS, config_map(f"c{n}"))
    shown = await api.call("GET", MAPS, accept=YAML)
    assert shown.body.startswith(b"apiVersion: v1\nitems:\n- apiVersion: v1\n")
    monkeypatch.setattr("steersman.actors.apiserver.rendering._LAID_OUT_BYTES_MAX", 10)
    plain = await api.call("GET", MAPS, accept=YAML)
    found = b"".join([piece async for piece in plain.body])
    assert plain.headers["content-type"] == YAML and found.startswith(b"{"), "JSON is YAML"
    for body in (shown.body, found):
        assert [row["metadata"]["name"] for row in yamlio.load(body)["items"]] == ["c0", "c1", "c2", "c3"]
    monkeypatch.setattr("steersman.actors.apiserver.rendering._PROTOBUF_BYTES_MAX", 10)
    refused = await api.call("GET", MAPS, accept=PROTOBUF)
    assert (refused.status, orjson.loads(refused.body)["reason"]) == (413, "RequestEntityTooLarge")


def unframed(data: bytes) -> list[tuple[str, Any]]:
    """The events of a watch in protobuf: type and object."""
    found = []
    while data:
        size = int.from_bytes(data[:4])
        event = {number: value for number, _, value in fields(memoryview(data[4 : 4 + size]))}
        ((_, _, raw),) = fields(event[2])
        found.append((bytes(event[1]).decode(), decode(bytes(raw))))
        data = data[4 + size :]
    return found


async def test_a_watch_in_protobuf_is_framed_by_length(api: Any) -> None:
    made = await api.ok("POST", MAPS, config_map("a", x="1"))
    query = "watch=1&allowWatchBookmarks=1"
    for accept in (PROTOBUF, f"{PROTOBUF};{PARTIAL}"):
        response = await api.call("GET", f"{MAPS}?{query}", accept=accept)
        assert response.headers["content-type"] == f"{PROTOBUF};stream=watch"
        events = unframed(await response.body.__anext__())
        assert [kind for kind, _ in events] == ["ADDED", "BOOKMARK"]
        shown = events[0][1]
        assert shown["metadata"]["uid"] == made["metadata"]["uid"]
        assert shown["kind"] == ("PartialObjectMetadata" if PARTIAL in accept else "ConfigMap")
        assert ("data" in shown) is (PARTIAL not in accept)
        await response.body.aclose()
    api.server.cache.shelf("/registry/core/configmaps/").floor = 9
    ended = await api.call("GET", f"{MAPS}?watch=1&resourceVersion=2", accept=PROTOBUF)
    assert [(kind, obj["code"]) for kind, obj in unframed(await ended.body.__anext__())] == [("ERROR", 410)]


NOT_SHOWN = {
    f"{JSON};{PARTIAL}": (
        MAPS, "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)",
    ),
    f"{JSON};{PARTIAL_LIST}": (
        f"{MAPS}/a",
        "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)",
    ),
    "application/cbor": (
        MAPS,
        f"only the following media types are accepted: {JSON}, {YAML}, {PROTOBUF}",
    ),
    YAML: (
        f"{MAPS}?watch=1",
        f"only the following media types are accepted: {JSON};stream=watch, {PROTOBUF};stream=watch",
    ),
}  # fmt: skip


@pytest.mark.parametrize("accept", NOT_SHOWN)
async def test_what_cannot_be_shown_so_is_refused(api: Any, accept: str) -> None:
    await api.ok("POST", MAPS, config_map("a"))
    target, message = NOT_SHOWN[accept]
    response = await api.call("GET", target, accept=accept)
    assert response.status == 406
    assert read(response.headers["content-type"], response.body)["message"] == message


async def test_a_body_in_an_unknown_format_is_refused(api: Any) -> None:
    status = await api.refused(415, "POST", MAPS, b"x", content_type="application/cbor")
    assert status["message"] == (
        f"the body of the request was in an unknown format - accepted media types include: {JSON}, {YAML}, {PROTOBUF}"
    )


ROWS = {"": "PartialObjectMetadata", "Metadata": "PartialObjectMetadata", "Object": "ConfigMap", "None": None}


@pytest.mark.parametrize("include", ROWS)
async def test_a_row_carries_what_it_is_asked_to(api: Any, include: str) -> None:
    await api.ok("POST", MAPS, config_map("a", x="1"))
    query = f"includeObject={include}" if include else ""
    table = await api.ok("GET", f"{MAPS}?{query}", accept=TABLE)
    obj = table["rows"][0]["object"]
    assert (obj and obj["kind"]) == ROWS[include] and int(table["metadata"]["resourceVersion"]) > 0
    watch = await api.watch(f"{MAPS}?watch=1&{query}", accept=TABLE)
    obj = (await watch.next())[1]["rows"][0]["object"]
    assert (obj and obj["kind"]) == ROWS[include]
    await watch.close()
    status = await api.refused(400, "GET", f"{MAPS}?includeObject=All", accept=TABLE)
    assert status["message"] == (
        "Unable to convert to Table as requested: includeObject: Invalid value: \"All\": must be 'Metadata', 'Object', "
        "'None', or empty"
    )


async def test_people_are_answered_with_indentation(api: Any) -> None:
    await api.ok("POST", MAPS, config_map("a"))
    plain = (await api.call("GET", f"{MAPS}/a")).body
    for target, headers in (
        (f"{MAPS}/a", {"user_agent": "curl/8.5"}), (f"{MAPS}/a?pretty=true", {}),
        (f"{MAPS}/a", {"accept": f"{JSON};pretty=1"}),
    ):  # fmt: skip
        response = await api.call("GET", target, **headers)
        assert response.body.startswith(b'{\n  "apiVersion": "v1",\n  "') and orjson.loads(
            response.body
        ) == orjson.loads(plain)
        assert response.headers["content-type"] == JSON
    assert (await api.call("GET", f"{MAPS}/a?pretty=false", user_agent="curl/8.5")).body == plain
    watch = await api.call("GET", f"{MAPS}?watch=1&pretty=1")
    assert (await watch.body.__anext__()).count(b"\n") == 1, "a watch is one event a line"
    await watch.body.aclose()
    for target in ("/version", "/"):
        assert (await api.call("GET", target)).body.startswith(b"{\n  ")


async def test_each_answer_carries_the_id_of_its_request(api: Any) -> None:
    first, second = [(await api.call("GET", MAPS)).headers for _ in range(2)]
    assert len(first["audit-id"]) == 36 and first["audit-id"] != second["audit-id"]
    assert first["cache-control"] == "no-cache, private"
    assert (await api.call("GET", f"{MAPS}/none", audit_id="mine")).headers["audit-id"] == "mine"


# ---- documents


async def test_documents_are_sent_again_only_when_they_have_changed(api: Any) -> None:
    aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    index = await api.ok("GET", "/openapi/v3")
    for target, accept in (
        ("/api", aggregated), ("/apis", aggregated), ("/openapi/v2", "*/*"), ("/openapi/v3", "*/*"),
        (index["paths"]["apis/apps/v1"]["serverRelativeURL"], "*/*"),
        ("/openapi/v2", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"),
    ):  # fmt: skip
        first = await api.call("GET", target, accept=accept)
        tag = first.headers["etag"]
        assert first.status == 200 and first.headers["vary"] == "Accept" and tag[0] == tag[-1] == '"'
        for known in (tag, f'"x", W/{tag}'):
            again = await api.call("GET", target, accept=accept, if_none_match=known)
            assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
        assert (await api.call("GET", target, accept=accept, if_none_match='"x"')).status == 200
    versions = [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}]
    names = {"plural": "boxes", "kind": "Box"}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": versions}
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    before = (await api.call("GET", "/apis", accept=aggregated)).headers["etag"]
    await api.ok("POST", definitions, {"metadata": {"name": "boxes.example.com"}, "spec": spec})
    await api.ok("GET", "/apis/example.com/v1/boxes")
    assert (await api.call("GET", "/apis", accept=aggregated, if_none_match=before)).status == 200
    after = await api.ok("GET", "/openapi/v3")
    assert index["paths"].items() < after["paths"].items()


async def test_a_group_s_document_is_kept_for_ever_under_its_hash(api: Any) -> None:
    url = (await api.ok("GET", "/openapi/v3"))["paths"]["apis/apps/v1"]["serverRelativeURL"]
    path, _, digest = url.partition("?hash=")
    found = await api.call("GET", url)
    assert found.headers["etag"] == f'"{digest}"' and found.headers["cache-control"] == "public, immutable"
    assert found.headers["expires"].endswith(" GMT")
    plain = await api.call("GET", path)
    assert (plain.headers["cache-control"], plain.body) == ("no-cache, private", found.body)
    moved = await api.call("GET", f"{path}?hash=OLD")
    assert (moved.status, moved.headers["location"]) == (301, url)
    await api.refused(406, "GET", path, accept="image/png")
    await api.refused(404, "GET", "/openapi/v3/apis/none/v1")


async def test_discovery_is_refused_in_what_it_has_not(api: Any) -> None:
    for target in ("/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1"):
        await api.refused(406, "GET", target, accept="image/png")
        await api.refused(406, "GET", target, accept=TABLE)


DISCOVERY = ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
#: what is accepted, and whether that is the aggregated form; Kubernetes 1.33 and newer speak no v2beta1 any more
DISCOVERED = {
    f"application/json{DISCOVERY}": True,
    f"application/json{DISCOVERY};profile=nopeer": True,
    f"application/yaml{DISCOVERY}": True,
    f"application/vnd.kubernetes.protobuf{DISCOVERY}": True,
    f"*/*{DISCOVERY}": True,
    f"application/json{DISCOVERY.replace('v2', 'v2beta1')},application/json{DISCOVERY},application/json": True,
    f"application/json{DISCOVERY.replace('v2', 'v2beta1')},application/json": False,
    f"application/json{DISCOVERY};q=0.5,application/json": False,
    f"application/json,application/json{DISCOVERY}": False,
}


@pytest.mark.parametrize("accept", DISCOVERED)
async def test_discovery_is_aggregated_for_who_wants_that_most_in_any_media_type(api: Any, accept: str) -> None:
    wanted = await api.ok("GET", "/apis", accept=f"application/json{DISCOVERY}")
    found = await api.call("GET", "/apis", accept=accept)
    media = found.headers["content-type"]
    assert found.status == 200 and media.endswith(DISCOVERY) is DISCOVERED[accept]
    if "protobuf" in media:
        assert [row["metadata"] for row in decode(found.body)["items"]] == [row["metadata"] for row in wanted["items"]]
    elif DISCOVERED[accept]:
        assert yamlio.load(found.body) == wanted


async def test_who_uses_what_is_deprecated_is_warned(api: Any) -> None:
    endpoints = "/api/v1/namespaces/default/endpoints"
    text = '299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"'
    for target in (endpoints, f"{endpoints}/none", f"{endpoints}?watch=1"):
        assert (await api.call("GET", target)).headers["warning"] == text, target
    assert "warning" not in (await api.call("GET", MAPS)).headers


async def test_what_another_server_answers_is_passed_on_as_it_is(api: Any) -> None:
    await api.ok("POST", "/api/v1/nodes", {"metadata": {"name": "n1"}})
    target = "/api/v1/nodes/n1/proxy/stats/summary"
    plain = await api.call("GET", target)
    for headers in ({"accept": YAML}, {"user_agent": "curl/8.5"}):
        passed = await api.call("GET", target, **headers)
        assert (passed.body, passed.headers["content-type"]) == (plain.body, plain.headers["content-type"])
