"""A checksum of what lives at a revision: equal on members that hold the same, whatever they remember of the past.

It is a sum over the keys, so that a captured state is gone through in pieces and in any order.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from steersman.cluster.store.snapshot import PIECE_ITEMS, Capture
from steersman.cluster.store.values import KeyValue

#: the checksum has 32 bits, as etcd's
MODULUS = 1 << 32


def parts(captured: Capture, revision: int) -> Iterator[int]:
    """Yields numbers whose sum modulo 2**32 is the checksum, each the work of a millisecond or two.

    Args:
        revision: one that the captured state can be read at.
    """
    changed: dict[bytes, KeyValue | None] = {}
    changes = captured.changes[: max(0, revision + 1 - captured.header.log_start)]
    for start in range(0, len(changes), PIECE_ITEMS):
        for change in changes[start : start + PIECE_ITEMS]:
            for event in change:
                changed[event.kv.key] = None if event.deleted else event.kv
        yield 0
    lasting = [kv for kv in changed.values() if kv is not None]
    for kvs in (captured.base, lasting):
        without = changed if kvs is captured.base else {}
        for start in range(0, len(kvs), PIECE_ITEMS):
            yield sum(_of(kv) for kv in kvs[start : start + PIECE_ITEMS] if kv.key not in without)


def _of(kv: KeyValue) -> int:
    head = b"%d %d %d %d %d " % (len(kv.key), kv.create_revision, kv.mod_revision, kv.version, kv.lease)
    return zlib.crc32(kv.value, zlib.crc32(head + kv.key))
