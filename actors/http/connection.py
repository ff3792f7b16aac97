"""One connection of the HTTP/1.1 server: answers its requests in order, lets it become a conversation, and ends it.

What comes is the `Receiver`'s, what goes the `Sender`'s; whose turn it is, and whether the client still has time, is
decided here. It knows nothing of the API behind the handler.

Source: RFC 9112 (HTTP/1.1), RFC 9110 section 7.8 (Upgrade).
"""

from __future__ import annotations

import asyncio
import logging
import math
import select
import socket
import ssl
from typing import TYPE_CHECKING, cast

from steersman.actors.http.limits import Refused
from steersman.actors.http.messages import Request, Response, Upgrade, refusal
from steersman.actors.http.pipe import Pipe
from steersman.actors.http.receiver import Receiver, Waiting
from steersman.actors.http.sender import Sender
from steersman.actors.http.spdy import serve_spdy
from steersman.actors.http.websocket import serve_websocket
from steersman.actors.ports import STRANGER, User
from steersman.runtime import strangers

if TYPE_CHECKING:
    from steersman.actors.http.server import HttpServer

log = logging.getLogger(__name__)

#: requests of one connection that are answered before others have their turn
_ANSWERS_A_TURN = 8


def _bearer(server: HttpServer, transport: asyncio.Transport) -> tuple[User | None, float]:
    """Who shows a certificate, None without one; and when it expires, which its connection may outlive."""
    certificate = transport.get_extra_info("peercert")
    if not certificate or server.identify is None:
        return None, 0.0
    tls = transport.get_extra_info("ssl_object")
    root = strangers.root_of(tls)
    if root is None:
        return STRANGER, math.inf
    user = server.identify({**certificate, "der": tls.getpeercert(binary_form=True), "root": root})
    return user, ssl.cert_time_to_seconds(certificate["notAfter"])


class Connection(asyncio.Protocol):
    """One connection: its requests one after the other, each answered before the next."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._limits = server.limits
        self._loop = asyncio.get_running_loop()
        self._pipe: Pipe | None = None
        self._works_on_s = 0.0
        self.task: asyncio.Task[None] | None = None
        #: by when the client has to have said or read something, of the loop's clock
        self.deadline = self._loop.time() + self._limits.idle_timeout_s

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's
        self._transport = transport = cast(asyncio.Transport, transport)
        server = self._server
        self._receiver = Receiver(self, server, transport, *_bearer(server, transport))
        self._sender = Sender(self, server, transport)
        if not server.admit(self):
            transport.abort()
            return
        transport.set_write_buffer_limits(high=self._limits.write_buffer_bytes_max)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._works_on_s:  # otherwise it counts, and ends with the server, for as long as its conversation does
            self._server.forget(self)
        self._receiver.lose()
        self._sender.lose()
        if self._pipe is not None:
            self._pipe.feed_eof()
        if self.task is not None:
            if self._works_on_s:
                self._loop.call_later(self._works_on_s, self.task.cancel)
            else:
                self.task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._pipe is None:
            self._receiver.feed(data)
        else:
            self._stir()
            self._pipe.feed(data)

    def eof_received(self) -> bool:
        if self._pipe is not None:
            self._pipe.feed_eof()
            # TLS cannot be closed in one direction only
            return self._transport.get_extra_info("sslcontext") is None
        return False

    def pause_writing(self) -> None:
        self._sender.pause()

    def resume_writing(self) -> None:
        self._sender.resume()

    # ---- answering

    @property
    def streaming(self) -> bool:
        """Whether what it is doing may have no end."""
        return self._sender.is_streaming or self._pipe is not None

    def wake(self) -> None:
        """A request waits."""
        if self.task is None:
            self.task = self._loop.create_task(self._answer_all())

    async def _answer_all(self) -> None:
        receiver, count = self._receiver, 0
        try:
            while receiver.waiting:
                count += 1
                if not count % _ANSWERS_A_TURN:
                    await asyncio.sleep(0)
                waiting = receiver.take()
                try:
                    keep = await self._answer(waiting)
                finally:
                    receiver.done(waiting)
                if not keep:
                    self._part()
                    return
            self.deadline = self._loop.time() + self._limits.idle_timeout_s
        except (ConnectionError, TimeoutError):
            self._transport.abort()
        finally:
            self.task = None
            if receiver.waiting and not self._transport.is_closing():
                self.wake()

    async def _answer(self, waiting: Waiting) -> bool:
        """Returns whether the connection goes on."""
        request, keep, _, chunked = waiting
        keep = keep and not self._server.stopping
        if isinstance(request, Response):
            body = request.body if isinstance(request.body, bytes) else b""
            self._sender.write_whole(request, body, keep, length=len(body))
            return keep
        try:
            response = await self._server.handler(request)
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            log.exception("%s %r: the handler failed", request.method, request.target.partition("?")[0])
            response = refusal(Refused(500, "InternalError", "Internal error occurred"))
            keep = False
        if request.upload is not None and keep:
            keep = await request.upload.discard()  # type: ignore[attr-defined]
        if isinstance(response.body, Upgrade):
            await self._switch(request, response.body)
            return False
        keep = await self._sender.send(request, response, keep, chunked)
        if keep and self._receiver.is_switching:
            self._receiver.goes_on()
        return keep

    async def _switch(self, request: Request, upgrade: Upgrade) -> None:
        """Lets the connection be what was asked for, until that ends."""
        self._pipe = Pipe(self._transport, self._spoken, self._receiver.leftover)
        self._transport.resume_reading()
        self._works_on_s = upgrade.works_on_s
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
            if self._receiver.is_closed:
                self._server.forget(self)
            if upgrade.close is not None:
                await upgrade.close()
            self._close()

    def _stir(self) -> None:
        """Somebody says something in the conversation."""
        self.deadline = self._loop.time() + self._limits.conversation_idle_timeout_s

    async def _spoken(self) -> None:
        self._stir()
        await self._sender.drain()

    # ---- ending

    def _close(self) -> None:
        """Takes leave; of asyncio's transports of TLS one that is closed a second time can do nothing any more."""
        if not self._transport.is_closing():
            self._transport.close()

    def _part(self) -> None:
        """Closes after the last answer, once it was taken or had its time."""
        self.deadline = self._loop.time() + self._limits.write_timeout_s
        if self._receiver.is_closed:
            self._loop.call_later(self._limits.linger_s, self._close)
        else:
            self._receiver.is_closed = True
            self._close()

    def expire(self) -> None:
        """A time limit has passed: says so when a request was being read, and closes."""
        self.deadline = math.inf
        if self.task is None and self._receiver.is_reading():
            self._receiver.refuse(Refused(408, "Timeout", "the request was not complete in time"))
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
            self._close()

    def abort(self) -> None:
        self._transport.abort()
        if self.task is not None:
            self.task.cancel()
