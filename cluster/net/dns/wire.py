"""DNS messages: questions out of bytes, answers into bytes with compressed names.

Source: RFC 1035, RFC 2782 (SRV), RFC 6891 (EDNS)
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

A, NS, CNAME, SOA, PTR, TXT, AAAA, SRV, OPT, ANY = 1, 2, 5, 6, 12, 16, 28, 33, 41, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
IN = 1
#: what a client takes by UDP without EDNS, and what is sent at most with it (never fragmented)
UDP_BYTES, UDP_BYTES_MAX = 512, 1232
TCP_BYTES_MAX = 65535
_RESPONSE, _AUTHORITATIVE, _TRUNCATED, _DESIRED, _AVAILABLE = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_HEADER = struct.Struct("!6H")


class WireError(ValueError):
    """The bytes are no question that can be answered.

    Args:
        message_id: to answer with FORMERR; None when not even that was there.
    """

    def __init__(self, text: str, message_id: int | None = None) -> None:
        super().__init__(text)
        self.message_id = message_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One question.

    Args:
        name: lower case, without the final dot; question: its bytes, repeated in the answer as they came.
        size_bytes_max: of the answer.
    """

    id: int
    name: str
    type: int
    question: bytes
    recursion: bool = True
    edns: bool = False
    size_bytes_max: int = UDP_BYTES


@dataclass(frozen=True, slots=True)
class Record:
    """A resource record.

    Args:
        value: A: address; CNAME, PTR, NS: name; TXT: text; SRV: (priority, weight, port, target);
            SOA: (primary, mailbox, serial, refresh, retry, expire, minimum).
    """

    name: str
    type: int
    ttl_s: int
    value: str | tuple[int, int, int, str] | tuple[str, str, int, int, int, int, int]


def parse_query(data: bytes, *, tcp: bool = False) -> Query:
    """Reads a standard query with one question.

    Raises:
        WireError: it is none.
    """
    if len(data) < _HEADER.size:
        raise WireError("shorter than a header")
    number, flags, questions, _, _, additional = _HEADER.unpack_from(data)
    if flags & _RESPONSE or (flags >> 11) & 0xF or questions != 1:
        raise WireError("no standard query with one question", None if flags & _RESPONSE else number)
    name, position = _read_name(data, _HEADER.size, number)
    if position + 4 > len(data):
        raise WireError("the question is cut off", number)
    kind, cls = struct.unpack_from("!2H", data, position)
    if cls not in (IN, ANY):
        raise WireError(f"class {cls} is not served", number)
    end = position + 4
    size = _edns_size(data, end) if additional else None
    udp = min(max(size, UDP_BYTES), UDP_BYTES_MAX) if size is not None else UDP_BYTES
    return Query(
        id=number,
        name=name,
        type=kind,
        question=data[_HEADER.size : end],
        recursion=bool(flags & _DESIRED),
        edns=size is not None,
        size_bytes_max=TCP_BYTES_MAX if tcp else udp,
    )


def _read_name(data: bytes, position: int, number: int) -> tuple[str, int]:
    labels: list[str] = []
    while True:
        if position >= len(data):
            raise WireError("the name is cut off", number)
        length = data[position]
        if length == 0:
            return ".".join(labels), position + 1
        if length > 63 or position + 1 + length > len(data) or len(labels) > 127:
            raise WireError("the name is malformed", number)
        label = data[position + 1 : position + 1 + length].decode("latin-1").lower()
        labels.append(label.replace(".", "\\."))
        position += 1 + length


def _edns_size(data: bytes, position: int) -> int | None:
    """The UDP size that an OPT record right after the question tells."""
    if position + 11 <= len(data) and data[position] == 0:
        kind, size = struct.unpack_from("!2H", data, position + 1)
        if kind == OPT:
            return int(size)
    return None


def encode_answer(
    query: Query,
    code: int,
    answers: Sequence[Record] = (),
    authority: Sequence[Record] = (),
    additional: Sequence[Record] = (),
    *,
    authoritative: bool = True,
    recursion_available: bool = True,
) -> bytes:
    """Returns the response; with more than fits it is truncated, so that the client asks again by TCP."""
    opt = b"\0" + struct.pack("!HHIH", OPT, UDP_BYTES_MAX, 0, 0) if query.edns else b""
    room = query.size_bytes_max - len(opt)
    body = bytearray(query.question)
    names = {query.name: _HEADER.size} if query.name else {}
    counts = [0, 0, 0]
    truncated = False
    for index, section in enumerate((answers, authority, additional)):
        for record in section:
            before = len(body)
            _write_record(body, names, record)
            if _HEADER.size + len(body) > room:
                del body[before:]
                truncated = index == 0
                break
            counts[index] += 1
        if truncated:
            break
    flags = _RESPONSE | (_AUTHORITATIVE if authoritative else 0) | (_TRUNCATED if truncated else 0) | code
    flags |= (_DESIRED if query.recursion else 0) | (_AVAILABLE if recursion_available else 0)
    header = _HEADER.pack(query.id, flags, 1, counts[0], counts[1], counts[2] + bool(opt))
    return bytes(header + body + opt)


def encode_error(message_id: int, code: int) -> bytes:
    """Returns a response to bytes that could not be read."""
    return _HEADER.pack(message_id, _RESPONSE | _AVAILABLE | code, 0, 0, 0, 0)


def _write_name(body: bytearray, names: dict[str, int], name: str, *, compress: bool = True) -> None:
    rest = name
    while rest:
        if compress and rest in names:
            body += struct.pack("!H", 0xC000 | names[rest])
            return
        if compress and _HEADER.size + len(body) < 0x4000:
            names[rest] = _HEADER.size + len(body)
        label, _, rest = rest.partition(".")
        raw = label.encode("latin-1", "replace")[:63]
        body.append(len(raw))
        body += raw
    body.append(0)


def _write_record(body: bytearray, names: dict[str, int], record: Record) -> None:
    _write_name(body, names, record.name)
    body += struct.pack("!HHIH", record.type, IN, record.ttl_s, 0)
    start = len(body)
    value = record.value
    match record.type, value:
        case (1, str()):
            body += ipaddress.IPv4Address(value).packed
        case (28, str()):
            body += ipaddress.IPv6Address(value).packed
        case (16, str()):
            raw = value.encode()[:255]
            body += bytes([len(raw)]) + raw
        case (33, (int(priority), int(weight), int(port), str(target))):
            body += struct.pack("!3H", priority, weight, port)
            _write_name(body, names, target, compress=False)
        case (6, (str(primary), str(mailbox), *numbers)):
            _write_name(body, names, primary)
            _write_name(body, names, mailbox)
            body += struct.pack("!5I", *numbers)
        case (_, str()):
            _write_name(body, names, value)
        case _:
            raise ValueError(f"no record of type {record.type} with value {value!r}")
    struct.pack_into("!H", body, start - 2, len(body) - start)


def answer_addresses(message: bytes) -> list[Record]:
    """The records of a response's answer section whose names or addresses can be read (A, AAAA, CNAME)."""
    _, _, questions, answers, _, _ = _HEADER.unpack_from(message)
    position = _HEADER.size
    found = []
    for _ in range(questions):
        position = _skip(message, position)[1] + 4
    for _ in range(answers):
        name, position = _skip(message, position)
        kind, _, ttl_s, length = struct.unpack_from("!HHIH", message, position)
        position += 10
        raw = message[position : position + length]
        if kind == A and length == 4:
            found.append(Record(name, A, ttl_s, str(ipaddress.IPv4Address(raw))))
        elif kind == AAAA and length == 16:
            found.append(Record(name, AAAA, ttl_s, str(ipaddress.IPv6Address(raw))))
        elif kind == CNAME:
            found.append(Record(name, CNAME, ttl_s, _skip(message, position)[0]))
        position += length
    return found


def _skip(message: bytes, position: int) -> tuple[str, int]:
    """Reads a name that may be compressed; returns it and where it ends."""
    labels: list[str] = []
    end, jumps = -1, 0
    while message[position]:
        length = message[position]
        if length >= 0xC0:
            end = position + 2 if end < 0 else end
            position = struct.unpack_from("!H", message, position)[0] & 0x3FFF
            jumps += 1
            if jumps > 64:
                raise WireError("the name leads in circles")
            continue
        labels.append(message[position + 1 : position + 1 + length].decode("latin-1").lower())
        position += 1 + length
    return ".".join(labels), position + 1 if end < 0 else end
