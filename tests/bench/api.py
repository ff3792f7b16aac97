"""What the API server costs over real TLS: reads, writes of every sort, and a watch fanned out.

Server and store are processes of their own (`apiservers`), and `cpu` is what both have used for a request; the load
comes from this process. Pods are made of one template, as controllers make them.

    python -m tests.bench.api              where the CPU time of a POST goes
    python -m tests.bench.api patch apply  that of other requests
"""

from __future__ import annotations

import asyncio
import ssl
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from itertools import cycle
from typing import Any

import orjson
import uvloop
from tests.bench.apiservers import USER, Served, Spent, serving
from tests.bench.figures import Figure, median
from tests.bench.sampling import LOOP

CORE = "/api/v1/namespaces/default"
PODS, CONFIG_MAPS, ACCOUNTS = f"{CORE}/pods", f"{CORE}/configmaps", f"{CORE}/serviceaccounts"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
LISTED, WRITTEN, GOT, LISTS = 500, 1500, 4000, 40
WATCHERS, CHANGES, WRITERS = 200, 200, 16
ROUNDS, CONNECTIONS, CROWD = 3, 32, 64
#: what a crowd of clients that do not wait for each other asks for
POSTS_A_SECOND = 2000
SAMPLED = 6000
JSON, APPLY = "application/json", "application/apply-patch+yaml"
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"

#: method, path, body, its media type
Request = tuple[str, str, bytes, str]


class Connection:
    """A keep-alive connection that speaks just enough HTTP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self._writer = reader, writer

    def send(self, method: str, path: str, body: bytes = b"", media: str = JSON) -> None:
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nuser-agent: bench/1\r\ncontent-type: {media}\r\n"
        self._writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)

    async def call(self, method: str, path: str, body: bytes = b"", media: str = JSON) -> bytes:
        self.send(method, path, body, media)
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


def template(name: str) -> dict[str, Any]:
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
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}}


def pod(name: str) -> bytes:
    return orjson.dumps(template(name))


def running(n: int) -> dict[str, Any]:
    """What a node agent says of a pod."""
    when = f"2026-01-01T00:{n // 60 % 60:02}:{n % 60:02}Z"
    types = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    main = {"name": "main", "ready": True, "started": True, "restartCount": n, "image": "application:1.2.3",
            "imageID": "sha256:0", "state": {"running": {"startedAt": when}}}  # fmt: skip
    return {
        "phase": "Running", "podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}], "hostIP": "10.1.0.1",
        "startTime": when, "containerStatuses": [main],
        "conditions": [{"type": kind, "status": "True", "lastTransitionTime": when} for kind in types],
    }  # fmt: skip


class Bench:
    """The user of the servers; connections go to one after the other."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self._next = cycle(served.servers)

    async def connect(self, context: ssl.SSLContext | None = None) -> Connection:
        port, context = next(self._next).port, context or self.served.context
        return Connection(*await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=1 << 26))

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds used so far, by process."""
        return {name: process.spent().process_s for name, process in self.served.processes.items()}

    async def prepare(self) -> None:
        """Lets the user do everything, and the namespace take pods."""
        first = await self.connect(self.served.superuser)
        binding = {
            "metadata": {"name": USER}, "subjects": [{"kind": "User", "name": USER}],
            "roleRef": {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io"},
        }  # fmt: skip
        await first.call("POST", BINDINGS, orjson.dumps(binding))
        await first.call("POST", ACCOUNTS, b'{"metadata":{"name":"default"}}')
        first.close()

    async def limit(self) -> None:
        """Has everything that is written from now on charged to a quota."""
        first = await self.connect()
        hard = {"pods": "1000000", "requests.cpu": "1000000", "limits.memory": "1000Ti"}
        await first.call(
            "POST", f"{CORE}/resourcequotas", orjson.dumps({"metadata": {"name": "q"}, "spec": {"hard": hard}})
        )
        first.close()

    async def load(
        self, requests: Sequence[Request], connections: int, *, rate: float | None = None
    ) -> dict[str, float]:
        """Sends requests over so many connections, each one after the other.

        Args:
            rate: so many are due a second, all connections together, and waits count from when a request was due; None
                to send the next as soon as one is answered.
        """
        pool = [await self.connect() for _ in range(connections)]
        todo, waits = enumerate(requests), []

        async def work(connection: Connection) -> None:
            for number, request in todo:
                due = time.perf_counter()
                if rate is not None:
                    due = began + number / rate
                    await asyncio.sleep(due - time.perf_counter())
                await connection.call(*request)
                waits.append(time.perf_counter() - due)

        before, began = self.cpu_s(), time.perf_counter()
        await asyncio.gather(*(work(connection) for connection in pool))
        wall, after = time.perf_counter() - began, self.cpu_s()
        for connection in pool:
            connection.close()
        spent = {name: 1e6 * (after[name] - before[name]) / len(requests) for name in after}
        parts = {f"cpu.{name}": us for name, us in spent.items()} if len(spent) > 1 else {}
        p99 = statistics.quantiles(waits, n=100)[98]
        return {
            "rate": len(requests) / wall, "cpu": sum(spent.values()), **parts, "p50": 1000 * statistics.median(waits),
            "p99": 1000 * p99,
        }  # fmt: skip

    async def fan_out(self, writers: int) -> dict[str, float]:
        """Changes objects, one each writer, while many watch them."""
        pool = [await self.connect() for _ in range(WATCHERS)]
        for connection in pool:
            connection.send("GET", f"{CONFIG_MAPS}?watch=1&resourceVersion=0")
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
        before, began = sum(self.cpu_s().values()), time.perf_counter()
        await asyncio.gather(*(write(number, source) for number, source in enumerate(sources)))
        await asyncio.gather(*following)
        wall, spent = time.perf_counter() - began, sum(self.cpu_s().values()) - before
        for number in range(writers):
            await sources[0].call("DELETE", f"{CONFIG_MAPS}/c{number}")
        for connection in (*pool, *sources):
            connection.close()
        events = WATCHERS * CHANGES * writers
        return {"rate": events / wall, "cpu": 1e6 * spent / events}


# ---- what is asked


class Requests:
    """Requests of each sort, each another one; those that change a pod go round the listed ones."""

    def __init__(self) -> None:
        self._made: Counter[str] = Counter()

    def many(self, sort: str, number: int) -> list[Request]:
        make: Callable[[int], Request] = getattr(self, sort)
        first = self._made[sort]
        self._made[sort] += number
        return [make(n) for n in range(first, first + number)]

    def _target(self, n: int) -> str:
        return f"{PODS}/listed-{n % LISTED}"

    def get(self, n: int) -> Request:
        return "GET", self._target(n), b"", JSON

    def list(self, _n: int) -> Request:
        return "GET", PODS, b"", JSON

    def list_by_label(self, _n: int) -> Request:
        return "GET", f"{PODS}?labelSelector=app%3Dweb", b"", JSON

    def post(self, n: int) -> Request:
        return "POST", PODS, pod(f"new-{n}"), JSON

    def delete(self, n: int) -> Request:
        """Of the pods that `post` has made."""
        return "DELETE", f"{PODS}/new-{n}?gracePeriodSeconds=0", b"", JSON

    def patch(self, n: int) -> Request:
        return "PATCH", self._target(n), orjson.dumps({"metadata": {"annotations": {"n": str(n)}}}), STRATEGIC

    def merge(self, n: int) -> Request:
        return "PATCH", self._target(n), orjson.dumps({"metadata": {"annotations": {"n": str(n)}}}), MERGE

    def apply(self, n: int) -> Request:
        whole = template(f"listed-{n % LISTED}")
        whole["metadata"]["annotations"] = {"n": str(n)}
        return "PATCH", f"{self._target(n)}?fieldManager=applier&force=true", orjson.dumps(whole), APPLY

    def patch_status(self, n: int) -> Request:
        return "PATCH", f"{self._target(n)}/status", orjson.dumps({"status": running(n)}), STRATEGIC

    def put_status(self, n: int) -> Request:
        whole = {**template(f"listed-{n % LISTED}"), "status": running(n)}
        return "PUT", f"{self._target(n)}/status", orjson.dumps(whole), JSON


UNITS = {"rate": "1/s", "p50": "ms", "p99": "ms"}


async def several(name: str, measure: Callable[[], Awaitable[dict[str, float]]]) -> list[Figure]:
    rows = [await measure() for _ in range(ROUNDS)]
    return [median(f"api.{name}.{what}", [row[what] for row in rows], UNITS.get(what, "us")) for what in rows[0]]


async def figures(bench: Bench) -> AsyncIterator[Figure]:
    requests = Requests()
    first = await bench.connect()
    for n in range(LISTED):
        await first.call("POST", PODS, pod(f"listed-{n}"))
    yield Figure("api.pod", len(await first.call("GET", f"{PODS}/listed-0")), "bytes")
    first.close()

    def load(
        sort: str, number: int, connections: int, rate: float | None = None
    ) -> Callable[[], Awaitable[dict[str, float]]]:
        return lambda: bench.load(requests.many(sort, number), connections, rate=rate)

    few = min(CONNECTIONS, 8)
    cases: dict[str, Callable[[], Awaitable[dict[str, float]]]] = {
        f"get_{CONNECTIONS}": load("get", GOT, CONNECTIONS),
        "get_1": load("get", GOT // 4, 1),
        f"list_{LISTED}": load("list", LISTS, few),
        f"list_{LISTED}_by_label": load("list_by_label", LISTS, few),
        f"watch_{WATCHERS}": lambda: bench.fan_out(1),
        f"watch_{WATCHERS}_writers_{WRITERS}": lambda: bench.fan_out(WRITERS),
        f"post_{CONNECTIONS}": load("post", WRITTEN, CONNECTIONS),
        f"post_{CROWD}": load("post", WRITTEN, CROWD),
        f"post_{CROWD}_at_{POSTS_A_SECOND}": load("post", 3 * WRITTEN, CROWD, POSTS_A_SECOND),
        f"get_{CROWD}": load("get", GOT, CROWD),
        "post_1": load("post", WRITTEN // 4, 1),
    }
    for sort in ("patch", "merge", "apply", "patch_status", "put_status", "delete"):
        cases[f"{sort}_{CONNECTIONS}"] = load(sort, WRITTEN, CONNECTIONS)
    for name, case in cases.items():
        for figure in await several(name, case):
            yield figure
    await bench.limit()
    for figure in await several(f"post_{CONNECTIONS}_quota", cases[f"post_{CONNECTIONS}"]):
        yield figure


async def _collect(bench: Bench) -> list[Figure]:
    await bench.prepare()
    return [figure async for figure in figures(bench)]


async def _reads(bench: Bench) -> list[Figure]:
    """Gets and lists spread over several servers; the load shares the machine with them."""
    await bench.prepare()
    requests, name = Requests(), f"servers_{len(bench.served.servers)}"
    await bench.load([("POST", PODS, pod(f"listed-{n}"), JSON) for n in range(LISTED)], CONNECTIONS)
    gets = await several(f"{name}.get", lambda: bench.load(requests.many("get", 2 * GOT), CONNECTIONS))
    return gets + await several(f"{name}.list", lambda: bench.load(requests.many("list", 4 * LISTS), CONNECTIONS))


def run() -> Iterator[Figure]:
    with serving() as served:
        yield Figure("api.start", 1000 * served.servers[0].started_s, "ms")
        yield from uvloop.run(_collect(Bench(served)))
    for servers in (1, 2):
        with serving(servers=servers) as served:
            yield from uvloop.run(_reads(Bench(served)))


# ---- where the time goes


async def sampled(bench: Bench, sorts: Sequence[str]) -> None:
    """Prints, for each sort of request, what each process did with its CPU time."""
    await bench.prepare()
    requests = Requests()
    await bench.load([("POST", PODS, pod(f"listed-{n}"), JSON) for n in range(LISTED)], CONNECTIONS)
    for sort in sorts:
        if sort == "delete":
            await bench.load(requests.many("post", SAMPLED + WRITTEN), CONNECTIONS)
        await bench.load(requests.many(sort, WRITTEN), CONNECTIONS)  # the first ones compile and fill caches
        before = {name: process.spent() for name, process in bench.served.processes.items()}
        for process in bench.served.processes.values():
            process.told("sample")
        row = await bench.load(requests.many(sort, SAMPLED), CONNECTIONS)
        print(f"\n{sort}: {row['cpu']:.0f} us of CPU a request, {row['rate']:,.0f}/s while sampled")
        for name, process in bench.served.processes.items():
            found, after = process.told("samples"), process.spent()
            _print(name, found, before[name], after)


def _print(name: str, found: dict[str, int], before: Spent, after: Spent) -> None:
    """A table of one process: microseconds of a request, by phase."""
    whole, main = after.process_s - before.process_s, after.main_s - before.main_s
    us = 1e6 / SAMPLED
    # a sample that came while another thread ran fell to the loop
    elsewhere = round(sum(found.values()) * (1 - main / whole))
    found = {**found, LOOP: max(0, found.get(LOOP, 0) - elsewhere)}
    rows = {phase: number / sum(found.values()) * main * us for phase, number in found.items()}
    rows["other threads (writing and syncing the log)"] = (whole - main) * us
    print(f"  {name:<44} {whole * us:6.0f} us")
    for phase, amount in sorted(rows.items(), key=lambda row: -row[1]):
        if amount >= 0.5:
            print(f"    {phase:<42} {amount:6.0f} us  {100 * amount / (whole * us):3.0f} %")


def main() -> None:
    with serving() as served:
        uvloop.run(sampled(Bench(served), sys.argv[1:] or ["post"]))


if __name__ == "__main__":
    main()
