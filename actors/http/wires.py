"""Byte streams to another server: over a socket or through a conversation with a pod, and TLS on top of either."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Protocol

from steersman.actors.ports import Channel, Frame

_READ_BYTES = 1 << 16


class Wire(Protocol):
    """A connection. Every method may raise OSError (ConnectionError, `ssl.SSLError`)."""

    async def read(self) -> bytes:
        """Returns at least one byte; none at the end."""
        ...

    async def write(self, data: bytes) -> None: ...
    async def close(self) -> None: ...


class SocketWire:
    """A TCP connection, perhaps with TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        return await self._reader.read(_READ_BYTES)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.close()


async def connect(
    host: str, port: int, timeout_s: float, tls: ssl.SSLContext | None = None, server_hostname: str = ""
) -> Wire:
    """Opens a connection.

    Raises:
        OSError: it cannot be had; TimeoutError: not in time.
    """
    async with asyncio.timeout(timeout_s):
        name = (server_hostname or host) if tls is not None else None
        return SocketWire(*await asyncio.open_connection(host, port, ssl=tls, server_hostname=name))


class ChannelWire:
    """A connection to a pod's port through its node's agent."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def read(self) -> bytes:
        while (frame := await self._channel.receive()) is not None:
            if frame.channel == 1 and frame.data:
                return frame.data
        return b""

    async def write(self, data: bytes) -> None:
        await self._channel.send(Frame(0, data))

    async def close(self) -> None:
        await self._channel.close()


class TlsWire:
    """A client's end of TLS over another wire; shaken hands with at the first write or read.

    Args:
        context: of a client; server_hostname: sent in the handshake, and checked where the context checks.
    """

    def __init__(self, wire: Wire, context: ssl.SSLContext, server_hostname: str) -> None:
        self._wire = wire
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self._open = False
        self._shaking = asyncio.Lock()

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._wire.write(data)

    async def _take(self) -> None:
        if data := await self._wire.read():
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _shake(self) -> None:
        async with self._shaking:
            while not self._open:
                try:
                    self._tls.do_handshake()
                    self._open = True
                except ssl.SSLWantReadError:
                    await self._flush()
                    await self._take()
            await self._flush()

    async def read(self) -> bytes:
        await self._shake()
        while True:
            try:
                return self._tls.read(_READ_BYTES)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._take()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    async def write(self, data: bytes) -> None:
        await self._shake()
        self._tls.write(data)
        await self._flush()

    async def close(self) -> None:
        await self._wire.close()
