"""The sending half of a connection: what goes out now, and what waits for the peer's windows.

Source: RFC 9113, section 5.2 and 6.9.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any

from steersman.actors.rpc.h2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_DEFAULT,
    HEADER,
    HEADERS,
    MAX_31,
    MESSAGE_FRAME,
    PREFIX,
    PREFIX_BYTES,
    WINDOW_BYTES_DEFAULT,
    Pieces,
)

#: what is so long is cheaper to write by itself than to copy
LONG_BYTES = 32 << 10


class Stream:
    """One stream.

    Attributes:
        owner: whatever the user of the connection keeps with it.
        send_window, receive_window: bytes that may still be sent, and received.
        credit: bytes received that the peer has not been given back.
        held: the peer is given nothing back.
        ended_here, ended_there: this side, or the peer, sends no more.
        ignored: what still comes is thrown away.
        prefix: the beginning of a message's prefix, when no more of it has come.
        body, body_bytes, missing_bytes: pieces of a message that has come in part, and what they lack; None for none.
        queued_bytes: of data that waits for the peer's window.
    """

    __slots__ = (
        "body",
        "body_bytes",
        "credit",
        "ended_here",
        "ended_there",
        "held",
        "id",
        "ignored",
        "last",
        "missing_bytes",
        "owner",
        "prefix",
        "queue",
        "queued_bytes",
        "receive_window",
        "send_window",
    )

    def __init__(self, number: int, send_window: int, receive_window: int) -> None:
        self.id = number
        self.owner: Any = None
        self.send_window, self.receive_window = send_window, receive_window
        self.credit = 0
        self.held = False
        self.ended_here = self.ended_there = False
        self.ignored = False
        self.prefix = b""
        self.body: list[bytes | memoryview] | None = None
        self.body_bytes = self.missing_bytes = 0
        self.queue: deque[memoryview] | None = None
        self.queued_bytes = 0
        #: what ends the stream once the queue is empty: a block of trailers, or nothing; None while it goes on
        self.last: bytes | None = None


class Outlet:
    """What one side sends. Data beyond the peer's windows waits in its stream; everything else goes out at once."""

    def __init__(self) -> None:
        self._out: list[bytes | memoryview] = []
        self._window = WINDOW_BYTES_DEFAULT
        self._frame_bytes = FRAME_BYTES_DEFAULT
        self._has_long = False
        self._paused = False
        #: streams with data that waits
        self._waiting: dict[int, Stream] = {}
        #: headers or a message went out since the last ping of the peer
        self.has_answered = False
        #: of streams to come
        self.stream_window = WINDOW_BYTES_DEFAULT

    @property
    def has_output(self) -> bool:
        return bool(self._out)

    @property
    def queued_bytes(self) -> int:
        """Of data that waits on all streams."""
        return sum(stream.queued_bytes for stream in self._waiting.values())

    def take(self) -> list[bytes | memoryview]:
        """Returns what is to be written now: in one piece, but for long ones, which are not copied."""
        out, self._out = self._out, []
        if not self._has_long:
            return [b"".join(out)]
        self._has_long = False
        pieces: list[bytes | memoryview] = []
        for is_long, group in itertools.groupby(out, lambda piece: len(piece) >= LONG_BYTES):
            row = list(group)
            pieces += row if is_long else (b"".join(row),)
        return pieces

    def frame(self, data: bytes) -> None:
        self._out.append(data)

    def headers(self, stream: Stream, block: bytes) -> None:
        self.has_answered = True
        self._out.append(HEADER.pack(len(block) << 8 | HEADERS, END_HEADERS, stream.id) + block)

    def message(self, stream: Stream, body: bytes) -> None:
        """Sends a message, or as much of it as there is room for."""
        size = len(body) + PREFIX_BYTES
        self.has_answered = True
        if (
            size <= stream.send_window
            and size <= self._window
            and size <= self._frame_bytes
            and not (stream.queue or self._paused)
        ):
            stream.send_window -= size
            self._window -= size
            self._out.append(MESSAGE_FRAME.pack(size << 8 | DATA, 0, stream.id, 0, size - PREFIX_BYTES))
            self._out.append(body)
            self._has_long |= size > LONG_BYTES
        else:
            self.long_message(stream, (body,))

    def long_message(self, stream: Stream, pieces: Pieces) -> None:
        """The same for a message that lies in pieces, which are not copied."""
        self.has_answered = True
        size = sum(map(len, pieces))
        if stream.queue is None:
            stream.queue = deque()
        stream.queue.append(memoryview(PREFIX.pack(0, size)))
        stream.queue.extend(memoryview(piece) for piece in pieces if piece)
        stream.queued_bytes += size + PREFIX_BYTES
        self._waiting[stream.id] = stream
        self._send_queued(stream, MAX_31)

    def end(self, stream: Stream, trailers: bytes) -> None:
        """Ends this side of a stream after what waits: with a block of trailers, or without."""
        stream.last = trailers
        if not stream.queue:
            self._send_last(stream, trailers)

    def _send_last(self, stream: Stream, trailers: bytes) -> None:
        kind, flags = (HEADERS, END_HEADERS | END_STREAM) if trailers else (DATA, END_STREAM)
        self._out.append(HEADER.pack(len(trailers) << 8 | kind, flags, stream.id) + trailers)
        stream.ended_here = True

    def forget(self, stream: Stream) -> None:
        """Drops what waits on a stream."""
        self._waiting.pop(stream.id, None)
        stream.queue = None
        stream.queued_bytes = 0

    def pause(self) -> None:
        """Lets data wait until `resume`: the socket takes no more."""
        self._paused = True

    def resume(self) -> list[Stream]:
        self._paused = False
        return self._send_waiting()

    def connection_grew(self, grown_bytes: int) -> list[Stream]:
        """Returns the streams on which nothing waits any more; raises ValueError for a window that cannot be."""
        self._window += grown_bytes
        if not grown_bytes or self._window > MAX_31:
            raise ValueError(f"the window of the connection grows by {grown_bytes}")
        return self._send_waiting()

    def stream_grew(self, stream: Stream, grown_bytes: int) -> bool:
        """Returns whether data waited and waits no more; raises ValueError for a window that cannot be."""
        stream.send_window += grown_bytes
        if not grown_bytes or stream.send_window > MAX_31:
            raise ValueError(f"the window of stream {stream.id} grows by {grown_bytes}")
        if stream.queue:
            self._send_queued(stream, MAX_31)
            return not stream.queue
        return False

    def set_frame_bytes(self, size: int) -> None:
        self._frame_bytes = size

    def _send_waiting(self) -> list[Stream]:
        """Sends a frame of each stream in turn, while windows allow."""
        drained: list[Stream] = []
        progress = True
        while progress and self._waiting and self._window > 0 and not self._paused:
            progress = False
            for stream in list(self._waiting.values()):
                progress |= self._send_queued(stream, 1)
                if not stream.queue:
                    drained.append(stream)
        return drained

    def _send_queued(self, stream: Stream, frames_max: int) -> bool:
        """Returns whether something was sent."""
        sent, queue = 0, stream.queue
        while queue and sent < frames_max and not self._paused:
            room = min(stream.send_window, self._window, self._frame_bytes)
            if room <= 0:
                break
            pieces, size = _cut(queue, room)
            stream.send_window -= size
            self._window -= size
            stream.queued_bytes -= size
            self._out.append(HEADER.pack(size << 8 | DATA, 0, stream.id))
            self._out.extend(pieces)
            self._has_long |= size > LONG_BYTES
            sent += 1
        if not queue:
            self._waiting.pop(stream.id, None)
            if stream.last is not None and not stream.ended_here:
                self._send_last(stream, stream.last)
        return sent > 0


def _cut(queue: deque[memoryview], room: int) -> tuple[list[memoryview], int]:
    """Takes up to so many bytes off the head of a queue."""
    pieces: list[memoryview] = []
    size = 0
    while queue and size < room:
        piece = queue[0]
        if len(piece) <= room - size:
            queue.popleft()
        else:
            piece, queue[0] = piece[: room - size], piece[room - size :]
        pieces.append(piece)
        size += len(piece)
    return pieces, size
