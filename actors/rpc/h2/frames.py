"""The frames of HTTP/2 as bytes. Source: RFC 9113, sections 4, 6 and 7."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

#: length (24 bits) and kind (8), flags, stream
HEADER = Struct(">IBI")
HEADER_BYTES = HEADER.size
#: a DATA frame that begins with a gRPC message: the frame's header, then compressed (8 bits) and length
MESSAGE_FRAME = Struct(">IBIBI")
#: a gRPC message: compressed, length
PREFIX = Struct(">BI")
PREFIX_BYTES = PREFIX.size
WORD = Struct(">I")
SETTING = Struct(">HI")
GOAWAY_HEAD = Struct(">II")

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

#: of stream numbers and window sizes
MAX_31 = (1 << 31) - 1
WINDOW_BYTES_DEFAULT = 65_535
FRAME_BYTES_DEFAULT = 16_384


class Setting(enum.IntEnum):
    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ErrorCode(enum.IntEnum):
    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


#: bytes that are written one after the other
Pieces = Sequence[bytes | memoryview]


def varint(number: int) -> bytes:
    """Returns a number as protobuf encodes it."""
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    data.append(number)
    return bytes(data)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(len(payload) << 8 | kind, flags, stream) + payload


def settings(values: dict[Setting, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(key, value) for key, value in values.items()))


def window_update(stream: int, grown_bytes: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, WORD.pack(grown_bytes))


def rst_stream(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, WORD.pack(code))


def goaway(last_stream: int, code: int, words: str = "") -> bytes:
    return frame(GOAWAY, 0, 0, GOAWAY_HEAD.pack(last_stream, code) + words.encode())
