"""The cluster's DNS over real sockets."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from steersman.actors.dns import Dns
from steersman.cluster.net.dns.wire import CNAME, NXDOMAIN, REFUSED, SERVFAIL, A, answer_addresses

SERVICES = "/api/v1/namespaces/default/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices"
NODES = "/api/v1/nodes"


def question(name: str, kind: int = A, number: int = 7) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)


@asynccontextmanager
async def dns_on(api: Any, **options: Any) -> AsyncIterator[Dns]:
    options = {"upstream": (), **options}
    dns = Dns(api.client(), bind_host="127.0.0.1", port=0, now=lambda: 1.8e9, rng=random.Random(0), **options)
    await dns.start()
    await asyncio.wait_for(dns.synced(), 5)
    try:
        yield dns
    finally:
        await dns.stop()


async def ask(port: int, name: str, kind: int = A) -> tuple[int, list[Any]]:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(("127.0.0.1", port))
        sock.send(question(name, kind))
        async with asyncio.timeout(6):
            return parsed(await loop.sock_recv(sock, 4096))


def parsed(message: bytes) -> tuple[int, list[Any]]:
    return message[3] & 0xF, [record.value for record in answer_addresses(message)]


async def eventually(port: int, name: str, expected: tuple[int, list[Any]]) -> None:
    async with asyncio.timeout(5):
        while await ask(port, name) != expected:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def ask_by_tcp(port: int, *names: str) -> list[tuple[int, list[Any]]]:
    async with asyncio.timeout(6):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        found = []
        for name in names:
            message = question(name)
            writer.write(struct.pack("!H", len(message)) + message)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            found.append(parsed(await reader.readexactly(length)))
        writer.close()
        return found


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


async def test_a_service_is_found_by_udp_and_tcp_as_soon_as_it_is_known(api: Any) -> None:
    async with dns_on(api) as dns:
        name = "web.default.svc.cluster.local"
        assert await ask(dns.port, name) == (NXDOMAIN, [])
        await api.put(SERVICES, service("web", clusterIP="10.96.0.20"))
        await eventually(dns.port, name, (0, ["10.96.0.20"]))
        assert await ask_by_tcp(dns.port, name, "none.default.svc.cluster.local") == [
            (0, ["10.96.0.20"]),
            (NXDOMAIN, []),
        ]
        await api.remove(SERVICES, "web")
        await eventually(dns.port, name, (NXDOMAIN, []))


async def test_other_names_go_to_the_first_resolver_that_answers(api: Any) -> None:
    async with dns_on(api, cluster_domain="example.com") as elsewhere:
        await api.put(SERVICES, service("web", clusterIP="10.96.0.20"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))  # a port on which nobody answers with a refusal: closed when the block ends
            dead = taken.getsockname()[1]
        upstream = (f"127.0.0.1:{dead}", f"127.0.0.1:{elsewhere.port}")
        async with dns_on(api, upstream=upstream) as dns:
            assert await ask(dns.port, "web.default.svc.example.com") == (0, ["10.96.0.20"])
            assert await ask_by_tcp(dns.port, "web.default.svc.example.com") == [(0, ["10.96.0.20"])]
            alias = service("alias", type="ExternalName", externalName="web.default.svc.example.com")
            await api.put(SERVICES, alias)
            found = (0, ["web.default.svc.example.com", "10.96.0.20"])
            await eventually(dns.port, "alias.default.svc.cluster.local", found)
            assert (await ask(dns.port, "alias.default.svc.cluster.local", CNAME))[1][
                0
            ] == "web.default.svc.example.com"
        async with dns_on(api, upstream=(f"127.0.0.1:{dead}",)) as dns:
            assert await ask(dns.port, "web.default.svc.example.com") == (SERVFAIL, [])


async def test_without_upstream_other_names_are_refused(api: Any) -> None:
    async with dns_on(api) as dns:
        assert await ask(dns.port, "example.com") == (REFUSED, [])


async def test_nonsense_is_answered_or_ignored_and_nothing_breaks(api: Any) -> None:
    async with dns_on(api) as dns:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for data in (b"", b"x", b"\0" * 12, b"\xff" * 60, question("a" * 63 + ".b")[:-3]):
                sock.sendto(data, ("127.0.0.1", dns.port))
        _, writer = await asyncio.open_connection("127.0.0.1", dns.port)
        writer.write(b"\0\x05hello")
        writer.close()
        assert await ask(dns.port, "none.default.svc.cluster.local") == (NXDOMAIN, [])


async def test_it_shows_itself_as_an_endpoint_of_its_node_and_takes_that_back(api: Any) -> None:
    await api.put(NODES, {"metadata": {"name": "n", "uid": "node-uid"}})
    async with dns_on(api, node_name="n") as dns:
        await api.until(lambda: api.objects.get(SLICES))
        (row,) = api.objects[SLICES].values()
        assert row["metadata"]["labels"]["kubernetes.io/service-name"] == "kube-dns"
        assert row["metadata"]["ownerReferences"][0]["uid"] == "node-uid"
        assert row["endpoints"][0]["addresses"] == ["127.0.0.1"]
        assert row["endpoints"][0]["hints"] == {"forNodes": [{"name": "n"}]}
        assert {(port["protocol"], port["port"]) for port in row["ports"]} == {("UDP", dns.port), ("TCP", dns.port)}
    assert not api.objects[SLICES]
