"""An API server in a dictionary: enough of the wire for components that only list, watch and write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
from tests.actors.pki import Pki, make_pki

from steersman.actors.client import Client
from steersman.actors.http.messages import Request, Response
from steersman.cluster.meta import errors


class MemoryApi:
    """Objects by collection path and name; every write is appended to `log` as (method, path, body)."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, dict[str, Any]]] = {}
        self.log: list[tuple[str, str, Any]] = []
        #: path -> errors to answer the next writes to it with
        self.failures: dict[str, list[errors.ApiError]] = {}
        self._revision = 0
        self._history: list[tuple[int, str, str, dict[str, Any]]] = []
        self._changed = asyncio.Condition()

    def client(self) -> Client:
        return Client(self)

    async def __call__(self, request: Request) -> Response:
        url = urlsplit(request.target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        try:
            if request.method == "GET":
                return self._read(url.path, query)
            body = orjson.loads(request.body) if request.body else {}
            self.log.append((request.method, url.path, body))
            if self.failures.get(url.path):
                raise self.failures[url.path].pop(0)
            return _answer(await self._write(request.method, url.path, body))
        except errors.ApiError as error:
            return Response(error.code, {"content-type": "application/json"}, orjson.dumps(error.to_status()))

    def _read(self, path: str, query: dict[str, str]) -> Response:
        plural = path.rstrip("/").rpartition("/")[2]
        if query.get("watch"):
            return Response(200, {}, self._watch(path, int(query.get("resourceVersion") or 0)))
        collection, name = _split(path)
        if name:
            found = self.objects.get(collection, {}).get(name)
            if found is None:
                raise errors.not_found(plural, name)
            return _answer(found)
        items = [obj for rows in self._under(path) for obj in rows.values()]
        return _answer({"items": items, "metadata": {"resourceVersion": str(self._revision)}})

    def _under(self, path: str) -> list[dict[str, dict[str, Any]]]:
        return [rows for collection, rows in self.objects.items() if _cluster_wide(collection) == _cluster_wide(path)]

    async def _watch(self, path: str, after: int) -> AsyncIterator[bytes]:
        position = 0
        while True:
            rows, position = self._history[position:], len(self._history)
            for revision, kind, collection, obj in rows:
                if revision > after and _cluster_wide(collection) == _cluster_wide(path):
                    yield orjson.dumps({"type": kind, "object": obj}) + b"\n"
            async with self._changed:
                while position == len(self._history):
                    await self._changed.wait()

    async def _write(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        collection, name = _split(path)
        *_, subresource = path.split("/")
        if method == "POST" and subresource == "binding":
            pod = self._held(collection, name)
            if pod["spec"].get("nodeName"):
                raise errors.Conflict(f"pod {name} is already assigned to a node")
            spec = {**pod["spec"], "nodeName": body["target"]["name"]}
            return await self.put(collection, {**pod, "spec": spec})
        if method == "POST":
            if body["metadata"]["name"] in self.objects.get(collection, {}):
                raise errors.already_exists("objects", body["metadata"]["name"])
            return await self.put(collection, body)
        if method == "PUT":
            return await self.put(collection, body)
        if method == "PATCH":
            return await self.put(collection, _merged(self._held(collection, name), body))
        held = self._held(collection, name)
        await self.remove(collection, name)
        return held

    def _held(self, collection: str, name: str) -> dict[str, Any]:
        found = self.objects.get(collection, {}).get(name)
        if found is None:
            raise errors.not_found("objects", name)
        return found

    async def put(self, collection: str, obj: dict[str, Any]) -> dict[str, Any]:
        """Writes an object as it is, with the next resourceVersion (and a uid)."""
        rows = self.objects.setdefault(collection, {})
        name = obj["metadata"]["name"]
        kind = "MODIFIED" if name in rows else "ADDED"
        meta = {"uid": f"uid-{self._revision}", **obj["metadata"], "resourceVersion": str(self._revision + 1)}
        rows[name] = {**obj, "metadata": meta}
        await self._tell(kind, collection, rows[name])
        return rows[name]

    async def remove(self, collection: str, name: str) -> None:
        obj = self.objects[collection].pop(name)
        gone = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._revision + 1)}}
        await self._tell("DELETED", collection, gone)

    async def _tell(self, kind: str, collection: str, obj: dict[str, Any]) -> None:
        self._revision += 1
        self._history.append((self._revision, kind, collection, obj))
        async with self._changed:
            self._changed.notify_all()

    async def until(self, condition: Any, deadline_s: float = 10.0) -> None:
        """Returns when `condition()` holds, looking again after each write."""
        async with asyncio.timeout(deadline_s), self._changed:
            await self._changed.wait_for(condition)


def _answer(obj: Any) -> Response:
    return Response(200, {"content-type": "application/json"}, orjson.dumps(obj))


def _split(path: str) -> tuple[str, str]:
    """Returns (collection, name) of a path; a subresource is left out."""
    parts = path.strip("/").split("/")
    length = 2 if parts[0] == "api" else 3
    if len(parts) > length + 1 and parts[length] == "namespaces":
        length += 2
    collection = "/" + "/".join(parts[: length + 1])
    return collection, parts[length + 1] if len(parts) > length + 1 else ""


def _cluster_wide(path: str) -> tuple[str, ...]:
    parts = path.strip("/").split("/")
    at = parts.index("namespaces") if "namespaces" in parts[:-1] else -1
    return tuple(parts if at < 0 else parts[:at] + parts[at + 2 :])


def _merged(old: Any, patch: Any) -> Any:
    """A strategic merge good enough for conditions: rows with a `type` are merged by it."""
    if isinstance(old, dict) and isinstance(patch, dict):
        merged = {**old, **{name: _merged(old.get(name), value) for name, value in patch.items()}}
        return {name: value for name, value in merged.items() if value is not None}
    if isinstance(old, list) and isinstance(patch, list) and patch and "type" in patch[0]:
        kinds = [row["type"] for row in patch]
        return [row for row in old if row["type"] not in kinds] + patch
    return patch


@pytest.fixture
def api() -> MemoryApi:
    return MemoryApi()


@pytest.fixture
def api_factory() -> type[MemoryApi]:
    return MemoryApi


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))
