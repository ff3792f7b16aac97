"""Files of bbolt: what is written reads the same, every page is where it is named, and damage is told of."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.cluster.store.bolt import PAGE_BYTES, Damaged, File, Plan, Reader, Row

Rows = dict[bytes, list[Row]]

#: mostly short, some longer than a page
VALUES = st.one_of(st.binary(max_size=40), st.integers(0, 40_000).map(bytes))
BUCKETS = st.dictionaries(
    st.binary(min_size=1, max_size=9),
    st.dictionaries(st.binary(min_size=1, max_size=40), VALUES, max_size=30),
    min_size=1,
    max_size=4,
)


def written(buckets: Rows) -> bytes:
    plans = {name: Plan() for name in buckets}
    for name, rows in buckets.items():
        plans[name].extend((key, len(value)) for key, value in rows)
    file = File(plans)
    data = b"".join(file.pieces(buckets))
    assert len(data) == file.size_bytes and not len(data) % PAGE_BYTES
    return data


def read(data: bytes) -> Rows:
    return {name: list(rows) for name, rows in Reader(memoryview(data)).buckets()}


def numbered(count: int, value_bytes: int) -> list[Row]:
    return [(b"%08d" % number, random.Random(number).randbytes(value_bytes)) for number in range(count)]


@given(buckets=BUCKETS)
@settings(max_examples=60)
def test_what_is_written_reads_the_same(buckets: dict[bytes, dict[bytes, bytes]]) -> None:
    rows = {name: sorted(found.items()) for name, found in buckets.items()}
    assert read(written(rows)) == rows


@pytest.mark.parametrize(
    ("count", "value_bytes"),
    [
        pytest.param(0, 0, id="nothing"),
        pytest.param(1, 3_000_000, id="one large value"),
        pytest.param(20_000, 10, id="two levels"),
        pytest.param(300, 16_000, id="a leaf a row"),
        pytest.param(30_000, 150, id="three levels"),
    ],
)
def test_trees_of_every_height_read_the_same(count: int, value_bytes: int) -> None:
    buckets = {b"first": numbered(3, 5), b"second": numbered(count, value_bytes), b"third": numbered(1, 1)}
    assert read(written(buckets)) == buckets


def test_rows_that_were_not_planned_for_are_a_mistake() -> None:
    def file() -> File:
        plan = Plan()
        plan.extend([(b"a", 1), (b"b", 5000)])
        return File({b"x": plan})

    for rows in ([(b"a", b"1")], [(b"a", b"1"), (b"b", bytes(5000)), (b"c", b"")], [(b"a", b"1"), (b"b", b"")]):
        with pytest.raises((ValueError, RuntimeError)):
            list(file().pieces({b"x": rows}))


def test_the_newer_whole_meta_counts() -> None:
    data = bytearray(written({b"x": [(b"k", b"v")]}))
    data[PAGE_BYTES + 30] ^= 1
    assert read(bytes(data)) == {b"x": [(b"k", b"v")]}, "the other one is left"
    data[30] ^= 1
    with pytest.raises(Damaged, match="does not begin"):
        read(bytes(data))


#: in the file below: the leaf of names is page 3, the branch of the bucket the last one
def _with(data: bytes, offset: int, number: int, form: str = "<I") -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, offset, number)
    return bytes(changed)


NAMES = 3 * PAGE_BYTES


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(lambda d: d[: len(d) // 2], "cannot be where it is named", id="cut off"),
        pytest.param(lambda d: _with(d, NAMES, 9, "<Q"), "holds something else", id="another page"),
        pytest.param(lambda d: _with(d, NAMES + 8, 4, "<H"), "holds something else", id="of another kind"),
        pytest.param(lambda d: _with(d, NAMES + 10, 60_000, "<H"), "ends too early", id="too many rows"),
        pytest.param(lambda d: _with(d, NAMES + 28, 1 << 20), "lies outside", id="a long value"),
        pytest.param(lambda d: _with(d, NAMES + 33, 3, "<Q"), "cannot be where it is named", id="a circle"),
        pytest.param(lambda d: _with(d, len(d) - PAGE_BYTES + 40, 4, "<Q"), "cannot be where", id="a page twice"),
        pytest.param(lambda d: b"", "does not begin", id="nothing"),
    ],
)
def test_damage_is_told_of(damage: Callable[[bytes], bytes], words: str) -> None:
    data = written({b"x": numbered(20_000, 10)})
    with pytest.raises(Damaged, match=words):
        read(damage(data))
