"""Header blocks (HPACK, RFC 7541): decoded once where a peer repeats them, encoded without a table.

What we send is literal and stands for itself, so that the same answer is always the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import hpack

#: bytes of a header list, as RFC 9113 section 6.5.2 counts them
HEADER_LIST_BYTES_MAX = 16 << 10
#: decoded blocks that one connection keeps, none longer than; more begin anew
BLOCKS_KEPT_MAX, KEPT_BLOCK_BYTES_MAX = 128, 1024

T = TypeVar("T")


class BadHeaders(Exception):
    """The block cannot be decoded, or is too long: the connection cannot go on."""


class HeaderDecoder(Generic[T]):
    """Decodes the header blocks of one connection.

    A block says the same as before for as long as the dynamic table is the same.

    Args:
        parse: makes of the fields what the caller wants to know of them.
    """

    def __init__(self, parse: Callable[[list[tuple[bytes, bytes]]], T]) -> None:
        self._parse = parse
        self._decoder = hpack.Decoder(max_header_list_size=HEADER_LIST_BYTES_MAX)
        self._kept: dict[bytes, T] = {}
        #: how many entries the dynamic table had, and the newest of them
        self._count = 0
        self._newest: tuple[bytes, bytes] | None = None

    def decode(self, block: bytes) -> T:
        """Raises BadHeaders."""
        found = self._kept.get(block)
        if found is not None:
            return found
        try:
            fields = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except hpack.HPACKError as error:
            raise BadHeaders(str(error)) from None
        found = self._parse(fields)
        if self._table_changed() or len(self._kept) >= BLOCKS_KEPT_MAX:
            self._kept.clear()
        elif len(block) <= KEPT_BLOCK_BYTES_MAX:
            self._kept[block] = found
        return found

    def _table_changed(self) -> bool:
        """Whether the last block changed the table: each entry that comes in is an object of its own."""
        entries = self._decoder.header_table.dynamic_entries
        before = self._count, self._newest
        self._count, self._newest = len(entries), entries[0] if entries else None
        return before[0] != self._count or before[1] is not self._newest


def encode(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Returns a block of literals without indexing (RFC 7541, section 6.2.2)."""
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in fields)


def _string(data: bytes) -> bytes:
    size = len(data)
    if size < 127:
        return bytes((size,)) + data
    size, head = size - 127, bytearray(b"\x7f")
    while size >= 128:
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    return bytes(head) + data
