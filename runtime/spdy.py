"""The frames of SPDY/3.1, in which Kubernetes still holds exec, attach and port-forward: bytes to values and back.

No sockets and no streams' states: whoever holds the connection keeps those.

Source: https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FLAG_FIN = 1
#: one frame may not hold more than this
FRAME_BYTES_MAX = 4 * 1024 * 1024
#: nor its headers, inflated, more than this: a thousandth of it can be what was sent
HEADER_BYTES_MAX = 64 * 1024


def _dictionary() -> bytes:
    text = (
        "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age "
        "allow authorization cache-control connection content-base content-encoding content-language content-length "
        "content-location content-md5 content-range content-type date etag expect expires from host if-match "
        "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
        "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
        "user-agent vary via warning www-authenticate method get status"
    )
    words = text.split(" ")
    words += ["200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"]
    tail = (
        "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
        "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
        "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
        "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
        "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
        "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
    )
    return b"".join(struct.pack("!I", len(word)) + word.encode() for word in words) + tail.encode()


#: the zlib dictionary of header blocks (section 2.6.10.1)
DICTIONARY = _dictionary()


class SpdyError(ConnectionError):
    """The peer broke the framing; the session ends."""


@dataclass(frozen=True, slots=True)
class SpdyFrame:
    """A frame: `type` 0 is data; a control frame that carries headers has them decoded."""

    type: int
    stream: int
    flags: int = 0
    data: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class SpdyCodec:
    """Bytes to frames and back; keeps the two compression contexts of a session."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def receive(self, data: bytes) -> Iterator[SpdyFrame]:
        """Yields the frames completed by `data`; raises SpdyError for what is none."""
        self._buffer += data
        while len(self._buffer) >= 8:
            word, tail = struct.unpack_from("!II", self._buffer)
            flags, length = tail >> 24, tail & 0xFFFFFF
            if length > FRAME_BYTES_MAX:
                raise SpdyError(f"a frame of {length} bytes")
            if len(self._buffer) < 8 + length:
                return
            payload = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            if word >> 31:
                yield self._control(word & 0xFFFF, flags, payload)
            else:
                yield SpdyFrame(0, word & 0x7FFFFFFF, flags, payload)

    def _control(self, kind: int, flags: int, payload: bytes) -> SpdyFrame:
        offset = {SYN_STREAM: 10, SYN_REPLY: 4, HEADERS: 4}.get(kind)
        if len(payload) < (offset or 4):
            if kind == SETTINGS:
                return SpdyFrame(kind, 0, flags, payload)
            raise SpdyError(f"a control frame of type {kind} is too short")
        stream = int(struct.unpack_from("!I", payload)[0]) & 0x7FFFFFFF
        if offset is None:
            return SpdyFrame(kind, stream, flags, payload)
        return SpdyFrame(kind, stream, flags, b"", self._headers(payload[offset:]))

    def _headers(self, block: bytes) -> tuple[tuple[str, str], ...]:
        try:
            raw = self._inflate.decompress(block, HEADER_BYTES_MAX)
            if self._inflate.unconsumed_tail:
                raise SpdyError(f"headers of more than {HEADER_BYTES_MAX} bytes")
            (count,) = struct.unpack_from("!I", raw)
            position, rows = 4, []
            for _ in range(min(count, 256)):
                pair = []
                for _ in range(2):
                    (size,) = struct.unpack_from("!I", raw, position)
                    pair.append(raw[position + 4 : position + 4 + size].decode("latin-1"))
                    position += 4 + size
                rows.append((pair[0].lower(), pair[1]))
            return tuple(rows)
        except (zlib.error, struct.error) as error:
            raise SpdyError(f"a header block cannot be read: {error}") from None

    def data(self, stream: int, data: bytes, *, fin: bool = False) -> bytes:
        return struct.pack("!II", stream, (FLAG_FIN if fin else 0) << 24 | len(data)) + data

    def syn_stream(self, stream: int, headers: Mapping[str, str], *, fin: bool = False) -> bytes:
        return self._with_headers(SYN_STREAM, struct.pack("!IIH", stream, 0, 0), headers, fin)

    def syn_reply(self, stream: int, headers: Mapping[str, str] | None = None) -> bytes:
        return self._with_headers(SYN_REPLY, struct.pack("!I", stream), headers or {}, False)

    def _with_headers(self, kind: int, prefix: bytes, headers: Mapping[str, str], fin: bool) -> bytes:
        raw = struct.pack("!I", len(headers))
        for name, value in headers.items():
            for text in (name.encode(), value.encode()):
                raw += struct.pack("!I", len(text)) + text
        block = self._deflate.compress(raw) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return self._frame(kind, FLAG_FIN if fin else 0, prefix + block)

    def reset(self, stream: int, status: int) -> bytes:
        return self._frame(RST_STREAM, 0, struct.pack("!II", stream, status))

    def ping(self, payload: bytes) -> bytes:
        return self._frame(PING, 0, payload)

    def goaway(self, last: int) -> bytes:
        return self._frame(GOAWAY, 0, struct.pack("!II", last, 0))

    @staticmethod
    def _frame(kind: int, flags: int, payload: bytes) -> bytes:
        return struct.pack("!II", 0x80030000 | kind, flags << 24 | len(payload)) + payload
