"""One connection of the HTTP/1.1 server: turns its bytes into `Request` values and `Response` values into bytes.

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
import re
import select
import socket
import ssl
import time
import zlib
from collections import deque
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import httptools
import orjson

from steersman.actors.http.feed import Feed, Pieces
from steersman.actors.http.limits import Refused
from steersman.actors.http.messages import Request, Response, Upgrade
from steersman.actors.http.pipe import Pipe, Upload
from steersman.actors.http.spdy import serve_spdy
from steersman.actors.http.websocket import serve_websocket
from steersman.actors.ports import User

if TYPE_CHECKING:
    from steersman.actors.http.server import HttpServer

log = logging.getLogger(__name__)

#: requests of one connection that are answered before others have their turn
_ANSWERS_A_TURN = 8
#: bytes of an answer written at once
_PIECE_BYTES = 256 * 1024
#: bytes parsed at once: requests can be so small that very many are in what was received
_SLICE_BYTES = 16 * 1024
#: headers that hold the names of users and groups
_NAMES = ("x-remote-", "impersonate-")
_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
#: what a `Host` may hold, as of Go's server
_HOST = re.compile(r"[A-Za-z0-9!$%&'()*+,\-.:;=\[\]_~]*\Z")
_ABSOLUTE = re.compile(r"https?://[^/?]*", re.IGNORECASE)


def _status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or f"HTTP/1.1 {status} Unknown\r\n".encode()


def _refusal(refused: Refused) -> Response:
    body = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": refused.message, "reason": refused.reason, "code": refused.status,
    }  # fmt: skip
    headers = {"content-type": "application/json"}
    if refused.retry_after_s:
        headers["retry-after"] = str(refused.retry_after_s)
    return Response(refused.status, headers, orjson.dumps(body))


#: a request that was read and waits for its turn: whether the connection is kept after its answer, the bytes that are
#: counted as received until it is answered, and whether the client understands chunks
_Waiting = tuple[Request | Response, bool, int, bool]


def _takes_gzip(request: Request, response: Response) -> bool:
    """Whether `Accept-Encoding` names gzip without reservations, as Kubernetes reads it, and the answer is bare."""
    if "content-encoding" in response.headers or "content-length" in response.headers:
        return False
    return "gzip" in [name.strip() for name in request.headers.get("accept-encoding", "").split(",")]


class Connection(asyncio.Protocol):
    """One connection: parses, queues requests in order, and writes answers with back-pressure."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._limits = server.limits
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._user: User | None = None
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        #: received while too many wait, to be parsed when fewer do
        self._backlog = b""
        #: this connection's part of what the server has received
        self._held_bytes = 0
        self._drained: asyncio.Future[None] | None = None
        #: of the answer that is being written
        self._left_bytes = 0
        self._leftover = b""
        self._awaiting_switch = False
        self._pipe: Pipe | None = None
        self._works_on_s = 0.0
        self._feed: Feed | None = None
        self._feed_sent: asyncio.Future[None]
        self._chunked = True
        self._version = ""
        #: whether so many requests wait that no more are read
        self._is_held_back = False
        self._closing = False
        self._tls = False
        self._peer = ""
        self._host = ""
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
        if not server.admit(self):
            transport.abort()
            return
        transport.set_write_buffer_limits(high=self._limits.write_buffer_bytes_max)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._tls = transport.get_extra_info("sslcontext") is not None
        self._peer = str((transport.get_extra_info("peername") or ("",))[0])
        certificate = transport.get_extra_info("peercert")
        if certificate and server.identify is not None:
            der = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
            self._user = server.identify({**certificate, "der": der})
            self._user_until = ssl.cert_time_to_seconds(certificate["notAfter"])

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._works_on_s:  # otherwise it counts, and ends with the server, for as long as its conversation does
            self._server.forget(self)
        self._release(self._held_bytes)
        self._closing = True
        self.resume_writing()
        if self._upload is not None:
            self._upload.fail()
        if self._pipe is not None:
            self._pipe.feed_eof()
        if self.task is not None:
            if self._works_on_s:
                self._loop.call_later(self._works_on_s, self.task.cancel)
            else:
                self.task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._pipe is not None:
            self._stir()
            self._pipe.feed(data)
        elif self._awaiting_switch:
            self._leftover += data
            if len(self._leftover) > self._limits.write_buffer_bytes_max:
                self._transport.pause_reading()
        elif not self._closing:
            if self._backlog or len(data) > _SLICE_BYTES:
                self._backlog += data
                self._parse_backlog()
            else:
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
            self._server.stalls(self, self._transport.get_write_buffer_size() + self._left_bytes)
            if self._feed is not None:
                self.deadline = self._loop.time() + self._limits.write_timeout_s

    def resume_writing(self) -> None:
        if self._drained is not None:
            if not self._drained.done():
                self._drained.set_result(None)
            self._drained = None
            self._server.flows(self)
            if self._feed is not None and not self._closing:
                self.deadline = math.inf
                self._feed.resume()

    # ---- reading

    def _begin(self) -> None:
        self._target = b""
        self._headers: dict[str, str] = {}
        #: the values of headers that came more than once
        self._repeated: dict[str, list[str]] = {}
        self._header_bytes = 0
        self._in_headers = False
        self._body: list[bytes] = []
        self._body_bytes = 0
        #: whether the server knows that a request is incomplete
        self._is_receiving = False
        #: of this request, as far as it is counted as received
        self._message_bytes = 0
        self._upload: Upload | None = None

    def _parse_backlog(self) -> None:
        data, at = self._backlog, 0
        while at < len(data) and not (self._is_full or self._closing or self._awaiting_switch):
            self._parse(data[at : at + _SLICE_BYTES])
            at += _SLICE_BYTES
        self._backlog = b"" if self._closing else data[at:]
        if self._awaiting_switch:
            self._leftover += self._backlog
            self._backlog = b""

    @property
    def _is_full(self) -> bool:
        return len(self._waiting) >= self._limits.pipelined_max or self._waiting_bytes > self._limits.body_bytes_max

    def _parse(self, data: bytes) -> None:
        try:
            if not self._in_headers and not self._header_bytes:
                self.deadline = self._loop.time() + self._limits.header_timeout_s
                self._in_headers = True
            if self._in_headers:
                self._header_bytes += len(data)
            self._parser.feed_data(data)
            if self._in_headers:
                if self._header_bytes > self._limits.header_bytes_max:
                    raise Refused(431, "RequestHeaderFieldsTooLarge", "request header fields too large")
                self._hold(len(data))
            if self._header_bytes and self._upload is None:
                self._server.receiving.setdefault(self)
                self._is_receiving = True
                if self._server.received_bytes > self._limits.received_bytes_max:
                    self._server.relieve()
        except httptools.HttpParserUpgrade as upgrade:
            offset = upgrade.args[0]
            if self._awaiting_switch:
                self._leftover = data[offset:]
            elif data[offset:]:
                self._restart(data[offset:])
        except Refused as refused:
            self._refuse(refused)
        except httptools.HttpParserError as error:
            cause = error.__context__
            known = isinstance(cause, Refused)
            self._refuse(cause if known else Refused(400, "BadRequest", f"malformed HTTP request: {error}"))

    def _restart(self, data: bytes) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._begin()
        if data:
            self.data_received(data)

    def _refuse(self, refused: Refused) -> None:
        self._closing = True
        self._server.receiving.pop(self, None)
        self._body = []
        self._release(self._message_bytes)
        self._message_bytes = 0
        if self._upload is not None:
            self._upload.fail()
        else:
            self._enqueue((_refusal(refused), False, 0, True))

    def _hold(self, size_bytes: int) -> None:
        self._message_bytes += size_bytes
        self._held_bytes += size_bytes
        self._server.received_bytes += size_bytes

    def _release(self, size_bytes: int) -> None:
        self._held_bytes -= size_bytes
        self._server.received_bytes -= size_bytes

    def give_way(self) -> None:
        """The server holds too much: the request that is being read is refused."""
        self._refuse(Refused(429, "TooManyRequests", "Too many requests, please try again later.", retry_after_s=1))

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers, self._repeated = {}, {}
        self._body = []
        self._body_bytes = self._message_bytes = 0
        self._upload = None

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        if key in self._headers:
            self._repeated.setdefault(key, [self._headers[key]]).append(text)
        else:
            self._headers[key] = text

    def on_headers_complete(self) -> None:
        self._in_headers = False
        headers = self._headers
        for key, values in self._repeated.items():
            # a comma may be part of a user's or a group's name
            headers[key] = ("\n" if key.startswith(_NAMES) else ", ").join(values)
        if self._header_bytes > self._limits.header_bytes_max + _SLICE_BYTES:
            raise Refused(431, "RequestHeaderFieldsTooLarge", "request header fields too large")
        self.deadline = self._loop.time() + self._limits.body_timeout_s
        streams = self._server.uploads is not None and self._server.uploads(
            self._parser.get_method().decode(), self._target.decode("latin-1")
        )
        length = headers.get("content-length", "0")
        if not streams and (not length.isdigit() or int(length) > self._limits.body_bytes_max):
            raise self._too_large()
        self._check_host()
        if expected := headers.get("expect", "").lower():
            if expected != "100-continue":
                raise Refused(417, "", "Expectation Failed")
            if not self._waiting and self.task is None:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if streams:
            self._upload = Upload(self._transport)
            self._server.receiving.pop(self, None)
            self._enqueue(self._read(self._request(b"", upload=self._upload)))

    def _check_host(self) -> None:
        """Refuses versions other than 1.0 and 1.1, and wants exactly one host that could be one, as Go's server."""
        host, version = self._headers.get("host"), self._parser.get_http_version()
        self._version = version
        if version not in ("1.0", "1.1"):
            raise Refused(400, "BadRequest", "malformed HTTP version")
        if host is None:
            if version == "1.1":
                raise Refused(400, "BadRequest", "missing required Host header")
        elif host != self._host:
            if "host" in self._repeated:
                raise Refused(400, "BadRequest", "too many Host headers")
            if not _HOST.match(host):
                raise Refused(400, "BadRequest", "malformed Host header")
            self._host = host

    def _too_large(self) -> Refused:
        limit = self._limits.body_bytes_max
        return Refused(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")

    def on_body(self, body: bytes) -> None:
        if self._upload is not None:
            self.deadline = self._loop.time() + self._limits.body_timeout_s
            self._upload.feed(body)
            return
        self._hold(len(body))
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes_max:
            raise self._too_large()
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._is_receiving:
            self._server.receiving.pop(self, None)
            self._is_receiving = False
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
        self._enqueue(self._read(request))

    def _read(self, request: Request) -> _Waiting:
        size, self._message_bytes = self._message_bytes, 0
        parser = self._parser
        return request, parser.should_keep_alive(), size, self._version != "1.0"

    def _request(self, body: bytes, upload: Upload | None = None) -> Request:
        method, target = self._parser.get_method().decode(), self._target.decode("latin-1")
        if target[:1] != "/" and (absolute := _ABSOLUTE.match(target)):
            rest = target[absolute.end() :]
            target = rest if rest[:1] == "/" else f"/{rest}"
        user = self._user if self._user is None or time.time() < self._user_until else None
        return Request(method, target, self._headers, body, user, False, upload, self._peer)

    # ---- answering

    def _enqueue(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        self._waiting_bytes += waiting[2]
        if self._is_full and not self._closing:
            self._is_held_back = True
            self._transport.pause_reading()
        if self.task is None:
            self.task = self._loop.create_task(self._answer_all())

    def _next(self) -> _Waiting:
        waiting = self._waiting.popleft()
        self._waiting_bytes -= waiting[2]
        if self._is_held_back and not self._is_full and not self._closing:
            self._parse_backlog()
            if not self._is_full:
                self._is_held_back = False
                self._transport.resume_reading()
        return waiting

    async def _answer_all(self) -> None:
        count = 0
        try:
            while self._waiting:
                count += 1
                if not count % _ANSWERS_A_TURN:
                    await asyncio.sleep(0)
                waiting = self._next()
                try:
                    keep = await self._answer(waiting, waiting[1] and not self._server.stopping)
                finally:
                    if self._held_bytes:
                        self._release(min(waiting[2], self._held_bytes))
                if not keep:
                    self._part()
                    return
            self.deadline = self._loop.time() + self._limits.idle_timeout_s
        except (ConnectionError, TimeoutError):
            self._transport.abort()
        finally:
            self.task = None
            if self._waiting and not self._transport.is_closing():
                self.task = self._loop.create_task(self._answer_all())

    def _part(self) -> None:
        """Closes after the last answer, once it was taken or had its time."""
        self.deadline = self._loop.time() + self._limits.write_timeout_s
        if self._closing:
            self._loop.call_later(self._limits.linger_s, self._transport.close)
        else:
            self._closing = True
            self._transport.close()

    async def _answer(self, waiting: _Waiting, keep: bool) -> bool:
        """Returns whether the connection goes on."""
        request, self._chunked = waiting[0], waiting[3]
        if isinstance(request, Response):
            self._write_whole(request, request.body if isinstance(request.body, bytes) else b"", keep)
            return keep
        try:
            response = await self._server.handler(request)
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            log.exception("%s %r: the handler failed", request.method, request.target.partition("?")[0])
            response = _refusal(Refused(500, "InternalError", "Internal error occurred"))
            keep = False
        if request.upload is not None and keep:
            keep = await request.upload.discard()  # type: ignore[attr-defined]
        body = response.body
        if isinstance(body, Upgrade):
            await self._switch(request, body)
            return False
        if isinstance(body, bytes):
            if len(body) >= self._limits.gzip_bytes_min and _takes_gzip(request, response):
                body = await self._loop.run_in_executor(None, gzip.compress, body, 1)
                self._compressed(response)
            shown = b"" if request.method == "HEAD" else body
            if len(shown) <= _PIECE_BYTES:
                self._write_whole(response, shown, keep, length=len(body))
                await self._drain()
            else:
                await self._write_long(response, shown, keep)
        else:
            if "content-length" in response.headers:  # of an answer that is passed on
                self._chunked = False
            else:
                keep = keep and self._chunked
            if not isinstance(body, Feed):
                await self._write_stream(response, body, keep)
            elif isinstance(body, Pieces) and _takes_gzip(request, response):
                self._compressed(response)
                await self._write_stream(response, self._compress(body), keep)
            else:
                await self._write_feed(response, body, keep)
        if self._awaiting_switch:
            self._awaiting_switch = False
            leftover, self._leftover = self._leftover, b""
            if keep:
                self._restart(leftover)
                self._transport.resume_reading()
        return keep

    @staticmethod
    def _compressed(response: Response) -> None:
        vary = ", ".join(filter(None, (response.headers.get("vary"), "Accept-Encoding")))
        response.headers = {**response.headers, "content-encoding": "gzip", "vary": vary}

    async def _compress(self, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
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

    def _write_whole(self, response: Response, body: bytes, keep: bool, *, length: int | None = None) -> None:
        parts = self._head(response, keep)
        if "content-length" in response.headers or response.status in (204, 304):
            parts.append(b"\r\n")
        else:
            parts.append(b"Content-Length: %d\r\n\r\n" % (len(body) if length is None else length))
        parts.append(body)
        self._transport.write(b"".join(parts))

    async def _write_long(self, response: Response, body: bytes, keep: bool) -> None:
        """Sends an answer as fast as it is taken: a transport of TLS takes any single piece for sent."""
        self._write_whole(response, b"", keep, length=len(body))
        try:
            for at in range(0, len(body), _PIECE_BYTES):
                self._left_bytes = len(body) - at
                self._transport.write(memoryview(body)[at : at + _PIECE_BYTES])
                await self._drain()
        finally:
            self._left_bytes = 0

    def _open(self, response: Response, keep: bool) -> None:
        """Sends the head of an answer that comes in pieces."""
        framing = b"Transfer-Encoding: chunked\r\n\r\n" if self._chunked else b"\r\n"
        self._transport.write(b"".join([*self._head(response, keep), framing]))
        self.streaming = True

    async def _write_stream(self, response: Response, stream: AsyncIterator[bytes], keep: bool) -> None:
        self._open(response, keep)
        try:
            async for piece in stream:
                self.write(piece)
                await self._drain()
            self._write_end()
        finally:
            self.streaming = False
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
            self.streaming, self._feed = False, None
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

    async def _drain(self) -> None:
        """Waits until the client has read enough; cuts off one that reads next to nothing."""
        if self._transport.is_closing():
            raise ConnectionResetError("the client is gone")
        left = self._transport.get_write_buffer_size() if self._drained is not None else 0
        while self._drained is not None:
            done, _ = await asyncio.wait({self._drained}, timeout=self._limits.write_timeout_s)
            before, left = left, self._transport.get_write_buffer_size()
            if not done and before - left < self._limits.write_bytes_min:
                raise TimeoutError("the client does not read")

    def _stir(self) -> None:
        """Somebody says something in the conversation."""
        self.deadline = self._loop.time() + self._limits.conversation_idle_timeout_s

    async def _spoken(self) -> None:
        self._stir()
        await self._drain()

    async def _switch(self, request: Request, upgrade: Upgrade) -> None:
        self._pipe = Pipe(self._transport, self._spoken, self._leftover)
        self._transport.resume_reading()
        self.streaming, self._works_on_s = True, upgrade.works_on_s
        self._stir()
        try:
            if upgrade.tunnel is not None:
                await upgrade.tunnel(self._pipe)
            elif request.headers.get("upgrade", "").lower() == "websocket":
                await serve_websocket(self._pipe, request.headers, upgrade)
            else:
                await serve_spdy(self._pipe, request.headers, upgrade)
        finally:
            self._works_on_s = 0.0
            if self._closing:
                self._server.forget(self)
            if upgrade.close is not None:
                await upgrade.close()
            self._transport.close()

    # ---- ending

    def expire(self) -> None:
        """A time limit has passed: says so when a request was being read, and closes."""
        self.deadline = math.inf
        if self._header_bytes and self.task is None and not self._closing:
            self._refuse(Refused(408, "Timeout", "the request was not complete in time"))
        else:
            self._transport.abort()

    def is_left(self) -> bool:
        """Whether the client has gone while it was not read from, which the transport does not notice."""
        if self._transport.is_reading() or self._transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))

    def retire(self) -> None:
        """The server stops: an idle connection closes now, a busy one after its answer."""
        if self.task is None:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()
        if self.task is not None:
            self.task.cancel()
