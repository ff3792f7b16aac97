"""A world for one node agent: an API server in a dictionary, a simulated runtime, virtual time."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from steersman.actors.client import Client
from steersman.actors.clocks import VirtualTimeLoop
from steersman.actors.http.messages import Request, Response
from steersman.actors.nodeagent import NodeAgent
from steersman.cluster.meta import errors
from steersman.cluster.meta.selectors import parse_fields
from steersman.cluster.meta.times import format_time
from steersman.cluster.node.config import NodeConfig
from steersman.runtime.simulated import SimulatedRuntime
from steersman.runtime.simulated_volumes import SimulatedVolumes

Obj = dict[str, Any]
PODS = "/api/v1/namespaces/default/pods"


class NodeApi:
    """What a node agent needs of an API server; `writes` holds every write as (method, path, body)."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.objects: dict[str, Obj] = {}
        self.writes: list[tuple[str, str, Obj]] = []
        self.down = False
        self._history: list[tuple[int, str, str, Obj]] = []
        self._changed = asyncio.Event()
        self._uids = itertools.count(1)

    async def __call__(self, request: Request) -> Response:
        await asyncio.sleep(0)
        url = urlsplit(request.target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        try:
            if self.down:
                raise errors.ServiceUnavailable("the server is away")
            if request.method == "GET":
                return self._read(url.path, query)
            body = orjson.loads(request.body) if request.body else {}
            self.writes.append((request.method, url.path, body))
            return _answer(self._write(request.method, url.path, body))
        except errors.ApiError as error:
            return Response(error.code, {}, orjson.dumps(error.to_status()))

    def _read(self, path: str, query: dict[str, str]) -> Response:
        fields = parse_fields(query.get("fieldSelector", ""))
        if query.get("watch"):
            return Response(200, {}, self._watch(path, int(query["resourceVersion"]), fields))
        if path in self.objects:
            return _answer(self.objects[path])
        if self._is_object(path):
            raise errors.not_found(path.rsplit("/", 2)[1], path.rsplit("/", 1)[1])
        items = [obj for held, obj in self.objects.items() if _within(held, path) and fields.matches(_fields(obj))]
        return _answer({"items": items, "metadata": {"resourceVersion": str(len(self._history))}})

    @staticmethod
    def _is_object(path: str) -> bool:
        parts = path.strip("/").split("/")[(2 if path.startswith("/api/") else 3) :]
        return len(parts) in (2, 4)

    async def _watch(self, path: str, after: int, fields: Any) -> AsyncIterator[bytes]:
        position = after
        while not self.down:
            rows, position = self._history[position:], len(self._history)
            lines = [
                orjson.dumps({"type": kind, "object": obj}) + b"\n"
                for _, kind, held, obj in rows
                if _within(held, path) and fields.matches(_fields(obj))
            ]
            if lines:
                yield b"".join(lines)
            if position == len(self._history):
                self._changed.clear()
                await self._changed.wait()

    def _write(self, method: str, path: str, body: Obj) -> Obj:
        if path.endswith("/token"):
            expires = self._now() + body["spec"]["expirationSeconds"]
            token = f"token-{next(self._uids)}"
            return {"status": {"token": token, "expirationTimestamp": format_time(expires)}}
        if method == "POST":
            return self.put(f"{path}/{body['metadata']['name']}", body, new=True)
        path = path.removesuffix("/status")
        old = self.objects.get(path)
        if old is None:
            raise errors.not_found(path.rsplit("/", 2)[1], path.rsplit("/", 1)[1])
        if method == "DELETE":
            wanted = (body.get("preconditions") or {}).get("uid")
            if wanted and wanted != old["metadata"]["uid"]:
                raise errors.conflict("pods", path.rsplit("/", 1)[1], "the uid differs")
            return self.remove(path)
        if body.get("metadata", {}).get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
            raise errors.conflict("pods", path.rsplit("/", 1)[1], "the uid differs")
        return self.put(path, _merged(old, body))

    def put(self, path: str, obj: Obj, *, new: bool = False) -> Obj:
        """Writes an object as it is, with the next resourceVersion."""
        old = self.objects.get(path)
        if new and old is not None:
            raise errors.already_exists(path.rsplit("/", 2)[1], path.rsplit("/", 1)[1])
        meta = {"uid": f"uid-{next(self._uids)}", **obj["metadata"], "resourceVersion": str(len(self._history) + 1)}
        if "/namespaces/" in path:
            meta["namespace"] = path.split("/namespaces/")[1].split("/")[0]
        self.objects[path] = made = orjson.loads(orjson.dumps({**obj, "metadata": meta}))
        self._tell("MODIFIED" if old is not None else "ADDED", path, made)
        return made

    def remove(self, path: str) -> Obj:
        obj = self.objects.pop(path)
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(len(self._history) + 1)}}
        self._tell("DELETED", path, obj)
        return obj

    def delete_gracefully(self, path: str, grace_s: int = 30) -> None:
        """What DELETE does to a pod that runs."""
        obj = self.objects[path]
        marks = {
            "deletionTimestamp": format_time(self._now() + grace_s),
            "deletionGracePeriodSeconds": grace_s,
        }
        self.put(path, {**obj, "metadata": {**obj["metadata"], **marks}})

    def _tell(self, kind: str, path: str, obj: Obj) -> None:
        self._history.append((len(self._history) + 1, kind, path, obj))
        self._changed.set()

    def go_away(self) -> None:
        """Ends every watch and refuses everything until `down` is taken back."""
        self.down = True
        self._changed.set()

    def events(self, reason: str = "") -> list[str]:
        """The messages of events, of one reason if given."""
        return [
            body["message"]
            for method, path, body in self.writes
            if method == "POST" and path.endswith("/events") and reason in ("", body["reason"])
        ]


def _answer(obj: Any) -> Response:
    return Response(200, {"content-type": "application/json"}, orjson.dumps(obj))


def _within(held: str, collection: str) -> bool:
    head, _, plural = collection.rpartition("/")
    if "/namespaces/" in collection or "/namespaces/" not in held:
        return held.rpartition("/")[0] == collection
    return held.startswith(f"{head}/namespaces/") and held.split("/")[-2] == plural


def _fields(obj: Obj) -> dict[str, str]:
    node = (obj.get("spec") or {}).get("nodeName", "")
    return {"metadata.name": obj["metadata"]["name"], "spec.nodeName": node}


def _merged(old: Any, patch: Any) -> Any:
    """A strategic merge good enough for statuses: rows with a `type` are merged by it."""
    if isinstance(old, dict) and isinstance(patch, dict):
        merged = {**old, **{name: _merged(old.get(name), value) for name, value in patch.items()}}
        return {name: value for name, value in merged.items() if value is not None}
    if isinstance(patch, list) and patch and patch[0] == {"$patch": "replace"}:
        return patch[1:]
    if isinstance(old, list) and isinstance(patch, list) and patch and "type" in patch[0] and "status" in patch[0]:
        rows = {row["type"]: row for row in old}
        rows |= {row["type"]: _merged(rows.get(row["type"], {}), row) for row in patch}
        return list(rows.values())
    return patch


class World:
    """One node `n1` on virtual time."""

    def __init__(self, loop: VirtualTimeLoop, **runtime: Any) -> None:
        self.loop = loop
        self.now = loop.now
        self.api = NodeApi(loop.now)
        self.client = Client(self.api)
        self.runtime = SimulatedRuntime(now=loop.now, rng=random.Random(1), **runtime)
        self.volumes = SimulatedVolumes()
        self.config = NodeConfig(
            name="n1",
            address="10.0.0.1",
            capacity={"cpu": "4", "memory": "8Gi", "pods": "20"},
            cluster_dns=("10.96.0.10",),
        )
        self.agent = self.new_agent()

    def new_agent(self) -> NodeAgent:
        return NodeAgent(self.client, self.runtime, self.volumes, self.config, now=self.now, rng=random.Random(2))

    async def start(self, pod_cidr: str = "10.1.0.0/24") -> None:
        self.api.put("/api/v1/namespaces/default/services/kubernetes", _service("kubernetes", "10.96.0.1", 443))
        await self.agent.start()
        await self.until(lambda: "/api/v1/nodes/n1" in self.api.objects)
        node = self.api.objects["/api/v1/nodes/n1"]
        self.api.put("/api/v1/nodes/n1", {**node, "spec": {"podCIDR": pod_cidr}})
        await self.until(lambda: self.condition(self.api.objects["/api/v1/nodes/n1"], "Ready") == "True")

    async def restart_agent(self) -> None:
        await self.agent.stop()
        self.agent = self.new_agent()
        await self.agent.start()
        await self.agent.serving.wait()

    @staticmethod
    def condition(obj: Obj, kind: str) -> str:
        rows = (obj.get("status") or {}).get("conditions") or ()
        return next((row["status"] for row in rows if row["type"] == kind), "")

    def create_pod(self, name: str = "web", *, annotations: dict[str, str] | None = None, **spec: Any) -> Obj:
        """Binds a pod to the node; `annotations` are simulated behaviour."""
        spec.setdefault("containers", [{"name": "main", "image": "web:1"}])
        spec.setdefault("restartPolicy", "Always")
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "labels": {"app": name},
                "annotations": {f"simulated.steersman/{key}": value for key, value in (annotations or {}).items()},
                "creationTimestamp": format_time(self.now()),
            },
            "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 30, **spec},
            "status": {"phase": "Pending"},
        }
        return self.api.put(f"{PODS}/{name}", pod, new=True)

    def pod(self, name: str = "web") -> Obj:
        return self.api.objects[f"{PODS}/{name}"]

    def exists(self, name: str = "web") -> bool:
        return f"{PODS}/{name}" in self.api.objects

    def status(self, name: str = "web") -> Obj:
        return self.pod(name).get("status") or {}

    def container(self, name: str = "main", pod: str = "web") -> Obj:
        rows = [
            *(self.status(pod).get("containerStatuses") or ()),
            *(self.status(pod).get("initContainerStatuses") or ()),
        ]
        return next((row for row in rows if row["name"] == name), {})

    def event_count(self, start: str) -> int:
        """How often events whose message begins so have happened."""
        events = [obj for path, obj in self.api.objects.items() if "/events/" in path]
        return sum(obj["count"] for obj in events if obj["message"].startswith(start))

    def state(self, name: str = "main", pod: str = "web") -> str:
        """`running`, a waiting reason, or `terminated`."""
        state = self.container(name, pod).get("state") or {}
        if "waiting" in state:
            return str(state["waiting"].get("reason"))
        return next(iter(state), "")

    def is_ready(self, name: str = "web") -> bool:
        return self.exists(name) and self.condition(self.pod(name), "Ready") == "True"

    async def until(self, condition: Callable[[], Any], within_s: float = 600.0) -> None:
        """Waits for a state, looking ten times a second."""
        deadline = self.loop.time() + within_s
        while not condition():
            if self.loop.time() > deadline:
                pods = {path: obj.get("status") for path, obj in self.api.objects.items() if path.startswith(PODS)}
                raise AssertionError(f"the state was not reached in time: {pods} {self.api.events()[-5:]}")
            await asyncio.sleep(0.1)

    async def ready(self, name: str = "web") -> None:
        await self.until(lambda: self.is_ready(name))


def _service(name: str, address: str, port: int) -> Obj:
    return {"metadata": {"name": name}, "spec": {"clusterIP": address, "ports": [{"port": port, "name": "https"}]}}


Scenario = Callable[[World], Awaitable[None]]


@pytest.fixture
def new_world() -> Callable[..., World]:
    """Makes a world on a loop that has `now`."""
    return World


@pytest.fixture
def virtually() -> Callable[..., None]:
    """Runs `async def scenario(world)` on virtual time, the node registered; arguments are the runtime's."""

    def run(scenario: Scenario, **runtime: Any) -> None:
        loop = VirtualTimeLoop()
        asyncio.set_event_loop(loop)

        async def play() -> None:
            world = World(loop, **runtime)
            try:
                await world.start()
                await scenario(world)
            finally:
                await world.agent.stop()

        try:
            loop.run_until_complete(play())
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    return run
