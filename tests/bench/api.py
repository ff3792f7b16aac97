"""What the API server costs over real TLS: POST, GET and LIST of pods, and a watch fanned out.

The server runs on uvloop in a process of its own with a store of one member on disk, so that `cpu` is its CPU
time alone (store included); the load comes from this process.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import ssl
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import uvloop
from tests.bench.figures import Figure, median

from steersman.actors import collector
from steersman.actors.apiserver import ApiServer, ApiServerConfig
from steersman.actors.store.filedisk import FileDisk
from steersman.actors.store.replica import Replica
from steersman.runtime.pki import Authority, Identity

PODS = "/api/v1/namespaces/default/pods"
LISTED, POSTED, GOT, LISTS = 500, 1500, 4000, 40
WATCHERS, CHANGES, WRITERS = 200, 200, 16
ROUNDS, CONNECTIONS = 3, 32


class Nobody:
    async def connect(self, node: str) -> Any:
        raise LookupError(node)


def serve(directory: str, pipe: Any) -> None:
    """The server's process: tells its port, then its CPU time whenever asked."""
    folder = Path(directory)
    config = ApiServerConfig(
        port=0,
        tls_cert=(folder / "server.crt").read_bytes(),
        tls_key=(folder / "server.key").read_bytes(),
        client_ca=(folder / "ca.crt").read_bytes(),
        service_account_key=(folder / "sa.key").read_bytes(),
    )

    async def main() -> None:
        collector.relax()
        store = Replica(
            name="s", member_id=1, peers={}, disk=FileDisk(folder / "store"), transport=None,
            rng=random.Random(1),
        )  # fmt: skip
        await store.start()
        server = ApiServer(store=store, nodes=Nobody(), config=config, now=time.time, rng=random.Random(1))
        started = time.perf_counter()
        await server.start()
        pipe.send((server.port, time.perf_counter() - started))
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def told() -> None:
            if pipe.recv():
                pipe.send(time.process_time())
            else:
                ended.set_result(None)

        loop.add_reader(pipe.fileno(), told)
        await ended
        await server.stop()
        await store.stop()

    uvloop.run(main())


class Connection:
    """A keep-alive connection that speaks just enough HTTP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self._writer = reader, writer

    def send(self, method: str, path: str, body: bytes = b"") -> None:
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nuser-agent: bench/1\r\ncontent-type: application/json\r\n"
        self._writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)

    async def call(self, method: str, path: str, body: bytes = b"") -> bytes:
        self.send(method, path, body)
        head = await self.reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            data = b"".join([chunk async for chunk in self._chunks()])
        else:
            at = lower.index(b"content-length: ") + 16
            data = await self.reader.readexactly(int(lower[at : lower.index(b"\r", at)]))
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {data.decode()}")
        return data

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            yield (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)

    def close(self) -> None:
        self._writer.close()


def pod(name: str) -> bytes:
    """A pod of about 3 KB once it is stored."""
    container = {
        "name": "main",
        "image": "registry.example.com/team/application:1.2.3",
        "env": [{"name": f"SETTING_{n}", "value": f"value-{n}"} for n in range(8)],
        "ports": [{"name": "http", "containerPort": 8080}],
        "resources": {"limits": {"memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
    }
    meta = {"name": name, "labels": {"app": "web", "pod-template-hash": "7d4b9c6f5"}}
    return orjson.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}})


class Bench:
    def __init__(self, pipe: Any, port: int, context: ssl.SSLContext) -> None:
        self._pipe, self._port, self._context = pipe, port, context

    async def connect(self) -> Connection:
        return Connection(*await asyncio.open_connection("127.0.0.1", self._port, ssl=self._context, limit=1 << 26))

    def cpu_s(self) -> float:
        self._pipe.send(True)
        return float(self._pipe.recv())

    async def load(self, requests: list[tuple[str, str, bytes]], connections: int) -> dict[str, float]:
        """Sends requests over so many connections, each one after the other."""
        pool = [await self.connect() for _ in range(connections)]
        todo, waits = iter(requests), []

        async def work(connection: Connection) -> None:
            for request in todo:
                began = time.perf_counter()
                await connection.call(*request)
                waits.append(time.perf_counter() - began)

        cpu, began = self.cpu_s(), time.perf_counter()
        await asyncio.gather(*(work(connection) for connection in pool))
        wall, cpu = time.perf_counter() - began, self.cpu_s() - cpu
        for connection in pool:
            connection.close()
        return {"rate": len(requests) / wall, "cpu": 1e6 * cpu / len(requests), "p50": 1000 * statistics.median(waits)}

    async def fan_out(self, writers: int) -> dict[str, float]:
        """Changes objects, one each writer, while many watch them."""
        pool = [await self.connect() for _ in range(WATCHERS)]
        for connection in pool:
            connection.send("GET", "/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=0")
            await connection.reader.readuntil(b"\r\n\r\n")
        last = f'"n":"{CHANGES - 1}"'.encode()

        async def follow(connection: Connection) -> None:
            seen, left = b"", writers
            while left:
                data = await connection.reader.read(1 << 20)
                # the last bytes of what was seen are looked at again: a change may come in two pieces
                left -= (seen + data).count(last)
                seen = data[1 - len(last) :]

        async def write(number: int, connection: Connection) -> None:
            for n in range(CHANGES):
                body = orjson.dumps({"metadata": {"name": f"c{number}"}, "data": {"n": str(n), "pad": "x" * 500}})
                await connection.call("PUT" if n else "POST", CONFIG_MAPS + (f"/c{number}" if n else ""), body)

        sources = [await self.connect() for _ in range(writers)]
        following = [asyncio.create_task(follow(connection)) for connection in pool]
        cpu, began = self.cpu_s(), time.perf_counter()
        await asyncio.gather(*(write(number, source) for number, source in enumerate(sources)))
        await asyncio.gather(*following)
        wall, cpu = time.perf_counter() - began, self.cpu_s() - cpu
        for number in range(writers):
            await sources[0].call("DELETE", f"{CONFIG_MAPS}/c{number}")
        for connection in (*pool, *sources):
            connection.close()
        events = WATCHERS * CHANGES * writers
        return {"rate": events / wall, "cpu": 1e6 * cpu / events}


CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


UNITS = {"rate": "1/s", "cpu": "us", "p50": "ms"}


async def several(name: str, measure: Callable[[int], Awaitable[dict[str, float]]]) -> list[Figure]:
    rows = [await measure(number) for number in range(ROUNDS)]
    return [median(f"api.{name}.{what}", [row[what] for row in rows], UNITS[what]) for what in rows[0]]


async def figures(bench: Bench) -> AsyncIterator[Figure]:
    first = await bench.connect()
    account = b'{"metadata":{"name":"default"}}'
    await first.call("POST", "/api/v1/namespaces/default/serviceaccounts", account)
    for n in range(LISTED):
        await first.call("POST", PODS, pod(f"listed-{n}"))
    yield Figure("api.pod", len(await first.call("GET", f"{PODS}/listed-0")), "bytes")
    first.close()
    many, few = CONNECTIONS, min(CONNECTIONS, 8)
    gets = [("GET", f"{PODS}/listed-{i % LISTED}", b"") for i in range(GOT)]
    by_label = PODS + "?labelSelector=app%3Dweb"
    cases: dict[str, Callable[[int], Awaitable[dict[str, float]]]] = {
        f"get_{many}": lambda n: bench.load(gets, many),
        "get_1": lambda n: bench.load(gets[: GOT // 4], 1),
        f"list_{LISTED}": lambda n: bench.load([("GET", PODS, b"")] * LISTS, few),
        f"list_{LISTED}_by_label": lambda n: bench.load([("GET", by_label, b"")] * LISTS, few),
        f"watch_{WATCHERS}": lambda n: bench.fan_out(1),
        f"watch_{WATCHERS}_writers_{WRITERS}": lambda n: bench.fan_out(WRITERS),
        f"post_{many}": lambda n: bench.load([("POST", PODS, pod(f"m-{n}-{i}")) for i in range(POSTED)], many),
        "post_1": lambda n: bench.load([("POST", PODS, pod(f"s-{n}-{i}")) for i in range(POSTED // 4)], 1),
    }
    for name, case in cases.items():
        for figure in await several(name, case):
            yield figure


async def _collect(bench: Bench) -> list[Figure]:
    return [figure async for figure in figures(bench)]


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs: its process, the pipe to it, its port, the seconds it took to start, and how to call it."""

    pid: int
    pipe: Any
    port: int
    started_s: float
    context: ssl.SSLContext


@contextmanager
def serving() -> Iterator[Served]:
    """An API server with its store in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="steersman-bench-") as folder:
        authority = Authority(Path(folder))
        authority.ensure()
        authority.issue(Identity(file="server", common_name="api", hosts=("127.0.0.1",)))
        admin = authority.issue(Identity(file="admin", common_name="admin", organizations=("system:masters",)))
        context = ssl.create_default_context(cafile=str(authority.ca))
        context.load_cert_chain(admin.cert, admin.key)
        mine, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, theirs), daemon=True)
        process.start()
        try:
            if not mine.poll(60):
                raise RuntimeError("the server did not start")
            port, started_s = mine.recv()
            assert process.pid is not None
            yield Served(process.pid, mine, port, started_s, context)
            mine.send(False)
            process.join(10)
        finally:
            process.terminate()


def run() -> Iterator[Figure]:
    with serving() as served:
        yield Figure("api.start", 1000 * served.started_s, "ms")
        yield from uvloop.run(_collect(Bench(served.pipe, served.port, served.context)))
