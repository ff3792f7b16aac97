"""Requests and responses as values: what the HTTP server hands to the API server, and what in-process clients send.

The API server is a function from `Request` to `Response`; sockets are one way to call it, a direct call is the other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import orjson

from steersman.actors.http.feed import Feed
from steersman.actors.http.limits import Refused
from steersman.actors.ports import Channel, User


@dataclass(slots=True)
class Request:
    """One HTTP request, its body complete.

    Args:
        method: upper case.
        target: path and query as sent, percent-encoded.
        headers: names in lower case; repeated ones joined with `, `, those that hold names of users and groups
            (`x-remote-`, `impersonate-`) with line ends.
        body: raw bytes, already bounded.
        user: set by a trusted in-process transport or from the verified client certificate; None means that the
            bearer token decides, or nobody.
        upgrade: set when the client asks to switch protocols on a connection that can.
        peer: the client's address; empty in this process.
        upload: the body in pieces, for the few requests whose bodies are too large to hold (`body` is empty then).
    """

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    user: User | None = None
    upgrade: bool = False
    upload: AsyncIterator[bytes] | None = None
    peer: str = ""


#: a response body that comes in pieces; each piece is sent as it is yielded
Stream = AsyncIterator[bytes]


class ByteStream(Protocol):
    """Where a session runs: a raw connection or the binary messages of a WebSocket."""

    async def read(self) -> bytes: ...
    async def write(self, data: bytes) -> None: ...


class Conversation(Protocol):
    """Takes over an upgraded connection: called with the duplex channel of decoded frames."""

    def __call__(self, channel: Channel) -> Awaitable[None]: ...


@dataclass(slots=True)
class Upgrade:
    """The answer to exec, attach, port-forward and watches: the connection becomes a stream of frames.

    Args:
        lines: on a WebSocket: each line is a message of its own, and nothing else happens.
        run: called once with a channel to the client; the connection closes when it returns.
        channels: standard streams (0, 1, 2) that the client has asked for, and 4 for the sizes of its terminal; on
            SPDY it opens each with a frame, and the conversation begins when it has.
        close: called at the end in any case, also when the conversation never began; may be called twice.
        port_forward: whether the wire multiplexes ports (pairs of channels) rather than standard streams.
        ports: the ports named in the query of a port-forward.
        open_port: for a port-forward: opens one conversation with a port of the pod.
        works_on_s: how long `run` may go on with what the client sent before it left.
        tunnel: takes over the connection as it is, and says itself, before all else, that it was switched.
    """

    run: Conversation | None = None
    channels: tuple[int, ...] = ()
    close: Callable[[], Awaitable[None]] | None = None
    port_forward: bool = False
    ports: tuple[int, ...] = ()
    open_port: Callable[[int], Awaitable[Channel]] | None = None
    lines: Feed | None = None
    works_on_s: float = 0.0
    tunnel: Callable[[ByteStream], Awaitable[None]] | None = None


@dataclass(slots=True)
class Response:
    """One HTTP response.

    Args:
        passed_on: it comes from another server, whose answer nobody changes.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Stream | Feed | Upgrade = b""
    passed_on: bool = False


def refusal(refused: Refused) -> Response:
    """What a client is told whose request cannot be read any further."""
    body = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": refused.message, "reason": refused.reason, "code": refused.status,
    }  # fmt: skip
    headers = {"content-type": "application/json"}
    if refused.retry_after_s:
        headers["retry-after"] = str(refused.retry_after_s)
    return Response(refused.status, headers, orjson.dumps(body))


class Handler(Protocol):
    """An API server seen from its transports."""

    async def __call__(self, request: Request) -> Response: ...
