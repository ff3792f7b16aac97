"""What the headers of a gRPC call say, and the headers that we send.

Source: gRPC over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from urllib.parse import quote, unquote

import grpc
from msgspec import Struct

from steersman.actors.rpc.h2.headers import encode

Metadata = tuple[tuple[str, str | bytes], ...]

_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
#: what HTTP/2 and gRPC keep for themselves
_RESERVED = frozenset(
    (
        b"te",
        b"content-type",
        b"grpc-timeout",
        b"grpc-encoding",
        b"grpc-accept-encoding",
        b"user-agent",
        b"grpc-status",
        b"grpc-message",
    )
)
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_CODES = {code.value[0]: code for code in grpc.StatusCode}
#: what a proxy's answer without a gRPC status means
_HTTP_CODES = {
    "400": grpc.StatusCode.INTERNAL,
    "401": grpc.StatusCode.UNAUTHENTICATED,
    "403": grpc.StatusCode.PERMISSION_DENIED,
    "404": grpc.StatusCode.UNIMPLEMENTED,
    "429": grpc.StatusCode.UNAVAILABLE,
    "502": grpc.StatusCode.UNAVAILABLE,
    "503": grpc.StatusCode.UNAVAILABLE,
    "504": grpc.StatusCode.UNAVAILABLE,
}


class RequestHead(Struct, frozen=True):
    """The headers of a call.

    Args:
        refusal: an HTTP status when this is no gRPC call; 0 when it is one.
        timeout_s: None when the caller waits for ever.
    """

    path: str = ""
    metadata: Metadata = ()
    timeout_s: float | None = None
    refusal: int = 0


class AnswerHead(Struct, frozen=True):
    """Headers or trailers of an answer.

    Args:
        code: None in headers that only begin the answer.
    """

    code: grpc.StatusCode | None
    words: str = ""
    metadata: Metadata = ()


def request_head(fields: list[tuple[bytes, bytes]]) -> RequestHead:
    known, metadata = _part(fields)
    if known.get(b":method") != b"POST":
        return RequestHead(refusal=405 if b":method" in known else 400)
    if not known.get(b":path", b"").startswith(b"/"):
        return RequestHead(refusal=400)
    if not known.get(b"content-type", b"").startswith(b"application/grpc"):
        return RequestHead(refusal=415)
    try:
        timeout_s = _timeout_s(known[b"grpc-timeout"].decode()) if b"grpc-timeout" in known else None
    except ValueError:
        return RequestHead(refusal=400)
    return RequestHead(known[b":path"].decode("latin-1"), metadata, timeout_s)


def _part(fields: list[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], Metadata]:
    """Returns what HTTP/2 and gRPC keep for themselves, and the rest."""
    known = {name: value for name, value in fields if name[:1] == b":" or name in _RESERVED}
    return known, tuple(_metadatum(name, value) for name, value in fields if name not in known)


def _timeout_s(text: str) -> float:
    """Raises ValueError."""
    if not text[:-1].isdecimal() or len(text) > 9 or text[-1] not in _UNITS_S:
        raise ValueError(text)
    return int(text[:-1]) * _UNITS_S[text[-1]]


def _metadatum(name: bytes, value: bytes) -> tuple[str, str | bytes]:
    key = name.decode("latin-1")
    if not key.endswith("-bin"):
        return key, value.decode("latin-1")
    try:
        return key, base64.b64decode(value + b"=" * (-len(value) % 4))
    except binascii.Error:
        return key, b""


def answer_head(fields: list[tuple[bytes, bytes]]) -> AnswerHead:
    known, metadata = _part(fields)
    if b"grpc-status" in known:
        status, words = known[b"grpc-status"], known.get(b"grpc-message", b"")
        code = _CODES.get(int(status), grpc.StatusCode.UNKNOWN) if status.isdigit() else grpc.StatusCode.UNKNOWN
        return AnswerHead(code, unquote(words.decode("latin-1")), metadata)
    status = known.get(b":status", b"")
    if status == b"200" and known.get(b"content-type", b"").startswith(b"application/grpc"):
        return AnswerHead(None, "", metadata)
    text = status.decode("latin-1")
    return AnswerHead(_HTTP_CODES.get(text, grpc.StatusCode.UNKNOWN), f"the answer has HTTP status {text or 'none'}")


#: begins every answer
ANSWER = encode(((b":status", b"200"), (b"content-type", b"application/grpc")))
#: ends every good one
OK = encode(((b"grpc-status", b"0"),))


def trailers(code: grpc.StatusCode, words: str = "", metadata: Sequence[tuple[str, str | bytes]] = ()) -> bytes:
    if code is grpc.StatusCode.OK and not words and not metadata:
        return OK
    fields = [(b"grpc-status", b"%d" % code.value[0])]
    if words:
        fields.append((b"grpc-message", quote(words, safe=_PRINTABLE).encode()))
    return encode((*fields, *(_field(*row) for row in metadata)))


def http_refusal(status: int) -> bytes:
    return encode(((b":status", b"%d" % status), (b"content-length", b"0")))


def request(path: str, authority: str, *, scheme: str, metadata: Sequence[tuple[str, str | bytes]]) -> bytes:
    fields = (
        (b":method", b"POST"),
        (b":scheme", scheme.encode()),
        (b":path", path.encode()),
        (b":authority", authority.encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"user-agent", b"steersman"),
    )
    return encode((*fields, *(_field(*row) for row in metadata)))


def _field(name: str, value: str | bytes) -> tuple[bytes, bytes]:
    if name.endswith("-bin"):
        data = value if isinstance(value, bytes) else value.encode()
        return name.encode(), base64.b64encode(data).rstrip(b"=")
    return name.encode(), value if isinstance(value, bytes) else value.encode()
