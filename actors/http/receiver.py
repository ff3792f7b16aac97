"""What one connection receives: its bytes become `Request` values, which wait here for their turn.

It bounds all that a client can make it hold (headers, bodies, pipelined requests) and says by when the rest of a
request is due. What cannot be read becomes the refusal to answer it with, and nothing more is read.

Source: RFC 9112 (HTTP/1.1), RFC 9110 section 10.1.1 (Expect).
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import deque
from typing import TYPE_CHECKING

import httptools

from steersman.actors.http.limits import Refused
from steersman.actors.http.messages import Request, Response, refusal
from steersman.actors.http.pipe import Upload
from steersman.actors.ports import STRANGER, User

if TYPE_CHECKING:
    from steersman.actors.http.connection import Connection
    from steersman.actors.http.server import HttpServer

#: bytes parsed at once: requests can be so small that very many are in what was received
_SLICE_BYTES = 16 * 1024
#: headers that hold the names of users and groups
_NAMES = ("x-remote-", "impersonate-")
#: what a `Host` may hold, as of Go's server
_HOST = re.compile(r"[A-Za-z0-9!$%&'()*+,\-.:;=\[\]_~]*\Z")
_ABSOLUTE = re.compile(r"https?://[^/?]*", re.IGNORECASE)
#: a percent sign in a path that encodes nothing
_STRAY_PERCENT = re.compile(rb"[^?]*?%(?![0-9A-Fa-f]{2})")

#: a request that was read and waits for its turn: whether the connection is kept after its answer, the bytes that are
#: counted as received until it is answered, and whether the client understands chunks
Waiting = tuple[Request | Response, bool, int, bool]


class Receiver:
    """Parses what a connection receives and queues its requests in order.

    Args:
        connection: is told when the next bytes are due, and when a request waits.
        user: of the client's certificate, None without one.
        user_until: when that certificate expires, which its connection may outlive.
    """

    def __init__(
        self, connection: Connection, server: HttpServer, transport: asyncio.Transport, user: User | None,
        user_until: float,
    ) -> None:  # fmt: skip
        self._connection = connection
        self._server = server
        self._limits = server.limits
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._user = user
        self._user_until = user_until
        self._peer = str((transport.get_extra_info("peername") or ("",))[0])
        self.waiting: deque[Waiting] = deque()
        self._waiting_bytes = 0
        #: received while too many wait, to be parsed when fewer do
        self._backlog = b""
        #: this connection's part of what the server has received
        self._held_bytes = 0
        #: whether so many requests wait that no more are read
        self._is_held_back = False
        #: whether a request was read that may switch protocols: what comes after it waits for its answer
        self.is_switching = False
        self.leftover = b""
        #: whether nothing more is read
        self.is_closed = False
        self._host = ""
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: dict[str, str] = {}
        #: the values of headers that came more than once
        self._repeated: dict[str, list[str]] = {}
        #: bytes of the request that is being read, 0 between two
        self._header_bytes = 0
        self._in_headers = False
        #: whether what comes now by the name of a header is a trailer
        self._headers_end = False
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._version = ""
        #: whether the server knows that a request is incomplete
        self._is_receiving = False
        #: of this request, as far as it is counted as received
        self._message_bytes = 0
        self._upload: Upload | None = None

    # ---- what comes

    def feed(self, data: bytes) -> None:
        """Bytes have come."""
        if self.is_switching:
            self.leftover += data
            if len(self.leftover) > self._limits.write_buffer_bytes_max:
                self._transport.pause_reading()
        elif not self.is_closed:
            if self._backlog or len(data) > _SLICE_BYTES:
                self._backlog += data
                self._parse_backlog()
            else:
                self._parse(data)

    def lose(self) -> None:
        """The client is gone."""
        self.is_closed = True
        self._server.receiving.pop(self, None)
        self._release(self._held_bytes)
        if self._upload is not None:
            self._upload.fail()

    def goes_on(self) -> None:
        """The answer to a request that might have switched protocols was an ordinary one."""
        self.is_switching = False
        leftover, self.leftover = self.leftover, b""
        self._restart(leftover)
        self._transport.resume_reading()

    def is_reading(self) -> bool:
        """Whether a request is incomplete."""
        return self._header_bytes > 0 and not self.is_closed

    def _parse_backlog(self) -> None:
        data, at = self._backlog, 0
        while at < len(data) and not (self._is_full or self.is_closed or self.is_switching):
            self._parse(data[at : at + _SLICE_BYTES])
            at += _SLICE_BYTES
        self._backlog = b"" if self.is_closed else data[at:]
        if self.is_switching:
            self.leftover += self._backlog
            self._backlog = b""

    def _parse(self, data: bytes) -> None:
        try:
            if not self._in_headers and not self._header_bytes:
                self._connection.deadline = self._loop.time() + self._limits.header_timeout_s
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
            if self.is_switching:
                self.leftover = data[offset:]
            elif data[offset:]:
                self._restart(data[offset:])
        except Refused as refused:
            self.refuse(refused)
        except httptools.HttpParserError as error:
            cause = error.__context__
            known = isinstance(cause, Refused)
            self.refuse(cause if known else Refused(400, "BadRequest", f"malformed HTTP request: {error}"))

    def _restart(self, data: bytes) -> None:
        self._begin()
        if data:
            self.feed(data)

    def refuse(self, refused: Refused) -> None:
        """Reads no further, and answers what was being read with a refusal."""
        self.is_closed = True
        self._server.receiving.pop(self, None)
        self._body = []
        self._release(self._message_bytes)
        self._message_bytes = 0
        if self._upload is not None:
            self._upload.fail()
        else:
            self._enqueue((refusal(refused), False, 0, True))

    def give_way(self) -> None:
        """The server holds too much: the request that is being read is refused."""
        self.refuse(Refused(429, "TooManyRequests", "Too many requests, please try again later.", retry_after_s=1))

    # ---- the parser's callbacks

    def on_message_begin(self) -> None:
        self._headers_end = False
        self._target = b""
        self._headers, self._repeated = {}, {}
        self._body = []
        self._body_bytes = self._message_bytes = 0
        self._upload = None

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headers_end:  # a trailer is no header: who has looked at headers in front of us has not seen it
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        if key in self._headers:
            self._repeated.setdefault(key, [self._headers[key]]).append(text)
        else:
            self._headers[key] = text

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._headers_end = True
        headers = self._headers
        for key, values in self._repeated.items():
            # a comma may be part of a user's or a group's name
            headers[key] = ("\n" if key.startswith(_NAMES) else ", ").join(values)
        if self._header_bytes > self._limits.header_bytes_max + _SLICE_BYTES:
            raise Refused(431, "RequestHeaderFieldsTooLarge", "request header fields too large")
        self._connection.deadline = self._loop.time() + self._limits.body_timeout_s
        streams = self._server.uploads is not None and self._server.uploads(
            self._parser.get_method().decode(), self._target.decode("latin-1")
        )
        length = headers.get("content-length", "0")
        if not streams and (not length.isdigit() or int(length) > self._limits.body_bytes_max):
            raise self._too_large()
        self._check_host()
        if b"%" in self._target and _STRAY_PERCENT.match(self._target):
            raise Refused(400, "BadRequest", "invalid URL escape in the path")
        if expected := headers.get("expect", "").lower():
            if expected != "100-continue":
                raise Refused(417, "", "Expectation Failed")
            if not self.waiting and self._connection.task is None:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if streams:
            self._upload = Upload(self._transport)
            self._server.receiving.pop(self, None)
            self._enqueue(self._read(self._request(b"", upload=self._upload)))

    def on_body(self, body: bytes) -> None:
        if self._upload is not None:
            self._connection.deadline = self._loop.time() + self._limits.body_timeout_s
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
        self._connection.deadline = math.inf
        if self._upload is not None:
            self._upload.end()
            self._upload = None
            return
        request = self._request(self._body[0] if len(self._body) == 1 else b"".join(self._body))
        self._body = []
        if self._parser.should_upgrade():
            self.is_switching = True
            protocol = self._headers.get("upgrade", "").lower()
            request.upgrade = protocol == "websocket" or protocol == "spdy/3.1"
        self._enqueue(self._read(request))

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

    def _request(self, body: bytes, upload: Upload | None = None) -> Request:
        method, target = self._parser.get_method().decode(), self._target.decode("latin-1")
        if target[:1] != "/" and (absolute := _ABSOLUTE.match(target)):
            rest = target[absolute.end() :]
            target = rest if rest[:1] == "/" else f"/{rest}"
        user = self._user if self._user is None or time.time() < self._user_until else STRANGER
        return Request(method, target, self._headers, body, user, False, upload, self._peer)

    def _read(self, request: Request) -> Waiting:
        size, self._message_bytes = self._message_bytes, 0
        return request, self._parser.should_keep_alive(), size, self._version != "1.0"

    # ---- what waits

    @property
    def _is_full(self) -> bool:
        return len(self.waiting) >= self._limits.pipelined_max or self._waiting_bytes > self._limits.body_bytes_max

    def _enqueue(self, waiting: Waiting) -> None:
        self.waiting.append(waiting)
        self._waiting_bytes += waiting[2]
        if self._is_full and not self.is_closed:
            self._is_held_back = True
            self._transport.pause_reading()
        self._connection.wake()

    def take(self) -> Waiting:
        """The next request; what it holds is counted until it is answered (`done`)."""
        waiting = self.waiting.popleft()
        self._waiting_bytes -= waiting[2]
        if self._is_held_back and not self._is_full and not self.is_closed:
            self._parse_backlog()
            if not self._is_full:
                self._is_held_back = False
                self._transport.resume_reading()
        return waiting

    def done(self, waiting: Waiting) -> None:
        """A request was answered."""
        if self._held_bytes:
            self._release(min(waiting[2], self._held_bytes))

    def _hold(self, size_bytes: int) -> None:
        self._message_bytes += size_bytes
        self._held_bytes += size_bytes
        self._server.received_bytes += size_bytes

    def _release(self, size_bytes: int) -> None:
        self._held_bytes -= size_bytes
        self._server.received_bytes -= size_bytes
