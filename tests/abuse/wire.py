"""Clients that are in full control of their bytes, and one that behaves."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson

#: a server that is not served by then is not served at all
DEADLINE_S = 20.0
#: handshakes at once: each takes the server milliseconds, and with TLS 1.3 a client takes its own for done before the
#: server has read the last of it; of many at once a busy machine does not get to the last ones in the time they have,
#: and resets what the client thinks open
OPENED_AT_ONCE = 16


class Wire:
    """One open connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.is_deaf = False

    async def send(self, data: bytes) -> None:
        """Sends; a peer that has closed is none to tell."""
        try:
            self.writer.write(data)
            if self.is_deaf:
                self.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await self.writer.drain()
        except ConnectionError:
            return

    async def head(self) -> tuple[int, dict[str, str]]:
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = text.split("\r\n")
        return int(first.split(" ", 2)[1]), {k.lower(): v for k, _, v in (row.partition(": ") for row in lines if row)}

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next whole answer; raises ConnectionError or IncompleteReadError when there is none."""
        async with asyncio.timeout(DEADLINE_S):
            status, headers = await self.head()
            if headers.get("transfer-encoding") == "chunked":
                body = b""
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    body += await self.reader.readexactly(size)
                    await self.reader.readexactly(2)
                await self.reader.readexactly(2)
                return status, headers, body
            return status, headers, await self.reader.readexactly(int(headers.get("content-length", 0)))

    async def is_cut(self) -> bool:
        """Whether the server closes the connection, whatever it says before, by the deadline."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while await self.reader.read(1 << 16):
                    pass
        except TimeoutError:
            return False
        except (ConnectionError, ssl.SSLError):
            pass
        return True

    async def call(self, method: str, target: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], Any]:
        """A well-formed request and its decoded answer."""
        data = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        names = {"host": "x", "content-type": "application/json", "content-length": str(len(data))}
        names |= {key.replace("_", "-"): value for key, value in headers.items()}
        lines = "".join(f"{key}: {value}\r\n" for key, value in names.items())
        await self.send(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode() + data)
        status, found, text = await self.answer()
        return status, found, orjson.loads(text) if "json" in found.get("content-type", "") and text else text

    def close(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def wires(
    port: int, tls: ssl.SSLContext | None, count: int = 1, limit: int = 1 << 16, *, deaf: bool = False
) -> AsyncIterator[list[Wire]]:
    """Opens connections, some at a time; all are gone at the end.

    Args:
        deaf: they read nothing once they have sent something.
    """
    gate = asyncio.Semaphore(OPENED_AT_ONCE)

    async def one() -> Wire:
        async with gate:
            sock = socket.socket()
            if deaf:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            name = "127.0.0.1" if tls is not None else None
            wire = Wire(*await asyncio.open_connection(sock=sock, ssl=tls, server_hostname=name, limit=limit))
            wire.is_deaf = deaf
            return wire

    found = await asyncio.gather(*(one() for _ in range(count)), return_exceptions=True)
    opened = [wire for wire in found if isinstance(wire, Wire)]
    try:
        yield opened
    finally:
        for wire in opened:
            wire.close()
        await asyncio.sleep(0)
