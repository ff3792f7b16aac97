"""Mistakes with the disk: what was acknowledged is lost, or damage is taken for data."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from tests.sim import network
from tests.sim.disk import Disk
from tests.sim.group import Machine
from tests.sim.mistakes.patching import Patch, around

from steersman.actors.store import filedisk, wal
from steersman.actors.store.filedisk import FileDisk
from steersman.actors.store.records import MARK, RECORD_HEADER_BYTES
from steersman.actors.store.saving import Saver
from steersman.actors.store.snapshots import Snapshots
from steersman.actors.store.wal import Wal
from steersman.cluster.raft.core import Raft
from steersman.cluster.raft.log import Log
from steersman.cluster.store import snapshot


def acknowledge_before_the_disk_is_synced(patch: Patch) -> None:
    def save(original: Any, saver: Saver, group: Any) -> None:
        original(saver, group)

    around(patch, Saver, "_save", save)


def go_on_after_a_failed_sync(patch: Patch) -> None:
    def written(original: Any, saver: Saver, future: Any) -> None:
        done = future.get_loop().create_future()
        done.set_result(None)
        original(saver, done)

    around(patch, Saver, "_written", written)


def count_entries_that_are_not_durable(patch: Patch) -> None:
    patch.setattr(Log, "durable", property(lambda log: log.last, lambda *_: None), raising=False)


def forget_in_a_crash_who_was_voted_for(patch: Patch) -> None:
    def save(original: Any, disk: FileDisk, hard_state: Any, entries: Any) -> Any:
        return original(disk, hard_state and msgspec.structs.replace(hard_state, vote=0), entries)

    around(patch, FileDisk, "save", save)


def leave_a_new_name_unsynced(patch: Patch) -> None:
    """The directory is not synced after the rename of a snapshot."""

    def write(original: Any, files: Disk, path: Any, pieces: Any) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(files, "sync_directory", lambda _: None)
            original(files, path, pieces)

    around(patch, filedisk, "write_durably", write)


def leave_a_new_segment_unsynced(patch: Patch) -> None:
    """The log's directory is not synced after a segment was made."""

    def begin(original: Any, log: Wal, number: int) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(log._files, "sync_directory", lambda _: None)
            original(log, number)

    around(patch, Wal, "_begin", begin)


def leave_a_torn_tail(patch: Patch) -> None:
    patch.setattr(Disk, "truncate", lambda *_: None)


def skip_the_checksums_of_the_log(patch: Patch) -> None:
    patch.setattr(wal, "read_records", _read_unchecked)


def skip_the_checksums_of_snapshots(patch: Patch) -> None:
    patch.setattr(filedisk, "read_records", _read_unchecked)


def _read_unchecked(data: memoryview, offset: int) -> Iterator[tuple[int, memoryview]]:
    """Reads records by their marks and lengths alone."""
    while offset + RECORD_HEADER_BYTES <= len(data):
        mark, length = struct.unpack_from("<4sI", data, offset)
        begin, offset = offset + RECORD_HEADER_BYTES, offset + RECORD_HEADER_BYTES + length
        if mark != MARK or offset > len(data):
            return
        yield offset, data[begin:offset]


def remove_the_segment_in_use(patch: Patch) -> None:
    """A segment that a crash left half made counts as closed after it was made anew."""

    def open_anew(original: Any, log: Wal) -> None:
        before = dict(log._closed)
        original(log)
        log._closed |= before

    around(patch, Wal, "open", open_anew)


def forget_the_log_before_the_snapshot_is_saved(patch: Patch) -> None:
    async def write(_original: Any, disk: FileDisk, meta: Any, state: Any) -> None:
        await disk._workers.run("log", lambda: disk._wal.forget(meta.index))
        await disk._workers.run("snapshot", lambda: disk._write_snapshot(meta, state))

    around(patch, FileDisk, "_write_beside", write)


def take_a_snapshot_for_saved(patch: Patch) -> None:
    """A snapshot of the leader is accepted, and acknowledged, without being saved."""

    def save(original: Any, saver: Saver, group: Any) -> Any:
        return None if group[0].snapshot is not None else original(saver, group)

    around(patch, Saver, "_save", save)


def take_a_part_of_a_snapshot_for_the_whole(patch: Patch) -> None:
    """The receiver of a snapshot does not look whether its end has come."""

    def decode(original: Any, blocks: list[bytes]) -> Any:
        kinds = [snapshot._decoder.decode(block) for block in blocks]
        if kinds and not isinstance(kinds[-1], snapshot.End):
            kvs = sum(len(kind.kvs) for kind in kinds if isinstance(kind, snapshot.Base))
            revisions = sum(len(kind.revisions) for kind in kinds if isinstance(kind, snapshot.Changes))
            blocks = [*blocks, msgspec.msgpack.encode(snapshot.End(kvs, revisions))]
        return original(blocks)

    around(patch, network, "decode", decode)


def misplace_a_snapshot(patch: Patch) -> None:
    """A snapshot says that it holds one entry less than it does: the entry is applied again."""

    def place(original: Any, snapshots: Snapshots, core: Raft) -> Any:
        meta = original(snapshots, core)
        index = max(meta.index - 1, core.log.start - 1)
        return msgspec.structs.replace(meta, index=index, term=core.log.term(index))

    around(patch, Snapshots, "place", place)


def come_back_with_an_empty_disk(patch: Patch) -> None:
    """A member that lost its disk starts as if it had never voted or acknowledged anything."""

    def died(original: Any, machine: Machine, process: Any) -> None:
        original(machine, process)
        machine.disk.wipe()

    around(patch, Machine, "_died", died)
