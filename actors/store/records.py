"""Checksummed records in a file, and what a damaged file tells: a write that a crash tore, or damage in the middle.

Format 1, all numbers little-endian:
    file    = magic (8 bytes) + format (u32) + record*
    record  = mark (4 bytes, A5 53 54 52) + length (u32) + crc32c of the payload (u32)
              + crc32c of the 12 bytes before (u32) + payload
A record is written by one write and made durable before the next one begins, so a crash can tear only the last one.
A torn write leaves a file that ends too early, or sectors that never arrived and read as zeros, since the file only
grows. Anything else, a flipped bit in the last record too, is damage: what was acknowledged is never taken for a tear.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

from steersman.actors.store.disk import DataDamaged, DataDirForeign

FORMAT = 1
MARK = b"\xa5STR"
_FILE_HEADER = struct.Struct("<8sI")
_RECORD_HEADER = struct.Struct("<4sIII")
FILE_HEADER_BYTES = _FILE_HEADER.size
RECORD_HEADER_BYTES = _RECORD_HEADER.size
#: what a disk writes as a whole or not at all
SECTOR_BYTES = 512


def file_header(magic: bytes) -> bytes:
    return _FILE_HEADER.pack(magic, FORMAT)


def record_header(payload: bytes) -> bytes:
    """Returns what precedes the payload."""
    head = struct.pack("<4sII", MARK, len(payload), google_crc32c.value(payload))
    return head + struct.pack("<I", google_crc32c.value(head))


def check_file_header(path: Path, data: bytes, magic: bytes) -> None:
    """Refuses a file of another kind or of a newer version.

    Raises:
        DataDamaged, DataDirForeign: it cannot be read by this version.
    """
    found = _FILE_HEADER.unpack_from(data)[1] if len(data) >= FILE_HEADER_BYTES and data[:8] == magic else 0
    if not found:
        raise DataDamaged(f"{path} does not begin as a file of the store")
    if found > FORMAT:
        raise DataDirForeign(f"{path} has format {found}, this version reads up to {FORMAT}: use the newer version")


def read_records(data: memoryview, offset: int) -> Iterator[tuple[int, memoryview]]:
    """Yields (offset after the record, payload) of each whole record, and ends at the first that is not."""
    while True:
        payload = _record_at(data, offset)
        if payload is None:
            return
        offset += RECORD_HEADER_BYTES + len(payload)
        yield offset, payload


def _record_at(data: memoryview, offset: int) -> memoryview | None:
    start = offset + RECORD_HEADER_BYTES
    if start > len(data):
        return None
    head = data[offset:start]
    mark, length, payload_crc, head_crc = _RECORD_HEADER.unpack(head)
    if mark != MARK or google_crc32c.value(bytes(head[:12])) != head_crc or start + length > len(data):
        return None
    payload = data[start : start + length]
    return payload if google_crc32c.value(bytes(payload)) == payload_crc else None


def is_torn_tail(data: memoryview, offset: int) -> bool:
    """Whether what lies from `offset` on can be one torn write (see above), and no whole record follows in it."""
    return (_ends_early(data, offset) or _has_empty_sector(data, offset)) and not _has_record_after(data, offset)


def _ends_early(data: memoryview, offset: int) -> bool:
    start = offset + RECORD_HEADER_BYTES
    if start > len(data):
        return True
    mark, length, _, head_crc = _RECORD_HEADER.unpack(data[offset:start])
    is_whole_head: bool = mark == MARK and google_crc32c.value(bytes(data[offset : start - 4])) == head_crc
    return is_whole_head and start + length > len(data)


def _has_empty_sector(data: memoryview, offset: int) -> bool:
    begins = (offset, *range(offset - offset % SECTOR_BYTES + SECTOR_BYTES, len(data), SECTOR_BYTES))
    return any(not any(data[begin : begin - begin % SECTOR_BYTES + SECTOR_BYTES]) for begin in begins)


def _has_record_after(data: memoryview, offset: int) -> bool:
    rest = bytes(data[offset:])
    position = rest.find(MARK, 1)
    while position >= 0:
        if _record_at(data, offset + position) is not None:
            return True
        position = rest.find(MARK, position + 1)
    return False
