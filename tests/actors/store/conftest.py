"""Certificates of a throw-away authority, free ports, and replicas over real gRPC on loopback."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from steersman.actors.rpc.raft import GrpcTransport
from steersman.actors.rpc.store import serve_store
from steersman.actors.store.client import StoreClient
from steersman.actors.store.disk import Disk, MemoryDisk
from steersman.actors.store.replica import Replica
from steersman.actors.store.settings import ReplicaSettings


@dataclass(frozen=True)
class Pki:
    """Files of an authority and of one certificate per name."""

    directory: Path

    def read(self, name: str) -> bytes:
        return (self.directory / name).read_bytes()

    def server(self, name: str = "store") -> grpc.ServerCredentials:
        pair = (self.read(f"{name}.key"), self.read(f"{name}.crt"))
        return grpc.ssl_server_credentials([pair], self.read("ca.crt"), require_client_auth=True)

    def client(self, name: str = "store") -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.read("ca.crt"), self.read(f"{name}.key"), self.read(f"{name}.crt"))


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    directory = tmp_path_factory.mktemp("pki")
    authority = ec.generate_private_key(ec.SECP256R1())
    issuer = _name("test authority")
    _write(directory / "ca", authority, _certificate(issuer, issuer, authority, authority, is_authority=True))
    for name in ("store", "stranger"):
        key = ec.generate_private_key(ec.SECP256R1())
        _write(directory / name, key, _certificate(_name(name), issuer, key, authority, is_authority=False))
    return Pki(directory)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(subject: x509.Name, issuer: x509.Name, key: Any, signer: Any, *, is_authority: bool) -> Any:
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        .add_extension(names, critical=False)
    )
    if not is_authority:
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(usages, critical=False)
    return builder.sign(signer, hashes.SHA256())


def _write(path: Path, key: Any, certificate: Any) -> None:
    path.with_suffix(".crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


async def until(state: Callable[[], Any], deadline_s: float = 15.0) -> Any:
    """Waits for a state, looking every few milliseconds."""
    async with asyncio.timeout(deadline_s):
        while not (found := state()):  # noqa: ASYNC110  (a state of several objects has no event)
            await asyncio.sleep(0.005)
    return found


class Served:
    """A group of replicas in this process, over gRPC."""

    def __init__(self, size: int, disks: dict[int, Disk], pki: Pki | None) -> None:
        #: of the founders; and of those that were added later
        self.peers = {n: f"127.0.0.1:{port}" for n, port in enumerate(free_ports(size), start=1)}
        self.added: dict[int, str] = {}
        self.disks, self.pki = disks, pki
        self.replicas: dict[int, Replica] = {}
        self._servers: dict[int, grpc.aio.Server] = {}
        self._clients: list[StoreClient] = []

    async def start(self, member: int, **settings: Any) -> Replica:
        credentials = self.pki.client() if self.pki else None
        address = (self.peers | self.added)[member]
        transport = GrpcTransport(member, credentials, address=address)
        replica = Replica(
            name=f"s{member}", member_id=member, peers=self.peers, disk=self.disks.setdefault(member, MemoryDisk()),
            transport=transport, rng=random.Random(),
            settings=ReplicaSettings(**settings),
        )  # fmt: skip
        server = await serve_store(
            replica,
            address,
            self.pki.server() if self.pki else None,
            names={"store"} if self.pki else None,
            meet=transport.meet,
        )
        await replica.start()
        self.replicas[member], self._servers[member] = replica, server
        return replica

    async def stop(self, member: int) -> None:
        await self._servers.pop(member).stop(0)
        await self.replicas.pop(member).stop()

    def leader(self) -> int:
        return next((n for n, replica in self.replicas.items() if replica.is_leader), 0)

    async def client(self) -> StoreClient:
        client = StoreClient(list(self.peers.values()), self.pki.client() if self.pki else None)
        await client.start()
        self._clients.append(client)
        return client

    async def close(self) -> None:
        for client in self._clients:
            await client.stop()
        for member in list(self.replicas):
            await self.stop(member)


@pytest.fixture
def served() -> Callable[..., Any]:
    """Returns a context manager: `async with served(3) as group`."""

    @asynccontextmanager
    async def make(size: int, pki: Pki | None = None, **settings: Any) -> AsyncIterator[Served]:
        group = Served(size, {}, pki)
        try:
            for member in group.peers:
                await group.start(member, **settings)
            yield group
        finally:
            await group.close()

    return make


@pytest.fixture
def wait_until() -> Callable[..., Awaitable[Any]]:
    return until
