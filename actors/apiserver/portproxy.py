"""Speaks HTTP/1.1 to a pod's port on behalf of a client of the `proxy` subresource."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import quote

import httptools

from steersman.actors.apiserver.call import Call
from steersman.actors.http.messages import Response
from steersman.actors.ports import Channel, Frame
from steersman.cluster.meta.errors import ServiceUnavailable

#: headers that concern one connection only, or that the pod must not see
_HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
        "upgrade", "authorization", "host", "content-length", "expect",
    }
)  # fmt: skip
_HEAD_TIMEOUT_S = 30.0


class _Answer:
    """Collects a pod's answer from the parser's callbacks."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []
        self.has_head = False
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        if key not in _HOP_BY_HOP:
            self.headers[key] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.has_head = True

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        self.complete = True


async def proxy_request(call: Call, channel: Channel, host: str) -> Response:
    """Sends the request through a port-forward and returns the pod's answer as it comes.

    Raises:
        ServiceUnavailable: the pod does not answer, or not in HTTP.
    """
    request = call.request
    query = request.target.partition("?")[2]
    path = "/" + "/".join(quote(part) for part in call.attributes.rest)
    if request.target.partition("?")[0].endswith("/") and not path.endswith("/"):
        path += "/"
    lines = [f"{request.method} {path}{'?' + query if query else ''} HTTP/1.1", f"host: {host}", "connection: close"]
    lines += [f"{key}: {value}" for key, value in request.headers.items() if key not in _HOP_BY_HOP]
    lines.append(f"content-length: {len(request.body)}")
    answer = _Answer()
    parser = httptools.HttpResponseParser(answer)
    try:
        await channel.send(Frame(0, "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + request.body))
        async with asyncio.timeout(_HEAD_TIMEOUT_S):
            while not answer.has_head:
                await _feed(channel, parser)
    except (ConnectionError, TimeoutError, httptools.HttpParserError) as error:
        await channel.close()
        raise ServiceUnavailable(f"error trying to reach service: {error or 'it does not answer'}") from None
    return Response(parser.get_status_code(), answer.headers, _pieces(channel, parser, answer))


async def _feed(channel: Channel, parser: httptools.HttpResponseParser) -> bool:
    frame = await channel.receive()
    if frame is None:
        raise ConnectionResetError("the pod has closed the connection")
    if frame.channel == 1 and frame.data:
        parser.feed_data(frame.data)
    return True


async def _pieces(channel: Channel, parser: httptools.HttpResponseParser, answer: _Answer) -> AsyncIterator[bytes]:
    try:
        while True:
            pieces, answer.pieces = answer.pieces, []
            for piece in pieces:
                yield piece
            if answer.complete:
                return
            await _feed(channel, parser)
    except (ConnectionError, httptools.HttpParserError):
        return
    finally:
        await channel.close()
