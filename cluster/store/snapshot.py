"""A whole state as a sequence of blocks: a header, the oldest versions, the changes since, and an end that counts them.

The remembered changes are part of it, so that a watch can resume on a member that was restored. Blocks are bounded;
whoever keeps or sends them keeps them apart and adds checksums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from msgspec import Struct

from steersman.cluster.store.mvcc import Change, Mvcc
from steersman.cluster.store.values import KeyValue, WatchEvent

T = TypeVar("T")

#: values in one block; keeps the time of one encoding short
BLOCK_BYTES_MAX = 1 << 20
#: versions or changes captured at once
PIECE_ITEMS = 1000
#: versions or changes in one block
BLOCK_ITEMS_MAX = 2000


class Header(Struct, frozen=True, array_like=True, tag=32):
    compacted: int
    log_start: int
    leases: tuple[tuple[int, int], ...]
    alarms: tuple[int, ...] = ()
    names: tuple[tuple[int, str], ...] = ()


class Base(Struct, frozen=True, array_like=True, tag=33):
    """Versions older than the oldest remembered change."""

    kvs: tuple[KeyValue, ...]


class Changes(Struct, frozen=True, array_like=True, tag=34):
    """Remembered changes, a tuple of (deleted, version) a revision."""

    revisions: tuple[tuple[tuple[bool, KeyValue], ...], ...]


class End(Struct, frozen=True, array_like=True, tag=35):
    kvs: int
    revisions: int


class SnapshotDamaged(Exception):
    """The blocks are no whole snapshot."""


@dataclass(frozen=True, slots=True)
class Capture:
    """A state at one moment; it shares its versions with the live one and never changes."""

    header: Header
    base: Sequence[KeyValue]
    changes: Sequence[Change]

    def restore(self) -> Mvcc:
        """Returns the state again."""
        return Mvcc.restored(
            compacted=self.header.compacted,
            log_start=self.header.log_start,
            base=list(self.base),
            log=list(self.changes),
            leases=list(self.header.leases),
            alarms=frozenset(self.header.alarms),
            names=dict(self.header.names),
        )


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Header | Base | Changes | End)


class Capturing:
    """Captures a state as it is at the beginning, in small pieces, while it goes on changing.

    The caller calls `step` until it returns False, then takes `captured`; `close` ends it at any time.
    """

    def __init__(self, state: Mvcc) -> None:
        self._state = state
        self._log_start, self._changes = state.history()
        self._header = Header(
            state.compacted,
            self._log_start,
            tuple(state.leases()),
            tuple(sorted(state.alarms)),
            tuple(sorted(state.names.items())),
        )
        self._base: list[KeyValue] = []
        #: keys up to it were captured
        self._cursor = b""
        #: remembered changes of which the versions before were captured
        self._undone = 0
        self.close = state.tell_replaced(self._replaced)

    def _replaced(self, old: KeyValue) -> None:
        if old.key > self._cursor and old.mod_revision < self._log_start:
            self._base.append(old)

    def step(self) -> bool:
        """Captures the next piece, in about a millisecond; returns whether more is left."""
        if self._undone < len(self._changes):
            end = self._undone + PIECE_ITEMS
            for change in self._changes[self._undone : end]:
                for event in change:
                    old = event.prev_kv
                    if old is not None and old.mod_revision < self._log_start:
                        self._base.append(old)
            self._undone = end
            return True
        kvs = self._state.live_after(self._cursor, PIECE_ITEMS)
        if not kvs:
            return False
        self._cursor = kvs[-1].key
        log_start = self._log_start
        self._base += [kv for kv in kvs if kv.mod_revision < log_start]
        return True

    @property
    def captured(self) -> Capture:
        return Capture(self._header, self._base, self._changes)


def capture(state: Mvcc) -> Capture:
    """Returns the state as it is now, in one piece."""
    capturing = Capturing(state)
    while capturing.step():
        pass
    capturing.close()
    return capturing.captured


def encode(captured: Capture) -> Iterator[bytes]:
    """Yields the blocks of a snapshot; may run in another thread."""
    yield _encoder.encode(captured.header)
    for kvs in _blocks(captured.base, lambda kv: len(kv.key) + len(kv.value)):
        yield _encoder.encode(Base(tuple(kvs)))
    for changes in _blocks(captured.changes, lambda change: sum(len(event.kv.value) for event in change)):
        rows = tuple(tuple((event.deleted, event.kv) for event in change) for change in changes)
        yield _encoder.encode(Changes(rows))
    yield _encoder.encode(End(len(captured.base), len(captured.changes)))


def _blocks(items: Sequence[T], size_bytes: Callable[[T], int]) -> Iterator[list[T]]:
    block: list[T] = []
    block_bytes = 0
    for item in items:
        block.append(item)
        block_bytes += size_bytes(item)
        if block_bytes >= BLOCK_BYTES_MAX or len(block) >= BLOCK_ITEMS_MAX:
            yield block
            block, block_bytes = [], 0
    if block:
        yield block


def decode(blocks: Iterable[bytes]) -> Capture:
    """Returns the state whose snapshot the blocks are.

    Raises:
        SnapshotDamaged: a block is missing, doubled or no block at all.
    """
    header: Header | None = None
    end: End | None = None
    base: list[KeyValue] = []
    rows: list[tuple[tuple[bool, KeyValue], ...]] = []
    for data in blocks:
        try:
            block = _decoder.decode(data)
        except msgspec.DecodeError as error:
            raise SnapshotDamaged(f"a block of the snapshot cannot be read: {error}") from None
        match block:
            case Header():
                header = block
            case Base(kvs=kvs):
                base.extend(kvs)
            case Changes(revisions=revisions):
                rows.extend(revisions)
            case End():
                end = block
    if header is None or end is None or (end.kvs, end.revisions) != (len(base), len(rows)):
        raise SnapshotDamaged("the snapshot is not complete")
    return Capture(header, base, _with_previous(base, rows))


def _with_previous(base: list[KeyValue], rows: list[tuple[tuple[bool, KeyValue], ...]]) -> list[Change]:
    """Finds the version before each change again by running through them."""
    changed = {kv.key for row in rows for _, kv in row}
    live = {kv.key: kv for kv in base if kv.key in changed} if changed else {}
    changes: list[Change] = []
    for row in rows:
        change = []
        for deleted, kv in row:
            change.append(WatchEvent(deleted, kv, live.get(kv.key)))
            if deleted:
                live.pop(kv.key, None)
            else:
                live[kv.key] = kv
        changes.append(tuple(change))
    return changes
