"""The protobuf wire itself: tags, varints and length-delimited fields.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class ProtobufError(ValueError):
    """The bytes are no message of the expected type."""


def read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """Returns (value, next position)."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ProtobufError("unexpected EOF" if at >= len(data) else "integer overflow")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7


def fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yields (field number, wire type, value): an integer for varints and fixed sizes, else the bytes."""
    at, end = 0, len(data)
    while at < end:
        tag, at = read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise ProtobufError("illegal tag 0")
        if kind == VARINT:
            value, at = read_varint(data, at)
            yield number, kind, value
            continue
        if kind == BYTES:
            size, at = read_varint(data, at)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise ProtobufError(f"illegal wireType {kind}")
        if at + size > end:
            raise ProtobufError("unexpected EOF")
        yield number, kind, data[at : at + size]
        at += size


def write_varint(value: int) -> bytes:
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_field(number: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    return write_varint(number << 3 | BYTES) + write_varint(len(payload)) + payload


def write_number(number: int, value: int) -> bytes:
    """A varint field."""
    return write_varint(number << 3 | VARINT) + write_varint(value)


def signed(value: int) -> int:
    """The two's complement reading of a 64-bit varint."""
    return value - (1 << 64) if value >= 1 << 63 else value


def text(value: int | memoryview) -> str:
    """The text of a length-delimited field."""
    if isinstance(value, int):
        raise ProtobufError("wrong wireType for a string")
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError as error:
        raise ProtobufError(f"invalid UTF-8: {error}") from None
