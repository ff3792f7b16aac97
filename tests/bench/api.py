"""What the API server costs over real TLS: POST, GET and LIST of pods, and a watch fanned out; prints JSON rows.

    python tests/bench/api.py [connections]

The server runs on uvloop in a process of its own with its store in memory, so that `cpu_us` is its CPU time alone
(store included); the load comes from this process.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import uvloop

from steersman.actors.apiserver import ApiServer, ApiServerConfig
from steersman.actors.store.disk import MemoryDisk
from steersman.actors.store.replica import Replica
from steersman.runtime.pki import Authority, Identity

PODS = "/api/v1/namespaces/default/pods"
LISTED, POSTED, GOT, LISTS = 500, 1500, 4000, 40
WATCHERS, CHANGES = 200, 200
ROUNDS = 3


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
        store = Replica(
            name="s", member_id=1, peers={1: ""}, disk=MemoryDisk(), transport=None, now=time.time, rng=random.Random(1)
        )
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
        at = lower.index(b"content-length: ") + 16
        data = await self.reader.readexactly(int(lower[at : lower.index(b"\r", at)]))
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {data.decode()}")
        return data

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
    def __init__(self, pipe: Any, port: int, context: ssl.SSLContext, connections: int) -> None:
        self._pipe, self._port, self._context = pipe, port, context
        self.connections = connections

    async def connect(self) -> Connection:
        return Connection(*await asyncio.open_connection("127.0.0.1", self._port, ssl=self._context, limit=1 << 26))

    def cpu_s(self) -> float:
        self._pipe.send(True)
        return float(self._pipe.recv())

    async def load(self, case: str, requests: list[tuple[str, str, bytes]], connections: int) -> dict[str, Any]:
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
        return {
            "case": case, "connections": connections, "rate_s": round(len(requests) / wall),
            "cpu_us": round(1e6 * cpu / len(requests)), "p50_ms": round(1000 * statistics.median(waits), 2),
        }  # fmt: skip

    async def fan_out(self) -> dict[str, Any]:
        """Changes one object while many watch it."""
        pool = [await self.connect() for _ in range(WATCHERS)]
        for connection in pool:
            connection.send("GET", "/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=0")
            await connection.reader.readuntil(b"\r\n\r\n")
        last = f'"n":"{CHANGES - 1}"'.encode()

        async def follow(connection: Connection) -> None:
            seen = b""
            while last not in seen:
                seen = seen[-100:] + await connection.reader.read(1 << 20)

        writer = await self.connect()
        following = [asyncio.create_task(follow(connection)) for connection in pool]
        cpu, began = self.cpu_s(), time.perf_counter()
        for n in range(CHANGES):
            body = orjson.dumps({"metadata": {"name": "c"}, "data": {"n": str(n), "pad": "x" * 500}})
            await writer.call("PUT" if n else "POST", CONFIG_MAPS + ("/c" if n else ""), body)
        await asyncio.gather(*following)
        wall, cpu = time.perf_counter() - began, self.cpu_s() - cpu
        await writer.call("DELETE", CONFIG_MAPS + "/c")
        for connection in (*pool, writer):
            connection.close()
        events = WATCHERS * CHANGES
        return {
            "case": "watch fan-out", "watchers": WATCHERS, "rate_s": round(events / wall),
            "cpu_us": round(1e6 * cpu / events, 1),
        }  # fmt: skip


CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the median of several runs of one case."""
    middle = sorted(rows, key=lambda row: row["rate_s"])[len(rows) // 2]
    print(json.dumps({"bench": "api", **middle}), flush=True)


async def several(measure: Callable[[int], Awaitable[dict[str, Any]]]) -> None:
    show([await measure(number) for number in range(ROUNDS)])


async def run(bench: Bench) -> None:
    first = await bench.connect()
    account = b'{"metadata":{"name":"default"}}'
    await first.call("POST", "/api/v1/namespaces/default/serviceaccounts", account)
    for n in range(LISTED):
        await first.call("POST", PODS, pod(f"listed-{n}"))
    size = len(await first.call("GET", f"{PODS}/listed-0"))
    print(json.dumps({"bench": "api", "case": "object", "bytes": size}), flush=True)
    first.close()
    many = bench.connections
    await several(lambda n: bench.load("GET", [("GET", f"{PODS}/listed-{i % LISTED}", b"") for i in range(GOT)], many))
    await several(lambda n: bench.load("GET", [("GET", f"{PODS}/listed-0", b"")] * (GOT // 4), 1))
    await several(lambda n: bench.load(f"LIST {LISTED}", [("GET", PODS, b"")] * LISTS, min(many, 8)))
    table = PODS + "?labelSelector=app%3Dweb"
    await several(lambda n: bench.load(f"LIST {LISTED} by label", [("GET", table, b"")] * LISTS, min(many, 8)))
    await several(lambda n: bench.fan_out())
    for connections in (many, 1):
        await several(
            lambda n, c=connections: bench.load(  # type: ignore[misc]
                "POST", [("POST", PODS, pod(f"p-{c}-{n}-{i}")) for i in range(POSTED if c > 1 else POSTED // 4)], c
            )
        )


def main() -> None:
    connections = int(sys.argv[1]) if len(sys.argv) > 1 else 32
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        authority.ensure()
        authority.issue(Identity(file="server", common_name="api", hosts=("127.0.0.1",)))
        admin = authority.issue(Identity(file="admin", common_name="admin", organizations=("system:masters",)))
        context = ssl.create_default_context(cafile=str(authority.ca))
        context.load_cert_chain(admin.cert, admin.key)
        mine, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, theirs), daemon=True)
        process.start()
        if not mine.poll(30):
            process.terminate()
            raise SystemExit("the server did not start")
        port, started_s = mine.recv()
        print(json.dumps({"bench": "api", "case": "start", "ms": round(1000 * started_s), "cpus": os.cpu_count()}))
        uvloop.run(run(Bench(mine, port, context, connections)))
        mine.send(False)
        process.join(10)


if __name__ == "__main__":
    main()
