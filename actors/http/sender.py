"""What one connection sends: `Response` values become bytes, as fast as the client takes them and no faster.

A body goes whole, in pieces as they are made, or pushed by a feed; compressed for those who ask for it. A client that
reads next to nothing is cut off.

Source: RFC 9112 (HTTP/1.1); k8s.io/apiserver/pkg/endpoints/handlers/responsewriters (what is compressed).
"""

from __future__ import annotations

import asyncio
import gzip
import math
import zlib
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import TYPE_CHECKING

from steersman.actors.http.feed import Feed, Pieces
from steersman.actors.http.messages import Request, Response, Stream, Upgrade

if TYPE_CHECKING:
    from steersman.actors.http.connection import Connection
    from steersman.actors.http.server import HttpServer

#: bytes of an answer written at once
_PIECE_BYTES = 256 * 1024
_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}


def _status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or f"HTTP/1.1 {status} Unknown\r\n".encode()


def _takes_gzip(request: Request, response: Response) -> bool:
    """Whether `Accept-Encoding` names gzip without reservations, as Kubernetes reads it, and the answer is bare."""
    if "content-encoding" in response.headers or "content-length" in response.headers:
        return False
    return "gzip" in [name.strip() for name in request.headers.get("accept-encoding", "").split(",")]


def _mark_compressed(response: Response) -> None:
    vary = ", ".join(filter(None, (response.headers.get("vary"), "Accept-Encoding")))
    response.headers = {**response.headers, "content-encoding": "gzip", "vary": vary}


class Sender:
    """Writes the answers of a connection, one after the other, with back-pressure.

    Args:
        connection: is told by when a client has to have read from a feed.
    """

    def __init__(self, connection: Connection, server: HttpServer, transport: asyncio.Transport) -> None:
        self._connection = connection
        self._server = server
        self._limits = server.limits
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._drained: asyncio.Future[None] | None = None
        #: of the answer that is being written
        self._left_bytes = 0
        #: whether the client understands chunks
        self._chunked = True
        self._feed: Feed | None = None
        self._feed_sent: asyncio.Future[None]
        #: whether an answer is sent that may have no end
        self.is_streaming = False

    # ---- back-pressure

    def pause(self) -> None:
        """The client takes less than is sent."""
        if self._drained is None:
            self._drained = self._loop.create_future()
            self._server.stalls(self._connection, self._transport.get_write_buffer_size() + self._left_bytes)
            if self._feed is not None:
                self._connection.deadline = self._loop.time() + self._limits.write_timeout_s

    def resume(self) -> None:
        """The client has taken what was sent."""
        self.lose()
        if self._feed is not None:
            self._connection.deadline = math.inf
            self._feed.resume()

    def lose(self) -> None:
        """Nobody has to wait for the client any longer: it is gone."""
        if self._drained is not None:
            if not self._drained.done():
                self._drained.set_result(None)
            self._drained = None
            self._server.flows(self._connection)

    async def drain(self) -> None:
        """Waits until the client has read enough.

        Raises:
            ConnectionResetError: it is gone. TimeoutError: it reads next to nothing.
        """
        if self._transport.is_closing():
            raise ConnectionResetError("the client is gone")
        left = self._transport.get_write_buffer_size() if self._drained is not None else 0
        while self._drained is not None:
            done, _ = await asyncio.wait({self._drained}, timeout=self._limits.write_timeout_s)
            before, left = left, self._transport.get_write_buffer_size()
            if not done and before - left < self._limits.write_bytes_min:
                raise TimeoutError("the client does not read")

    # ---- answers

    async def send(self, request: Request, response: Response, keep: bool, chunked: bool) -> bool:
        """Sends an answer to its end; returns whether the connection can carry another.

        Args:
            keep: whether it is to go on.
            chunked: whether the client understands chunks.
        """
        body = response.body
        if isinstance(body, bytes):
            if len(body) >= self._limits.gzip_bytes_min and _takes_gzip(request, response):
                body = await self._loop.run_in_executor(None, gzip.compress, body, 1)
                _mark_compressed(response)
            shown = b"" if request.method == "HEAD" else body
            if len(shown) <= _PIECE_BYTES:
                self.write_whole(response, shown, keep, length=len(body))
                await self.drain()
            else:
                await self._write_long(response, shown, keep)
            return keep
        assert not isinstance(body, Upgrade)
        self._chunked = chunked
        if "content-length" in response.headers:  # of an answer that is passed on
            self._chunked = False
        else:
            keep = keep and chunked
        if not isinstance(body, Feed):
            await self._write_stream(response, body, keep)
        elif isinstance(body, Pieces) and _takes_gzip(request, response):
            _mark_compressed(response)
            await self._write_stream(response, self._compress(body), keep)
        else:
            await self._write_feed(response, body, keep)
        return keep

    async def _compress(self, stream: Stream) -> AsyncIterator[bytes]:
        """The same bytes as gzip sends them, made where they hold nobody up."""
        gzipped = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        async for piece in stream:
            yield await self._loop.run_in_executor(None, gzipped.compress, piece)
        yield gzipped.flush()

    def _head(self, response: Response, keep: bool) -> list[bytes]:
        lines = [
            f"{name}: {value}\r\n"
            if "\n" not in value
            else "".join(f"{name}: {line}\r\n" for line in value.split("\n"))
            for name, value in response.headers.items()
        ]
        text = "".join(lines).encode("latin-1", "replace")
        return [_status_line(response.status), self._server.date(), text, b"" if keep else b"Connection: close\r\n"]

    def write_whole(self, response: Response, body: bytes, keep: bool, *, length: int) -> None:
        """Sends head and body at once; `length` is what the head says of the body."""
        parts = self._head(response, keep)
        if "content-length" in response.headers or response.status in (204, 304):
            parts.append(b"\r\n")
        else:
            parts.append(b"Content-Length: %d\r\n\r\n" % length)
        parts.append(body)
        self._transport.write(b"".join(parts))

    async def _write_long(self, response: Response, body: bytes, keep: bool) -> None:
        """Sends an answer as fast as it is taken: a transport of TLS takes any single piece for sent."""
        self.write_whole(response, b"", keep, length=len(body))
        try:
            for at in range(0, len(body), _PIECE_BYTES):
                self._left_bytes = len(body) - at
                self._transport.write(memoryview(body)[at : at + _PIECE_BYTES])
                await self.drain()
        finally:
            self._left_bytes = 0

    def _open(self, response: Response, keep: bool) -> None:
        """Sends the head of an answer that comes in pieces."""
        framing = b"Transfer-Encoding: chunked\r\n\r\n" if self._chunked else b"\r\n"
        self._transport.write(b"".join([*self._head(response, keep), framing]))
        self.is_streaming = True

    async def _write_stream(self, response: Response, stream: Stream, keep: bool) -> None:
        self._open(response, keep)
        try:
            async for piece in stream:
                self.write(piece)
                await self.drain()
            self._write_end()
        finally:
            self.is_streaming = False
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()

    async def _write_feed(self, response: Response, feed: Feed, keep: bool) -> None:
        """Lets a feed write by itself until it ends."""
        self._open(response, keep)
        self._feed, self._feed_sent = feed, self._loop.create_future()
        try:
            feed.attach(self)
            await self._feed_sent
        finally:
            self.is_streaming, self._feed = False, None
            feed.close()

    def write(self, piece: bytes) -> bool:
        """Sends a piece; as of `Sink`."""
        if piece:
            self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece)
        return self._drained is None

    def _write_end(self) -> None:
        if self._chunked:
            self._transport.write(b"0\r\n\r\n")

    def end(self) -> None:
        """All pieces of a feed have been sent; as of `Sink`."""
        self._write_end()
        if not self._feed_sent.done():
            self._feed_sent.set_result(None)
