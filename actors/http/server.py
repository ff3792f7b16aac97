"""The HTTP/1.1 server: turns the bytes of connections into `Request` values and `Response` values into bytes.

It bounds everything a client can make it hold (headers, bodies, pipelined requests, unread answers) and every wait
(first byte, headers, body, idle, a reader that stalls), answers in order, and hands upgraded connections to
`steersman.actors.http.websocket` and `.spdy`. It knows nothing of the API behind the handler.

Source: RFC 9112 (HTTP/1.1), RFC 9110 section 10.1.1 (Expect).
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import math
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

import httptools
import orjson

from steersman.actors.http.feed import Feed
from steersman.actors.http.messages import Handler, Request, Response, Upgrade
from steersman.actors.http.pipe import Pipe, Upload
from steersman.actors.http.spdy import serve_spdy
from steersman.actors.http.websocket import serve_websocket
from steersman.actors.ports import User

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """The bounds of a connection; each keeps one client from holding memory or a slot for ever."""

    header_bytes_max: int = 64 * 1024
    body_bytes_max: int = 3 * 1024 * 1024
    pipelined_max: int = 16
    connections_max: int = 20_000
    #: answers smaller than this are not worth compressing
    gzip_bytes_min: int = 128 * 1024
    write_buffer_bytes_max: int = 512 * 1024
    header_timeout_s: float = 15.0
    body_timeout_s: float = 60.0
    idle_timeout_s: float = 180.0
    #: a reader that takes nothing for so long is cut off
    write_timeout_s: float = 30.0


class HttpServer:
    """Listens on one address and answers requests with a handler.

    Args:
        handler: called once a request, its body complete (or as `upload` where `uploads` says so).
        tls: None for plain TCP.
        identify: the user of a verified client certificate (as `ssl.SSLSocket.getpeercert` shows it).
        uploads: whether the body of (method, target) is to be streamed rather than held.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        host: str,
        port: int,
        tls: ssl.SSLContext | None = None,
        identify: Callable[[Mapping[str, Any]], User | None] | None = None,
        uploads: Callable[[str, str], bool] | None = None,
        limits: HttpLimits | None = None,
    ) -> None:
        self.handler = handler
        self.host = host
        self.port = port
        self.limits = limits or HttpLimits()
        self.identify = identify
        self.uploads = uploads
        self.connections: set[_Connection] = set()
        self.stopping = False
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._date = (0, b"")

    async def start(self) -> None:
        """Listens; `port` is the real one afterwards.

        Raises:
            OSError: the address cannot be taken.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self),
            self.host,
            self.port,
            ssl=self._tls,
            backlog=1024,
            ssl_handshake_timeout=self.limits.header_timeout_s if self._tls else None,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._sweeper = loop.create_task(self._sweep())

    async def stop(self, grace_s: float = 2.0) -> None:
        """Takes no more, lets running requests finish for `grace_s`, then closes what is left."""
        self.stopping = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.retire()
        tasks = [c.task for c in self.connections if c.task is not None and not c.streaming]
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
        left = [c.task for c in self.connections if c.task is not None]
        for connection in list(self.connections):
            connection.abort()
        if left:
            await asyncio.wait(left, timeout=grace_s)

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1.0)
            now = loop.time()
            for connection in [c for c in self.connections if c.deadline < now]:
                connection.expire()

    def date(self) -> bytes:
        """The `Date` header's line, formatted once a second."""
        second = int(time.time())
        if self._date[0] != second:
            text = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(second))
            self._date = (second, f"Date: {text}\r\n".encode())
        return self._date[1]


_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}


def _status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or f"HTTP/1.1 {status} Unknown\r\n".encode()


class _Refused(Exception):
    """The request cannot be read any further: answer with `status` and close."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message

    def response(self) -> Response:
        body = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.status,
        }  # fmt: skip
        return Response(self.status, {"content-type": "application/json"}, orjson.dumps(body))


class _Connection(asyncio.Protocol):
    """One connection: parses, queues requests in order, and writes answers with back-pressure."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._limits = server.limits
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._user: User | None = None
        #: requests read and not yet answered, with whether the connection is kept afterwards
        self._pending: deque[tuple[Request | Response, bool]] = deque()
        self._drained: asyncio.Future[None] | None = None
        self._leftover = b""
        self._awaiting_switch = False
        self._pipe: Pipe | None = None
        self._feed: Feed | None = None
        self._feed_sent: asyncio.Future[None]
        self._closing = False
        self._tls = False
        self._peer = ""
        #: when the client's certificate expires, which its connection may outlive
        self._user_until = 0.0
        self.task: asyncio.Task[None] | None = None
        self.streaming = False
        self.deadline = self._loop.time() + self._limits.idle_timeout_s
        self._begin()

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's
        transport = cast(asyncio.Transport, transport)
        self._transport = transport
        server = self._server
        if server.stopping or len(server.connections) >= self._limits.connections_max:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=self._limits.write_buffer_bytes_max)
        self._tls = transport.get_extra_info("sslcontext") is not None
        self._peer = str((transport.get_extra_info("peername") or ("",))[0])
        certificate = transport.get_extra_info("peercert")
        if certificate and server.identify is not None:
            self._user = server.identify(certificate)
            self._user_until = ssl.cert_time_to_seconds(certificate["notAfter"])
        server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._closing = True
        self.resume_writing()
        if self._upload is not None:
            self._upload.fail()
        if self._pipe is not None:
            self._pipe.feed_eof()
        if self.task is not None:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._pipe is not None:
            self._pipe.feed(data)
        elif self._awaiting_switch:
            self._leftover += data
            if len(self._leftover) > self._limits.header_bytes_max:
                self._transport.pause_reading()
        elif not self._closing:
            self._parse(data)

    def eof_received(self) -> bool:
        if self._pipe is not None:
            self._pipe.feed_eof()
            # TLS cannot be closed in one direction only
            return not self._tls
        return False

    def pause_writing(self) -> None:
        if self._drained is None:
            self._drained = self._loop.create_future()
            if self._feed is not None:
                self.deadline = self._loop.time() + self._limits.write_timeout_s

    def resume_writing(self) -> None:
        if self._drained is not None:
            if not self._drained.done():
                self._drained.set_result(None)
            self._drained = None
            if self._feed is not None and not self._closing:
                self.deadline = math.inf
                self._feed.resume()

    # ---- reading

    def _begin(self) -> None:
        self._target = b""
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._in_headers = False
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._upload: Upload | None = None

    def _parse(self, data: bytes) -> None:
        try:
            if not self._in_headers and not self._header_bytes:
                self.deadline = self._loop.time() + self._limits.header_timeout_s
                self._in_headers = True
            if self._in_headers:
                self._header_bytes += len(data)
            self._parser.feed_data(data)
            if self._in_headers and self._header_bytes > self._limits.header_bytes_max:
                raise _Refused(431, "RequestHeaderFieldsTooLarge", "request header fields too large")
        except httptools.HttpParserUpgrade as upgrade:
            offset = upgrade.args[0]
            if self._awaiting_switch:
                self._leftover = data[offset:]
            elif data[offset:]:
                self._restart(data[offset:])
        except _Refused as refusal:
            self._refuse(refusal)
        except httptools.HttpParserError as error:
            cause = error.__context__
            known = isinstance(cause, _Refused)
            self._refuse(cause if known else _Refused(400, "BadRequest", f"malformed HTTP request: {error}"))

    def _restart(self, data: bytes) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._begin()
        if data:
            self._parse(data)

    def _refuse(self, refusal: _Refused) -> None:
        self._closing = True
        self._transport.pause_reading()
        if self._upload is not None:
            self._upload.fail()
        else:
            self._enqueue(refusal.response(), keep=False)

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers = {}
        self._body = []
        self._body_bytes = 0
        self._upload = None

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        old = self._headers.get(key)
        self._headers[key] = text if old is None else f"{old}, {text}"

    def on_headers_complete(self) -> None:
        self._in_headers = False
        size = len(self._target) + sum(len(key) + len(value) for key, value in self._headers.items())
        if size > self._limits.header_bytes_max:
            raise _Refused(431, "RequestHeaderFieldsTooLarge", "request header fields too large")
        self.deadline = self._loop.time() + self._limits.body_timeout_s
        headers = self._headers
        streams = self._server.uploads is not None and self._server.uploads(
            self._parser.get_method().decode(), self._target.decode("latin-1")
        )
        length = headers.get("content-length", "0")
        if not streams and (not length.isdigit() or int(length) > self._limits.body_bytes_max):
            raise self._too_large()
        if headers.get("expect", "").lower() == "100-continue" and not self._pending and self.task is None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if streams:
            self._upload = Upload(self._transport)
            self._enqueue(self._request(b"", upload=self._upload), keep=self._parser.should_keep_alive())

    def _too_large(self) -> _Refused:
        limit = self._limits.body_bytes_max
        return _Refused(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")

    def on_body(self, body: bytes) -> None:
        self.deadline = self._loop.time() + self._limits.body_timeout_s
        if self._upload is not None:
            self._upload.feed(body)
            return
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes_max:
            raise self._too_large()
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._header_bytes = 0
        self.deadline = math.inf
        if self._upload is not None:
            self._upload.end()
            self._upload = None
            return
        request = self._request(self._body[0] if len(self._body) == 1 else b"".join(self._body))
        self._body = []
        if self._parser.should_upgrade():
            self._awaiting_switch = True
            protocol = self._headers.get("upgrade", "").lower()
            request.upgrade = protocol == "websocket" or protocol == "spdy/3.1"
        self._enqueue(request, keep=self._parser.should_keep_alive())

    def _request(self, body: bytes, upload: Upload | None = None) -> Request:
        method, target = self._parser.get_method().decode(), self._target.decode("latin-1")
        user = self._user if self._user is None or time.time() < self._user_until else None
        return Request(method, target, self._headers, body, user, False, upload, self._peer)

    # ---- answering

    def _enqueue(self, request: Request | Response, *, keep: bool) -> None:
        self._pending.append((request, keep))
        if len(self._pending) >= self._limits.pipelined_max:
            self._transport.pause_reading()
        if self.task is None:
            self.task = self._loop.create_task(self._answer_all())

    async def _answer_all(self) -> None:
        try:
            while self._pending:
                request, keep = self._pending.popleft()
                if len(self._pending) == self._limits.pipelined_max - 1 and not self._closing:
                    self._transport.resume_reading()
                keep = await self._answer(request, keep and not self._server.stopping)
                if not keep:
                    self._transport.close()
                    return
            self.deadline = self._loop.time() + self._limits.idle_timeout_s
        except (ConnectionError, TimeoutError):
            self._transport.abort()
        finally:
            self.task = None
            if self._pending and not self._transport.is_closing():
                self.task = self._loop.create_task(self._answer_all())

    async def _answer(self, request: Request | Response, keep: bool) -> bool:
        """Returns whether the connection goes on."""
        if isinstance(request, Response):
            self._write_whole(request, request.body if isinstance(request.body, bytes) else b"", keep)
            return keep
        try:
            response = await self._server.handler(request)
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            log.exception("%s %s: the handler failed", request.method, request.target.partition("?")[0])
            response = _Refused(500, "InternalError", "Internal error occurred").response()
            keep = False
        if request.upload is not None and keep:
            keep = await request.upload.discard()  # type: ignore[attr-defined]
        body = response.body
        if isinstance(body, Upgrade):
            await self._switch(request, body)
            return False
        if isinstance(body, bytes):
            if len(body) >= self._limits.gzip_bytes_min and "gzip" in request.headers.get("accept-encoding", ""):
                body = await self._loop.run_in_executor(None, gzip.compress, body, 1)
                response.headers = {**response.headers, "content-encoding": "gzip", "vary": "Accept-Encoding, Accept"}
            self._write_whole(response, b"" if request.method == "HEAD" else body, keep, length=len(body))
            await self._drain()
        elif isinstance(body, Feed):
            await self._write_feed(response, body, keep)
        else:
            await self._write_stream(response, body, keep)
        if self._awaiting_switch:
            self._awaiting_switch = False
            leftover, self._leftover = self._leftover, b""
            if keep:
                self._restart(leftover)
                self._transport.resume_reading()
        return keep

    def _head(self, response: Response, keep: bool) -> list[bytes]:
        parts = [_status_line(response.status), self._server.date()]
        for name, value in response.headers.items():
            for line in value.split("\n"):
                parts.append(f"{name}: {line}\r\n".encode("latin-1", "replace"))
        if not keep:
            parts.append(b"Connection: close\r\n")
        return parts

    def _write_whole(self, response: Response, body: bytes, keep: bool, *, length: int | None = None) -> None:
        parts = self._head(response, keep)
        parts.append(b"Content-Length: %d\r\n\r\n" % (len(body) if length is None else length))
        parts.append(body)
        self._transport.write(b"".join(parts))

    async def _write_stream(self, response: Response, stream: AsyncIterator[bytes], keep: bool) -> None:
        parts = [*self._head(response, keep), b"Transfer-Encoding: chunked\r\n\r\n"]
        self._transport.write(b"".join(parts))
        self.streaming = True
        try:
            async for piece in stream:
                if piece:
                    self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    await self._drain()
            self._transport.write(b"0\r\n\r\n")
        finally:
            self.streaming = False
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()

    async def _write_feed(self, response: Response, feed: Feed, keep: bool) -> None:
        """Lets a feed write by itself until it ends."""
        parts = [*self._head(response, keep), b"Transfer-Encoding: chunked\r\n\r\n"]
        self._transport.write(b"".join(parts))
        self.streaming = True
        self._feed, self._feed_sent = feed, self._loop.create_future()
        try:
            feed.attach(self)
            await self._feed_sent
        finally:
            self.streaming, self._feed = False, None
            feed.close()

    def write(self, piece: bytes) -> bool:
        """Sends a chunk of a feed; as of `Sink`."""
        if piece:
            self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        return self._drained is None

    def end(self) -> None:
        """Sends the last chunk of a feed; as of `Sink`."""
        self._transport.write(b"0\r\n\r\n")
        if not self._feed_sent.done():
            self._feed_sent.set_result(None)

    async def _drain(self) -> None:
        """Waits until the client has read enough; cuts off one that reads nothing."""
        if self._transport.is_closing():
            raise ConnectionResetError("the client is gone")
        if self._drained is not None:
            async with asyncio.timeout(self._limits.write_timeout_s):
                await asyncio.shield(self._drained)

    async def _switch(self, request: Request, upgrade: Upgrade) -> None:
        self._pipe = Pipe(self._transport, self._drain, self._leftover)
        self._transport.resume_reading()
        self.streaming = True
        self.deadline = math.inf
        try:
            if request.headers.get("upgrade", "").lower() == "websocket":
                await serve_websocket(self._pipe, request.headers, upgrade)
            else:
                await serve_spdy(self._pipe, request.headers, upgrade)
        finally:
            if upgrade.close is not None:
                await upgrade.close()
            self._transport.close()

    # ---- ending

    def expire(self) -> None:
        """A time limit has passed: says so when a request was being read, and closes."""
        self.deadline = math.inf
        if self._header_bytes and self.task is None and not self._closing:
            self._refuse(_Refused(408, "Timeout", "the request was not complete in time"))
        else:
            self._transport.abort()

    def retire(self) -> None:
        """The server stops: an idle connection closes now, a busy one after its answer."""
        if self.task is None:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()
        if self.task is not None:
            self.task.cancel()
