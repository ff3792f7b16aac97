"""The API server that is abused, in a process of its own so that its memory, descriptors and tasks can be counted.

Run as a module it serves, and answers each line on its standard input with a line of counts; `Victim` is the handle of
such a process.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import random
import resource
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from steersman.actors.apiserver import ApiServer, ApiServerConfig
from steersman.actors.collector import relax
from steersman.actors.http.limits import HttpLimits
from steersman.actors.ports import Channel, ExecRequest, Frame, LogRequest
from steersman.actors.store.filedisk import FileDisk
from steersman.actors.store.replica import Replica
from steersman.runtime.pki import Authority, Identity

MIB = 1 << 20
#: short waits and small budgets, so that a test sees in a second what takes a minute elsewhere
LIMITS = HttpLimits(
    received_bytes_max=24 * MIB,
    unsent_bytes_max=24 * MIB,
    header_timeout_s=1.5,
    body_timeout_s=2.0,
    idle_timeout_s=60.0,
    write_timeout_s=2.0,
    conversation_idle_timeout_s=3.0,
    last_work_s=1.0,
)
USERS = {"admin": ("system:masters",), "jane": ("devs",), "mallory": ("devs",), "node": ("system:nodes",), "nobody": ()}
#: common names of users whose files are called otherwise
COMMON_NAMES = {"node": "system:node:n1"}


class _Deaf:
    """A container that reads nothing, or writes without end."""

    def __init__(self, writes: bool) -> None:
        self._writes = writes
        self._closed = asyncio.Event()

    async def send(self, frame: Frame) -> None:
        await self._closed.wait()

    async def receive(self) -> Frame | None:
        if self._writes and not self._closed.is_set():
            await asyncio.sleep(0)
            return Frame(1, b"y" * 65536)
        await self._closed.wait()
        return None

    async def close(self) -> None:
        self._closed.set()


class _Node:
    """A node whose containers read nothing; `yes` and logs write without end."""

    async def logs(self, request: LogRequest) -> AsyncIterator[bytes]:
        async def lines() -> AsyncIterator[bytes]:
            while True:
                yield b"y" * 65536
                await asyncio.sleep(0)

        return lines()

    async def exec(self, request: ExecRequest) -> Channel:
        return _Deaf(request.command == ("yes",))

    async def attach(self, request: ExecRequest) -> Channel:
        return _Deaf(False)

    async def port_forward(self, namespace: str, pod: str, port: int) -> Channel:
        return _Deaf(False)


class _Nodes:
    async def connect(self, node: str) -> Any:
        return _Node()


async def _counts(server: ApiServer) -> dict[str, int]:
    http = server._http
    assert http is not None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return {
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "connections": len(http.connections),
        "received_bytes": http.received_bytes,
        "receiving": len(http.receiving),
        "watches": server.watches.open,
    }


async def _serve(directory: Path, config: dict[str, Any]) -> None:
    authority = Authority(directory)
    pair = authority.issue(Identity(file="server", common_name="api", hosts=("127.0.0.1", "localhost")))
    rng = random.Random(1)
    store = Replica(name="s", member_id=1, peers={1: ""}, disk=FileDisk(directory / "store"), transport=None, rng=rng)
    await store.start()
    server = ApiServer(
        store=store,
        nodes=_Nodes(),
        config=ApiServerConfig(
            tls_cert=pair.cert.read_bytes(), tls_key=pair.key.read_bytes(), client_ca=authority.ca.read_bytes(),
            service_account_key=authority.service_account_key.read_bytes(), grpc_port=0, grpc_token_port=0,
            http=LIMITS, **config,
        ),
        now=time.time,
        rng=rng,
    )  # fmt: skip
    await server.start()
    print(json.dumps({"port": server.port, "grpc": server.grpc_port, "tokens": server._grpc.token_port}), flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        print(json.dumps(await _counts(server)), flush=True)


def main() -> None:
    directory, descriptors, config = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    if descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    relax()
    uvloop.run(_serve(directory, config))


@dataclass
class Victim:
    """A running server, and what it takes to reach it and to look at it."""

    directory: Path
    process: subprocess.Popen[bytes]
    port: int
    grpc: int
    tokens: int

    @classmethod
    def start(cls, directory: Path, *, descriptors: int = 0, **config: Any) -> Victim:
        """Args: descriptors: limit of open ones; 0 for the machine's. config: of the API server."""
        authority = Authority(directory)
        authority.ensure()
        for user, groups in USERS.items():
            authority.issue(Identity(file=user, common_name=COMMON_NAMES.get(user, user), organizations=groups))
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.abuse.victim", str(directory), str(descriptors), json.dumps(config)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
            stderr=(directory / "stderr").open("wb"), bufsize=0,
        )  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (directory / "stderr").read_text()
        return cls(directory, process, **json.loads(line))

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def tls(self, user: str = "") -> ssl.SSLContext:
        """How a user reaches it; anybody without a certificate when empty."""
        context = ssl.create_default_context(cafile=str(self.directory / "ca.crt"))
        if user:
            context.load_cert_chain(self.directory / f"{user}.crt", self.directory / f"{user}.key")
        return context

    async def counts(self) -> dict[str, int]:
        """What it has open and holds now."""

        def ask() -> bytes:
            assert self.process.stdin is not None and self.process.stdout is not None
            self.process.stdin.write(b"\n")
            return self.process.stdout.readline()

        line = await asyncio.to_thread(ask)
        assert line, f"the server died: {self.said()}"
        found: dict[str, int] = json.loads(line)
        return found

    def said(self) -> str:
        """What it wrote to its log."""
        return (self.directory / "stderr").read_text(errors="replace")

    def memory_mib(self) -> int:
        return self._status("VmRSS")

    def peak_mib(self) -> int:
        """The most memory it had since `forget_peak`."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def _status(self, name: str) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) // 1024
        raise LookupError(name)


if __name__ == "__main__":
    main()
