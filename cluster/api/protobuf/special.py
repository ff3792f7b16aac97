"""Messages whose JSON form is not an object: times, quantities, numbers-or-names, raw JSON, schemas-or-something.

Each has a decoder (bytes, and a function that decodes a message by name) and an encoder (value, and one that encodes).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

from steersman.cluster.api.protobuf.wire import (
    BYTES,
    ProtobufError,
    fields,
    signed,
    text,
    write_field,
    write_number,
)

Decode = Callable[[str, memoryview], Any]
Encode = Callable[[str, Any], bytes]
_SCHEMA = "apiextensions.v1.JSONSchemaProps"
_UNITS_NS = {"h": 3_600_000_000_000, "m": 60_000_000_000, "s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")


def _numbers(data: memoryview) -> dict[int, int]:
    return {number: signed(value) for number, _, value in fields(data) if isinstance(value, int)}


def _first_text(data: memoryview, wanted: int = 1) -> str:
    for number, wire, value in fields(data):
        if number == wanted and wire == BYTES and not isinstance(value, int):
            return text(value)
    return ""


def _moment(data: memoryview) -> datetime | None:
    found = _numbers(data)
    seconds = found.get(1, 0)
    if not found or seconds <= -62135596800:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise ProtobufError(f"timestamp {seconds} is out of range") from None


def _time(data: memoryview, _decode: Decode) -> str | None:
    moment = _moment(data)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


def _micro_time(data: memoryview, _decode: Decode) -> str | None:
    moment = _moment(data)
    nanos = _numbers(data).get(2, 0)
    return f"{moment.strftime('%Y-%m-%dT%H:%M:%S')}.{nanos // 1000:06d}Z" if moment else None


def _encode_time(value: Any, _encode: Encode) -> bytes:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ProtobufError(f"{value!r} is no time") from None
    seconds = int(moment.replace(microsecond=0).timestamp())
    return write_number(1, seconds) + write_number(2, moment.microsecond * 1000)


def _quantity(data: memoryview, _decode: Decode) -> str:
    return _first_text(data) or "0"


def _encode_quantity(value: Any, _encode: Encode) -> bytes:
    return write_field(1, str(value).encode())


def _int_or_string(data: memoryview, _decode: Decode) -> int | str:
    found = _numbers(data)
    return _first_text(data, 3) if found.get(1) else found.get(2, 0)


def _encode_int_or_string(value: Any, _encode: Encode) -> bytes:
    if isinstance(value, str):
        return write_number(1, 1) + write_number(2, 0) + write_field(3, value.encode())
    return write_number(1, 0) + write_number(2, value) + write_field(3, b"")


def _raw(data: memoryview, _decode: Decode) -> Any:
    for number, wire, value in fields(data):
        if number == 1 and wire == BYTES and not isinstance(value, int) and len(value):
            try:
                return orjson.loads(value)
            except orjson.JSONDecodeError as error:
                raise ProtobufError(f"embedded JSON: {error}") from None
    return None


def _encode_raw(value: Any, _encode: Encode) -> bytes:
    return write_field(1, orjson.dumps(value))


def _strings(data: memoryview, _decode: Decode) -> list[str]:
    return [text(value) for number, _, value in fields(data) if number == 1 and not isinstance(value, int)]


def _encode_strings(value: Any, _encode: Encode) -> bytes:
    return b"".join(write_field(1, item.encode()) for item in value)


def _duration(data: memoryview, _decode: Decode) -> str:
    nanos = _numbers(data).get(1, 0)
    if not nanos:
        return "0s"
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    for unit in ("ns", "us", "ms"):
        if nanos < _UNITS_NS["s"] and nanos < _UNITS_NS[unit] * 1000:
            return f"{sign}{nanos / _UNITS_NS[unit]:g}{unit}"
    hours, rest = divmod(nanos, _UNITS_NS["h"])
    minutes, rest = divmod(rest, _UNITS_NS["m"])
    part = f"{rest / _UNITS_NS['s']:.9f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{sign}{hours}h{minutes}m{part}"
    return f"{sign}{minutes}m{part}" if minutes else sign + part


def _encode_duration(value: Any, _encode: Encode) -> bytes:
    plain = str(value).lstrip("-")
    total = sum(float(number) * _UNITS_NS[unit.replace("µ", "u")] for number, unit in _DURATION.findall(plain))
    return write_number(1, int(-total if str(value).startswith("-") else total))


def _parts(data: memoryview) -> dict[int, list[int | memoryview]]:
    found: dict[int, list[int | memoryview]] = {}
    for number, _, value in fields(data):
        found.setdefault(number, []).append(value)
    return found


def _schema(value: int | memoryview, decode: Decode) -> Any:
    if isinstance(value, int):
        raise ProtobufError("wrong wireType for a schema")
    return decode(_SCHEMA, value)


def _schema_or_bool(data: memoryview, decode: Decode) -> Any:
    found = _parts(data)
    return _schema(found[2][0], decode) if 2 in found else bool(found.get(1, [0])[0])


def _encode_schema_or_bool(value: Any, encode: Encode) -> bytes:
    if isinstance(value, bool):
        return write_number(1, int(value))
    return write_number(1, 1) + write_field(2, encode(_SCHEMA, value))


def _schema_or_array(data: memoryview, decode: Decode) -> Any:
    found = _parts(data)
    if 2 in found:
        return [_schema(value, decode) for value in found[2]]
    return _schema(found[1][0], decode) if 1 in found else None


def _encode_schema_or_array(value: Any, encode: Encode) -> bytes:
    if isinstance(value, list):
        return b"".join(write_field(2, encode(_SCHEMA, item)) for item in value)
    return write_field(1, encode(_SCHEMA, value))


def _schema_or_strings(data: memoryview, decode: Decode) -> Any:
    found = _parts(data)
    if 1 in found:
        return _schema(found[1][0], decode)
    return [text(value) for value in found.get(2, ()) if not isinstance(value, int)]


def _encode_schema_or_strings(value: Any, encode: Encode) -> bytes:
    if isinstance(value, list):
        return b"".join(write_field(2, item.encode()) for item in value)
    return write_field(1, encode(_SCHEMA, value))


DECODERS: dict[str, Callable[[memoryview, Decode], Any]] = {
    "time": _time,
    "microtime": _micro_time,
    "quantity": _quantity,
    "intorstr": _int_or_string,
    "raw": _raw,
    "strings": _strings,
    "duration": _duration,
    "schema-or-bool": _schema_or_bool,
    "schema-or-array": _schema_or_array,
    "schema-or-strings": _schema_or_strings,
}
ENCODERS: dict[str, Callable[[Any, Encode], bytes]] = {
    "time": _encode_time,
    "microtime": _encode_time,
    "quantity": _encode_quantity,
    "intorstr": _encode_int_or_string,
    "raw": _encode_raw,
    "strings": _encode_strings,
    "duration": _encode_duration,
    "schema-or-bool": _encode_schema_or_bool,
    "schema-or-array": _encode_schema_or_array,
    "schema-or-strings": _encode_schema_or_strings,
}
