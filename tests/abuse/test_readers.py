"""Clients that do not read what they asked for: lists, watches, logs, terminals."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable
from urllib.parse import quote

import orjson
from tests.abuse.conftest import MAPS, Abuse
from tests.abuse.victim import MIB, Victim
from tests.abuse.wire import Wire, wires
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, Ping

from steersman.runtime.spdy import SYN_STREAM, SpdyCodec

POD = "/api/v1/namespaces/default/pods/pod"
#: an object's size in the tests of lists and watches
FILLING = "x" * 200_000


def get(target: str, *headers: str) -> bytes:
    return "".join(f"{row}\r\n" for row in (f"GET {target} HTTP/1.1", "host: x", *headers, "")).encode()


def upgrade(target: str, *headers: str) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    return get(
        target, "connection: Upgrade", "upgrade: websocket", "sec-websocket-version: 13", f"sec-websocket-key: {key}",
        *headers,
    )  # fmt: skip


async def until(victim: Victim, holds: Callable[[dict[str, int]], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds(await victim.counts()):  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(0.05)


async def switched(wire: Wire, request: bytes) -> Wire:
    await wire.send(request)
    async with asyncio.timeout(20):
        status, _ = await wire.head()
    assert status == 101
    return wire


async def test_lists_that_nobody_reads_are_not_held(victim: Victim, abuse: Abuse) -> None:
    """60 clients ask for 8 MB each and read nothing; the server holds 24 MiB for such readers."""
    async with wires(victim.port, victim.tls("admin")) as (admin,):
        for number in range(40):
            body = {"metadata": {"name": f"large-{number}", "labels": {"large": "1"}}, "data": {"a": FILLING}}
            assert (await admin.call("POST", MAPS, body))[0] == 201
        async with abuse(growth_mib=150), wires(victim.port, victim.tls("mallory"), 60, deaf=True) as deaf:
            await asyncio.gather(*(wire.send(get(f"{MAPS}?labelSelector=large")) for wire in deaf))
            await until(victim, lambda counts: counts["connections"] <= 3)
        status, _, answer = await admin.call("DELETE", f"{MAPS}?labelSelector=large")
        assert status == 200, answer


async def test_watches_that_nobody_reads_end_and_the_others_see_everything(victim: Victim, abuse: Abuse) -> None:
    """60 deaf watches, each of a selection of its own, while 32 MB of changes go by."""

    async def seen(wire: Wire) -> None:
        """Returns when every writer's last change was seen."""
        await wire.send(get(f"{MAPS}?watch=1&labelSelector=busy"))
        wanted = {f'"n":"{writer}-{changes - 1}"'.encode() for writer in range(writers)}
        async with asyncio.timeout(60):
            await wire.head()
            while wanted:
                size = int(await wire.reader.readuntil(b"\r\n"), 16)
                piece = await wire.reader.readexactly(size + 2)
                wanted -= {mark for mark in wanted if mark in piece}

    async def write(wire: Wire, writer: int) -> None:
        for number in range(changes):
            change = {"data": {"a": FILLING, "n": f"{writer}-{number}"}}
            status, _, answer = await wire.call(
                "PATCH", f"{MAPS}/busy-{writer}", change, content_type="application/merge-patch+json"
            )
            assert status == 200, answer

    writers, changes = 4, 40
    async with (
        wires(victim.port, victim.tls("admin"), writers, limit=8 * MIB) as admins,
        wires(victim.port, victim.tls("jane"), limit=8 * MIB) as (attentive,),
    ):
        for writer, admin in enumerate(admins):
            body = {"metadata": {"name": f"busy-{writer}", "labels": {"busy": "1"}}}
            assert (await admin.call("POST", MAPS, body))[0] == 201
        seeing = asyncio.create_task(seen(attentive))
        async with abuse(growth_mib=320), wires(victim.port, victim.tls("mallory"), 60, deaf=True) as deaf:
            for number, wire in enumerate(deaf):
                await wire.send(get(f"{MAPS}?watch=1&labelSelector={quote(f'a!=b{number}')}"))
            await until(victim, lambda counts: counts["watches"] == 61)
            await asyncio.gather(*(write(admin, writer) for writer, admin in enumerate(admins)))
            await until(victim, lambda counts: counts["watches"] <= 1)
            await seeing
            attentive.close()
        assert (await admins[0].call("DELETE", f"{MAPS}?labelSelector=busy"))[0] == 200


async def test_logs_and_terminals_that_nobody_reads_end(victim: Victim, abuse: Abuse) -> None:
    async with abuse(growth_mib=80), wires(victim.port, victim.tls("mallory"), 30, deaf=True) as deaf:
        for number, wire in enumerate(deaf):
            if number % 2:
                await wire.send(get(f"{POD}/log?follow=true"))
            else:
                await wire.send(
                    upgrade(f"{POD}/exec?command=yes&stdout=1", "sec-websocket-protocol: v5.channel.k8s.io")
                )
        await until(victim, lambda counts: counts["connections"] <= 2)


def frames(*, kind: int, payload: bytes = b"", fin: bool = True) -> bytes:
    """A masked client's frame."""
    assert len(payload) < 126
    return bytes((kind | (0x80 if fin else 0), 0x80 | len(payload))) + b"\0\0\0\0" + payload


#: id: (query, subprotocol, what is sent after the handshake, again and again)
FLOODS = {
    "pings": ("exec?command=cat&stdin=1", "v5.channel.k8s.io", frames(kind=9, payload=b"p") * 5000),
    "empty fragments": (
        "exec?command=cat&stdin=1", "v5.channel.k8s.io",
        frames(kind=2, fin=False) + frames(kind=0, fin=False) * 10_000,
    ),
    "tiny messages": ("exec?command=cat&stdin=1", "v5.channel.k8s.io", frames(kind=2, payload=b"\0a") * 5000),
    "a message without end": (
        "exec?command=cat&stdin=1", "v5.channel.k8s.io",
        b"\x02\xff" + (64 * MIB).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * MIB,
    ),
    "bytes for a port that reads nothing": (
        "portforward?ports=80&ports=81", "v4.channel.k8s.io",
        (b"\x82\xff" + MIB.to_bytes(8, "big") + b"\0\0\0\0" + b"\0" + b"x" * (MIB - 1)),
    ),
}  # fmt: skip


async def test_floods_of_websocket_frames_are_held_back_or_cut_off(victim: Victim, abuse: Abuse) -> None:
    async def push(query: str, protocol: str, flood: bytes) -> None:
        async with wires(victim.port, victim.tls("mallory")) as (wire,):
            await switched(wire, upgrade(f"{POD}/{query}", f"sec-websocket-protocol: {protocol}"))
            wire.writer.transport.pause_reading()
            for _ in range(12):
                sending = asyncio.create_task(wire.send(flood))
                await asyncio.wait({sending}, timeout=0.5)
                if not sending.done():
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)
                    return

    for query, protocol, flood in FLOODS.values():
        async with abuse(growth_mib=120):
            await asyncio.gather(*(push(query, protocol, flood) for _ in range(6)))


async def test_floods_of_spdy_frames_are_held_back_or_cut_off(victim: Victim, abuse: Abuse) -> None:
    """Inflated headers, more streams than there may be, pings, and bytes for ports that read nothing."""

    async def push(flood: list[bytes]) -> None:
        async with wires(victim.port, victim.tls("mallory")) as (wire,):
            request = get(
                f"{POD}/portforward?ports=80", "connection: Upgrade", "upgrade: SPDY/3.1",
                "x-stream-protocol-version: portforward.k8s.io",
            ).replace(b"GET", b"POST", 1)  # fmt: skip
            await switched(wire, request)
            wire.writer.transport.pause_reading()
            for piece in flood:
                sending = asyncio.create_task(wire.send(piece))
                await asyncio.wait({sending}, timeout=0.5)
                if not sending.done():
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)
                    return

    def bombs() -> list[bytes]:
        codec = SpdyCodec()
        return [
            codec.syn_stream(1 + 2 * n, {"streamtype": "data", "port": "80", "x": "a" * 4_000_000}) for n in range(5)
        ]

    def streams() -> list[bytes]:
        codec, found = SpdyCodec(), []
        for number in range(400):
            row = {"port": "80", "requestid": str(number)}
            found.append(codec.syn_stream(1 + 4 * number, {"streamtype": "error", **row}))
            found.append(codec.syn_stream(3 + 4 * number, {"streamtype": "data", **row}))
            found.append(codec.data(3 + 4 * number, b"x" * 250_000))
        return [b"".join(found[at : at + 60]) for at in range(0, len(found), 60)]

    assert SYN_STREAM == 1
    for flood in (
        bombs(),
        streams(),
        [SpdyCodec().ping(b"\0\0\0\1") * 20_000] * 10,
        [SpdyCodec().data(1, b"") * 50_000] * 5,
    ):
        async with abuse(growth_mib=110):
            await asyncio.gather(*(push(flood) for _ in range(3)))


async def test_a_terminal_that_behaves_goes_on_through_pings_and_fragments(victim: Victim) -> None:
    async with wires(victim.port, victim.tls("jane")) as (wire,):
        await switched(wire, upgrade(f"{POD}/exec?command=yes&stdout=1", "sec-websocket-protocol: v5.channel.k8s.io"))
        client = Connection(ConnectionType.CLIENT)
        await wire.send(
            client.send(Ping(payload=b"here")) + client.send(BytesMessage(data=b"\0a", message_finished=False))
        )
        found = 0
        async with asyncio.timeout(20):
            while found < 10:
                client.receive_data(await wire.reader.read(1 << 16))
                for event in client.events():
                    found += type(event).__name__ in ("Pong", "BytesMessage")
    assert orjson.dumps(found)
