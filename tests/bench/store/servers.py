"""Groups to measure: etcd's and ours, each member a process of its own."""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
import sys
import time
from pathlib import Path

import grpc
import grpc.aio
import uvloop
from tests.bench.figures import cpu_s, memory_mib

from steersman.actors import allocator, collector
from steersman.actors.rpc.raft import GrpcTransport
from steersman.actors.rpc.store import serve_store
from steersman.actors.store.filedisk import FileDisk
from steersman.actors.store.replica import Replica
from steersman.pb import etcd_pb2, etcd_pb2_grpc

ETCD = shutil.which("etcd")
START_S_MAX = 120.0


def free_addresses(count: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


class Group:
    """One group of members; `start` may be called again after `stop`.

    Args:
        kind: `etcd` or `ours`.
    """

    def __init__(self, kind: str, size: int, directory: Path) -> None:
        self.kind, self._directory = kind, directory / f"{kind}-{size}"
        self.addresses = free_addresses(size)
        self._peers = free_addresses(size)
        self._children: list[asyncio.subprocess.Process] = []

    async def start(self) -> float:
        """Returns the seconds until the group answered a linearizable read."""
        begun = time.perf_counter()
        self._children = [
            await asyncio.create_subprocess_exec(
                *(self._etcd(member) if self.kind == "etcd" else self._ours(member)),
                stdin=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL if self.kind == "etcd" else None,
            )
            for member in range(len(self.addresses))
        ]
        async with asyncio.timeout(START_S_MAX):
            for address in self.addresses:
                await self._answers(address)
        return time.perf_counter() - begun

    async def _answers(self, address: str) -> None:
        async with grpc.aio.insecure_channel(
            address, options=[("grpc.max_reconnect_backoff_ms", 20), ("grpc.initial_reconnect_backoff_ms", 20)]
        ) as channel:
            while True:
                try:
                    await etcd_pb2_grpc.KVStub(channel).Range(etcd_pb2.RangeRequest(key=b"/"), timeout=5)
                    return
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.01)

    def _etcd(self, member: int) -> list[str]:
        cluster = ",".join(f"m{n}=http://{peer}" for n, peer in enumerate(self._peers))
        client, peer = f"http://{self.addresses[member]}", f"http://{self._peers[member]}"
        return [
            ETCD or "etcd", "--name", f"m{member}", "--data-dir", str(self._directory / str(member)),
            "--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
            "--initial-advertise-peer-urls", peer, "--initial-cluster", cluster, "--logger", "zap",
            "--log-level", "error", "--quota-backend-bytes", str(8 << 30),
        ]  # fmt: skip

    def _ours(self, member: int) -> list[str]:
        return [
            sys.executable, "-c", "from tests.bench.store.servers import main; main()", str(member + 1),
            str(self._directory / str(member)), *self.addresses,
        ]  # fmt: skip

    async def stop(self) -> None:
        for child in self._children:
            if self.kind == "etcd":
                child.terminate()
            elif child.stdin is not None:
                child.stdin.close()
        for child in self._children:
            await child.wait()

    def cpu_s(self) -> float:
        """CPU seconds that all members have used."""
        return sum(cpu_s(child.pid) for child in self._children)

    def memory_mib(self) -> float:
        """Resident memory of the largest member."""
        return max(memory_mib(child.pid)[0] for child in self._children)


async def serve(member: int, directory: str, *addresses: str) -> None:
    """The body of a child: one replica, until stdin closes."""
    collector.relax()
    allocator.keep_freed()
    peers = dict(enumerate(addresses, start=1))
    replica = Replica(
        name=f"s{member}", member_id=member, peers=peers, disk=FileDisk(directory),
        transport=GrpcTransport(member), rng=random.Random(),
    )  # fmt: skip
    server = await serve_store(replica, peers[member], None)
    await replica.start()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)
    await replica.stop()


def main() -> None:
    uvloop.run(serve(int(sys.argv[1]), *sys.argv[2:]))
