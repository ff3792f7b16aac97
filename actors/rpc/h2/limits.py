"""What the peer of a connection may use, and what ends a connection whose peer uses more."""

from __future__ import annotations

from msgspec import Struct

from steersman.actors.rpc.h2.frames import ErrorCode


class Limits(Struct, frozen=True, kw_only=True):
    """What a peer may use.

    Args:
        streams: at once.
        message_bytes: of one message.
        partial_bytes: of all messages of a connection that have come in part.
        stream_window_bytes, connection_window_bytes: sent to us before we have taken them.
        frame_bytes: of one frame.
        continuations: frames that go on with one header block.
        burst, per_second: frames that cost us something and bring nothing (pings, settings, resets, empty ones).
    """

    streams: int = 4096
    message_bytes: int = 16 << 20
    partial_bytes: int = 128 << 20
    stream_window_bytes: int = 1 << 20
    connection_window_bytes: int = 8 << 20
    frame_bytes: int = 256 << 10
    continuations: int = 8
    burst: int = 4000
    per_second: int = 1000


class ConnectionLost(Exception):
    """The peer broke the protocol: what is left to send says why, then the connection ends."""

    def __init__(self, code: ErrorCode, words: str) -> None:
        super().__init__(f"{code.name}: {words}")
        self.code, self.words = code, words
