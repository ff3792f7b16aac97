"""Clients that hold connections: slow, silent, many, half open, incomplete."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from tests.abuse.conftest import MAPS, Abuse
from tests.abuse.victim import Victim
from tests.abuse.wire import Wire, wires

POST = f"POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n".encode()


async def test_silent_and_half_finished_handshakes_are_cut_off(victim: Victim, abuse: Abuse) -> None:
    async with abuse(growth_mib=30), wires(victim.port, None, 300) as quiet:
        for wire in quiet[::2]:
            await wire.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 40)
        assert all(await asyncio.gather(*(wire.is_cut() for wire in quiet)))


#: what is slow: (how it begins, what is sent again and again)
DRIPS = {
    "request line": (b"GET /", b"a"),
    "headers": (b"GET / HTTP/1.1\r\nhost: x\r\n", b"a: b\r\n"),
    "body": (POST + b"content-length: 1000\r\n\r\n", b" "),
    "chunks": (POST + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
}


async def test_a_request_that_drips_is_answered_408(victim: Victim, abuse: Abuse) -> None:
    async def slow(wire: Wire, begun: bytes, drip: bytes) -> int:
        answer = asyncio.create_task(wire.answer())
        await wire.send(begun)
        while not answer.done():
            await wire.send(drip)
            await asyncio.wait({answer}, timeout=0.2)
        return (await answer)[0]

    async with abuse(growth_mib=30), wires(victim.port, victim.tls("mallory"), 160) as slowly:
        assert len(slowly) == 160
        kinds = itertools.cycle(DRIPS.items())
        answers = [(kind, slow(wire, *drip)) for wire, (kind, drip) in zip(slowly, kinds, strict=False)]
        found = await asyncio.gather(*(answer for _, answer in answers))
        assert {*zip((kind for kind, _ in answers), found, strict=True)} == {(kind, 408) for kind in DRIPS}
        assert all(await asyncio.gather(*(wire.is_cut() for wire in slowly)))


async def test_a_thousand_idle_connections_cost_little(victim: Victim, abuse: Abuse) -> None:
    """Measured: about 30 KiB of the server's memory each."""
    async with abuse(growth_mib=80), wires(victim.port, victim.tls(), 1000) as idle:
        assert len(idle) == 1000
        assert (await victim.counts())["connections"] >= 1000


async def test_connections_that_are_reset_at_once_leave_nothing(victim: Victim, abuse: Abuse) -> None:
    async with abuse(growth_mib=30):
        for number in range(600):
            with socket.create_connection(("127.0.0.1", victim.port)) as sock:
                if number % 2:
                    sock.sendall(b"\x16\x03\x01\x02\x00\x01")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if not number % 50:
                await asyncio.sleep(0)


async def test_a_client_that_ends_its_side_is_let_go(victim: Victim, abuse: Abuse) -> None:
    async with abuse(growth_mib=30), wires(victim.port, None, 100) as half:
        for wire in half:
            wire.writer.write_eof()
        assert all(await asyncio.gather(*(wire.is_cut() for wire in half)))


async def test_of_incomplete_bodies_the_oldest_give_way(victim: Victim, abuse: Abuse) -> None:
    """80 clients announce 3 MB, send 2 MB and stop: 160 MB, of which the server holds 24 MiB."""
    body = POST + b"content-length: 3000000\r\n\r\n" + b"x" * 2_000_000
    async with abuse(growth_mib=130), wires(victim.port, victim.tls("mallory"), 80) as stuck:
        await asyncio.gather(*(asyncio.wait_for(wire.send(body), 20) for wire in stuck))
        answers = await asyncio.gather(*(wire.answer() for wire in stuck), return_exceptions=True)
        statuses = [row[0] for row in answers if isinstance(row, tuple)]
        assert set(statuses) == {408, 429} and statuses.count(429) > 40
        refused = next(row for row in answers if isinstance(row, tuple) and row[0] == 429)
        assert refused[1]["retry-after"] == "1"


async def test_a_flood_of_pipelined_requests_is_held_back(victim: Victim, abuse: Abuse) -> None:
    """A request can be 18 bytes: a megabyte of them is 50,000."""
    flood = b"GET / HTTP/1.1\r\nhost:\r\n\r\n" * 40_000

    async with abuse(growth_mib=80), wires(victim.port, victim.tls("mallory"), 8) as pushy:
        sending = [asyncio.create_task(wire.send(flood)) for wire in pushy]
        for wire in pushy:
            for _ in range(200):
                assert (await wire.answer())[0] == 200
        for wire in pushy:
            wire.close()
        await asyncio.gather(*sending, return_exceptions=True)


@pytest.fixture
def cramped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    found = Victim.start(tmp_path_factory.mktemp("cramped"), descriptors=400)
    yield found
    found.stop()


async def test_the_idlest_connection_goes_when_there_is_no_room(cramped: Victim) -> None:
    tls = cramped.tls("admin")
    async with wires(cramped.port, tls, 300) as many:
        async with wires(cramped.port, tls) as (newest,):
            assert (await newest.call("GET", "/version"))[0] == 200
        assert (await cramped.counts())["connections"] <= 400 - 256
        assert sum(wire.reader.at_eof() or wire.reader.exception() is not None for wire in many) >= 100


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - another process does it
        await asyncio.sleep(0.02)


async def test_accepting_goes_on_after_descriptors_have_run_out(cramped: Victim) -> None:
    sockets = []
    for _ in range(420):
        sockets.append(sock := socket.socket())
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", cramped.port))
    async with asyncio.timeout(20):
        await _until(lambda: len(os.listdir(f"/proc/{cramped.process.pid}/fd")) >= 395)
    for sock in sockets:
        sock.close()
    async with asyncio.timeout(20):
        while True:
            async with wires(cramped.port, cramped.tls("admin")) as opened:
                if opened and (await opened[0].call("GET", "/version"))[0] == 200:
                    return
            await asyncio.sleep(0.05)
