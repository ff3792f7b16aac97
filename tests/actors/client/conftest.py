"""A tiny API server in memory, enough to run client, informers and controllers against, and a virtual clock."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import orjson
import pytest

from steersman.actors.client import Client
from steersman.actors.clocks import VirtualTimeLoop
from steersman.actors.http.messages import Request, Response
from steersman.cluster.meta import errors, resources
from steersman.cluster.meta.resources import Resource
from steersman.cluster.meta.selectors import parse_fields, parse_labels
from steersman.cluster.meta.times import format_time

KNOWN = {(row.group, row.version, row.plural): row for row in vars(resources).values() if isinstance(row, Resource)}
Key = tuple[str, str, str]


class TinyApi:
    """Objects by (resource, namespace, name), watches with history, finalizers, status subresource, preconditions."""

    def __init__(self, now: Callable[[], float], seed: int = 0) -> None:
        self.objects: dict[Key, dict[str, Any]] = {}
        self.log: list[tuple[int, str, str, dict[str, Any]]] = []
        self.revision = 1
        self.oldest = 0
        self.calls: list[tuple[str, str]] = []
        self.hooks: list[Callable[[Request], Response | None]] = []
        self.extra: dict[tuple[str, str, str], Resource] = {}
        self._now = now
        self._uids = itertools.count(1)
        self._wake = asyncio.Event()
        self.rng = random.Random(seed)

    async def __call__(self, request: Request) -> Response:
        await asyncio.sleep(0)
        self.calls.append((request.method, request.target))
        for hook in self.hooks:
            if (answer := hook(request)) is not None:
                return answer
        try:
            return self._route(request)
        except errors.ApiError as error:
            return Response(error.code, {}, orjson.dumps(error.to_status()))

    def _route(self, request: Request) -> Response:
        parts = urlsplit(request.target)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if parts.path in ("/api", "/apis"):
            return _json(self._discovery(core=parts.path == "/api"))
        path = [unquote(part) for part in parts.path.strip("/").split("/")]
        group, rest = ("", path[1:]) if path[0] == "api" else (path[1], path[2:])
        version, rest = rest[0], rest[1:]
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        resource = KNOWN.get((group, version, rest[0])) or self.extra.get((group, version, rest[0]))
        if resource is None:
            raise errors.NotFound("the server could not find the requested resource")
        name = rest[1] if len(rest) > 1 else ""
        subresource = rest[2] if len(rest) > 2 else ""
        body = orjson.loads(request.body) if request.body else {}
        match request.method:
            case "GET" if query.get("watch"):
                return Response(200, {}, self._watch(resource, namespace, query))
            case "GET" if not name:
                return _json(self._list(resource, namespace, query))
            case "GET":
                return _json(self._get(resource, namespace, name))
            case "POST":
                return _json(self.create(resource, {**body}, namespace), 201)
            case "PUT":
                return _json(self._write(resource, namespace, name, body, subresource))
            case "PATCH":
                old = self._get(resource, namespace, name)
                return _json(self._write(resource, namespace, name, _merge(old, body), subresource))
            case "DELETE" if name:
                return _json(self.delete(resource, namespace, name, body))
            case "DELETE":
                for key in [key for key in self.objects if key[0] == str(resource) and key[1] == namespace]:
                    self.delete(resource, key[1], key[2], {})
                return _json({"kind": "Status", "status": "Success"})
        raise errors.MethodNotAllowed("no")

    def _discovery(self, core: bool) -> dict[str, Any]:
        groups: dict[str, dict[str, list[Any]]] = {}
        for row in [*KNOWN.values(), *self.extra.values()]:
            if bool(row.group) is not core:
                groups.setdefault(row.group, {}).setdefault(row.version, []).append(
                    {
                        "resource": row.plural,
                        "responseKind": {"group": row.group, "version": row.version, "kind": row.kind},
                        "scope": "Namespaced" if row.namespaced else "Cluster",
                        "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
                    }
                )
        return {
            "kind": "APIGroupDiscoveryList",
            "items": [
                {
                    "metadata": {"name": name},
                    "versions": [{"version": version, "resources": rows} for version, rows in versions.items()],
                }
                for name, versions in groups.items()
            ],
        }

    def _get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        found = self.objects.get((str(resource), namespace, name))
        if found is None:
            raise errors.not_found(resource.plural, name, resource.group)
        return found

    def of(self, resource: Resource, namespace: str | None = None) -> list[dict[str, Any]]:
        """The objects of a kind, in order of creation."""
        return [
            obj
            for (kind, space, _), obj in self.objects.items()
            if kind == str(resource) and (namespace is None or space == namespace)
        ]

    def _list(self, resource: Resource, namespace: str, query: dict[str, str]) -> dict[str, Any]:
        selected = _selector(query)
        items = [obj for obj in self.of(resource, namespace or None) if selected(obj)]
        if query.get("limit"):
            items = items[: int(query["limit"])]
        return {"items": items, "metadata": {"resourceVersion": str(self.revision)}}

    def create(self, resource: Resource, obj: dict[str, Any], namespace: str = "") -> dict[str, Any]:
        meta = dict(obj["metadata"])
        namespace = namespace or meta.get("namespace", "")
        key = (str(resource), namespace, meta["name"])
        if key in self.objects:
            raise errors.already_exists(resource.plural, meta["name"], resource.group)
        meta |= {"uid": f"uid-{next(self._uids)}", "creationTimestamp": format_time(self._now()), "generation": 1}
        if namespace:
            meta["namespace"] = namespace
        made = {**obj, "apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta}
        return self._commit("ADDED", key, made)

    def _write(
        self, resource: Resource, namespace: str, name: str, new: dict[str, Any], subresource: str
    ) -> dict[str, Any]:
        old = self._get(resource, namespace, name)
        meta = new["metadata"]
        for field in ("uid", "resourceVersion"):
            if meta.get(field, old["metadata"][field]) != old["metadata"][field]:
                raise errors.conflict(resource.plural, name, "the object has been modified", resource.group)
        if subresource == "status":
            new = {**old, "metadata": new["metadata"], "status": new.get("status") or {}}
        elif subresource == "finalize":
            new = {**old, "spec": new.get("spec") or {}}
        elif "status" in old:
            new = {**new, "status": old["status"]}
        new = {**new, "metadata": {**new["metadata"], "resourceVersion": old["metadata"]["resourceVersion"]}}
        if new == old:
            return old
        if new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        key = (str(resource), namespace, name)
        finalized = not new["metadata"].get("finalizers") and not (new.get("spec") or {}).get("finalizers")
        if new["metadata"].get("deletionTimestamp") and finalized and not _graceful(new):
            return self._commit("DELETED", key, new)
        return self._commit("MODIFIED", key, new)

    def delete(
        self, resource: Resource, namespace: str, name: str, options: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        old = self._get(resource, namespace, name)
        options = options or {}
        for field, wanted in (options.get("preconditions") or {}).items():
            if old["metadata"][field] != wanted:
                raise errors.conflict(resource.plural, name, "the precondition failed", resource.group)
        meta = dict(old["metadata"])
        finalizers = list(meta.get("finalizers") or ())
        policy = options.get("propagationPolicy")
        marker = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}.get(policy or "")
        if marker and marker not in finalizers:
            finalizers.append(marker)
        key = (str(resource), namespace, name)
        grace = options.get("gracePeriodSeconds")
        graceful = resource.plural == "pods" and (old.get("spec") or {}).get("nodeName") and grace != 0
        if finalizers or graceful or (old.get("spec") or {}).get("finalizers"):
            if meta.get("deletionTimestamp") and meta.get("finalizers") == (finalizers or None):
                return old
            meta["deletionTimestamp"] = meta.get("deletionTimestamp") or format_time(self._now())
            if graceful:
                meta["deletionGracePeriodSeconds"] = 30
            if finalizers:
                meta["finalizers"] = finalizers
            return self._commit("MODIFIED", key, {**old, "metadata": meta})
        self._commit("DELETED", key, old)
        return {"kind": "Status", "status": "Success"}

    def set_status(self, resource: Resource, obj: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
        """Writes a status as a node agent would."""
        meta = obj["metadata"]
        live = self._get(resource, meta.get("namespace", ""), meta["name"])
        return self._write(resource, meta.get("namespace", ""), meta["name"], {**live, "status": status}, "status")

    def update(self, resource: Resource, obj: dict[str, Any]) -> dict[str, Any]:
        meta = obj["metadata"]
        return self._write(resource, meta.get("namespace", ""), meta["name"], obj, "")

    def _commit(self, kind: str, key: Key, obj: dict[str, Any]) -> dict[str, Any]:
        self.revision += 1
        obj = orjson.loads(orjson.dumps(obj))
        obj["metadata"]["resourceVersion"] = str(self.revision)
        if kind == "DELETED":
            self.objects.pop(key, None)
        else:
            self.objects[key] = obj
        self.log.append((self.revision, key[0], kind, obj))
        self._wake.set()
        return obj

    def compact(self) -> None:
        """Forgets the history: older watches must list again."""
        self.oldest = self.revision
        self._wake.set()

    async def _watch(self, resource: Resource, namespace: str, query: dict[str, str]) -> AsyncIterator[bytes]:
        revision = int(query.get("resourceVersion") or self.revision)
        selected = _selector(query)
        deadline = self._now() + int(query.get("timeoutSeconds") or 300)
        position = 0
        while self._now() < deadline:
            if revision < self.oldest:
                error = errors.Expired("too old resource version").to_status()
                yield orjson.dumps({"type": "ERROR", "object": error}) + b"\n"
                return
            lines = []
            for number, name, kind, obj in self.log[position:]:
                if number <= revision or name != str(resource):
                    continue
                if (not namespace or obj["metadata"].get("namespace") == namespace) and selected(obj):
                    lines.append(orjson.dumps({"type": kind, "object": obj}) + b"\n")
            position = len(self.log)
            revision = max(revision, self.revision)
            if lines:
                yield b"".join(lines)
                continue
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(60):
                    await self._wake.wait()


def _graceful(obj: dict[str, Any]) -> bool:
    return bool(obj["metadata"].get("deletionGracePeriodSeconds"))


def _json(obj: dict[str, Any], status: int = 200) -> Response:
    return Response(status, {}, orjson.dumps(obj))


def _selector(query: dict[str, str]) -> Callable[[dict[str, Any]], bool]:
    labels = parse_labels(query.get("labelSelector", ""))
    fields = parse_fields(query.get("fieldSelector", ""))
    return lambda obj: (
        labels.matches(obj["metadata"].get("labels"))
        and fields.matches(
            {"metadata.name": obj["metadata"]["name"], "spec.nodeName": (obj.get("spec") or {}).get("nodeName", "")}
        )
    )


def _merge(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged


class World:
    """What a test of a component under virtual time is given."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.loop = loop
        self.now = loop.now
        self.api = TinyApi(loop.now)
        self.client = Client(self.api)
        self.rng = random.Random(7)

    async def until(self, condition: Callable[[], bool], within_s: float = 600.0) -> None:
        """Waits for a state, looking ten times a second."""
        deadline = self.loop.time() + within_s
        while not condition():
            if self.loop.time() > deadline:
                raise AssertionError("the state was not reached in time")
            await asyncio.sleep(0.1)


@pytest.fixture
def tiny_api() -> type[TinyApi]:
    return TinyApi


@pytest.fixture
def virtually() -> Callable[[Callable[[World], Awaitable[None]]], None]:
    """Runs `async def scenario(world)` on virtual time."""

    def run(scenario: Callable[[World], Awaitable[None]]) -> None:
        loop = VirtualTimeLoop()
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(scenario(World(loop)))
        finally:
            pending = asyncio.all_tasks(loop)
            for task in pending:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            asyncio.set_event_loop(None)
            loop.close()

    return run
