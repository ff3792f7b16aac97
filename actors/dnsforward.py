"""Asks other resolvers what the cluster's DNS does not know: bounded, each in turn, by UDP or TCP."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections.abc import Sequence
from typing import Any, cast

from steersman.cluster.net.dns.wire import IN

#: questions on their way at once; more are answered with SERVFAIL
PENDING_MAX = 1000
#: how long one resolver may take
ANSWER_S = 2.0


class Forwarder:
    """A socket per resolver, opened when first needed; message ids are changed, so that nobody can guess them.

    Args:
        upstream: `address` or `address:port`.
    """

    def __init__(self, upstream: Sequence[str], rng: random.Random) -> None:
        self._resolvers = [_Resolver(*_split(text), rng) for text in upstream]

    @property
    def has_upstream(self) -> bool:
        return bool(self._resolvers)

    async def stop(self) -> None:
        for resolver in self._resolvers:
            resolver.close()

    async def ask(self, message: bytes, *, tcp: bool = False) -> bytes | None:
        """Returns the first resolver's answer with the question's own id, or None when none answers."""
        for resolver in self._resolvers:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(ANSWER_S):
                    found = await (resolver.ask_by_tcp(message) if tcp else resolver.ask(message))
                if found is not None:
                    return found
        return None

    async def ask_name(self, name: str, kind: int) -> bytes | None:
        """Asks for the records of a name."""
        labels = b"".join(bytes([len(label)]) + label.encode("latin-1", "replace") for label in name.split("."))
        question = labels + b"\0" + struct.pack("!2H", kind, IN)
        return await self.ask(struct.pack("!6H", 0, 0x0100, 1, 0, 0, 0) + question)


def _split(text: str) -> tuple[str, int]:
    address, colon, port = text.rpartition(":")
    return (address, int(port)) if colon and "." in address else (text, 53)


class _Resolver(asyncio.DatagramProtocol):
    def __init__(self, address: str, port: int, rng: random.Random) -> None:
        self._address = address
        self._port = port
        self._rng = rng
        self._transport: asyncio.DatagramTransport | None = None
        #: id on the wire -> (question, who waits)
        self._pending: dict[int, tuple[bytes, asyncio.Future[bytes]]] = {}

    async def ask(self, message: bytes) -> bytes | None:
        if len(self._pending) >= PENDING_MAX:
            return None
        if self._transport is None or self._transport.is_closing():
            loop = asyncio.get_running_loop()
            await loop.create_datagram_endpoint(lambda: self, remote_addr=(self._address, self._port))
        number = self._rng.randrange(65536)
        while number in self._pending:
            number = (number + 1) % 65536
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._pending[number] = (message, future)
        try:
            assert self._transport is not None
            self._transport.sendto(struct.pack("!H", number) + message[2:])
            answer = await future
        finally:
            del self._pending[number]
        return message[:2] + answer[2:]

    async def ask_by_tcp(self, message: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(self._address, self._port)
        try:
            writer.write(struct.pack("!H", len(message)) + message)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            return await reader.readexactly(length)
        finally:
            writer.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if len(data) < 12:
            return
        found = self._pending.get(struct.unpack_from("!H", data)[0])
        # an answer repeats its question; anything else is somebody's guess
        if found is not None and not found[1].done() and data[12:].lower().startswith(_question(found[0])):
            found[1].set_result(data)

    def error_received(self, exc: Exception) -> None:
        for _, future in self._pending.values():
            if not future.done():
                future.set_exception(OSError(f"{self._address}:{self._port}: {exc}"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _question(message: bytes) -> bytes:
    """The bytes of a message's question, in lower case (type and class are below the letters)."""
    position = 12
    while position < len(message) and message[position]:
        position += 1 + message[position]
    return message[12 : position + 5].lower()
