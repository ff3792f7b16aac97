"""A range's result in parts."""

from __future__ import annotations

import pytest

from steersman.cluster.store import codec
from steersman.cluster.store.values import KeyValue, RangeResult


def result(sizes: list[int]) -> RangeResult:
    kvs = tuple(
        KeyValue(key=b"/%04d" % number, value=b"v" * size, create_revision=1, mod_revision=2, version=3)
        for number, size in enumerate(sizes)
    )
    return RangeResult(kvs=kvs, count=len(kvs) + 7, more=True, revision=9)


CASES = {
    "nothing": ([], 1),
    "one key": ([10], 1),
    "one key longer than a part": ([500], 1),
    "keys that fit": ([10] * 5, 1),
    "keys that fill two parts exactly": ([95, 95], 2),
    "many keys": ([10] * 100, 15),
    "long and short ones": ([500, 1, 1, 500, 1], 3),
}


@pytest.mark.parametrize("name", CASES)
def test_a_result_that_was_parted_is_the_same_when_joined(name: str) -> None:
    sizes, count = CASES[name]
    whole = result(sizes)
    parts = codec.encode_range_result(whole, 100)
    assert codec.decode_range_parts(parts) == whole
    assert len(parts) == count
