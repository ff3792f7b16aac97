"""Kubernetes protobuf bodies to JSON trees and back.

A body is four bytes (`k8s` and a zero) and a `runtime.Unknown` that names the kind and carries its message. The tree is
the one that the same object would have as JSON: times are text, quantities are text, embedded structs have no level of
their own.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding
"""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Any

import orjson

from steersman.cluster.api.protobuf.special import DECODERS, ENCODERS
from steersman.cluster.api.protobuf.table import Field, Message, message, message_of
from steersman.cluster.api.protobuf.wire import (
    BYTES,
    FIXED64,
    ProtobufError,
    fields,
    read_varint,
    signed,
    text,
    write_field,
    write_number,
    write_varint,
)
from steersman.cluster.meta.objects import Obj

__all__ = ["NoEnvelope", "ProtobufError", "UnknownKind", "decode", "encode"]

MAGIC = b"k8s\x00"
_PREFIX = f"[{' '.join(map(str, MAGIC))}]"
_DEPTH_MAX = 64
#: fields of one body: two bytes can be one
FIELDS_MAX = 400_000


class NoEnvelope(ProtobufError):
    """A body that is none of Kubernetes' protobuf."""


class UnknownKind(ProtobufError):
    """A body of a kind that has no message."""

    def __init__(self, kind: str, api_version: str) -> None:
        super().__init__(f'no kind "{kind}" is registered for version "{api_version}"')
        self.kind = kind
        self.api_version = api_version


def decode(body: bytes, api_version: str = "", kind: str = "") -> Obj:
    """Reads a body; `api_version` and `kind` are those expected where the envelope says nothing.

    Raises:
        ProtobufError: no such envelope, an unknown kind, or a broken message.
    """
    if len(body) in (0, len(MAGIC)):
        raise NoEnvelope("empty body" if body else "empty data")
    if not body.startswith(MAGIC):
        raise NoEnvelope(f"provided data does not appear to be a protobuf message, expected prefix {_PREFIX}")
    raw, content_type = b"", ""
    for number, wire, value in fields(memoryview(body)[4:]):
        if wire != BYTES or isinstance(value, int):
            continue
        if number == 1:
            said = {n: text(v) for n, w, v in fields(value) if w == BYTES and not isinstance(v, int)}
            api_version, kind = said.get(1) or api_version, said.get(2) or kind
        elif number == 2:
            raw = bytes(value)
        elif number == 4:
            content_type = text(value)
    if content_type and "json" in content_type:
        return _json(raw)
    shape = message_of(api_version, kind)
    if shape is None:
        raise UnknownKind(kind, api_version)
    return {"apiVersion": api_version, "kind": kind, **_message(shape, memoryview(raw), 0, [FIELDS_MAX])}


def _json(raw: bytes) -> Obj:
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ProtobufError(f"embedded JSON: {error}") from None
    if not isinstance(found, dict):
        raise ProtobufError("embedded JSON: no object")
    return found


def _message(shape: Message, data: memoryview, depth: int, left: list[int]) -> Obj:
    """Args: left: fields that may still come, of the whole body."""
    if depth > _DEPTH_MAX:
        raise ProtobufError("the message is nested too deeply")
    found: Obj = {}
    for number, wire, value in fields(data):
        left[0] -= 1
        if left[0] < 0:
            raise ProtobufError(f"the message holds more than {FIELDS_MAX} fields")
        row = shape.by_number.get(number)
        if row is None:
            continue
        if row.mapped:
            key, item = _entry(row, value, depth, left)
            found.setdefault(row.name, {})[key] = item
        elif row.repeated:
            items = found.setdefault(row.name, [])
            if row.is_scalar and wire == BYTES and row.type in ("i", "b"):
                items += _packed(row, value)
            else:
                items.append(_value(row, wire, value, depth, left))
        else:
            item = _value(row, wire, value, depth, left)
            if row.inline:
                found.update(item)
            elif item is not None and (item or row.keep_zero or not row.is_scalar):
                found[row.name] = item
    return found


def _packed(row: Field, value: int | memoryview) -> list[Any]:
    if isinstance(value, int):
        raise ProtobufError("wrong wireType for a packed field")
    items: list[Any] = []
    at = 0
    while at < len(value):
        number, at = read_varint(value, at)
        items.append(bool(number) if row.type == "b" else signed(number))
    return items


def _entry(row: Field, value: int | memoryview, depth: int, left: list[int]) -> tuple[str, Any]:
    if isinstance(value, int):
        raise ProtobufError("wrong wireType for a map")
    key = ""
    item: Any = {"s": "", "y": ""}.get(row.type)
    for number, wire, part in fields(value):
        if number == 1:
            key = text(part)
        elif number == 2:
            item = _value(row, wire, part, depth, left)
    if item is None:
        item = _value(row, BYTES, memoryview(b""), depth, left)
    return key, item


def _value(row: Field, wire: int, value: int | memoryview, depth: int, left: list[int]) -> Any:
    match row.type:
        case "s":
            return text(value)
        case "i" | "b":
            if not isinstance(value, int):
                raise ProtobufError(f"wrong wireType = {wire} for field {row.name}")
            return bool(value) if row.type == "b" else signed(value)
        case "y" if not isinstance(value, int):
            return base64.b64encode(value).decode()
        case "d" if wire == FIXED64 and not isinstance(value, int):
            number = struct.unpack("<d", value)[0]
            return int(number) if number.is_integer() and abs(number) < 2**53 else number
    if isinstance(value, int):
        raise ProtobufError(f"wrong wireType = {wire} for field {row.name}")
    special = DECODERS.get(row.type)
    if special is not None:
        return special(value, lambda name, data: _message(_shape(name), data, depth + 1, left))
    return _message(_shape(row.type), value, depth + 1, left)


def _shape(name: str) -> Message:
    found = message(name)
    if found is None:
        raise ProtobufError(f"no message {name}")
    return found


def encode(obj: Obj) -> bytes:
    """Writes an object as a body.

    Raises:
        ProtobufError: the kind has no protobuf form, or a value has not the type of its field.
    """
    api_version, kind = obj.get("apiVersion", ""), obj.get("kind", "")
    shape = message_of(api_version, kind)
    if shape is None:
        raise UnknownKind(kind, api_version)
    meta = write_field(1, api_version.encode()) + write_field(2, kind.encode())
    own = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind")}
    if "apiVersion" in shape.by_name and "kind" in shape.by_name:
        own = obj
    raw = _encode_message(shape, own)
    return MAGIC + write_field(1, meta) + write_field(2, raw) + write_field(3, b"") + write_field(4, b"")


def _encode_message(shape: Message, obj: Any) -> bytes:
    if not isinstance(obj, dict):
        raise ProtobufError(f"{shape.name} must be an object")
    parts: list[tuple[int, bytes]] = []
    inner: dict[str, Obj] = {}
    for key, value in obj.items():
        row = shape.by_name.get(key)
        if row is None:
            owner = shape.owners.get(key)
            if owner is not None:
                inner.setdefault(owner.name, {})[key] = value
            continue
        if value is not None:
            parts.append((row.number, _encode_field(row, value)))
    for row in shape.inlined:
        if row.name in inner:
            payload = _encode_message(_shape(row.type), inner[row.name])
            parts.append((row.number, write_field(row.number, payload)))
    parts.sort(key=lambda part: part[0])
    return b"".join(payload for _, payload in parts)


def _encode_field(row: Field, value: Any) -> bytes:
    if row.mapped:
        entries = []
        for key in sorted(value):
            item = write_field(2, b"") if value[key] is None else _encode_value(row, 2, value[key])
            entry = write_field(1, key.encode()) + item
            entries.append(write_field(row.number, entry))
        return b"".join(entries)
    if row.repeated:
        return b"".join(_encode_value(row, row.number, item) for item in value)
    return _encode_value(row, row.number, value)


def _encode_value(row: Field, number: int, value: Any) -> bytes:
    try:
        match row.type:
            case "s":
                return write_field(number, value.encode())
            case "i" | "b":
                return write_number(number, int(value))
            case "y":
                return write_field(number, base64.b64decode(value, validate=True))
            case "d":
                return write_varint(number << 3 | FIXED64) + struct.pack("<d", value)
    except (AttributeError, TypeError, ValueError, binascii.Error, struct.error) as error:
        raise ProtobufError(f"{row.name}: {error}") from None
    special = ENCODERS.get(row.type)
    if special is not None:
        payload = special(value, lambda name, obj: _encode_message(_shape(name), obj))
    else:
        payload = _encode_message(_shape(row.type), value)
    return write_field(number, payload)
