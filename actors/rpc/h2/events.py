"""What happens on a connection, as its user is told."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from steersman.actors.rpc.h2.outlet import Stream


class Headers(Struct, frozen=True):
    """The first header block of a stream, or its trailers; as the `parse` of the connection reads it."""

    stream: Stream
    headers: Any


class Message(Struct, frozen=True):
    """A whole gRPC message."""

    stream: Stream
    data: bytes


class Ended(Struct, frozen=True):
    """The peer sends no more on a stream."""

    stream: Stream


class Reset(Struct, frozen=True):
    """The peer broke a stream off, which is gone."""

    stream: Stream
    code: int


class Refused(Struct, frozen=True):
    """A message was not taken: the stream brings no more."""

    stream: Stream
    too_large: bool
    words: str


class Drained(Struct, frozen=True):
    """All that waited on a stream has been sent."""

    stream: Stream


class Leaving(Struct, frozen=True):
    """The peer takes no new streams; those above `last` it has not looked at."""

    last: int
    code: int
    words: str


Event = Headers | Message | Ended | Reset | Refused | Drained | Leaving
