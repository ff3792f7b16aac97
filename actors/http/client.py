"""The remote way to an API server: a `Handler` that speaks HTTP/1.1 over TLS, with a pool of kept-alive connections.

Decides which endpoint and which connection a request takes, and nothing about objects. A request is repeated by itself
only where that cannot do harm: on a fresh connection when a kept one proved dead and the method only reads.
Source: RFC 9112.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import httptools
import orjson

from steersman.actors.http.messages import Request, Response
from steersman.actors.ports import Channel, monotonic
from steersman.cluster.meta.errors import ApiError, ServerTimeout, ServiceUnavailable, from_status

#: connections of one transport, watches included
CONNECTIONS_MAX = 256
#: idle connections kept for the next request
IDLE_MAX = 32
#: seconds for which a connection is used again: one that is always busy would outlive the certificate it began with
CONNECTION_AGE_MAX_S = 3600.0
#: bytes of a streamed answer read ahead of its reader
STREAM_BYTES_MAX = 1 << 20
#: the longest head of an answer that is read, as of Go's client
HEAD_BYTES_MAX = 1 << 20
_READS = frozenset({"GET", "HEAD", "OPTIONS"})


class ConnectionFailed(ServiceUnavailable):
    """No API server could be reached, or it hung up; whether a write took effect may be unknown."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One API server's address."""

    host: str
    port: int
    tls: bool
    base_path: str = ""

    @classmethod
    def parse(cls, server: str) -> Endpoint:
        """Reads `https://10.0.0.1:6443`.

        Raises:
            ValueError: the text is no http or https URL.
        """
        parts = urlsplit(server if "://" in server else f"https://{server}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{server!r} is no address of an API server: want https://HOST:PORT")
        tls = parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls, parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class _Reader(asyncio.StreamReader):
    """Knows how much has come that nobody has read."""

    unread_bytes = 0

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # its transports have no other data
        self.unread_bytes += len(data)
        super().feed_data(data)

    async def read(self, n: int = -1) -> bytes:
        data = await super().read(n)
        self.unread_bytes -= len(data)
        return data


class _Parsed:
    """Collects one response, without those that only announce it (1xx); the callbacks are httptools'."""

    def __init__(self) -> None:
        #: None once the response is complete: no cycle holds it then
        self.parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self.headers: dict[str, str] = {}
        #: the values of headers that came more than once
        self._repeated: dict[str, list[str]] = {}
        self.chunks: deque[bytes] = deque()
        self.head_complete = False
        self.complete = False

    def on_message_begin(self) -> None:
        if self.complete:
            raise ConnectionError("an answer that nobody has asked for")
        self.headers, self._repeated = {}, {}

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_complete:  # a trailer
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        if key in self.headers:
            self._repeated.setdefault(key, [self.headers[key]]).append(text)
        else:
            self.headers[key] = text

    def on_headers_complete(self) -> None:
        for key, values in self._repeated.items():
            self.headers[key] = ("\n" if key == "set-cookie" else ", ").join(values)
        status = self.parser.get_status_code() if self.parser is not None else 0
        if status < 100:
            raise ConnectionError(f'malformed HTTP status code "{status}"')
        self.head_complete = status >= 200 or status == 101

    def on_body(self, data: bytes) -> None:
        self.chunks.append(data)

    def on_message_complete(self) -> None:
        if self.head_complete:
            self.complete, self.parser = True, None


class _Connection:
    """One connection to an endpoint, carrying one request at a time."""

    def __init__(self, endpoint: Endpoint, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        self.endpoint = endpoint
        self.reader = reader
        self.writer = writer
        self.used = False
        self._opened_at = monotonic()
        self._begin()

    def _begin(self) -> None:
        self._parsed = _Parsed()
        assert self._parsed.parser is not None
        self._parser = self._parsed.parser

    @property
    def alive(self) -> bool:
        """Whether a request may be sent; not where the server has already said something else, nor for ever."""
        if monotonic() - self._opened_at >= CONNECTION_AGE_MAX_S:
            return False
        return not (self.reader.at_eof() or self.reader.unread_bytes or self.writer.is_closing())

    async def send(self, head: bytes, body: bytes | AsyncIterator[bytes]) -> None:
        self._begin()
        if isinstance(body, bytes):
            self.writer.write(head + body)
        else:
            self.writer.write(head)
            async for piece in body:
                if piece:
                    self.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    await self.writer.drain()
            self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def _feed(self) -> int:
        """Reads once; returns how much, nothing at the end of the connection."""
        data = await self.reader.read(1 << 16)
        if data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade:
                raise ConnectionResetError("the server switches protocols unasked") from None
            except httptools.HttpParserError:
                if not self._parsed.complete:
                    raise
                self.writer.close()  # it has said more than was asked
        return len(data)

    async def read_head(self) -> tuple[int, dict[str, str]]:
        size_bytes = 0
        while not self._parsed.head_complete:
            if not (read_bytes := await self._feed()):
                raise ConnectionResetError("the server closed the connection without an answer")
            size_bytes += read_bytes
            if size_bytes > HEAD_BYTES_MAX:
                raise ConnectionResetError(f"the head of the answer is longer than {HEAD_BYTES_MAX} bytes")
        return self._parser.get_status_code(), self._parsed.headers

    async def next_chunk(self) -> bytes | None:
        """Returns the next piece of the body, or None at its end."""
        parsed = self._parsed
        while not parsed.chunks:
            if parsed.complete:
                return None
            if not await self._feed():
                if "content-length" in parsed.headers or "transfer-encoding" in parsed.headers:
                    raise ConnectionResetError("the server closed the connection in the middle of an answer")
                parsed.complete = True
                self.writer.close()
        if len(parsed.chunks) == 1:
            return parsed.chunks.popleft()
        joined = b"".join(parsed.chunks)
        parsed.chunks.clear()
        return joined

    @property
    def reusable(self) -> bool:
        """Whether another request may follow; read from the headers, as the parser forgets at the message's end."""
        stays = (
            self._parser.get_http_version() == "1.1" and self._parsed.headers.get("connection", "").lower() != "close"
        )
        return self._parsed.complete and stays and self.alive


class _Body:
    """The body of a streamed answer; gives its connection back at the end, drops it when left early."""

    def __init__(self, connection: _Connection, release: Callable[[_Connection], None]) -> None:
        self._connection: _Connection | None = connection
        self._release = release

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        if self._connection is None:
            raise StopAsyncIteration
        try:
            chunk = await self._connection.next_chunk()
        except (OSError, httptools.HttpParserError) as error:
            self._let_go()
            raise ConnectionFailed(f"the connection to the server was lost: {error}") from error
        if chunk is None:
            self._let_go()
            raise StopAsyncIteration
        return chunk

    def _let_go(self) -> None:
        if self._connection is not None:
            self._release(self._connection)
            self._connection = None

    async def aclose(self) -> None:
        self._let_go()

    def __del__(self) -> None:
        self._let_go()


class HttpTransport:
    """A `Handler` reaching API servers over HTTP.

    Args:
        servers: addresses of equal API servers; the first that answers is used until it fails.
        tls: context with the cluster's CA and perhaps a client certificate; needed for https.
        token: bearer token, or a function that returns the present one; empty for none.
        server_hostname: the name expected in the server's certificate, when not the address's host.
        connect_timeout_s: for reaching one endpoint, TLS handshake included.
        response_timeout_s: from a request sent to the head of its answer.
        repeats: whether a write, too, is sent again when a kept connection proved dead.
        connections_max: open at the same time; one more waits.
        whole_bytes_max: longer answers come as a stream although their length is known; None for none.
    """

    def __init__(
        self,
        servers: Sequence[str],
        *,
        tls: ssl.SSLContext | None = None,
        token: str | Callable[[], str] = "",
        server_hostname: str | None = None,
        connect_timeout_s: float = 10.0,
        response_timeout_s: float = 65.0,
        repeats: bool = False,
        connections_max: int = CONNECTIONS_MAX,
        whole_bytes_max: int | None = None,
    ) -> None:
        if not servers:
            raise ValueError("no address of an API server was given")
        self._endpoints = [Endpoint.parse(server) for server in servers]
        self._current = 0
        self._tls = tls
        self._token = token if callable(token) else lambda: token
        self._server_hostname = server_hostname
        self._connect_timeout_s = connect_timeout_s
        self._response_timeout_s = response_timeout_s
        self._repeats = repeats
        self._idle: deque[_Connection] = deque()
        self._slots = asyncio.Semaphore(connections_max)
        self._whole_bytes_max = whole_bytes_max
        self._closed = False

    async def __call__(self, request: Request) -> Response:
        """Sends a request; an answer of unknown length comes as a stream.

        Raises:
            ConnectionFailed: no endpoint answers, or the connection broke before the answer.
            ServerTimeout: no answer in time.
        """
        body = request.body if request.upload is None else request.upload
        while True:
            connection = await self._acquire()
            reused = connection.used
            connection.used = True
            try:
                async with asyncio.timeout(None if not isinstance(body, bytes) else self._response_timeout_s):
                    await connection.send(self._head(connection.endpoint, request, body), body)
                    status, headers = await connection.read_head()
                    if request.method == "HEAD":
                        # the parser would wait for the body that is only announced
                        self._discard(connection)
                        return Response(status, headers)
                    if status not in (204, 304) and self._comes_in_pieces(headers):
                        return Response(status, headers, _Body(connection, self._release))
                    content = await _rest(connection)
            except TimeoutError as error:
                self._discard(connection)
                raise ServerTimeout(f"the server did not answer within {self._response_timeout_s:g}s") from error
            except (OSError, httptools.HttpParserError) as error:
                self._discard(connection)
                if reused and (self._repeats or request.method in _READS):
                    continue
                raise ConnectionFailed(
                    f"the connection to the server {connection.endpoint.authority} was lost: {error}"
                ) from error
            except BaseException:
                self._discard(connection)
                raise
            self._release(connection)
            return Response(status, headers, content)

    def _comes_in_pieces(self, headers: Mapping[str, str]) -> bool:
        length = headers.get("content-length", "")
        return not length.isdigit() or (self._whole_bytes_max is not None and int(length) > self._whole_bytes_max)

    def _head(self, endpoint: Endpoint, request: Request, body: bytes | AsyncIterator[bytes]) -> bytes:
        lines = [f"{request.method} {endpoint.base_path}{request.target} HTTP/1.1"]
        if "host" not in request.headers:
            lines.append(f"host: {endpoint.authority}")
        # one line for each value of a header that is sent more than once
        lines += [f"{name}: {line}" for name, value in request.headers.items() for line in value.split("\n")]
        if token := self._token():
            lines.append(f"authorization: Bearer {token}")
        if not isinstance(body, bytes):
            lines.append("transfer-encoding: chunked")
        elif body or request.method in ("POST", "PUT", "PATCH"):
            lines.append(f"content-length: {len(body)}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    async def _acquire(self) -> _Connection:
        if self._closed:
            raise ConnectionFailed("this client has been closed")
        while self._idle:
            connection = self._idle.pop()
            if connection.alive:
                return connection
            self._discard(connection)
        await self._slots.acquire()
        try:
            return await self._connect()
        except BaseException:
            self._slots.release()
            raise

    async def _connect(self) -> _Connection:
        failures: list[str] = []
        last: BaseException | None = None
        loop = asyncio.get_running_loop()
        for _ in self._endpoints:
            endpoint = self._endpoints[self._current]
            try:
                async with asyncio.timeout(self._connect_timeout_s):
                    reader = _Reader(limit=STREAM_BYTES_MAX, loop=loop)
                    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
                    transport, _ = await loop.create_connection(
                        lambda protocol=protocol: protocol,
                        endpoint.host,
                        endpoint.port,
                        ssl=self._tls if endpoint.tls else None,
                        server_hostname=(self._server_hostname or endpoint.host) if endpoint.tls else None,
                    )
            except (OSError, TimeoutError) as error:
                failures.append(f"{endpoint.authority}: {_why(error)}")
                last = error
                self._current = (self._current + 1) % len(self._endpoints)
                continue
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            _keep_alive(writer)
            return _Connection(endpoint, reader, writer)
        raise ConnectionFailed("Unable to connect to the server: " + "; ".join(failures)) from last

    def _release(self, connection: _Connection) -> None:
        # an idle connection keeps its slot; when somebody waits for one it is closed instead
        if connection.reusable and len(self._idle) < IDLE_MAX and not (self._closed or self._slots.locked()):
            self._idle.append(connection)
        else:
            self._discard(connection)

    def _discard(self, connection: _Connection) -> None:
        # a loop that is already closed has closed its sockets
        with contextlib.suppress(RuntimeError):
            connection.writer.close()
        self._slots.release()

    async def converse(self, request: Request) -> Channel:
        """Opens an exec, attach or port-forward over a WebSocket of its own.

        Raises:
            ApiError: the server's refusal.
            ConnectionFailed: no endpoint answers.
        """
        from steersman.actors.http.conversations import (  # only conversations pay for importing WebSocket
            EXEC_PROTOCOLS,
            PORT_FORWARD_PROTOCOLS,
            ExecChannel,
            HandshakeRefused,
            PortChannel,
            WebSocket,
        )

        forwards = urlsplit(request.target).path.endswith("/portforward")
        await self._slots.acquire()
        connection = None
        try:
            connection = await self._connect()
            wire = WebSocket(connection.reader, connection.writer)
            headers = {name: value for name, value in request.headers.items() if name == "user-agent"}
            if token := self._token():
                headers["authorization"] = f"Bearer {token}"
            target = connection.endpoint.base_path + request.target
            async with asyncio.timeout(self._response_timeout_s):
                await wire.open(
                    connection.endpoint.authority,
                    target,
                    headers,
                    PORT_FORWARD_PROTOCOLS if forwards else EXEC_PROTOCOLS,
                )
        except BaseException as error:
            if connection is not None:
                connection.writer.close()
            self._slots.release()
            if isinstance(error, HandshakeRefused):
                raise error_of(error.status, error.body) from error
            if isinstance(error, OSError):
                raise ConnectionFailed(f"the server refused the conversation: {_why(error)}") from error
            raise
        return (PortChannel if forwards else ExecChannel)(wire, self._slots.release)

    async def close(self) -> None:
        """Closes idle connections; those in use close as they end."""
        self._closed = True
        while self._idle:
            connection = self._idle.pop()
            self._discard(connection)
            with contextlib.suppress(OSError, TimeoutError):
                await connection.writer.wait_closed()


async def _rest(connection: _Connection) -> bytes:
    pieces = []
    while (piece := await connection.next_chunk()) is not None:
        pieces.append(piece)
    return b"".join(pieces)


def _why(error: BaseException) -> str:
    """Says in a few words why a connection failed."""
    match error:
        case TimeoutError():
            return "no answer in time"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted ({error.verify_message})"
        case ConnectionRefusedError():
            return "connection refused"
        case socket.gaierror():
            return "no such host"
    return str(error) or type(error).__name__


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """Lets the kernel notice within half a minute that the other machine is gone."""
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is None or connection.family == socket.AF_UNIX:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30000)):
        if (number := getattr(socket, option, None)) is not None:
            connection.setsockopt(socket.IPPROTO_TCP, number, value)


def error_of(status: int, body: bytes) -> ApiError:
    """Returns the error that a refusing answer stands for, whether or not its body is a `v1.Status`."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        parsed = None
    if isinstance(parsed, dict) and parsed.get("kind") == "Status":
        return from_status({"code": status, **parsed})
    if status == 404:  # as of client-go, whatever a server says
        return from_status({"code": status, "message": "the server could not find the requested resource"})
    text = body.decode(errors="replace").strip()[:500]
    return from_status({"code": status, "message": text or f"the server answered with status {status}"})
