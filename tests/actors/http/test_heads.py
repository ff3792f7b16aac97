"""Heads of answers from servers that mean no good: pods behind the proxy, webhooks, issuers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from steersman.actors.http.client import ConnectionFailed, HttpTransport
from steersman.actors.http.messages import Request
from steersman.actors.http.passing import pass_on
from steersman.actors.http.wires import connect
from steersman.cluster.meta.errors import ServiceUnavailable

HEAD = b"HTTP/1.1 200 OK\r\n"
REPEATED = HEAD + b"a: b\r\n" * 170_000 + b"content-length: 0\r\n\r\n"
ENDLESS = HEAD + b"a: " + b"x" * 2_000_000


@asynccontextmanager
async def answering(data: bytes) -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_header_that_comes_again_and_again_is_joined_once() -> None:
    async with answering(REPEATED) as port:
        began = time.process_time()
        response = await pass_on(await connect("127.0.0.1", port, 5.0, None), "GET", "/", {}, b"", timeout_s=20)
        assert response.headers["a"].count("b") == 170_000
        transport = HttpTransport([f"http://127.0.0.1:{port}"])
        response = await transport(Request("GET", "/"))
        assert response.headers["a"].count("b") == 170_000
        await transport.close()
        assert time.process_time() - began < 2.0  # joined one by one: 6 s


async def test_a_head_without_end_is_read_no_further() -> None:
    async with answering(ENDLESS) as port:
        with pytest.raises(ConnectionError, match="exceeded 1048576 bytes"):
            await pass_on(await connect("127.0.0.1", port, 5.0, None), "GET", "/", {}, b"", timeout_s=20)
        transport = HttpTransport([f"http://127.0.0.1:{port}"])
        with pytest.raises(ServiceUnavailable, match="longer than 1048576 bytes"):
            await transport(Request("GET", "/"))
        await transport.close()


OK = HEAD + b"content-length: 2\r\n\r\nok"
EARLY = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
UNASKED = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 4\r\n\r\nlate"


@asynccontextmanager
async def saying(*answers: tuple[bytes, bytes]) -> AsyncIterator[tuple[int, list[int]]]:
    """A server that says of each request the answer, and what follows it unasked; and which connection each came on."""
    came: list[int] = []
    left = iter(answers)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                came.append(id(writer))
                answer, more = next(left)
                writer.write(answer)
                await writer.drain()
                writer.write(more)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], came


@pytest.mark.parametrize("early", [EARLY, b"HTTP/1.1 100 Continue\r\n\r\n", EARLY + EARLY])
async def test_what_only_announces_an_answer_is_none(early: bytes) -> None:
    async with saying((early + OK, b""), (early, OK), (OK, b"")) as (port, came):
        transport = HttpTransport([f"http://127.0.0.1:{port}"])
        for _ in range(3):
            response = await transport(Request("POST", "/"))
            assert (response.status, response.headers, response.body) == (200, {"content-length": "2"}, b"ok")
        assert len(set(came)) == 1
        await transport.close()


ODD = {
    "a switch of protocols unasked": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nxx",
    "a status that is none": b"HTTP/1.1 099 X\r\ncontent-length: 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
}


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD)
async def test_what_is_no_answer_is_a_lost_connection(answer: bytes) -> None:
    async with saying((answer, b"")) as (port, _):
        transport = HttpTransport([f"http://127.0.0.1:{port}"], response_timeout_s=5)
        with pytest.raises(ConnectionFailed, match="was lost"):
            await transport(Request("POST", "/"))
        await transport.close()
    async with answering(answer) as port:
        with pytest.raises(ConnectionError):
            await pass_on(await connect("127.0.0.1", port, 5.0, None), "GET", "/", {}, b"", timeout_s=5)


async def test_trailers_and_what_concerns_one_connection_do_not_come_into_headers() -> None:
    head = HEAD + b"connection: x-mine\r\nx-mine: 1\r\ntransfer-encoding: chunked\r\ntrailer: x-late\r\n\r\n"
    answer = head + b"2\r\nok\r\n0\r\nx-late: 1\r\nset-cookie: a=b\r\n\r\n"
    async with answering(answer) as port:
        response = await pass_on(await connect("127.0.0.1", port, 5.0, None), "GET", "/", {}, b"", timeout_s=5)
        assert response.headers == {}
        transport = HttpTransport([f"http://127.0.0.1:{port}"])
        response = await transport(Request("GET", "/"))
        assert b"".join([piece async for piece in response.body]) == b"ok"  # type: ignore[union-attr]
        assert {"x-late", "set-cookie"}.isdisjoint(response.headers)
        await transport.close()


@pytest.mark.parametrize(("answer", "more"), [(OK + UNASKED, b""), (OK, UNASKED), (OK + b"HTTP/1.", b"")])
async def test_an_answer_that_nobody_has_asked_for_is_nobodys(answer: bytes, more: bytes) -> None:
    async with saying((answer, more), (OK, b"")) as (port, came):
        transport = HttpTransport([f"http://127.0.0.1:{port}"])
        assert (await transport(Request("POST", "/"))).body == b"ok"
        async with asyncio.timeout(5):
            while any(connection.alive for connection in transport._idle):  # noqa: ASYNC110 it is no event
                await asyncio.sleep(0)
        response = await transport(Request("POST", "/"))
        assert (response.status, response.body) == (200, b"ok") and len(set(came)) == 2
        await transport.close()
