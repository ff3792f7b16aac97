"""Passes one request on over a connection of its own, and gives back the answer as it comes.

When the other side switches protocols the answer is a tunnel: from then on bytes go both ways as they are.

Source: RFC 9112; RFC 9110, section 7.6 (message forwarding)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import httptools

from steersman.actors.http.messages import ByteStream, Response, Upgrade
from steersman.actors.http.wires import Wire

#: concern one connection only
HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip
#: the longest head of an answer that is read, as of Go's client
HEAD_BYTES_MAX = 1 << 20


def end_to_end(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers without those that concern one connection only, and those that `Connection` names as such."""
    named = {name.strip().lower() for name in headers.get("connection", "").replace("\n", ",").split(",")}
    return {name: value for name, value in headers.items() if name not in HOP_BY_HOP and name not in named}


class _Answer:
    """Collects an answer from the parser's callbacks."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        #: the values of headers that came more than once
        self._repeated: dict[str, list[str]] = {}
        self.pieces: list[bytes] = []
        self.status = 0
        self.complete = False
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        self.headers, self._repeated = {}, {}

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status:  # a trailer
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        if key in self.headers:
            self._repeated.setdefault(key, [self.headers[key]]).append(text)
        else:
            self.headers[key] = text

    def on_headers_complete(self) -> None:
        for key, values in self._repeated.items():
            self.headers[key] = "\n".join(values)
        status = self.parser.get_status_code()
        if status < 100:
            raise ConnectionError(f'malformed HTTP status code "{status}"')
        if status >= 200 or status == 101:
            self.status = status

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        self.complete = bool(self.status)


def head_of(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """The head of a request; a header with several lines is sent several times."""
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {line}" for name, value in headers.items() for line in value.split("\n")]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


async def pass_on(
    wire: Wire,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes | AsyncIterator[bytes],
    *,
    timeout_s: float | None,
) -> Response:
    """Sends a request and returns its answer; the wire is closed with it.

    Args:
        headers: as they are to be sent, without those of framing but for an upgrade's.
        body: a stream is sent in chunks unless `content-length` is among the headers.
        timeout_s: until the head of the answer; None for as long as it takes.

    Raises:
        OSError: the other side does not answer, or not in HTTP; TimeoutError: not in time.
    """
    sent = dict(headers)
    if isinstance(body, bytes):
        if body or method in ("POST", "PUT", "PATCH"):
            sent["content-length"] = str(len(body))
    elif "content-length" not in sent:
        sent["transfer-encoding"] = "chunked"
    sent.setdefault("connection", "close")
    answer, upgrades = _Answer(), "upgrade" in sent
    sending: asyncio.Task[None] | None = None
    try:
        await wire.write(head_of(method, target, sent) + (body if isinstance(body, bytes) else b""))
        if not isinstance(body, bytes):
            # the answer may come before all of the body was taken
            sending = asyncio.create_task(_send(wire, body, chunked="transfer-encoding" in sent))
        async with asyncio.timeout(timeout_s):
            left = await _read_head(wire, answer)
    except httptools.HttpParserError as error:
        await _end(wire, sending)
        raise ConnectionError(f"malformed HTTP response: {error}") from None
    except BaseException:
        await _end(wire, sending)
        raise
    if answer.status == 101:
        if not upgrades:
            await _end(wire, sending)
            raise ConnectionError("the server switches protocols unasked")
        return Response(101, {}, _tunnel(wire, answer.headers, left))
    given = end_to_end(answer.headers)
    if method == "HEAD" or answer.status in (204, 304):
        await _end(wire, sending)
        return Response(answer.status, given)
    return Response(answer.status, given, _pieces(wire, answer, sending))


async def _end(wire: Wire, sending: asyncio.Task[None] | None) -> None:
    if sending is not None:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    await wire.close()


async def _send(wire: Wire, body: AsyncIterator[bytes], *, chunked: bool) -> None:
    try:
        async for piece in body:
            if piece and not await _written(wire, b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece):
                return
        if chunked:
            await _written(wire, b"0\r\n\r\n")
    except OSError:  # whoever sends the body has broken off: half of it must not pass for the whole
        await wire.close()


async def _written(wire: Wire, data: bytes) -> bool:
    """Whether the other side still takes the body; when not, its answer may say why."""
    try:
        await wire.write(data)
    except OSError:
        return False
    return True


async def _read_head(wire: Wire, answer: _Answer) -> bytes:
    """Reads until the head is complete; returns what follows an upgrade."""
    count = 0
    while not answer.status:
        data = await wire.read()
        if not data:
            raise ConnectionResetError("EOF")
        count += len(data)
        if count > HEAD_BYTES_MAX:
            raise ConnectionError("net/http: server response headers exceeded 1048576 bytes; aborted")
        try:
            answer.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return data[upgrade.args[0] :]
    return b""


async def _pieces(wire: Wire, answer: _Answer, sending: asyncio.Task[None] | None) -> AsyncIterator[bytes]:
    framed = "content-length" in answer.headers or "transfer-encoding" in answer.headers
    try:
        while True:
            pieces, answer.pieces = answer.pieces, []
            for piece in pieces:
                yield piece
            if answer.complete:
                return
            data = await wire.read()
            if not data:
                if framed:
                    raise ConnectionResetError("the answer broke off")
                return
            try:
                answer.parser.feed_data(data)
            except httptools.HttpParserError as error:
                raise ConnectionResetError(f"malformed HTTP response: {error}") from None
    finally:
        await _end(wire, sending)


def _tunnel(wire: Wire, headers: Mapping[str, str], left: bytes) -> Upgrade:
    lines = [f"{name}: {line}" for name, value in headers.items() for line in value.split("\n")]
    head = "\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines]) + "\r\n\r\n"

    async def carry(client: ByteStream) -> None:
        async def upward() -> None:
            while data := await client.read():
                await wire.write(data)

        async def downward() -> None:
            await client.write(head.encode("latin-1") + left)
            while data := await wire.read():
                await client.write(data)

        tasks = [asyncio.create_task(upward()), asyncio.create_task(downward())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(OSError):
                await wire.close()

    return Upgrade(tunnel=carry, close=wire.close)
