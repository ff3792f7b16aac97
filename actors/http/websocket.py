"""WebSocket sessions of exec, attach and port-forward: messages whose first byte is a channel.

`v5.channel.k8s.io` and `v4.channel.k8s.io` carry exec and attach; port-forward is either `v4.channel.k8s.io` (two
channels a port, each opening with the port in two bytes, little-endian) or SPDY/3.1 tunnelled in binary messages.

Source: RFC 6455; k8s.io/apimachinery/pkg/util/remotecommand; KEP-4006.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import struct
from collections.abc import Mapping

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from steersman.actors.http.feed import Feed
from steersman.actors.http.messages import ByteStream, Upgrade
from steersman.actors.http.spdy import PIECES_MAX, choose_protocol, pieces, serve_port_forward
from steersman.actors.ports import Channel, Frame
from steersman.cluster.meta.errors import ApiError

EXEC_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io")
SPDY_TUNNEL = "SPDY/3.1+portforward.k8s.io"
PORT_PROTOCOLS = (SPDY_TUNNEL, "v4.channel.k8s.io", "portforward.k8s.io")
#: begins the subprotocol in which a browser sends its token
TOKEN_PROTOCOL = "base64url.bearer.authorization.k8s.io."
#: one message may not hold more than this
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
#: frames that are read before others have their turn: they can be as small as two bytes
EVENTS_A_TURN = 128

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_key(key: str) -> str:
    """The answer to a `Sec-WebSocket-Key` (RFC 6455, section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


class WebSocket:
    """A server's end of an open WebSocket: whole binary messages, pings answered."""

    def __init__(self, pipe: ByteStream) -> None:
        self._pipe = pipe
        self._connection = Connection(ConnectionType.SERVER)
        self._message = bytearray()
        self._events = 0
        self._ended = False

    async def read(self) -> bytes:
        """Returns the next message that is not empty; empty when the client has closed."""
        while not self._ended:
            try:
                event = next(self._connection.events(), None)
            except RemoteProtocolError:
                break
            if event is None:
                self._connection.receive_data(await self._pipe.read() or None)
                continue
            self._events += 1
            if not self._events % EVENTS_A_TURN:
                await asyncio.sleep(0)
            if message := await self._take(event):
                return message
        self._ended = True
        return b""

    async def _take(self, event: Event) -> bytes:
        """Returns the message that an event completes; empty when it completes none."""
        match event:
            case BytesMessage() | TextMessage():
                self._message += event.data.encode() if isinstance(event.data, str) else event.data
                if len(self._message) > MESSAGE_BYTES_MAX:
                    await self.close(1009)
                    self._ended = True
                elif event.message_finished:
                    message, self._message = bytes(self._message), bytearray()
                    return message
            case Ping():
                await self._pipe.write(self._connection.send(event.response()))
            case CloseConnection():
                self._ended = True
                await self.close(1000)
        return b""

    async def write(self, data: bytes | str) -> None:
        """Sends one message, of binary or text; drops it once either side has closed."""
        if self._connection.state is ConnectionState.OPEN:
            message = BytesMessage(data=data) if isinstance(data, bytes) else TextMessage(data=data)
            await self._pipe.write(self._connection.send(message))

    async def close(self, code: int) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, LocalProtocolError):
            if self._connection.state in (ConnectionState.REMOTE_CLOSING, ConnectionState.OPEN):
                await self._pipe.write(self._connection.send(CloseConnection(code=code)))


async def serve_websocket(pipe: ByteStream, headers: Mapping[str, str], upgrade: Upgrade) -> None:
    """Answers a WebSocket handshake and holds the conversation until either side ends it."""
    key, offered = headers.get("sec-websocket-key", ""), headers.get("sec-websocket-protocol", "")
    if upgrade.lines is not None:
        protocol, is_agreed = _first_protocol(offered), True
    else:
        protocol = choose_protocol(offered, PORT_PROTOCOLS if upgrade.port_forward else EXEC_PROTOCOLS)
        is_agreed = bool(protocol) or not offered
    if not key or headers.get("sec-websocket-version", "13") != "13" or not is_agreed:
        text = b"unable to upgrade: unsupported WebSocket version or subprotocol\n"
        await pipe.write(
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(text) + text
        )
        return
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    lines.append(f"Sec-WebSocket-Accept: {accept_key(key)}")
    if protocol:
        lines.append(f"Sec-WebSocket-Protocol: {protocol}")
    await pipe.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    socket = WebSocket(pipe)
    try:
        if upgrade.lines is not None:
            await _serve_lines(socket, upgrade.lines)
        elif not upgrade.port_forward:
            await _serve_exec(socket, upgrade)
        elif protocol == SPDY_TUNNEL:
            await serve_port_forward(socket, upgrade)
        else:
            await _serve_ports(socket, upgrade)
    finally:
        await socket.close(1000)


def _first_protocol(offered: str) -> str:
    """The subprotocol of a conversation that needs none; what carries a token is none."""
    names = [name.strip() for name in offered.split(",")]
    return next((name for name in names if name and not name.startswith(TOKEN_PROTOCOL)), "")


async def _serve_lines(socket: WebSocket, feed: Feed) -> None:
    """Sends each line as a text message; what the client says means nothing until it closes."""
    reader = asyncio.create_task(_ignore(socket))
    reader.add_done_callback(lambda _: feed.end())
    try:
        async for piece in feed:
            for line in piece.splitlines(keepends=True):
                await socket.write(line.decode())
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


async def _ignore(socket: WebSocket) -> None:
    while await socket.read():
        pass


class _SocketChannel:
    """The conversation of exec and attach over a WebSocket; a `ports.Channel`."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def send(self, frame: Frame) -> None:
        await self._socket.write(bytes((frame.channel,)) + frame.data)

    async def receive(self) -> Frame | None:
        message = await self._socket.read()
        return Frame(message[0], message[1:]) if message else None

    async def close(self) -> None:
        await self._socket.close(1000)


async def _serve_exec(socket: WebSocket, upgrade: Upgrade) -> None:
    assert upgrade.run is not None
    await upgrade.run(_SocketChannel(socket))


async def _serve_ports(socket: WebSocket, upgrade: Upgrade) -> None:
    """Two channels a port: 2n carries data both ways, 2n+1 errors to the client."""
    queues: list[asyncio.Queue[bytes | None]] = [asyncio.Queue(PIECES_MAX) for _ in upgrade.ports]
    for index, port in enumerate(upgrade.ports):
        for channel in (2 * index, 2 * index + 1):
            await socket.write(bytes((channel,)) + struct.pack("<H", port))
    everything = asyncio.create_task(_serve_all(socket, upgrade, queues))
    reader = asyncio.create_task(_read_ports(socket, queues))
    try:
        await asyncio.wait({reader, everything}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (reader, everything):
            task.cancel()
        await asyncio.gather(reader, everything, return_exceptions=True)


async def _serve_all(socket: WebSocket, upgrade: Upgrade, queues: list[asyncio.Queue[bytes | None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for index, port in enumerate(upgrade.ports):
            group.create_task(_serve_port(socket, upgrade, index, port, queues[index]))


async def _read_ports(socket: WebSocket, queues: list[asyncio.Queue[bytes | None]]) -> None:
    while message := await socket.read():
        index, odd = divmod(message[0], 2)
        if not odd and index < len(queues):
            for piece in pieces(message[1:]):
                await queues[index].put(piece)


async def _serve_port(
    socket: WebSocket, upgrade: Upgrade, index: int, port: int, inbound: asyncio.Queue[bytes | None]
) -> None:
    assert upgrade.open_port is not None
    try:
        channel = await upgrade.open_port(port)
    except ApiError as refusal:  # it names the port
        await socket.write(bytes((2 * index + 1,)) + refusal.message.encode())
        return
    except OSError as failure:
        await socket.write(bytes((2 * index + 1,)) + f"error forwarding port {port} to pod: {failure}".encode())
        return
    sender = asyncio.create_task(_copy_up(channel, inbound))
    try:
        while (frame := await channel.receive()) is not None:
            if frame.channel == 1 and frame.data:
                await socket.write(bytes((2 * index,)) + frame.data)
    finally:
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
        await channel.close()


async def _copy_up(channel: Channel, inbound: asyncio.Queue[bytes | None]) -> None:
    while (data := await inbound.get()) is not None:
        await channel.send(Frame(0, data))
