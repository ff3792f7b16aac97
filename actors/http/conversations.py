"""Conversations of exec, attach and port-forward over a WebSocket, the client's side.

Knows frames and wires, nothing of pods. Source: RFC 6455 and the `v5.channel.k8s.io` and `v4.channel.k8s.io`
subprotocols (https://kubernetes.io/docs/reference/generated/kubernetes-api/, KEP-4006).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import wsproto
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    TextMessage,
)
from wsproto.events import Request as Handshake

from steersman.actors.ports import Frame

#: what exec and attach ask for, the newest first
EXEC_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
#: a port-forward over plain WebSocket: two channels a port
PORT_FORWARD_PROTOCOLS = ("v4.channel.k8s.io",)


class HandshakeRefused(Exception):
    """The server answered the upgrade with an ordinary response."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"the server refused the upgrade with status {status}")
        self.status = status
        self.body = body


class WebSocket:
    """A client's WebSocket over open streams: whole messages in both directions, pings answered."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._wire = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._parts: list[bytes] = []
        self._events: list[Event] = []
        self.subprotocol = ""

    async def open(self, host: str, target: str, headers: dict[str, str], subprotocols: tuple[str, ...]) -> None:
        """Shakes hands.

        Raises:
            HandshakeRefused: with the status and body of the server's answer.
            ConnectionError: the server closed the connection instead.
        """
        extra = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._writer.write(
            self._wire.send(Handshake(host=host, target=target, subprotocols=list(subprotocols), extra_headers=extra))
        )
        await self._writer.drain()
        status, body = 0, b""
        while True:
            event = await self._next_event()
            match event:
                case None:
                    raise ConnectionError("the server closed the connection during the handshake")
                case AcceptConnection():
                    self.subprotocol = event.subprotocol or ""
                    return
                case RejectConnection():
                    status = event.status_code
                    if not event.has_body:
                        raise HandshakeRefused(status, b"")
                case RejectData():
                    body += event.data
                    if event.body_finished:
                        raise HandshakeRefused(status, body)

    async def _next_event(self) -> Event | None:
        while not self._events:
            data = await self._reader.read(65536)
            if not data:
                return None
            self._wire.receive_data(data)
            self._events = list(self._wire.events())
        return self._events.pop(0)

    async def send(self, message: bytes) -> None:
        self._writer.write(self._wire.send(BytesMessage(data=message)))
        await self._writer.drain()

    async def receive(self) -> bytes | None:
        """Returns the next whole message, or None at the end of the conversation."""
        while True:
            try:
                event = await self._next_event()
            except (OSError, wsproto.utilities.RemoteProtocolError):
                return None
            match event:
                case None:
                    return None
                case BytesMessage():
                    self._parts.append(bytes(event.data))
                case TextMessage():
                    self._parts.append(event.data.encode())
                case Ping():
                    self._writer.write(self._wire.send(event.response()))
                    continue
                case CloseConnection():
                    if self._wire.state is wsproto.connection.ConnectionState.REMOTE_CLOSING:
                        self._writer.write(self._wire.send(event.response()))
                    return None
                case _:
                    continue
            if event.message_finished:
                message = b"".join(self._parts)
                self._parts.clear()
                return message

    async def close(self) -> None:
        if self._wire.state is wsproto.connection.ConnectionState.OPEN:
            self._writer.write(self._wire.send(CloseConnection(code=1000)))
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except (OSError, TimeoutError):
            return  # the other side was faster; the connection is gone either way


class ExecChannel:
    """exec and attach over a WebSocket: the first byte of a message is the channel."""

    def __init__(self, socket: WebSocket, on_close: Callable[[], None]) -> None:
        self._socket = socket
        self._on_close = on_close
        self._closed = False

    async def send(self, frame: Frame) -> None:
        if frame.channel == 255 and self._socket.subprotocol != "v5.channel.k8s.io":
            return  # only v5 can close one direction
        await self._socket.send(bytes([frame.channel]) + frame.data)

    async def receive(self) -> Frame | None:
        while True:
            message = await self._socket.receive()
            if message is None:
                return None
            if len(message) > 1:  # the server greets every channel with an empty message
                return Frame(message[0], message[1:])

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._on_close()
            await self._socket.close()


class PortChannel:
    """One forwarded connection over a WebSocket: channel 0 carries data both ways, channel 1 the error."""

    def __init__(self, socket: WebSocket, on_close: Callable[[], None]) -> None:
        self._socket = socket
        self._on_close = on_close
        self._closed = False
        self._greetings = {0, 1}

    async def send(self, frame: Frame) -> None:
        if frame.channel == 0 and frame.data:
            await self._socket.send(b"\0" + frame.data)

    async def receive(self) -> Frame | None:
        while True:
            message = await self._socket.receive()
            if message is None:
                return None
            if not message:
                continue
            channel, data = message[0], message[1:]
            if channel in self._greetings:  # each channel opens with its port number
                self._greetings.discard(channel)
                data = data[2:]
            if data:
                return Frame(1 if channel == 0 else 3, data)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._on_close()
            await self._socket.close()
