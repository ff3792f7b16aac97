"""API servers and their store as the benchmarks run them: each in a process of its own, with everything on.

TLS on every connection, client certificates, RBAC for a user who is no superuser, admission, field ownership, Secrets
encrypted, every write on disk before its answer. What a process costs is its own CPU time, told by itself.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import socket
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from tests.bench.sampling import Sampler

from steersman.actors import allocator, collector
from steersman.actors.apiserver import ApiServer, ApiServerConfig
from steersman.actors.ports import Store
from steersman.actors.store.client import StoreClient
from steersman.actors.store.filedisk import FileDisk
from steersman.actors.store.replica import Replica
from steersman.actors.store.service import StoreService
from steersman.actors.store.settings import ReplicaSettings
from steersman.actors.tls import client_context, server_context
from steersman.cluster.auth.encryption import render_encryption
from steersman.runtime.credentials import credentials_in
from steersman.runtime.pki import Authority, Identity

#: who asks: not a superuser, but bound to a role that allows everything
USER = "bench"
START_S_MAX = 60.0


class Nobody:
    async def connect(self, node: str) -> Any:
        raise LookupError(node)


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds: of the whole process, and of its main thread."""

    process_s: float
    main_s: float


# ---- the processes


def _body(pipe: Any, serve: Callable[[AsyncExitStack], Awaitable[int]]) -> None:
    """A child's life: tells its port and the seconds it took to start, then does what it is told until it is to end."""
    collector.relax()
    allocator.keep_freed()
    sampler = Sampler()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def told() -> None:
            match pipe.recv():
                case "cpu":
                    pipe.send(Spent(time.process_time(), time.thread_time()))
                case "sample":
                    sampler.start()
                    pipe.send(None)
                case "samples":
                    pipe.send(sampler.stop())
                case "end":
                    ended.set_result(None)

        async with AsyncExitStack() as stack:
            began = time.perf_counter()
            port = await serve(stack)
            pipe.send((port, time.perf_counter() - began))
            loop.add_reader(pipe.fileno(), told)
            await ended

    uvloop.run(main())


@asynccontextmanager
async def _running(component: Any) -> AsyncIterator[Any]:
    await component.start()
    try:
        yield component
    finally:
        await component.stop()


def store_process(directory: str, port: int, pipe: Any) -> None:
    async def serve(stack: AsyncExitStack) -> int:
        credentials, address = credentials_in(Path(directory), "component"), f"127.0.0.1:{port}"
        service = StoreService(
            name="store-1", member_id=1, address=address, founders={1: address}, directory=Path(directory) / "store",
            server=server_context(credentials), client=client_context(credentials), names=("steersman",),
            settings=ReplicaSettings(), rng=random.Random(1),
        )  # fmt: skip
        await stack.enter_async_context(_running(service))
        return port

    _body(pipe, serve)


def api_process(directory: str, store_port: int | None, pipe: Any) -> None:
    """Args: store_port: None for an API server that has its store in the same process."""
    folder = Path(directory)
    config = ApiServerConfig(
        port=0,
        tls_cert=(folder / "server.crt").read_bytes(),
        tls_key=(folder / "server.key").read_bytes(),
        client_ca=(folder / "ca.crt").read_bytes(),
        service_account_key=(folder / "sa.key").read_bytes(),
        encryption=folder / "encryption.yaml",
    )

    async def serve(stack: AsyncExitStack) -> int:
        store: Store = (
            Replica(
                name="s", member_id=1, peers={}, disk=FileDisk(folder / "store"), transport=None, rng=random.Random(1)
            )
            if store_port is None
            else StoreClient([f"127.0.0.1:{store_port}"], client_context(credentials_in(folder, "component")))
        )
        await stack.enter_async_context(_running(store))
        server = ApiServer(store=store, nodes=Nobody(), config=config, now=time.time, rng=random.Random())
        await stack.enter_async_context(_running(server))
        return server.port

    _body(pipe, serve)


# ---- seen from the bench


@dataclass(frozen=True, slots=True)
class Process:
    """A server that runs. Args: pipe: to command it; started_s: what its start took."""

    pid: int
    pipe: Any
    port: int
    started_s: float

    def told(self, command: str) -> Any:
        self.pipe.send(command)
        return self.pipe.recv()

    def spent(self) -> Spent:
        found: Spent = self.told("cpu")
        return found


@dataclass(frozen=True, slots=True)
class Served:
    """API servers on one store, and how to call them.

    Args:
        store: None when the only API server has it in its own process.
        context: of the user of the bench; superuser: of one who may do everything unasked.
    """

    servers: tuple[Process, ...]
    store: Process | None
    context: ssl.SSLContext
    superuser: ssl.SSLContext

    @property
    def processes(self) -> dict[str, Process]:
        """By the name they have in figures."""
        found = {f"server_{n}": server for n, server in enumerate(self.servers, start=1)}
        found = {"server": self.servers[0]} if len(self.servers) == 1 else found
        return {**found, "store": self.store} if self.store is not None else found


@contextmanager
def _process(target: Callable[..., None], *arguments: Any) -> Iterator[Process]:
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=target, args=(*arguments, theirs), daemon=True)
    process.start()
    try:
        if not mine.poll(START_S_MAX):
            raise RuntimeError(f"{target.__name__} did not start")
        port, started_s = mine.recv()
        assert process.pid is not None
        yield Process(process.pid, mine, port, started_s)
        mine.send("end")
        process.join(10)
    finally:
        process.terminate()


@contextmanager
def serving(*, servers: int = 1, apart: bool = True) -> Iterator[Served]:
    """API servers on a store of one member.

    Args:
        apart: the store has a process of its own, as in a cluster; otherwise it is in that of the only server.
    """
    with tempfile.TemporaryDirectory(prefix="steersman-bench-") as folder:
        contexts = _certificates(Path(folder))
        (Path(folder) / "encryption.yaml").write_text(render_encryption("bench", os.urandom(32)))
        with ExitStack() as stack:
            store = stack.enter_context(_process(store_process, folder, _free_port())) if apart else None
            port = store.port if store is not None else None
            found = [stack.enter_context(_process(api_process, folder, port)) for _ in range(servers)]
            yield Served(tuple(found), store, *contexts)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _certificates(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = Authority(folder)
    authority.ensure()
    authority.issue(Identity(file="server", common_name="api", hosts=("127.0.0.1",)))
    authority.issue(Identity(file="component", common_name="steersman", hosts=("127.0.0.1",)))
    users = (Identity(file="user", common_name=USER, organizations=("benchers",)),
             Identity(file="admin", common_name="admin", organizations=("system:masters",)))  # fmt: skip
    contexts = []
    for identity in users:
        issued = authority.issue(identity)
        context = ssl.create_default_context(cafile=str(authority.ca))
        context.load_cert_chain(issued.cert, issued.key)
        contexts.append(context)
    return contexts[0], contexts[1]
