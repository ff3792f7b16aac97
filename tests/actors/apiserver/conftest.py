"""An API server on a store in memory: called directly, or over TLS from a thread of its own for real clients."""

from __future__ import annotations

import asyncio
import base64
import copy
import glob
import json
import os
import random
import re
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from steersman.actors.apiserver import ApiServer, ApiServerConfig
from steersman.actors.http.messages import Request, Response
from steersman.actors.http.server import HttpServer
from steersman.actors.ports import Channel, ExecRequest, Frame, LogRequest, NodeStreams, User
from steersman.actors.store.disk import MemoryDisk
from steersman.actors.store.replica import Replica
from steersman.cluster.meta.errors import NotFound, ServiceUnavailable
from steersman.runtime.pki import Authority, Identity

ADMIN = User("admin", ("system:masters",))


class EchoChannel:
    """A conversation that says everything back, in capitals on stdout, until its input ends."""

    def __init__(self, *first: Frame) -> None:
        self._queue: asyncio.Queue[Frame | None] = asyncio.Queue()
        for frame in first:
            self._queue.put_nowait(frame)

    async def send(self, frame: Frame) -> None:
        if frame.channel == 255:
            self._queue.put_nowait(Frame(3, b'{"metadata":{},"status":"Success"}'))
            self._queue.put_nowait(None)
        elif frame.channel == 0:
            self._queue.put_nowait(Frame(1, frame.data.upper()))

    async def receive(self) -> Frame | None:
        return await self._queue.get()

    async def close(self) -> None:
        self._queue.put_nowait(None)


class HttpPort:
    """A port on which a small web server listens: answers one request with its own first line."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Frame | None] = asyncio.Queue()
        self._received = b""

    async def send(self, frame: Frame) -> None:
        self._received += frame.data if frame.channel == 0 else b""
        if b"\r\n\r\n" in self._received:
            body = b"you sent " + self._received.split(b"\r\n", 1)[0]
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n" % len(body)
            self._queue.put_nowait(Frame(1, head + body))
            self._received = b""

    async def receive(self) -> Frame | None:
        return await self._queue.get()

    async def close(self) -> None:
        self._queue.put_nowait(None)


@dataclass
class FakeNode:
    """A node agent whose containers echo."""

    requests: list[Any] = field(default_factory=list)
    uploaded: int = 0

    async def logs(self, request: LogRequest) -> AsyncIterator[bytes]:
        self.requests.append(request)
        if request.previous:
            raise NotFound("previous terminated container not found")

        async def lines() -> AsyncIterator[bytes]:
            for n in range(request.tail_lines or 3):
                yield b"line %d\n" % n

        return lines()

    async def exec(self, request: ExecRequest) -> Channel:
        self.requests.append(request)
        if request.command == ("false",):
            status = {"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                      "message": "command terminated with non-zero exit code",
                      "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}}  # fmt: skip
            return EchoChannel(Frame(3, orjson.dumps(status)))
        if not request.stdin:
            text = " ".join(request.command).encode() + b"\n"
            return EchoChannel(Frame(1, text), Frame(2, b"err\n"), Frame(3, b'{"metadata":{},"status":"Success"}'))
        return EchoChannel()

    async def attach(self, request: ExecRequest) -> Channel:
        return await self.exec(request)

    async def port_forward(self, namespace: str, pod: str, port: int) -> Channel:
        self.requests.append((namespace, pod, port))
        return HttpPort()

    async def stats(self) -> dict[str, Any]:
        return {"node": {"nodeName": "n1"}, "pods": []}

    async def load_image(self, archive: AsyncIterator[bytes]) -> list[str]:
        async for piece in archive:
            self.uploaded += len(piece)
        return ["example.com/loaded:1"]

    async def list_images(self) -> list[dict[str, Any]]:
        return [{"names": ["example.com/loaded:1"], "id": "sha256:1", "sizeBytes": 1}]


@dataclass
class FakeNodes:
    agents: dict[str, FakeNode] = field(default_factory=lambda: {"n1": FakeNode()})

    async def connect(self, node: str) -> NodeStreams:
        if node not in self.agents:
            raise ServiceUnavailable(f"the agent of node {node} does not answer")
        return self.agents[node]


def service_account_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def replica(now: Callable[[], float], seed: int = 1, disk: MemoryDisk | None = None) -> Replica:
    return Replica(
        name="s", member_id=1, peers={1: ""}, disk=disk or MemoryDisk(), transport=None, rng=random.Random(seed)
    )


class Api:
    """An API server called in this process, as a chosen user."""

    def __init__(self, server: ApiServer, store: Replica, nodes: FakeNodes) -> None:
        self.server = server
        self.store = store
        self.nodes = nodes

    async def call(
        self, method: str, target: str, body: Any = None, *, user: User | None = ADMIN, **headers: str
    ) -> Response:
        data = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        names = {key.replace("_", "-"): value for key, value in headers.items()}
        names.setdefault("content-type", "application/json")
        return await self.server(Request(method, target, {"user-agent": "test/1", **names}, data, user))

    async def ok(self, method: str, target: str, body: Any = None, **more: Any) -> Any:
        """The decoded answer, which must be a success."""
        response = await self.call(method, target, body, **more)
        assert isinstance(response.body, bytes)
        assert response.status < 300, response.body.decode()
        return orjson.loads(response.body)

    async def refused(self, status: int, method: str, target: str, body: Any = None, **more: Any) -> Any:
        """The decoded Status, which must have this code; of a path that leads nowhere only its text."""
        response = await self.call(method, target, body, **more)
        assert isinstance(response.body, bytes)
        assert response.status == status, response.body.decode()
        if status == 404 and response.headers["content-type"].startswith("text/plain"):
            return {"status": "Failure", "reason": "NotFound", "message": response.body.decode().strip()}
        found = orjson.loads(response.body)
        assert found["kind"] == "Status" and found["code"] == status
        return found

    async def watch(self, target: str, **more: Any) -> Watch:
        response = await self.call("GET", target, **more)
        assert response.status == 200, response.body
        return Watch(response.body)


class Watch:
    """The events of a watch, one at a time."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._lines: list[bytes] = []

    async def next(self) -> tuple[str, Any]:
        """The next event; StopAsyncIteration at the end."""
        async with asyncio.timeout(10):
            while not self._lines:
                self._lines = (await self._stream.__anext__()).splitlines()
        event = orjson.loads(self._lines.pop(0))
        return event["type"], event["object"]

    async def close(self) -> None:
        await self._stream.aclose()


class HttpsServer:
    """An https server that answers from a table, and counts."""

    def __init__(self, directory: Path) -> None:
        authority = Authority(directory)
        authority.ensure()
        pair = authority.issue(Identity(file="id", common_name="id", hosts=("127.0.0.1", "localhost")))
        self.ca = authority.ca.read_text()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert, pair.key)
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, Any]] = []
        self._http = HttpServer(self._answer, host="127.0.0.1", port=0, tls=context)

    async def _answer(self, request: Request) -> Response:
        self.asked.append((request.target, json.loads(request.body) if request.body else None))
        answer = self.answers.get(request.target)
        if callable(answer):
            answer = answer(self.asked[-1][1])
        if isinstance(answer, int):
            return Response(answer, {}, b"")
        return Response(200 if answer else 404, {}, json.dumps(answer).encode())

    def kubeconfig(self, path: str) -> str:
        """A kubeconfig whose server is a path here."""
        authority = base64.b64encode(self.ca.encode()).decode()
        cluster = {"server": f"{self.url}{path}", "certificate-authority-data": authority}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        return json.dumps(
            {"current-context": "c", "clusters": [{"name": "c", "cluster": cluster}], "contexts": [context]}
        )

    async def __aenter__(self) -> HttpsServer:
        await self._http.start()
        self.url = f"https://127.0.0.1:{self._http.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.stop()


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[HttpsServer]:
    async with HttpsServer(tmp_path) as server:
        yield server


async def started(store: Replica, nodes: FakeNodes, config: ApiServerConfig, now: Callable[[], float]) -> ApiServer:
    server = ApiServer(store=store, nodes=nodes, config=config, now=now, rng=random.Random(7))
    await server.start()
    return server


async def furnish(api: Api) -> None:
    """What controllers would have made: the default service account."""
    await api.ok("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})


@asynccontextmanager
async def serving(disk: MemoryDisk) -> AsyncIterator[Api]:
    store, nodes = replica(time.time, disk=disk), FakeNodes()
    await store.start()
    config = ApiServerConfig(port=None, service_account_key=service_account_key())
    found = Api(await started(store, nodes, config, time.time), store, nodes)
    yield found
    await found.server.stop()
    await store.stop()


@pytest.fixture(scope="session")
def common_disk() -> MemoryDisk:
    """What every cluster has in its store: to make it takes longer than most tests."""
    disk = MemoryDisk()

    async def make() -> None:
        async with serving(disk) as api:
            await furnish(api)

    asyncio.run(make())
    return disk


@pytest.fixture
async def api(common_disk: MemoryDisk) -> AsyncIterator[Api]:
    async with serving(copy.deepcopy(common_disk)) as found:
        yield found


@pytest.fixture(scope="session")
def make_api() -> Callable[..., Any]:
    """Makes further servers: `await make_api(store, **config)`."""

    async def make(store: Replica, now: Callable[[], float] = time.time, **config: Any) -> Api:
        nodes = FakeNodes()
        return Api(
            await started(
                store,
                nodes,
                ApiServerConfig(**{"port": None, "service_account_key": service_account_key(), **config}),
                now,
            ),
            store,
            nodes,
        )

    return make


@pytest.fixture(scope="session")
def make_store() -> Callable[..., Replica]:
    return replica


@dataclass
class Remote:
    """A server on real TLS, and what a client needs to reach it."""

    port: int
    directory: Path
    nodes: FakeNodes
    kubectl_path: str
    #: speaks SPDY where newer ones speak WebSocket
    oldest_kubectl_path: str

    def kubeconfig(self, user: str) -> str:
        return str(self.directory / f"{user}.kubeconfig")

    def kubectl(
        self, *words: str, user: str = "admin", stdin: str = "", fails: bool = False, oldest: bool = False
    ) -> str:
        """Runs kubectl; returns what it printed. `fails` expects a failure and returns stderr."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.directory)}
        done = subprocess.run(
            [self.oldest_kubectl_path if oldest else self.kubectl_path, "--kubeconfig", self.kubeconfig(user), *words],
            input=stdin, capture_output=True, text=True, timeout=60, env=environment,
        )  # fmt: skip
        assert (done.returncode != 0) is fails, f"kubectl {' '.join(words)}: {done.stdout}\n{done.stderr}"
        return done.stderr if fails else done.stdout


def kubectls() -> list[str]:
    """Every kubectl beside the one on the PATH, the oldest first; empty when there is none."""
    found = shutil.which("kubectl")
    if not found:
        return []
    places = {str(Path(found).resolve().parent), str(Path(found).parent), "/usr/lib/google-cloud-sdk/bin"}
    versions = {}
    for place in places:
        for path in glob.glob(f"{place}/kubectl.1.*"):
            if match := re.search(r"kubectl\.1\.(\d+)$", path):
                versions[int(match[1])] = path
    return [versions[minor] for minor in sorted(versions)] or [found]


KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: c
clusters: [{{name: c, cluster: {{server: "https://127.0.0.1:{port}", certificate-authority: "{ca}"}}}}]
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
users: [{{name: u, user: {{client-certificate: "{cert}", client-key: "{key}"}}}}]
"""


@pytest.fixture(scope="session")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    found_kubectls = kubectls()
    if not found_kubectls:
        pytest.skip("there is no kubectl on this machine")
    directory = tmp_path_factory.mktemp("remote")
    authority = Authority(directory)
    authority.ensure()
    serving = authority.issue(Identity(file="server", common_name="api", hosts=("127.0.0.1", "localhost")))
    nodes, loop, ready, made = FakeNodes(), asyncio.new_event_loop(), threading.Event(), []
    config = ApiServerConfig(
        port=0,
        tls_cert=serving.cert.read_bytes(),
        tls_key=serving.key.read_bytes(),
        client_ca=authority.ca.read_bytes(),
        client_ca_key=authority.key.read_bytes(),
        service_account_key=authority.service_account_key.read_bytes(),
    )

    async def start() -> None:
        store = replica(time.time)
        await store.start()
        server = await started(store, nodes, config, time.time)
        await furnish(Api(server, store, nodes))
        made.extend((server, store))
        ready.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.create_task(start())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(20), "the server did not start"
    server, store = made
    found = Remote(server.port, directory, nodes, found_kubectls[-1], found_kubectls[0])
    for user, groups in (("admin", ("system:masters",)), ("jane", ("devs",))):
        pair = authority.issue(Identity(file=user, common_name=user, organizations=groups))
        text = KUBECONFIG.format(port=server.port, ca=pair.ca, cert=pair.cert, key=pair.key)
        Path(found.kubeconfig(user)).write_text(text)
    yield found

    async def stop() -> None:
        await server.stop()
        await store.stop()

    asyncio.run_coroutine_threadsafe(stop(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
