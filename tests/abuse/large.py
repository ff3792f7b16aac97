"""Requests that cost a server much although each is allowed, and the objects that they are about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import yaml
from tests.abuse.wire import Wire

CORE = "/api/v1/namespaces/large"
MAPS, PODS = f"{CORE}/configmaps", f"{CORE}/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/large/deployments"
SHELVES = "/apis/example.com/v1/namespaces/large/shelves"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
JSON, YAML, PROTOBUF = "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"
STRATEGIC, JSON_PATCH = "application/strategic-merge-patch+json", "application/json-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
#: fields that one body carries, and objects that a list shows
KEYS, LISTED = 40_000, 900


@dataclass(frozen=True, slots=True)
class Large:
    """A request. Args: status: of its answer."""

    method: str
    target: str
    media: str = JSON
    body: bytes = b""
    accept: str = JSON
    status: int = 200

    @property
    def repeats(self) -> bool:
        """Whether it can be asked again and means the same."""
        return "dryRun" in self.target or (self.method != "DELETE" and self.status != 201)

    async def ask(self, wire: Wire) -> None:
        status, _, answer = await wire.call(
            self.method, self.target, self.body, content_type=self.media, accept=self.accept
        )
        assert status == self.status, f"{status} {str(answer)[:300]}"


def data(text: str, keys: int = KEYS) -> dict[str, str]:
    return {f"key-{number}": text for number in range(keys)}


def config_map(name: str, **parts: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **parts}


def _pod(name: str, variables: int) -> dict[str, Any]:
    container = {"name": "c", "image": "i", "env": [{"name": f"V{n}", "value": "v"} for n in range(variables)]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}


def _deployment(name: str, variables: int) -> dict[str, Any]:
    pod, labels = _pod(name, variables), {"matchLabels": {"app": "a"}}
    template = {"metadata": {"labels": {"app": "a"}}, "spec": pod["spec"]}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"selector": labels, "template": template},
    }  # fmt: skip


def _shelf(name: str, books: int) -> dict[str, Any]:
    spec = {"books": [{"title": f"t{number}", "pages": number} for number in range(books)]}
    return {"apiVersion": "example.com/v1", "kind": "Shelf", "metadata": {"name": name}, "spec": spec}


def _definition() -> dict[str, Any]:
    book = {"type": "object", "properties": {"title": {"type": "string"}, "pages": {"type": "integer"}}}
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"books": {"type": "array", "items": book}}}},
    }
    return {
        "metadata": {"name": "shelves.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "shelves", "kind": "Shelf"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }  # fmt: skip


def _field(number: int, value: bytes) -> bytes:
    """A field of protobuf that is a message or a text."""
    size, length = len(value), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + value


def _protobuf(name: str) -> bytes:
    rows = b"".join(_field(2, _field(1, f"key-{n}".encode()) + _field(2, b"v")) for n in range(KEYS))
    raw = _field(1, _field(1, name.encode())) + rows
    return b"k8s\0" + _field(1, _field(1, b"v1") + _field(2, b"ConfigMap")) + _field(2, raw)


def _requests() -> Iterator[tuple[str, Large]]:
    dump, dry = orjson.dumps, "dryRun=All"
    lists: dict[str, Any] = {"a": [[] for _ in range(KEYS)]}
    yield "create, keys", Large("POST", f"{MAPS}?{dry}", JSON, dump(config_map("c", data=data("v"))), status=201)
    yield "create, unknown lists", Large("POST", f"{MAPS}?{dry}", JSON, dump(config_map("c", **lists)), status=201)
    yield (
        "create, wrong keys",
        Large("POST", MAPS, JSON, dump(config_map("c", data={f"k/{n}": "v" for n in range(KEYS)})), status=422),
    )
    text = yaml.dump(config_map("c", data=data("v")), Dumper=yaml.CSafeDumper).encode()
    yield "create, YAML keys", Large("POST", f"{MAPS}?{dry}", YAML, text, status=201)
    text = yaml.dump(config_map("c", **lists), Dumper=yaml.CSafeDumper).encode()
    yield "create, YAML unknown lists", Large("POST", f"{MAPS}?{dry}", YAML, text, status=201)
    yield "create, protobuf keys", Large("POST", f"{MAPS}?{dry}", PROTOBUF, _protobuf("c"), status=201)
    yield "create, pod of variables", Large("POST", f"{PODS}?{dry}", JSON, dump(_pod("c", 10_000)), status=201)
    yield "create, deployment", Large("POST", f"{DEPLOYMENTS}?{dry}", JSON, dump(_deployment("c", 10_000)), status=201)
    yield "create, custom", Large("POST", f"{SHELVES}?{dry}", JSON, dump(_shelf("c", 20_000)), status=201)
    yield "update, keys", Large("PUT", f"{MAPS}/keys", JSON, dump(config_map("keys", data=data("w"))))
    yield "merge patch, keys", Large("PATCH", f"{MAPS}/keys", MERGE, dump({"data": data("x")}))
    yield "strategic patch, keys", Large("PATCH", f"{MAPS}/keys", STRATEGIC, dump({"data": data("y")}))
    variables = {"spec": {"template": {"spec": {"containers": [{"name": "c", "env": [
        {"name": f"V{n}", "value": "w"} for n in range(1000)]}]}}}}  # fmt: skip
    yield "strategic patch, deployment", Large("PATCH", f"{DEPLOYMENTS}/large", STRATEGIC, dump(variables))
    steps = [{"op": "replace", "path": f"/data/key-{n}", "value": "z"} for n in range(5000)]
    yield "JSON patch, keys", Large("PATCH", f"{MAPS}/keys", JSON_PATCH, dump(steps))
    yield "small patch, keys", Large("PATCH", f"{MAPS}/keys", MERGE, dump({"data": {"key-0": "small"}}))
    yield "small patch, custom", Large("PATCH", f"{SHELVES}/large", MERGE, dump({"metadata": {"labels": {"a": "b"}}}))
    applied = dump(config_map("applied", data=data("v", KEYS // 2)))
    yield "apply, keys, new", Large("PATCH", f"{MAPS}/applied?fieldManager=m&force=true", APPLY, applied, status=201)
    applied = dump(config_map("applied", data=data("w", KEYS // 2)))
    yield "apply, keys, again", Large("PATCH", f"{MAPS}/applied?fieldManager=m&force=true", APPLY, applied)
    yield "get, as YAML", Large("GET", f"{MAPS}/keys", accept=YAML)
    yield "get, as protobuf", Large("GET", f"{MAPS}/keys", accept=PROTOBUF)
    yield "get, pretty", Large("GET", f"{MAPS}/keys?pretty=true")
    yield "get, as table", Large("GET", f"{MAPS}/keys", accept=TABLE)
    yield "list", Large("GET", PODS)
    yield "list, as table", Large("GET", PODS, accept=TABLE)
    yield "list, as metadata", Large("GET", PODS, accept=PARTIAL)
    yield "list, as protobuf", Large("GET", PODS, accept=PROTOBUF)
    yield "list, by field", Large("GET", f"{PODS}?fieldSelector=spec.nodeName!=n")
    yield "list, by label", Large("GET", f"{PODS}?labelSelector=app!=n")
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "x": data("v", 80_000)}
    yield "delete, options", Large("DELETE", f"{MAPS}/none", JSON, dump(options), status=404)
    yield "review, unknown lists", Large(
        "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", JSON,
        dump({"spec": {"resourceAttributes": {"verb": "get"}, **lists}}), status=201,
    )  # fmt: skip
    yield "watch, as protobuf", Large("GET", f"{PODS}?watch=1&timeoutSeconds=1", accept=PROTOBUF)
    yield "delete, keys", Large("DELETE", f"{MAPS}/applied")
    yield "delete, keys, shown", Large("DELETE", f"{DEPLOYMENTS}/large?dryRun=All&propagationPolicy=Foreground")


LARGE = dict(_requests())


async def furnish(wire: Wire) -> None:
    """Makes the objects that the requests are about."""
    assert (await wire.call("POST", "/api/v1/namespaces", {"metadata": {"name": "large"}}))[0] == 201
    assert (await wire.call("POST", f"{CORE}/serviceaccounts", {"metadata": {"name": "default"}}))[0] == 201
    assert (await wire.call("POST", DEFINITIONS, _definition()))[0] == 201
    for target, body in (
        (MAPS, config_map("keys", data=data("v"))),
        (MAPS, config_map("small", data={"a": "b"})),
        (DEPLOYMENTS, _deployment("large", 10_000)),
        (SHELVES, _shelf("large", 20_000)),
    ):
        while True:
            status, _, answer = await wire.call("POST", target, body)
            if status != 404:
                break
        assert status == 201, str(answer)[:300]
    for number in range(LISTED):
        status, _, answer = await wire.call("POST", PODS, _pod(f"listed-{number}", 5))
        assert status == 201, str(answer)[:300]
