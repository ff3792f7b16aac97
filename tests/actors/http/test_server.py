"""The HTTP server against raw sockets: framing, order, bounds, timeouts and stopping."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import orjson
import pytest

from steersman.actors.http.feed import Feed, Pieces
from steersman.actors.http.limits import HttpLimits
from steersman.actors.http.messages import Request, Response
from steersman.actors.http.server import HttpServer

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(request: Request) -> Response:
    body = orjson.dumps([request.method, request.target, len(request.body), request.headers.get("x-a", "")])
    return Response(200, {"content-type": "application/json"}, body)


@asynccontextmanager
async def serving(
    handler: Callable[[Request], Awaitable[Response]] = echo,
    *,
    limits: HttpLimits | None = None,
    uploads: Callable[[str, str], bool] | None = None,
) -> AsyncIterator[HttpServer]:
    server = HttpServer(handler, host="127.0.0.1", port=0, limits=limits, uploads=uploads)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def connected(server: HttpServer) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Reads one response with a Content-Length or chunks."""
    async with asyncio.timeout(5):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status = int(head.split(" ", 2)[1])
        lines = [line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line]
        headers = {key.lower(): value for key, value in lines}
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += await reader.readexactly(size)
                await reader.readexactly(2)
            await reader.readexactly(2)
            return status, headers, body
        return status, headers, await reader.readexactly(int(headers.get("content-length", 0)))


async def test_requests_on_one_connection_are_answered_in_order() -> None:
    async def slow_first(request: Request) -> Response:
        if request.target == "/1":
            await asyncio.sleep(0.02)
        return await echo(request)

    async with serving(slow_first) as server, connected(server) as (reader, writer):
        writer.write(b"".join(b"GET /%d HTTP/1.1\r\nhost: x\r\nX-A: 1\r\nx-a: 2\r\n\r\n" % n for n in (1, 2, 3)))
        rows = [orjson.loads((await answer(reader))[2]) for _ in range(3)]
    assert rows == [["GET", f"/{n}", 0, "1, 2"] for n in (1, 2, 3)]


async def test_more_pipelined_requests_than_are_held_are_all_answered() -> None:
    async with serving(limits=HttpLimits(pipelined_max=2)) as server, connected(server) as (reader, writer):
        for n in range(20):
            writer.write(b"GET /%d HTTP/1.1\r\nhost: x\r\n\r\n" % n)
            await asyncio.sleep(0)
        assert [orjson.loads((await answer(reader))[2])[1] for _ in range(20)] == [f"/{n}" for n in range(20)]


async def test_bodies_come_by_length_and_in_chunks() -> None:
    async with serving() as server, connected(server) as (reader, writer):
        writer.write(b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello")
        assert orjson.loads((await answer(reader))[2])[2] == 5
        writer.write(
            b"POST /b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
        )
        assert orjson.loads((await answer(reader))[2])[2] == 7


async def test_a_client_that_expects_continue_is_told_to() -> None:
    async with serving() as server, connected(server) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 Continue")
        writer.write(b"ok")
        assert (await answer(reader))[0] == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"NONSENSE\r\n\r\n", 400, id="no HTTP"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, id="HTTP/2 preface"),
        pytest.param(b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n", 400, id="length is no number"),
        pytest.param(b"POST / HTTP/1.1\r\ncontent-length: 2000\r\n\r\n", 413, id="declared too large"),
        pytest.param(
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n7d0\r\n" + b"x" * 2000,
            413,
            id="chunks too large",
        ),
        pytest.param(b"GET / HTTP/1.1\r\nx: " + b"y" * 3000, 431, id="header too large"),
        pytest.param(
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400, id="chunk size is no number"
        ),
    ],
)
async def test_what_cannot_be_read_is_refused_with_a_status_and_the_connection_closes(sent: bytes, status: int) -> None:
    limits = HttpLimits(header_bytes_max=2048, body_bytes_max=1000)
    async with serving(limits=limits) as server, connected(server) as (reader, writer):
        writer.write(sent)
        code, headers, body = await answer(reader)
        assert (code, headers["connection"], orjson.loads(body)["kind"]) == (status, "close", "Status")
        assert await reader.read() == b""


async def test_a_handler_that_fails_gives_a_500_and_the_server_lives(caplog: pytest.LogCaptureFixture) -> None:
    async def failing(request: Request) -> Response:
        if request.target == "/bad":
            raise ZeroDivisionError
        return await echo(request)

    async with serving(failing) as server:
        async with connected(server) as (reader, writer):
            writer.write(b"GET /bad HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await answer(reader))[0] == 500
        async with connected(server) as (reader, writer):
            writer.write(b"GET /good HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await answer(reader))[0] == 200
    assert "ZeroDivisionError" in caplog.text


async def test_streams_are_chunked_and_the_connection_goes_on() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for n in range(3):
            yield b"piece %d\n" % n

    async def stream(_request: Request) -> Response:
        return Response(200, {}, pieces())

    async with serving(stream) as server, connected(server) as (reader, writer):
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await answer(reader))[2] == b"piece 0\npiece 1\npiece 2\n"


async def test_a_stream_ends_when_its_client_leaves() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def stream(_request: Request) -> Response:
        return Response(200, {}, endless())

    async with serving(stream) as server:
        async with connected(server) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await reader.readuntil(b"first")
        async with asyncio.timeout(5):
            await closed.wait()


async def test_a_reader_that_takes_nothing_is_cut_off() -> None:
    closed = asyncio.Event()

    async def flood() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
        finally:
            closed.set()

    async def stream(_request: Request) -> Response:
        return Response(200, {}, flood())

    async with serving(stream, limits=HttpLimits(write_timeout_s=0.1)) as server, connected(server) as (_, writer):
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        async with asyncio.timeout(5):
            await closed.wait()


async def test_slow_headers_and_idle_connections_are_closed() -> None:
    limits = HttpLimits(header_timeout_s=0.05, idle_timeout_s=0.05)
    async with serving(limits=limits) as server, connected(server) as slow, connected(server) as idle:
        slow[1].write(b"GET / HT")
        assert (await answer(slow[0]))[0] == 408
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionResetError):
                assert await idle[0].read() == b""
                raise ConnectionResetError


async def test_large_answers_are_compressed_for_those_who_take_it() -> None:
    async def large(_request: Request) -> Response:
        return Response(200, {"content-type": "application/json"}, b"z" * 1000)

    async with serving(large, limits=HttpLimits(gzip_bytes_min=500)) as server, connected(server) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\naccept-encoding: gzip\r\n\r\n")
        _, headers, body = await answer(reader)
        assert headers["content-encoding"] == "gzip" and gzip.decompress(body) == b"z" * 1000
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert len((await answer(reader))[2]) == 1000
        for encodings, packed in (("br, gzip", True), ("gzip;q=0", False), ("x-gzip", False)):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\naccept-encoding: %b\r\n\r\n" % encodings.encode())
            assert ("content-encoding" in (await answer(reader))[1]) is packed, encodings


async def test_a_long_answer_is_compressed_piece_by_piece_and_a_watch_is_not() -> None:
    async def answered(request: Request) -> Response:
        pieces = (b"%d" % n * 1000 for n in range(10))
        if request.target == "/":
            return Response(200, {"vary": "Accept"}, Pieces(pieces))
        watch = Feed(pieces, lambda: None, waiting_max=0)
        watch.end()
        return Response(200, {}, watch)

    async with serving(answered) as server, connected(server) as (reader, writer):
        for target in (b"/", b"/watch"):
            writer.write(b"GET %b HTTP/1.1\r\nhost: x\r\naccept-encoding: gzip\r\n\r\n" % target)
            _, headers, body = await answer(reader)
            if target == b"/":
                assert headers["content-encoding"] == "gzip" and headers["vary"] == "Accept, Accept-Encoding"
                assert len(body) < 500
                body = gzip.decompress(body)
            assert ("content-encoding" in headers) is (target == b"/")
            assert body == b"".join(b"%d" % n * 1000 for n in range(10))


async def test_an_upload_is_handed_over_in_pieces_while_it_comes() -> None:
    async def count(request: Request) -> Response:
        assert request.upload is not None
        size = 0
        async for piece in request.upload:
            size += len(piece)
        return Response(200, {}, str(size).encode())

    async with (
        serving(count, limits=HttpLimits(body_bytes_max=10), uploads=lambda method, target: target == "/up") as server,
        connected(server) as (reader, writer),
    ):
        for _ in range(2):
            writer.write(b"POST /up HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n")
            for _ in range(30):
                writer.write(b"u" * 100_000)
                await writer.drain()
            assert (await answer(reader))[2] == b"3000000"


async def test_an_unknown_upgrade_is_answered_as_a_plain_request() -> None:
    async with serving() as server, connected(server) as (reader, writer):
        for n in range(2):
            writer.write(b"GET /%d HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n" % n)
            assert orjson.loads((await answer(reader))[2])[1] == f"/{n}"


async def test_stopping_lets_a_running_request_finish_and_closes_idle_connections() -> None:
    entered = asyncio.Event()

    async def slow(request: Request) -> Response:
        entered.set()
        await asyncio.sleep(0.05)
        return await echo(request)

    async with serving(slow) as server, connected(server) as busy, connected(server) as idle:
        busy[1].write(b"GET /last HTTP/1.1\r\nhost: x\r\n\r\n")
        await entered.wait()
        stopping = asyncio.create_task(server.stop())
        status, _, body = await answer(busy[0])
        assert (status, orjson.loads(body)[1]) == (200, "/last")
        assert await idle[0].read() == b""
        await stopping
