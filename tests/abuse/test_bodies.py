"""Small bodies that would become large, and expressions, patterns and selectors that would take for ever."""

from __future__ import annotations

import asyncio
import base64
from typing import Any
from urllib.parse import quote

import orjson
from tests.abuse.conftest import MAPS, Abuse
from tests.abuse.victim import Victim
from tests.abuse.wire import Wire, wires

YAML, PROTOBUF = "application/yaml", "application/vnd.kubernetes.protobuf"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PODS = "/api/v1/namespaces/default/pods"


def configmap(rest: bytes) -> bytes:
    return b'{"metadata":{"name":"bomb"},' + rest + b"}"


#: id: (path, content type, body, status)
BOMBS: dict[str, tuple[str, str, bytes, int]] = {
    "YAML aliases": (MAPS, YAML, b"a: &a [x,x,x,x,x,x,x,x]\n" + b"".join(
        b"%c: &%c [%b]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 8)) for n in range(9)), 400),
    "YAML merges": (
        MAPS, YAML,
        b"a: &a {" + b",".join(b"k%d: v" % n for n in range(9000)) + b"}\nb:\n" + b"- {<<: *a}\n" * 9000, 400),
    "YAML nesting": (MAPS, YAML, b"{a: " * 500_000, 400),
    "YAML values": (MAPS, YAML, b"a: [" + b"b," * 1_200_000 + b"]", 400),
    "YAML anchor": (MAPS, YAML, b"a: &" + b"a" * 2_900_000 + b" x", 422),
    "JSON nesting": (MAPS, "", configmap(b'"data":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000), 400),
    "JSON number": (MAPS, "", configmap(b'"data":{"a":' + b"9" * 2_900_000 + b"}"), 400),
    "JSON unknown fields": (
        f"{MAPS}?dryRun=All", "", configmap(b",".join(b'"k%d":1' % n for n in range(150_000))), 201),
    "JSON wrong fields": (
        MAPS, "", configmap(b'"data":{' + b",".join(b'"k/%d":"v"' % n for n in range(40_000)) + b"}"), 422),
    "JSON lists": (MAPS, "", configmap(b'"data":{"a":[' + b"[]," * 900_000 + b"[]]}"), 413),
    "JSON surrogates": (MAPS, "", configmap(b'"data":{"a":"\\ud800"}'), 400),
    "protobuf messages": (
        PODS, PROTOBUF,
        b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x84\xea\x30\x12\x80\xea\x30" + b"\x12\x00" * 400_000, 400),
    "protobuf lengths": (MAPS, PROTOBUF, b"k8s\0\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 400),
    "an object that no store takes": (MAPS, "", configmap(b'"data":{"a":"' + b"x" * 2_000_000 + b'"}'), 422),
}  # fmt: skip


async def test_bombs_of_all_formats_are_refused(victim: Victim, abuse: Abuse) -> None:
    async def drop(name: str, path: str, media: str, body: bytes, status: int) -> str:
        async with wires(victim.port, victim.tls("mallory"), limit=1 << 24) as (wire,):
            code, _, answer = await wire.call("POST", path, body, content_type=media or "application/json")
            return "" if code == status else f"{name}: {code} {str(answer)[:300]}"

    async with abuse(growth_mib=240):
        wrong = await asyncio.gather(*(drop(name, *row) for name, row in BOMBS.items()))
    assert not any(wrong), "\n".join(filter(None, wrong))


def definition(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {"name": "traps.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "traps", "kind": "Trap"},
            "versions": [{
                "name": "v1", "served": True, "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": schema}}},
            }],
        },
    }  # fmt: skip


async def test_patterns_take_linear_time_and_dear_expressions_are_refused(victim: Victim, abuse: Abuse) -> None:
    text = {"type": "string", "pattern": "^(a+)+$", "maxLength": 100_000}
    rule = {"rule": "self.b.matches('^(a|a)*$')", "messageExpression": "'no match'"}
    schema = {"type": "object", "properties": {"a": text, "b": {"type": "string", "maxLength": 1000}}}
    many = {"type": "array", "items": {"type": "array", "items": {"type": "string"}}}
    dear = {"rule": "self.all(x, self.all(y, x.all(z, y.all(w, z == w))))"}
    async with abuse(growth_mib=60), wires(victim.port, victim.tls("mallory"), limit=1 << 24) as (wire,):
        status, _, answer = await wire.call(
            "POST", DEFINITIONS, definition({**many, "x-kubernetes-validations": [dear]})
        )
        assert status == 422 and "estimated rule cost" in answer["message"], answer
        status, _, answer = await wire.call(
            "POST", DEFINITIONS, definition({**schema, "x-kubernetes-validations": [rule]})
        )
        assert status == 201, answer
        traps = "/apis/example.com/v1/namespaces/default/traps"
        for spec in ({"a": "a" * 50_000 + "!"}, {"b": "a" * 999 + "!"}):
            trap = {"apiVersion": "example.com/v1", "kind": "Trap", "metadata": {"name": "t"}, "spec": spec}
            async with asyncio.timeout(10):
                status, _, answer = await wire.call("POST", traps, trap)
                while status == 404:
                    status, _, answer = await wire.call("POST", traps, trap)
            assert status == 422, answer
        assert (await wire.call("DELETE", f"{DEFINITIONS}/traps.example.com"))[0] == 200


async def test_selectors_take_as_long_as_objects_have_labels(victim: Victim, abuse: Abuse) -> None:
    """30,000 requirements on 300 objects: 9,000,000 to be looked at one by one."""
    selectors = (
        ",".join(f"!a{n}" for n in range(30_000)),
        ",".join(f"a!=v{n}" for n in range(30_000)),
        f"sort in ({','.join(f'v{n}' for n in range(30_000))},many)",
    )
    async with wires(victim.port, victim.tls("mallory"), limit=1 << 24) as (wire,):
        for number in range(300):
            body = {"metadata": {"name": f"many-{number}", "labels": {"sort": "many"}}}
            assert (await wire.call("POST", MAPS, body))[0] == 201
        async with abuse(growth_mib=120):
            for selector in selectors:
                status, _, found = await wire.call("GET", f"{MAPS}?labelSelector={quote(selector)}&limit=500")
                assert status == 200 and len(found["items"]) >= 300
            unwanted = quote(",".join(f"metadata.name!=n{n}" for n in range(20_000)))
            status, _, found = await wire.call("GET", f"{MAPS}?fieldSelector={unwanted}&limit=500")
            assert status == 200 and len(found["items"]) >= 300
            status, _, _ = await wire.call("GET", f"{MAPS}?labelSelector={'%21' * 100_000}")
            assert status == 400
        assert (await wire.call("DELETE", f"{MAPS}?labelSelector=sort%3Dmany"))[0] == 200


async def test_a_forged_token_of_a_list_leads_nowhere_else(victim: Victim) -> None:
    async with wires(victim.port, victim.tls("mallory")) as (wire,):
        await wire.call("POST", MAPS, {"metadata": {"name": "here"}})
        _, _, listed = await wire.call("GET", MAPS)
        revision = int(listed["metadata"]["resourceVersion"])
        for start in ("../default/a", "default/a", "a\0", "/", "", "../../secrets/default/"):
            token = {"v": "meta.k8s.io/v1", "rv": revision, "start": start}
            text = base64.urlsafe_b64encode(orjson.dumps(token)).decode().rstrip("=")
            status, _, found = await wire.call("GET", f"/api/v1/namespaces/kube-system/configmaps?continue={text}")
            assert status in (200, 400), found
            namespaces = {item["metadata"]["namespace"] for item in found.get("items", [])}
            assert namespaces <= {"kube-system"}, (start, namespaces)
        assert (await wire.call("GET", f"{MAPS}?continue={'A' * 500_000}"))[0] == 400


async def _owns(wire: Wire, manager: str, keys: int) -> int:
    data = {f"key-{n}": "v" for n in range(keys)}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owned"}, "data": data}
    target = f"{MAPS}/owned?fieldManager={manager}&force=true"
    status, _, _ = await wire.call("PATCH", target, body, content_type="application/apply-patch+yaml")
    return status


async def test_owners_of_many_fields_fit_or_are_refused(victim: Victim, abuse: Abuse) -> None:
    async with abuse(growth_mib=160), wires(victim.port, victim.tls("mallory"), limit=1 << 24) as (wire,):
        statuses = [await _owns(wire, f"manager-{number}", 12_000) for number in range(8)]
        assert statuses[0] == 201 and set(statuses[1:]) <= {200, 400, 413, 422, 500}
        assert 500 not in statuses, statuses
        assert (await wire.call("DELETE", f"{MAPS}/owned"))[0] == 200
