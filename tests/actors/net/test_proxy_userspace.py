"""Services by passing bytes on: on loopback addresses, without rights."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from steersman.actors.proxy import Proxy

SERVICES = "/api/v1/namespaces/default/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
EVENTS = "/api/v1/namespaces/default/events"
VIP = "127.96.0.50"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def service(port: int, protocol: str = "TCP", **spec: Any) -> dict[str, Any]:
    body = {"clusterIP": VIP, "ports": [{"name": "p", "port": port, "protocol": protocol}], **spec}
    return {"metadata": {"name": "web", "namespace": "default"}, "spec": body}


def endpoints(*ports: int, protocol: str = "TCP") -> dict[str, Any]:
    """One slice per port of 127.0.0.1, as one object: only its first port counts, so that a test replaces it whole."""
    rows = [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}] if ports else []
    meta = {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}}
    listed = [{"name": "p", "port": port, "protocol": protocol} for port in ports]
    return {"metadata": meta, "addressType": "IPv4", "endpoints": rows, "ports": listed}


@asynccontextmanager
async def proxy_on(api: Any) -> AsyncIterator[Proxy]:
    proxy = Proxy(
        api.client(), node_name="n", now=lambda: 1.8e9, rng=random.Random(0), mode="userspace", listen_on="127.0.0.1"
    )
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()


@asynccontextmanager
async def echo(name: str) -> AsyncIterator[int]:
    """A server that answers a whole request (until end of input) with its name and what it got."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read()
        writer.write(f"{name}:".encode() + data)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def ask(address: str, port: int, data: bytes = b"hello") -> bytes:
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(address, port)
        writer.write(data)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer


async def eventually(address: str, port: int, expected: bytes) -> None:
    async with asyncio.timeout(5):
        while True:
            try:
                if await ask(address, port) == expected:
                    return
            except OSError as error:
                if expected == b"refused" and isinstance(error, ConnectionRefusedError):
                    return
            await asyncio.sleep(0.01)


async def test_bytes_pass_in_both_directions_with_half_closed_connections(api: Any) -> None:
    port, node_port = free_port(), free_port()
    async with echo("one") as one, proxy_on(api):
        rows = [{"name": "p", "port": port, "nodePort": node_port}]
        await api.put(SERVICES, service(port, type="NodePort", ports=rows))
        await api.put(SLICES, endpoints(one))
        await eventually(VIP, port, b"one:hello")
        assert await ask("127.0.0.1", node_port) == b"one:hello"
        large = bytes(range(256)) * 20_000
        assert await ask(VIP, port, large) == b"one:" + large


async def test_a_service_without_endpoints_refuses_and_endpoints_may_be_replaced(api: Any) -> None:
    port = free_port()
    async with echo("one") as one, echo("two") as two, proxy_on(api):
        await api.put(SERVICES, service(port))
        await api.put(SLICES, endpoints(one))
        await eventually(VIP, port, b"one:hello")
        await api.put(SLICES, endpoints(two))
        await eventually(VIP, port, b"two:hello")
        await api.put(SLICES, endpoints())
        await eventually(VIP, port, b"refused")


async def test_an_endpoint_that_refuses_is_passed_over(api: Any) -> None:
    port, dead = free_port(), free_port()
    async with echo("one") as one, proxy_on(api):
        await api.put(SERVICES, service(port))
        await api.put(SLICES, endpoints(dead, one))
        await eventually(VIP, port, b"one:hello")
        assert {await ask(VIP, port) for _ in range(6)} == {b"one:hello"}


async def test_datagrams_find_their_way_and_back(api: Any) -> None:
    port = free_port()

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.transport.sendto(b"echo:" + data, addr)

    loop = asyncio.get_running_loop()
    server, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    async with proxy_on(api):
        await api.put(SERVICES, service(port, "UDP"))
        await api.put(SLICES, endpoints(server.get_extra_info("sockname")[1], protocol="UDP"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect((VIP, port))

            async def talk() -> bytes:
                while True:
                    try:
                        sock.send(b"hi")
                        async with asyncio.timeout(0.2):
                            return await loop.sock_recv(sock, 100)
                    except (TimeoutError, ConnectionRefusedError):
                        await asyncio.sleep(0.01)

            async with asyncio.timeout(5):
                assert await talk() == b"echo:hi"
    server.close()


async def test_what_cannot_be_listened_on_is_told_once(api: Any) -> None:
    with socket.socket() as taken:
        taken.bind((VIP, 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with proxy_on(api) as proxy:
            await api.put(SERVICES, service(port))
            await api.put(SLICES, endpoints(1))
            await api.until(lambda: api.objects.get(EVENTS))
            await api.put(SLICES, endpoints(2))
            await asyncio.wait_for(proxy.synced.wait(), 5)
            sentence = f"service default/web: cannot listen on {VIP}:{port}/TCP: another process has it"
            assert proxy.problems == (sentence,)
            assert [row["message"] for row in api.objects[EVENTS].values()] == [sentence]
            assert [row["count"] for row in api.objects[EVENTS].values()] == [1]


def test_without_rights_the_choice_falls_on_userspace_and_says_why(api_factory: Any) -> None:
    if os.geteuid() != 0:
        pytest.skip("dropping rights needs root")
    pid = os.fork()
    if pid == 0:
        code = 2

        async def choose() -> int:
            proxy = Proxy(api_factory().client(), node_name="n", now=lambda: 1.8e9, rng=random.Random(0))
            await proxy.start()
            await proxy.stop()
            return 0 if proxy.mode == "userspace" and "userspace proxy: " in proxy.reduced[0] else 1

        try:
            os.setuid(65534)
            code = asyncio.run(choose())
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
