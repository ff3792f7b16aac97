"""The command line against a real API server in this process, over a real socket, with a node that echoes."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from steersman.actors.apiserver import ApiServer, ApiServerConfig
from steersman.actors.client import Client
from steersman.actors.http.messages import Request, Response
from steersman.actors.http.server import HttpServer
from steersman.actors.ports import Channel, ExecRequest, Frame, LogRequest, NodeStreams, User
from steersman.actors.store.disk import MemoryDisk
from steersman.actors.store.replica import Replica
from steersman.cli.main import cli
from steersman.cluster.meta.errors import NotFound, ServiceUnavailable

ADMIN = User("admin", ("system:masters",))
SUCCESS = b'{"metadata":{},"status":"Success"}'
Obj = dict[str, Any]


class Scripted:
    """A conversation that answers each frame as a function says."""

    def __init__(self, answer: Callable[[Frame], list[Frame | None]], *first: Frame | None) -> None:
        self._answer = answer
        self._queue: asyncio.Queue[Frame | None] = asyncio.Queue()
        for frame in first:
            self._queue.put_nowait(frame)

    async def send(self, frame: Frame) -> None:
        for reply in self._answer(frame):
            self._queue.put_nowait(reply)

    async def receive(self) -> Frame | None:
        return await self._queue.get()

    async def close(self) -> None:
        self._queue.put_nowait(None)


def _upper(frame: Frame) -> list[Frame | None]:
    if frame.channel == 255:
        return [Frame(3, SUCCESS), None]
    return [Frame(1, frame.data.upper())] if frame.channel == 0 else []


@dataclass
class EchoNode:
    """A node agent that runs nothing: it repeats commands, and keeps the tar archives it is sent."""

    requests: list[Any] = field(default_factory=list)
    #: what `tar` was fed, and what it answers
    received: bytearray = field(default_factory=bytearray)
    archive: bytes = b""
    loaded: int = 0

    async def logs(self, request: LogRequest) -> AsyncIterator[bytes]:
        self.requests.append(request)
        if request.previous:
            raise NotFound("previous terminated container not found")

        async def lines() -> AsyncIterator[bytes]:
            for n in range(request.tail_lines or 3):
                yield b"%s line %d\n" % (request.pod.encode(), n)

        return lines()

    async def exec(self, request: ExecRequest) -> Channel:
        self.requests.append(request)
        match request.command:
            case ("false",):
                causes = [{"reason": "ExitCode", "message": "3"}]
                status = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
                return Scripted(lambda _: [], Frame(3, orjson.dumps(status)), None)
            case ("test", "-d", path):
                causes = [{"reason": "ExitCode", "message": "1"}]
                status = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
                is_directory = path == "/srv"
                return Scripted(lambda _: [], Frame(3, SUCCESS if is_directory else orjson.dumps(status)), None)
            case ("tar", "xmf", *_):
                return Scripted(self._keep)
            case ("tar", "cf", *_):
                return Scripted(lambda _: [], Frame(1, self.archive), Frame(3, SUCCESS), None)
        if request.stdin:
            return Scripted(_upper)
        said = Frame(1, " ".join(request.command).encode() + b"\n")
        return Scripted(lambda _: [], said, Frame(2, b"to stderr\n"), Frame(3, SUCCESS), None)

    def _keep(self, frame: Frame) -> list[Frame | None]:
        if frame.channel == 0:
            self.received += frame.data
        return [Frame(3, SUCCESS), None] if frame.channel == 255 else []

    async def attach(self, request: ExecRequest) -> Channel:
        return await self.exec(request)

    async def port_forward(self, namespace: str, pod: str, port: int) -> Channel:
        self.requests.append((namespace, pod, port))
        return Scripted(lambda frame: [Frame(1, frame.data[::-1])] if frame.channel == 0 else [None])

    async def stats(self) -> Obj:
        return {}

    async def load_image(self, archive: AsyncIterator[bytes]) -> list[str]:
        async for piece in archive:
            self.loaded += len(piece)
        return ["example.com/web:1"]

    async def list_images(self) -> list[Obj]:
        return [{"names": ["example.com/web:1"], "id": "sha256:0123456789abcdef", "sizeBytes": 4_200_000}]


@dataclass
class EchoNodes:
    agents: dict[str, EchoNode] = field(default_factory=lambda: {"n1": EchoNode()})

    async def connect(self, node: str) -> NodeStreams:
        if node not in self.agents:
            raise ServiceUnavailable(f"the agent of node {node} does not answer")
        return self.agents[node]


class Server:
    """An API server on a loop in a thread of its own; whoever calls is an administrator."""

    def __init__(self) -> None:
        self.nodes = EchoNodes()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.port = self.wait(self._start())

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def wait(self, work: Any) -> Any:
        """Runs a coroutine on the server's loop and returns its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    async def _start(self) -> int:
        key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._store = Replica(
            name="s",
            member_id=1,
            peers={1: ""},
            disk=MemoryDisk(),
            transport=None,
            rng=random.Random(1),
        )
        await self._store.start()
        config = ApiServerConfig(port=None, service_account_key=key)
        self.api = ApiServer(store=self._store, nodes=self.nodes, config=config, now=time.time, rng=random.Random(7))
        await self.api.start()
        self._http = HttpServer(self._as_admin, host="127.0.0.1", port=0, uploads=lambda m, t: t.endswith("/images"))
        await self._http.start()
        self.client = Client(self.api, user=ADMIN)
        return self._http.port

    async def _as_admin(self, request: Request) -> Response:
        request.user = ADMIN
        return await self.api(request)

    def stop(self) -> None:
        self.wait(self._stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)

    async def _stop(self) -> None:
        await self._http.stop()
        await self.api.stop()
        await self._store.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server()
    yield found
    found.stop()


KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: c
clusters: [{{name: c, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
contexts:
- {{name: c, context: {{cluster: c, user: u, namespace: "{namespace}"}}}}
- {{name: other, context: {{cluster: c, user: u, namespace: other}}}}
users: [{{name: u, user: {{}}}}]
"""


class Steer:
    """Runs `steer` in a namespace of this test's own."""

    def __init__(self, server: Server, directory: Path, namespace: str) -> None:
        self.server = server
        self.directory = directory
        self.namespace = namespace
        self.kubeconfig = directory / "kubeconfig"
        self.kubeconfig.write_text(KUBECONFIG.format(port=server.port, namespace=namespace))
        self._runner = CliRunner()

    def result(self, *words: str, stdin: str | bytes = "") -> Result:
        env = {"KUBECONFIG": str(self.kubeconfig), "HOME": str(self.directory), "STEERSMAN_NAME": None}
        return self._runner.invoke(cli, list(words), input=stdin, env=env)

    def __call__(self, *words: str, stdin: str | bytes = "") -> str:
        """Returns standard output of a command that must succeed."""
        done = self.result(*words, stdin=stdin)
        assert done.exit_code == 0, f"steer {' '.join(words)}: {done.output}\n{done.exception!r}"
        return done.stdout

    def fails(self, *words: str, stdin: str | bytes = "", code: int = 1) -> str:
        """Returns standard error of a command that must fail with this exit code."""
        done = self.result(*words, stdin=stdin)
        assert done.exit_code == code, f"steer {' '.join(words)}: {done.exit_code} {done.output}\n{done.exception!r}"
        return done.stderr

    def file(self, text: str, name: str = "manifest.yaml") -> str:
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def wait(self, work: Any) -> Any:
        return self.server.wait(work)

    @property
    def client(self) -> Client:
        return self.server.client


@pytest.fixture
def steer(server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Steer:
    namespace = "t-" + format(abs(hash_of(request.node.nodeid)), "x")[:12]
    made = Steer(server, tmp_path, namespace)
    made("create", "namespace", namespace)
    made("create", "serviceaccount", "default")
    return made


def hash_of(text: str) -> int:
    import zlib

    return zlib.crc32(text.encode())
