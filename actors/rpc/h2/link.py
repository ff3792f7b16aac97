"""An HTTP/2 connection on a socket: one write for each turn of the event loop, pings where the peer is silent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from steersman.actors.rpc.h2.connection import Connection
from steersman.actors.rpc.h2.events import Event
from steersman.actors.rpc.h2.limits import ConnectionLost

logger = logging.getLogger(__name__)

#: bytes that the socket has not taken; above it messages wait in their streams, where who writes them can see it
SOCKET_BYTES_MAX = 1 << 20
#: how long a peer may take to read what was written before the end
CLOSING_S = 1.0


class Link(asyncio.Protocol):
    """Moves bytes between a socket and a connection.

    Args:
        silence_s: a peer silent for so long is pinged; silent for as long again it is given up.
    """

    def __init__(self, connection: Connection, silence_s: float) -> None:
        self.h2 = connection
        self.loop = asyncio.get_running_loop()
        self.is_over = False
        self._silence_s = silence_s
        self._transport: Any = None
        self._flushes = False
        self._writers: list[Callable[[], None]] = []
        self._heard, self._pinged = True, False
        self._timer: asyncio.TimerHandle | None = None

    # what children do

    def handle(self, event: Event) -> None:
        """Takes what happened."""
        raise NotImplementedError

    def over(self, words: str) -> None:
        """The connection is over, with all its streams."""
        raise NotImplementedError

    # asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=SOCKET_BYTES_MAX)
        self._timer = self.loop.call_later(self._silence_s, self._look)
        self.flush()

    def data_received(self, data: bytes) -> None:
        self._heard = True
        try:
            events = self.h2.receive(data, self.loop.time())
        except ConnectionLost as error:
            logger.info("connection with %s: %s", self.peer, error)
            self.close(str(error))
            return
        for event in events:
            self.handle(event)
        if not self._flushes and self.h2.outlet.has_output:
            self.flush_soon()

    def pause_writing(self) -> None:
        self.h2.outlet.pause()

    def resume_writing(self) -> None:
        for event in self.h2.resume():
            self.handle(event)
        self.flush_soon()

    def connection_lost(self, error: Exception | None) -> None:
        self._end(str(error) if error else "the peer closed the connection")

    # writing

    @property
    def peer(self) -> str:
        host, port = (self._transport.get_extra_info("peername") or ("?", 0))[:2]
        return f"{host}:{port}"

    def flush_soon(self) -> None:
        """Writes what there is at the end of this turn of the loop."""
        if not self._flushes:
            self._flushes = True
            self.loop.call_soon(self.flush)

    def write_soon(self, writer: Callable[[], None]) -> None:
        """Has somebody send what has gathered, right before the next flush."""
        self._writers.append(writer)
        self.flush_soon()

    def flush(self) -> None:
        self._flushes = True
        try:
            while self._writers:
                writers, self._writers = self._writers, []
                for writer in writers:
                    writer()
        except Exception:
            logger.exception("what was to be sent to %s could not be made", self.peer)
            self.abort("this side failed")
        finally:
            self._flushes = False
        if self.h2.outlet.has_output and not self.is_over:
            pieces = self.h2.outlet.take()
            if len(pieces) == 1:
                self._transport.write(pieces[0])
            else:
                self._transport.writelines(pieces)

    def close(self, words: str) -> None:
        """Writes what there is, and ends the connection."""
        self.flush()
        self._transport.close()
        self.loop.call_later(CLOSING_S, self._transport.abort)
        self._end(words)

    def abort(self, words: str) -> None:
        self._transport.abort()
        self._end(words)

    def _end(self, words: str) -> None:
        if not self.is_over:
            self.is_over = True
            if self._timer is not None:
                self._timer.cancel()
            self.over(words)

    def _look(self) -> None:
        """Pings a peer that has been silent, or gives it up."""
        if self._heard:
            self._heard = self._pinged = False
        elif not self._pinged:
            self._pinged = True
            self.h2.ping()
            self.flush()
        else:
            self.abort(f"the peer has been silent for {2 * self._silence_s:g} s")
            return
        self._timer = self.loop.call_later(self._silence_s, self._look)
