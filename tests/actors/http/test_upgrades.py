"""Exec and port-forward over WebSocket and SPDY, from the client's side of the wire."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from tests.actors.pki import Pki
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong

from steersman.actors.http.messages import Request, Response, Upgrade
from steersman.actors.http.server import HttpServer
from steersman.actors.http.websocket import SPDY_TUNNEL, accept_key
from steersman.actors.ports import Channel, Frame
from steersman.cluster.meta.errors import NotFound
from steersman.runtime.spdy import FLAG_FIN, GOAWAY, PING, RST_STREAM, SYN_REPLY, SpdyCodec, SpdyError, SpdyFrame

SUCCESS = b'{"status":"Success"}'
FAILURE = b'{"status":"Failure","message":"command terminated with exit code 3"}'


class Pair:
    """One end of an in-memory conversation with a port; answers with what it was sent, in capitals."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Frame | None] = asyncio.Queue()
        self.closed = False

    async def send(self, frame: Frame) -> None:
        await self._queue.put(None if frame.channel == 255 else Frame(1, frame.data.upper()))

    async def receive(self) -> Frame | None:
        return await self._queue.get()

    async def close(self) -> None:
        self.closed = True
        await self._queue.put(None)


async def shout(channel: Channel) -> None:
    """A command that prints its input in capitals and ends with the input."""
    while (frame := await channel.receive()) is not None:
        if frame.channel == 255:
            break
        if frame.channel == 4:
            await channel.send(Frame(2, b"resized " + frame.data))
        else:
            await channel.send(Frame(1, frame.data.upper()))
    await channel.send(Frame(3, SUCCESS))


async def fail(channel: Channel) -> None:
    await channel.send(Frame(1, b"out"))
    await channel.send(Frame(3, FAILURE))


async def open_port(port: int) -> Channel:
    if port == 9:
        raise NotFound("nothing listens there")
    return Pair()


def exec_upgrade(run: Callable[[Channel], Awaitable[None]] = shout) -> Callable[[], Upgrade]:
    return lambda: Upgrade(run=run, channels=(1,))


def ports_upgrade(*ports: int) -> Callable[[], Upgrade]:
    return lambda: Upgrade(port_forward=True, ports=ports, open_port=open_port)


@asynccontextmanager
async def serving(upgrade: Callable[[], Upgrade]) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async def handle(request: Request) -> Response:
        assert request.upgrade
        return Response(101, {}, upgrade())

    server = HttpServer(handler=handle, host="127.0.0.1", port=0)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.close()
        await server.stop()


class SocketClient:
    """The client's end of a WebSocket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._connection = Connection(ConnectionType.CLIENT)
        self._ready: list[bytes] = []
        self.pongs = 0
        self.closed = False

    async def handshake(self, protocol: str) -> str:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            "GET /exec HTTP/1.1", "host: x", "connection: Upgrade", "upgrade: websocket", "sec-websocket-version: 13",
            f"sec-websocket-key: {key}", f"sec-websocket-protocol: {protocol}",
        ]  # fmt: skip
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        if " 101 " in head.splitlines()[0]:
            assert accept_key(key) in head
        return head

    def send(self, data: bytes) -> None:
        self._writer.write(self._connection.send(BytesMessage(data=data)))

    def ping(self) -> None:
        self._writer.write(self._connection.send(Ping(payload=b"p")))

    async def receive(self) -> bytes:
        """The next message; empty at the end."""
        parts = b""
        while not self._ready and not self.closed:
            data = await self._reader.read(65536)
            self._connection.receive_data(data or None)
            for event in self._connection.events():
                match event:
                    case BytesMessage():
                        parts += bytes(event.data)
                        if event.message_finished:
                            self._ready.append(parts)
                            parts = b""
                    case CloseConnection():
                        self.closed = True
                    case Pong():
                        self.pongs += 1
        return self._ready.pop(0) if self._ready else b""

    async def read(self) -> bytes:
        return await self.receive()

    async def write(self, data: bytes) -> None:
        self.send(data)


@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io"])
async def test_exec_over_a_websocket_carries_every_channel(protocol: str) -> None:
    async with serving(exec_upgrade()) as streams:
        client = SocketClient(*streams)
        assert f"Sec-WebSocket-Protocol: {protocol}" in await client.handshake(f"other, {protocol}")
        client.send(b"\x00hello")
        assert await client.receive() == b"\x01HELLO"
        client.send(b'\x04{"Width":80}')
        assert await client.receive() == b'\x02resized {"Width":80}'
        client.ping()
        client.send(b"\xff\x00")
        assert await client.receive() == b"\x03" + SUCCESS
        assert await client.receive() == b"" and client.closed and client.pongs == 1


async def test_a_websocket_with_an_unknown_protocol_is_refused() -> None:
    async with serving(exec_upgrade()) as streams:
        assert " 400 " in await SocketClient(*streams).handshake("v99.nobody")


async def test_large_input_and_output_pass_unharmed() -> None:
    async with serving(exec_upgrade()) as streams:
        client = SocketClient(*streams)
        await client.handshake("v5.channel.k8s.io")
        data = b"abc" * 100_000
        client.send(b"\x00" + data)
        assert await client.receive() == b"\x01" + data.upper()


async def test_ports_over_a_websocket_have_two_channels_each() -> None:
    async with serving(ports_upgrade(80, 9)) as streams:
        client = SocketClient(*streams)
        await client.handshake("v4.channel.k8s.io")
        assert [await client.receive() for _ in range(4)] == [
            b"\x00P\x00",
            b"\x01P\x00",
            b"\x02\x09\x00",
            b"\x03\x09\x00",
        ]
        assert await client.receive() == b"\x03nothing listens there"
        client.send(b"\x00get")
        assert await client.receive() == b"\x00GET"


class SpdyClient:
    """The client's end of a SPDY session, over a raw connection or a WebSocket."""

    def __init__(self, read: Callable[[], Awaitable[bytes]], write: Callable[[bytes], Awaitable[None]]) -> None:
        self._read, self._write = read, write
        self.codec = SpdyCodec()
        self._ready: list[SpdyFrame] = []

    async def open(self, stream: int, **headers: str) -> None:
        await self._write(self.codec.syn_stream(stream, headers))
        reply = await self.receive()
        assert (reply.type, reply.stream) == (SYN_REPLY, stream)

    async def send(self, stream: int, data: bytes, *, fin: bool = False) -> None:
        await self._write(self.codec.data(stream, data, fin=fin))

    async def receive(self) -> SpdyFrame:
        while not self._ready:
            data = await self._read()
            assert data, "the server has closed"
            self._ready += self.codec.receive(data)
        return self._ready.pop(0)


async def raw_spdy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, versions: str) -> tuple[SpdyClient, str]:
    lines = ["POST /exec HTTP/1.1", "host: x", "connection: Upgrade", "upgrade: SPDY/3.1"]
    head = "\r\n".join([*lines, f"X-Stream-Protocol-Version: {versions}"]) + "\r\n\r\n"
    writer.write(head.encode())
    answered = (await reader.readuntil(b"\r\n\r\n")).decode()

    async def write(data: bytes) -> None:
        writer.write(data)

    return SpdyClient(lambda: reader.read(65536), write), answered


async def test_exec_over_raw_spdy_has_a_stream_per_channel() -> None:
    async with serving(exec_upgrade()) as streams:
        client, head = await raw_spdy(*streams, "v4.channel.k8s.io, v3.channel.k8s.io")
        assert "101" in head and "X-Stream-Protocol-Version: v4.channel.k8s.io" in head
        for stream, kind in ((1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr"), (9, "resize")):
            await client.open(stream, streamtype=kind)
        await client.send(3, b"hello")
        assert await client.receive() == SpdyFrame(0, 5, 0, b"HELLO")
        await client.send(9, b"{}")
        assert await client.receive() == SpdyFrame(0, 7, 0, b"resized {}")
        await client._write(client.codec.ping(b"\0\0\0\1"))
        assert (await client.receive()).type == PING
        await client.send(3, b"", fin=True)
        assert await client.receive() == SpdyFrame(0, 1, FLAG_FIN, SUCCESS)


async def test_a_terminal_has_its_sizes_stream_before_the_command_begins() -> None:
    terminal = Upgrade(run=fail, channels=(0, 1, 4))
    async with serving(lambda: terminal) as streams:
        client, _ = await raw_spdy(*streams, "v4.channel.k8s.io")
        for stream, kind in ((1, "error"), (3, "stdin"), (5, "stdout"), (7, "resize")):
            await client.open(stream, streamtype=kind)
        assert await client.receive() == SpdyFrame(0, 5, 0, b"out")
        assert await client.receive() == SpdyFrame(0, 1, FLAG_FIN, FAILURE)


async def test_protocols_without_sizes_do_not_wait_for_them() -> None:
    terminal = Upgrade(run=fail, channels=(1, 4))
    async with serving(lambda: terminal) as streams:
        client, _ = await raw_spdy(*streams, "v2.channel.k8s.io")
        for stream, kind in ((1, "error"), (3, "stdout")):
            await client.open(stream, streamtype=kind)
        assert await client.receive() == SpdyFrame(0, 3, 0, b"out")


async def test_a_client_may_write_until_it_closes_the_connection_itself() -> None:
    async with serving(exec_upgrade(fail)) as (reader, writer):
        client, _ = await raw_spdy(reader, writer, "v4.channel.k8s.io")
        for stream, kind in ((1, "error"), (3, "stdout")):
            await client.open(stream, streamtype=kind)
        while (await client.receive()).type != GOAWAY:
            pass
        await client._write(client.codec.ping(b"\0\0\0\1"))
        assert (await client.receive()).type == PING


async def test_old_exec_protocols_get_errors_as_text() -> None:
    async with serving(exec_upgrade(fail)) as streams:
        client, _ = await raw_spdy(*streams, "v2.channel.k8s.io")
        for stream, kind in ((1, "error"), (3, "stdout")):
            await client.open(stream, streamtype=kind)
        assert await client.receive() == SpdyFrame(0, 3, 0, b"out")
        assert await client.receive() == SpdyFrame(0, 1, FLAG_FIN, b"command terminated with exit code 3")


async def test_an_unknown_stream_protocol_is_refused_with_those_known() -> None:
    async with serving(exec_upgrade()) as streams:
        _, head = await raw_spdy(*streams, "v99.nobody")
        assert " 403 " in head and "v4.channel.k8s.io" in head


async def forward(client: SpdyClient) -> None:
    """Two connections to one port at a time, one to a port where nothing listens."""
    for request, base in (("0", 1), ("1", 5)):
        await client.open(base, streamtype="error", port="80", requestid=request)
        await client.open(base + 2, streamtype="data", port="80", requestid=request)
        await client.send(base + 2, b"get " + request.encode())
        assert await client.receive() == SpdyFrame(0, base + 2, 0, b"GET " + request.encode())
    await client.send(3, b"", fin=True)
    ends = [await client.receive() for _ in range(2)]
    assert {(end.stream, end.flags) for end in ends} == {(1, FLAG_FIN), (3, FLAG_FIN)}
    await client.open(9, streamtype="error", port="9", requestid="2")
    await client.open(11, streamtype="data", port="9", requestid="2")
    refused = await client.receive()
    assert refused.stream == 9 and b"nothing listens there" in refused.data


async def test_ports_over_raw_spdy_have_a_pair_of_streams_per_connection() -> None:
    async with serving(ports_upgrade()) as streams:
        client, head = await raw_spdy(*streams, "portforward.k8s.io")
        assert "101" in head
        await forward(client)


async def test_ports_over_spdy_inside_a_websocket() -> None:
    async with serving(ports_upgrade()) as streams:
        socket = SocketClient(*streams)
        assert SPDY_TUNNEL in await socket.handshake(SPDY_TUNNEL)
        await forward(SpdyClient(socket.read, socket.write))


async def test_a_stream_of_no_known_sort_is_reset() -> None:
    async with serving(ports_upgrade()) as streams:
        client, _ = await raw_spdy(*streams, "portforward.k8s.io")
        await client._write(client.codec.syn_stream(1, {"streamtype": "data", "port": "many"}))
        assert (await client.receive()).type == RST_STREAM


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x03\x00\x01\x00\xff\xff\xff", b"\x80\x03\x00\x01\x00\x00\x00\x02xx",
        b"\x80\x03\x00\x01\x00\x00\x00\x0c" + b"x" * 12,
    ],
    ids=["too large", "too short", "no header block"],
)  # fmt: skip
async def test_broken_frames_end_the_session_and_nothing_else(data: bytes) -> None:
    with pytest.raises(SpdyError):
        list(SpdyCodec().receive(data))
    async with serving(ports_upgrade()) as (reader, writer):
        await raw_spdy(reader, writer, "portforward.k8s.io")
        writer.write(data)
        while await reader.read(4096):
            continue


async def test_frames_split_at_every_byte_are_read_alike() -> None:
    sender, whole, split = SpdyCodec(), SpdyCodec(), SpdyCodec()
    data = sender.syn_stream(1, {"streamtype": "data", "port": "80"}) + sender.data(1, b"abc", fin=True)
    frames = list(whole.receive(data))
    assert [frame for byte in data for frame in split.receive(bytes((byte,)))] == frames
    assert frames[0].headers == (("streamtype", "data"), ("port", "80")) and frames[1].data == b"abc"


async def test_a_conversation_over_tls_ends_without_a_complaint(pki: Pki) -> None:
    async def handle(_: Request) -> Response:
        return Response(101, {}, exec_upgrade(fail)())

    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    server = HttpServer(handler=handle, host="127.0.0.1", port=0, tls=pki.server())
    await server.start()
    streams = await asyncio.open_connection("127.0.0.1", server.port, ssl=pki.client())
    client = SocketClient(*streams)
    async with asyncio.timeout(5):
        await client.handshake("v5.channel.k8s.io")
        while not client.closed:
            await client.receive()
        while server.connections:
            assert not any(connection.is_left() for connection in server.connections)
            await asyncio.sleep(0)
    await server.stop()
    assert complaints == []
