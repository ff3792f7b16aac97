"""Whatever a client sends, it gets the answer Kubernetes would give: never a 5xx, and the server goes on."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from steersman.cluster.store.values import Put, Txn

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
PROTOBUF = "application/vnd.kubernetes.protobuf"
YAML = "application/yaml"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
GOOD = {"metadata": {"name": "new"}}
CONTAINER = {"name": "main", "image": "example.com/web:1"}


def nested(depth: int) -> bytes:
    return b'{"metadata":{"name":"new"},"data":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"


#: id: (method, target, body, content type, status, part of the message)
ROWS: dict[str, tuple[str, str, Any, str, int, str]] = {
    "empty body": ("POST", CONFIG_MAPS, b"", "", 400, ""),
    "no JSON": ("POST", CONFIG_MAPS, b"{", "", 400, "json"),
    "a number": ("POST", CONFIG_MAPS, b"7", "", 400, ""),
    "a list": ("POST", CONFIG_MAPS, b"[]", "", 400, ""),
    "null": ("POST", CONFIG_MAPS, b"null", "", 422, "name or generateName is required"),
    "not UTF-8": ("POST", CONFIG_MAPS, b'{"metadata":{"name":"\xff\xfe"}}', "", 422, "lowercase RFC 1123 subdomain"),
    "lone surrogate": ("POST", CONFIG_MAPS, b'{"metadata":{"name":"new"},"data":{"a":"\\ud800"}}', "", 400, ""),
    "no YAML": ("POST", CONFIG_MAPS, b"a: [b", YAML, 400, "yaml"),
    "a YAML bomb": (
        "POST", CONFIG_MAPS, b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
            b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % (98 + n, 98 + n, *[97 + n] * 9) for n in range(9)
        ), YAML, 400, "",
    ),
    "a YAML that merges without end": (
        "POST", CONFIG_MAPS,
        b"a: &a {" + b",".join(b"k%d: v" % n for n in range(2000)) + b"}\nb:\n" + b"- {<<: *a}\n" * 2000,
        YAML, 400, "excessive aliasing",
    ),
    "a YAML whose number has no end": ("POST", CONFIG_MAPS, b"a: " + b"9" * 2_000_000, YAML, 400, "too many digits"),
    "a YAML of too many values": ("POST", CONFIG_MAPS, b"a: [" + b"b," * 300_000 + b"]", YAML, 400, "aliasing"),
    "too deep, strict": ("POST", f"{CONFIG_MAPS}?fieldValidation=Strict", nested(1000), "", 400, "deeper"),
    "a field 50,000 times, strict": (
        "POST", f"{CONFIG_MAPS}?fieldValidation=Strict",
        b'{"metadata":{"name":"a"},"data":{' + b'"a":"1",' * 50_000 + b'"a":"1"}}',
        "", 400, 'strict decoding error: duplicate field "data.a"',
    ),
    "too many containers": (
        "POST", PODS, b'{"metadata":{"name":"new"},"spec":{"containers":[' + b"{}," * 100_000 + b"{}]}}", "", 413,
        "more than 50000 maps and lists",
    ),
    "too many fields of protobuf": (
        "POST", PODS,
        b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x84\xea\x30\x12\x80\xea\x30" + b"\x12\x00" * 400_000, PROTOBUF, 400,
        "more than 400000 fields",
    ),
    "a YAML that makes Python objects": (
        "POST", CONFIG_MAPS, b"!!python/object/apply:os.system ['true']", YAML, 400, "",
    ),
    "no protobuf": (
        "POST", CONFIG_MAPS, b"abc", PROTOBUF, 400,
        "the object provided is unrecognized (must be of type ConfigMap): provided data does not appear to be a "
        "protobuf message, expected prefix [107 56 115 0] (616263)",
    ),
    "an empty protobuf": ("POST", CONFIG_MAPS, b"", PROTOBUF, 400, "(must be of type ConfigMap): empty data (<empty>)"),
    "a protobuf of nothing": ("POST", CONFIG_MAPS, b"k8s\0", PROTOBUF, 400, ": empty body (6b387300)"),
    "a protobuf of no kind": (
        "POST", CONFIG_MAPS, b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Foo", PROTOBUF, 400,
        'Foo in version "v1" cannot be handled as a ConfigMap: no kind "Foo" is registered for version "v1" in scheme',
    ),
    "a truncated protobuf": ("POST", CONFIG_MAPS, b"k8s\0\x0a\x0f\x0a\x02v1", PROTOBUF, 400, "unexpected EOF"),
    "a patch of no type, to nothing": ("PATCH", f"{CONFIG_MAPS}/nothing", {}, "application/json", 415, "patch+json"),
    "a dry run of a conversation": ("GET", f"{PODS}/pod/exec?dryRun=All", None, "", 400, "dryRun is not supported"),
    "an unknown format": ("POST", CONFIG_MAPS, b"x", "application/x-thing", 415, "unknown format"),
    "too large": ("POST", CONFIG_MAPS, b'"' + b"x" * 3_200_000 + b'"', "", 413, "too large"),
    "too deep": ("POST", CONFIG_MAPS, nested(100), "", 400, ""),
    "far too deep": ("POST", CONFIG_MAPS, nested(100_000), "", 400, ""),
    "too deep YAML": ("POST", CONFIG_MAPS, b"[" * 5000, YAML, 400, ""),
    "another kind": ("POST", CONFIG_MAPS, {**GOOD, "kind": "Secret", "apiVersion": "v1"}, "", 400, ""),
    "another version": ("POST", CONFIG_MAPS, {**GOOD, "kind": "ConfigMap", "apiVersion": "v9"}, "", 400, "v9"),
    "a wrong type": ("POST", CONFIG_MAPS, {**GOOD, "data": {"a": 1}}, "", 400, "data"),
    "metadata is text": ("POST", CONFIG_MAPS, {"metadata": "x"}, "", 400, ""),
    "labels is a list": ("POST", CONFIG_MAPS, {"metadata": {"name": "new", "labels": ["a"]}}, "", 400, ""),
    "unknown field, strict": (
        "POST", f"{CONFIG_MAPS}?fieldValidation=Strict", {**GOOD, "surprise": 1}, "", 400, 'unknown field "surprise"',
    ),
    "field twice, strict": (
        "POST", f"{CONFIG_MAPS}?fieldValidation=Strict", b'{"metadata":{"name":"a","name":"b"}}', "", 400, "duplicate",
    ),
    "no such validation": (
        "POST", f"{CONFIG_MAPS}?fieldValidation=Maybe", GOOD, "", 422,
        'CreateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "Maybe": supported values: "", '
        '"Ignore", "Strict", "Warn"',
    ),
    "no such dry run": (
        "POST", f"{CONFIG_MAPS}?dryRun=Some", GOOD, "", 422,
        'CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Some"]: supported values: "All"',
    ),
    "an empty dry run": (
        "PUT", f"{CONFIG_MAPS}/old?dryRun=", GOOD, "", 422,
        'UpdateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: [""]: supported values: "All"',
    ),
    "an empty dry run of a delete": (
        "DELETE", f"{CONFIG_MAPS}/old?dryRun=", None, "", 422,
        'DeleteOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: [""]: supported values: "All"',
    ),
    "no such dry run of a delete": (
        "DELETE", f"{CONFIG_MAPS}/old?dryRun=Some", None, "", 422,
        'DeleteOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Some"]: supported values: "All"',
    ),
    "a long field manager": (
        "PUT", f"{CONFIG_MAPS}/old?fieldManager={'x' * 129}", {"metadata": {"name": "old"}}, "", 422,
        'UpdateOptions.meta.k8s.io "" is invalid: fieldManager: Too long: may not be more than 128 bytes',
    ),
    "a field manager that cannot be printed": (
        "POST", f"{CONFIG_MAPS}?fieldManager=a%07b", GOOD, "", 422, "invalid character U+0007 (at position 1)",
    ),
    "force without apply": (
        "PATCH", f"{CONFIG_MAPS}/old?force=true", {"data": {}}, "application/merge-patch+json", 422,
        'PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch',
    ),
    "an apply by nobody": (
        "PATCH", f"{CONFIG_MAPS}/old", {"apiVersion": "v1", "kind": "ConfigMap"}, "application/apply-patch+yaml", 422,
        'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
    ),
    "no name": ("POST", CONFIG_MAPS, {"metadata": {}}, "", 422, "name or generateName is required"),
    "a bad name": ("POST", CONFIG_MAPS, {"metadata": {"name": "Not_A_Name"}}, "", 422, "RFC 1123"),
    "a bad label": ("POST", CONFIG_MAPS, {"metadata": {"name": "new", "labels": {"a": "b c"}}}, "", 422, "labels"),
    "a bad data key": ("POST", CONFIG_MAPS, {**GOOD, "data": {"a/b": "1"}}, "", 422, "data[a/b]"),
    "a version on create": ("POST", CONFIG_MAPS, {"metadata": {"name": "new", "resourceVersion": "5"}}, "", 400, ""),
    "another namespace": ("POST", CONFIG_MAPS, {"metadata": {"name": "new", "namespace": "other"}}, "", 400, ""),
    "no such namespace": (
        "POST", "/api/v1/namespaces/nowhere/configmaps", GOOD, "", 404, 'namespaces "nowhere" not found',
    ),
    "it exists": ("POST", CONFIG_MAPS, {"metadata": {"name": "old"}}, "", 409, "already exists"),
    "no container": ("POST", PODS, {**GOOD, "spec": {"containers": []}}, "", 422, "spec.containers"),
    "a container without image": ("POST", PODS, {**GOOD, "spec": {"containers": [{"name": "c"}]}}, "", 422, "image"),
    "two containers of a name": (
        "POST", PODS, {**GOOD, "spec": {"containers": [CONTAINER, CONTAINER]}}, "", 422, "Duplicate",
    ),
    "no quantity": (
        "POST", PODS,
        {**GOOD, "spec": {"containers": [{**CONTAINER, "resources": {"limits": {"cpu": "much"}}}]}}, "", 400, "",
    ),
    "a selector that does not match": (
        "POST", DEPLOYMENTS,
        {**GOOD, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": [CONTAINER]}}}},
        "", 422, "selector",
    ),
    "stale": ("PUT", f"{CONFIG_MAPS}/old", {"metadata": {"name": "old", "resourceVersion": "1"}}, "", 409, "modified"),
    "a version that is none": (
        "PUT", f"{CONFIG_MAPS}/old", {"metadata": {"name": "old", "resourceVersion": "x"}}, "", 400, "invalid syntax",
    ),
    "another name": ("PUT", f"{CONFIG_MAPS}/old", {"metadata": {"name": "new"}}, "", 400, "name"),
    "another uid": ("PUT", f"{CONFIG_MAPS}/old", {"metadata": {"name": "old", "uid": "u"}}, "", 409, "UID"),
    "nothing to put": (
        "PUT", f"{CONFIG_MAPS}/none", {"metadata": {"name": "none"}}, "", 404, 'configmaps "none" not found',
    ),
    "immutable": ("PATCH", f"{CONFIG_MAPS}/fixed", {"data": {"a": "2"}}, MERGE, 422, "immutable"),
    "an immutable pod": ("PATCH", f"{PODS}/pod", {"spec": {"nodeName": "n2"}}, MERGE, 422, "spec"),
    "nothing to patch": ("PATCH", f"{CONFIG_MAPS}/none", {}, MERGE, 404, "not found"),
    "no such patch": ("PATCH", f"{CONFIG_MAPS}/old", {}, "application/json", 415, ""),
    "a patch that is no JSON": ("PATCH", f"{CONFIG_MAPS}/old", b"{", MERGE, 400, ""),
    "a merge patch that is a list": ("PATCH", f"{CONFIG_MAPS}/old", [], MERGE, 400, ""),
    "a JSON patch that is an object": ("PATCH", f"{CONFIG_MAPS}/old", {}, JSON_PATCH, 400, ""),
    "a JSON patch of nowhere": ("PATCH", f"{CONFIG_MAPS}/old", [{"op": "remove", "path": "/x/y"}], JSON_PATCH, 422, ""),
    "a JSON patch with no such operation": (
        "PATCH", f"{CONFIG_MAPS}/old", [{"op": "dance", "path": "/a"}], JSON_PATCH, 422, "",
    ),
    "a JSON patch whose test fails": (
        "PATCH", f"{CONFIG_MAPS}/old", [{"op": "test", "path": "/metadata/name", "value": "x"}], JSON_PATCH, 422, "",
    ),
    "a JSON patch that copies without end": (
        "PATCH", f"{CONFIG_MAPS}/old", [{"op": "add", "path": "/data/s", "value": "x" * 100_000},
            *({"op": "copy", "from": "/data/s", "path": f"/data/{n}"} for n in range(1000))], JSON_PATCH, 422,
        "exceeding the limit 3145728",
    ),
    "a patch into a wrong type": ("PATCH", f"{CONFIG_MAPS}/old", {"data": {"a": 1}}, MERGE, 422, "of type string"),
    "a patch of the name": ("PATCH", f"{CONFIG_MAPS}/old", {"metadata": {"name": "x"}}, MERGE, 400, "name"),
    "an apply without manager": (
        "PATCH", f"{CONFIG_MAPS}/old", {"apiVersion": "v1", "kind": "ConfigMap"}, APPLY, 422, "fieldManager",
    ),
    "an apply without kind": ("PATCH", f"{CONFIG_MAPS}/old?fieldManager=m", {}, APPLY, 400, ""),
    "force on another patch": ("PATCH", f"{CONFIG_MAPS}/old?force=true", {}, MERGE, 422, "force"),
    "nothing to delete": ("DELETE", f"{CONFIG_MAPS}/none", None, "", 404, "not found"),
    "delete options that are none": ("DELETE", f"{CONFIG_MAPS}/old", b"nonsense", "", 400, ""),
    "a timeout of nothing": (
        "GET", f"{CONFIG_MAPS}?timeout=soon", None, "", 400,
        'invalid timeout specified in the request URL - time: invalid duration "soon"',
    ),
    "a timeout without unit": (
        "GET", f"{CONFIG_MAPS}?timeout=1m2", None, "", 400, 'time: missing unit in duration "1m2"',
    ),
    "a timeout of an unknown unit": (
        "DELETE", f"{CONFIG_MAPS}/old?timeout=1d", None, "", 400, 'time: unknown unit "d" in duration "1d"',
    ),
    "options of another kind": (
        "DELETE", f"{CONFIG_MAPS}/old", {"apiVersion": "v1", "kind": "Secret"}, "", 400, "Secret in version",
    ),
    "no such policy, and nothing to delete": (
        "DELETE", f"{CONFIG_MAPS}/none?propagationPolicy=Gently", None, "", 422, "propagationPolicy",
    ),
    "no such policy for a collection": (
        "DELETE", f"{CONFIG_MAPS}?labelSelector=no=thing&propagationPolicy=Gently", None, "", 422, "propagationPolicy",
    ),
    "no such policy": ("DELETE", f"{CONFIG_MAPS}/old?propagationPolicy=Gently", None, "", 422, "propagationPolicy"),
    "another uid to delete": (
        "DELETE", f"{CONFIG_MAPS}/old", {"preconditions": {"uid": "x"}}, "", 409, "in the precondition (x) does not",
    ),
    "a grace that is no number": (
        "DELETE", f"{PODS}/pod?gracePeriodSeconds=soon", None, "", 400,
        'strconv.ParseInt: parsing "soon": invalid syntax',
    ),
    "a protected namespace": ("DELETE", "/api/v1/namespaces/default", None, "", 403, "may not be deleted"),
    "a bad label selector": ("GET", f"{CONFIG_MAPS}?labelSelector=a%20in%20(", None, "", 400, ""),
    "a bad field selector": ("GET", f"{CONFIG_MAPS}?fieldSelector=nonsense", None, "", 400, ""),
    "an unknown field to select by": (
        "GET", f"{CONFIG_MAPS}?fieldSelector=data.x%3D1", None, "", 400, '"data.x" is not a known field selector: only',
    ),
    "a limit that is none": ("GET", f"{CONFIG_MAPS}?limit=many", None, "", 400, ""),
    "a continue that is none": ("GET", f"{CONFIG_MAPS}?limit=1&continue=xyz", None, "", 400, "continue"),
    "a continue that is JSON": ("GET", f"{CONFIG_MAPS}?continue=e30", None, "", 400, "continue"),
    "a resource version that is none": ("GET", f"{CONFIG_MAPS}?resourceVersion=x", None, "", 400, ""),
    "a negative resource version": ("GET", f"{CONFIG_MAPS}/old?resourceVersion=-1", None, "", 400, ""),
    "a match without version": ("GET", f"{CONFIG_MAPS}?resourceVersionMatch=Exact", None, "", 422, "unless"),
    "no such match": ("GET", f"{CONFIG_MAPS}?resourceVersion=1&resourceVersionMatch=About", None, "", 422, ""),
    "an aggregation by a selector that is none": (
        "POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        {"metadata": {"name": "r"}, "aggregationRule": {"clusterRoleSelectors": [
            {"matchExpressions": [{"key": "a", "operator": "Maybe"}]}]}},
        "", 422, "aggregationRule.clusterRoleSelectors[0].matchExpressions[0].operator",
    ),
    "initial events without match": ("GET", f"{CONFIG_MAPS}?watch=1&sendInitialEvents=true", None, "", 422, "requires"),
    "a watch timeout that is none": ("GET", f"{CONFIG_MAPS}?watch=1&timeoutSeconds=x", None, "", 400, ""),
    "no such kind": (
        "GET", "/api/v1/namespaces/default/gadgets", None, "", 404, "could not find the requested resource",
    ),
    "no such group": ("GET", "/apis/example.com/v1/gadgets", None, "", 404, "404 page not found"),
    "no such version": ("GET", "/apis/apps/v9/gadgets", None, "", 404, "could not find the requested resource"),
    "no such path": ("GET", "/nowhere", None, "", 404, "404 page not found"),
    "no such subresource": ("GET", f"{CONFIG_MAPS}/old/status", None, "", 404, ""),
    "no such verb": ("PUT", CONFIG_MAPS, GOOD, "", 405, ""),
    "a name to create under": ("POST", f"{CONFIG_MAPS}/new", GOOD, "", 405, ""),
    "a strange method": ("BREW", CONFIG_MAPS, None, "", 405, ""),
    "a namespace missing": ("POST", "/api/v1/configmaps", GOOD, "", 404, ""),
    "a namespace too many": ("GET", "/api/v1/namespaces/default/nodes", None, "", 404, ""),
    "exec without upgrade": ("POST", f"{PODS}/pod/exec?command=x&stdout=1", None, "", 400, "Upgrade"),
    "exec without command": ("POST", f"{PODS}/pod/exec", None, "", 400, "command"),
    "logs of nobody": ("GET", f"{PODS}/none/log", None, "", 404, "not found"),
    "logs of no container": ("GET", f"{PODS}/pod/log?container=x", None, "", 400, "not valid for pod"),
    "logs since nonsense": ("GET", f"{PODS}/pod/log?sinceTime=yesterday", None, "", 400, "sinceTime"),
    "logs of a pod without node": ("GET", f"{PODS}/pending/log", None, "", 400, "does not have a host"),
    "bound to nowhere": ("POST", f"{PODS}/pending/binding", {"target": {}}, "", 422, "target.name"),
    "a token for too short": (
        "POST", "/api/v1/namespaces/default/serviceaccounts/default/token",
        {"spec": {"audiences": [], "expirationSeconds": 5}}, "", 422, "10 minutes",
    ),
    "a token for nobody": (
        "POST", "/api/v1/namespaces/default/serviceaccounts/none/token", {"spec": {"audiences": []}}, "", 404,
        "not found",
    ),
    "a review of nothing": (
        "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"spec": {}}, "", 422, "exactly one of",
    ),
    "a certificate request of blocks that do not end": (
        "POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests",
        {"metadata": {"name": "c"}, "spec": {
            "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"],
            "request": base64.b64encode(b"-----BEGIN CERTIFICATE REQUEST-----\n" * 50_000 + b"-----END A").decode(),
        }}, "", 422, "PEM block type must be CERTIFICATE REQUEST",
    ),
    "percent nonsense": ("GET", f"{CONFIG_MAPS}/%zz%ff", None, "", 400, "Name parameter invalid"),
    "a path out of the collection": ("GET", f"{CONFIG_MAPS}/..%2f..%2fx", None, "", 404, ""),
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def furnished(make_api: Any, make_store: Any) -> AsyncIterator[Any]:
    """One server for the whole table: a refused request leaves nothing behind."""
    store = make_store(time.time)
    await store.start()
    api = await make_api(store)
    await api.ok("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    await api.ok("POST", CONFIG_MAPS, {"metadata": {"name": "old"}, "data": {"a": "1"}})
    await api.ok("POST", CONFIG_MAPS, {"metadata": {"name": "fixed"}, "immutable": True, "data": {"a": "1"}})
    for name, node in (("pod", {"nodeName": "n1"}), ("pending", {})):
        await api.ok("POST", PODS, {"metadata": {"name": name}, "spec": {"containers": [CONTAINER], **node}})
    yield api
    await api.server.stop()
    await store.stop()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("method", "target", "body", "media", "status", "message"), ROWS.values(), ids=ROWS.keys())
async def test_bad_input_gets_kubernetes_answer(
    furnished: Any, method: str, target: str, body: Any, media: str, status: int, message: str
) -> None:
    before = furnished.server.cache.revision
    headers = {"content_type": media} if media else {}
    refused = await furnished.refused(status, method, target, body, **headers)
    assert message in refused["message"]
    assert refused["status"] == "Failure" and refused["reason"]
    await furnished.server.cache.fresh()
    assert furnished.server.cache.revision == before, "a refused request writes nothing"


async def test_a_bad_token_is_nobody(api: Any) -> None:
    for token in ("x", "a.b.c", "abcdef.0123456789abcdef", "", "é"):
        await api.refused(401, "GET", CONFIG_MAPS, user=None, authorization=f"Bearer {token}")
    await api.refused(401, "GET", CONFIG_MAPS, user=None, authorization="Basic eDp5")


async def test_a_value_that_somebody_else_spoilt_in_the_store_breaks_nothing_else(api: Any) -> None:
    good = {"data": {"x": "1"}, "metadata": {"name": "good", "namespace": "default"}}
    foreign = orjson.dumps({**good, "kind": "ConfigMap", "apiVersion": "v1"})
    values = {b"bad": b"\xff\xfe", b"list": b"[]", b"poor": b"{}", b"good": foreign}
    puts = tuple(Put(key=b"/registry/core/configmaps/default/" + key, value=value) for key, value in values.items())
    await api.store.txn(Txn(success=puts))
    assert (await api.ok("GET", f"{CONFIG_MAPS}/good"))["data"] == {"x": "1"}
    await api.ok("POST", CONFIG_MAPS, {"metadata": {"name": "next"}})
    found = await api.ok("GET", CONFIG_MAPS)
    assert {row["metadata"]["name"] for row in found["items"]} == {"good", "next"}


async def test_an_answer_carries_no_more_warnings_than_clients_read(api: Any) -> None:
    """Clients refuse header lines of 64 KiB; what Kubernetes shortens is shortened."""
    body = {"metadata": {"name": "a"}, **{f"field{n}": 1 for n in range(5000)}, "line\nbreak": 1, "long" * 200: 1}
    answer = await api.call("POST", CONFIG_MAPS, body)
    lines = answer.headers["warning"].split("\n")
    assert answer.status == 201 and lines[0] == '299 - "unknown field \\"field0\\""'
    assert len(lines) == len(set(lines)) <= 100 and sum(map(len, lines)) < 8192
    answer = await api.call("POST", CONFIG_MAPS, {"metadata": {"name": "b"}, "bad\r\nset-cookie: x": 1})
    assert answer.status == 201 and "warning" not in answer.headers
