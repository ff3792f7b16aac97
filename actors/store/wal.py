"""The write-ahead log on disk: segments of records, each record what was saved at once.

A segment's file name carries its number, counted from 1 without gaps; segments are removed from the oldest on.
Everything here blocks and runs in the disk's one thread.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from steersman.actors.store.disk import DataDamaged, merge_entries, recovery
from steersman.actors.store.files import Files, write_whole
from steersman.actors.store.records import (
    FILE_HEADER_BYTES,
    check_file_header,
    file_header,
    is_torn_tail,
    read_records,
    record_header,
)
from steersman.cluster.raft.values import Entry, HardState, SnapshotMeta

MAGIC = b"STEERWAL"
#: a new segment begins beyond this
SEGMENT_BYTES = 64 << 20


class Saved(Struct, frozen=True, array_like=True, tag=1):
    """One group of writes."""

    hard_state: HardState | None
    entries: tuple[Entry, ...]


class Restart(Struct, frozen=True, array_like=True, tag=2):
    """The log was replaced by a snapshot received from the leader: entries before this record count no more."""

    hard_state: HardState
    snapshot_index: int
    snapshot_term: int


class Begin(Struct, frozen=True, array_like=True, tag=3):
    """The first record of a segment: what is true at its start, so that older segments may go.

    Args:
        previous_last: the last entry of the segments before.
    """

    number: int
    hard_state: HardState
    previous_last: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Saved | Restart | Begin)


class Wal:
    """The log in a directory.

    Args:
        make_room: called when the file system is full; returns whether there is some space again.
    """

    def __init__(self, directory: Path, files: Files, segment_bytes: int, make_room: Callable[[], bool]) -> None:
        self._directory, self._files, self._make_room = directory, files, make_room
        self._segment_bytes = segment_bytes
        #: of the segment in use
        self._descriptor = -1
        self._open_path = directory
        self._size_bytes = 0
        self._number = 0
        self._hard_state = HardState()
        self._last = 0
        #: number of each closed segment to the last entry in it or before it
        self._closed: dict[int, int] = {}
        #: the snapshot, when it is ahead of the log that was read
        self._ahead: SnapshotMeta | None = None

    # reading

    def read(self, snapshot: SnapshotMeta) -> tuple[HardState, list[Entry], int]:
        """Returns the hard state, the entries after the snapshot and how many bytes of a torn write were cut off.

        Raises:
            DataDamaged: a record in the middle or a whole segment is missing or damaged.
            DataDirForeign: a newer version wrote it.
        """
        numbers = sorted(int(name[:-4]) for name in self._files.names(self._directory) if name.endswith(".wal"))
        entries: list[Entry] = []
        cut_bytes = 0
        for position, number in enumerate(numbers):
            if position and number != numbers[position - 1] + 1:
                raise DataDamaged(
                    f"segment {number - 1} of the log in {self._directory} is missing. "
                    f"{recovery(self._directory.parent)}"
                )
            is_last = position == len(numbers) - 1
            cut_bytes = self._read_segment(number, entries, is_last=is_last, is_first=not position)
            self._closed[number] = self._last
        if numbers:
            self._number = numbers[-1]
        return self._hard_state, self._after(entries, snapshot), cut_bytes

    def _after(self, entries: list[Entry], snapshot: SnapshotMeta) -> list[Entry]:
        kept = [entry for entry in entries if entry.index > snapshot.index]
        if kept and kept[0].index != snapshot.index + 1:
            raise DataDamaged(
                f"the log in {self._directory} begins at entry {kept[0].index}, the snapshot ends at {snapshot.index}. "
                f"{recovery(self._directory.parent)}"
            )
        # the snapshot of a leader may hold entries that others had made durable and this disk had not yet
        self._ahead = snapshot if self._last < snapshot.index else None
        self._last = max(self._last, snapshot.index)
        return kept

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:016d}.wal"

    def _read_segment(self, number: int, entries: list[Entry], *, is_last: bool, is_first: bool) -> int:
        path = self._path(number)
        content = self._files.read(path)
        if is_last and is_torn_header(content):
            # the crash came while this segment was made: nothing was ever written to it
            self._write_empty(path)
            return len(content)
        check_file_header(path, content, MAGIC)
        data, offset = memoryview(content), FILE_HEADER_BYTES
        for offset, payload in read_records(data, FILE_HEADER_BYTES):  # noqa: B007  (the last offset is needed)
            self._take(path, _decoder.decode(payload), entries, is_first)
        if offset == len(data):
            return 0
        if not is_last or not is_torn_tail(data, offset):
            raise DataDamaged(
                f"the log is damaged: {path} at byte {offset}. Nothing after it can be trusted. "
                f"{recovery(self._directory.parent)}"
            )
        self._files.truncate(path, offset)
        return len(data) - offset

    def _write_empty(self, path: Path) -> None:
        descriptor = self._files.create(path)
        write_whole(self._files, descriptor, (file_header(MAGIC),), path)
        self._files.sync(descriptor)
        self._files.close(descriptor)

    def _take(self, path: Path, record: Saved | Restart | Begin, entries: list[Entry], is_first: bool) -> None:
        match record:
            case Begin(hard_state=hard_state, previous_last=previous_last):
                self._hard_state = hard_state
                if is_first:
                    self._last = previous_last
            case Restart(hard_state=hard_state, snapshot_index=index):
                self._hard_state = hard_state
                entries.clear()
                self._last = index
            case Saved(hard_state=hard_state, entries=added):
                if hard_state is not None:
                    self._hard_state = hard_state
                if added:
                    if added[0].index > self._last + 1:
                        raise DataDamaged(
                            f"entry {self._last + 1} is missing from the log ({path}). {recovery(path.parent.parent)}"
                        )
                    merge_entries(entries, added)
                    self._last = added[-1].index

    # writing

    def open(self) -> None:
        """Gets ready to append, after `read`."""
        self._closed.pop(self._number, None)  # it is the open one, also when it must be made anew
        self._open_path = self._path(self._number)
        if self._number and self._files.size(self._open_path) > FILE_HEADER_BYTES:
            self._descriptor = self._files.open(self._open_path)
            self._size_bytes = self._files.size(self._open_path)
            self._files.sync(self._descriptor)
        else:
            self._begin(max(self._number, 1))
        if self._ahead is not None:
            self.restart(None, self._ahead)

    def _begin(self, number: int) -> None:
        self._number = number
        self._open_path = path = self._path(number)
        self._descriptor = self._files.create(path)
        self._size_bytes = write_whole(self._files, self._descriptor, (file_header(MAGIC),), path)
        self._write(Begin(number, self._hard_state, self._last))
        self._files.sync(self._descriptor)
        self._files.sync_directory(self._directory)

    def append(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Makes a group durable."""
        if hard_state is not None:
            self._hard_state = hard_state
        if entries:
            self._last = entries[-1].index
        self._write(Saved(hard_state, tuple(entries)))
        self._files.sync(self._descriptor)
        if self._size_bytes >= self._segment_bytes:
            self._rotate()

    def restart(self, hard_state: HardState | None, snapshot: SnapshotMeta) -> None:
        """Lets the log begin anew after a snapshot that is durable already."""
        self._hard_state = hard_state or self._hard_state
        self._last = snapshot.index
        self._write(Restart(self._hard_state, snapshot.index, snapshot.term))
        self._files.sync(self._descriptor)

    def forget(self, index: int) -> None:
        """Removes the closed segments that hold nothing after `index`."""
        for number in sorted(self._closed):
            if self._closed[number] > index:
                break
            self._files.unlink(self._path(number))
            # before the next one goes: a crash must never bring back an older one alone, as a log with a gap
            self._files.sync_directory(self._directory)
            del self._closed[number]

    def close(self) -> None:
        if self._descriptor >= 0:
            self._files.close(self._descriptor)
            self._descriptor = -1

    def _rotate(self) -> None:
        self._files.close(self._descriptor)
        self._closed[self._number] = self._last
        self._begin(self._number + 1)

    def _write(self, record: Saved | Restart | Begin) -> None:
        payload = _encoder.encode(record)
        pieces = (record_header(payload), payload)
        try:
            wrote = write_whole(self._files, self._descriptor, pieces, self._open_path)
        except OSError as error:
            if error.errno != errno.ENOSPC or not self._make_room():
                raise
            # a part of it may have arrived
            self._files.truncate(self._open_path, self._size_bytes)
            wrote = write_whole(self._files, self._descriptor, pieces, self._open_path)
        self._size_bytes += wrote


def is_torn_header(content: bytes) -> bool:
    """Whether a file was being made when the crash came: its header is not whole, or nothing but zeros."""
    return len(content) < FILE_HEADER_BYTES or not any(content)
