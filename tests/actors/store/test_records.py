"""What the end of a log tells: a torn write is cut off, damage is refused."""

from __future__ import annotations

import random

import pytest

from steersman.actors.store.records import SECTOR_BYTES, is_torn_tail, read_records, record_header


def record(payload: bytes) -> bytes:
    return record_header(payload) + payload


FIRST = record(bytes(range(1, 200)) * 5)
LAST = record(bytes(random.Random(1).randrange(1, 256) for _ in range(3000)))


def judged(data: bytes) -> str:
    view, end = memoryview(data), 0
    for end, _ in read_records(view, 0):  # noqa: B007  (the offset after the last is needed)
        pass
    return "whole" if end == len(data) else "torn" if is_torn_tail(view, end) else "damaged"


def test_whole_records_are_whole() -> None:
    assert judged(FIRST + LAST) == "whole"


@pytest.mark.parametrize("kept", [0, 1, 15, 16, 17, 500, len(LAST) - 1])
def test_a_file_that_ends_within_the_last_record_is_torn(kept: int) -> None:
    assert judged(FIRST + LAST[:kept]) == ("torn" if kept else "whole")


def test_sectors_that_never_arrived_are_a_tear_whichever_they_are() -> None:
    data = FIRST + LAST
    for sector in range(len(FIRST) // SECTOR_BYTES, len(data) // SECTOR_BYTES + 1):
        torn = bytearray(data)
        begin, end = max(len(FIRST), sector * SECTOR_BYTES), min(len(data), (sector + 1) * SECTOR_BYTES)
        torn[begin:end] = bytes(end - begin)
        assert judged(bytes(torn)) == "torn", f"sector {sector}"
    assert judged(FIRST + bytes(5000)) == "torn"


def test_a_bit_that_flips_anywhere_in_the_last_record_is_damage() -> None:
    for position in range(len(LAST)):
        flipped = bytearray(LAST)
        flipped[position] ^= 1 << (position % 8)
        assert judged(FIRST + bytes(flipped)) == "damaged", f"byte {position}"


def test_what_lies_before_a_whole_record_is_damage_even_when_it_is_zeros() -> None:
    assert judged(FIRST + bytes(len(LAST)) + LAST) == "damaged"
