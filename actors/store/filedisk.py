"""A replica's disk as files: the log in `wal/`, the newest snapshot in `snap/`, who it is in `member.json`.

Writes of the log are made durable in one thread, whole groups at once; snapshots are written in another, and only
when one is durable does the log forget what it covers. Layout and formats are versioned: `member.json` names the
version of the directory, each file its own.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import msgspec

from steersman.actors.store.disk import (
    DataDamaged,
    DataDirForeign,
    DataDirInUse,
    Identity,
    Recovered,
    Saving,
)
from steersman.actors.store.records import (
    FILE_HEADER_BYTES,
    check_file_header,
    file_header,
    read_records,
    record_header,
    sync_directory,
)
from steersman.actors.store.wal import SEGMENT_BYTES, Wal
from steersman.cluster.raft.values import Config, Entry, HardState, SnapshotMeta
from steersman.cluster.store.snapshot import Capture, SnapshotDamaged, decode, encode

#: of the data directory as a whole
DIRECTORY_FORMAT = 1
#: writes are refused when less space than this is left, so that what is under way can still be finished
RESERVE_BYTES = 96 << 20
SNAPSHOT_MAGIC = b"STEERSNP"


class FileDisk:
    """Keeps a member's data below a directory, which is made where missing.

    Args:
        reserve_bytes: see `RESERVE_BYTES`.
        segment_bytes: of one file of the log.
    """

    def __init__(
        self, path: Path | str, *, reserve_bytes: int = RESERVE_BYTES, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self._path = Path(path)
        self._reserve_bytes = reserve_bytes
        self._wal = Wal(self._path / "wal", segment_bytes)
        self._lock = -1
        self._log_thread: ThreadPoolExecutor | None = None
        self._snapshot_thread: ThreadPoolExecutor | None = None

    async def open(self, identity: Identity) -> Recovered:
        self._log_thread = ThreadPoolExecutor(1, thread_name_prefix="store-log")
        self._snapshot_thread = ThreadPoolExecutor(1, thread_name_prefix="store-snapshot")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._log_thread, self._open, identity)
        except BaseException:
            await self.close()
            raise

    def _open(self, identity: Identity) -> Recovered:
        for directory in (self._path, self._path / "wal", self._path / "snap"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_directory()
        config = self._check_member(identity)
        snapshot, state = self._read_snapshot()
        hard_state, entries, cut_bytes = self._wal.read(snapshot)
        self._wal.open()
        return Recovered(
            config=config,
            hard_state=hard_state,
            snapshot=snapshot,
            state=state,
            entries=entries,
            cut_bytes=cut_bytes,
        )

    def _lock_directory(self) -> None:
        self._lock = os.open(self._path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip() or "unknown"
            raise DataDirInUse(
                f"the data directory {self._path} is in use by another store member (process {holder})"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _check_member(self, identity: Identity) -> Config:
        """Returns the founding configuration; writes `member.json` where nothing was before."""
        path = self._path / "member.json"
        if not path.exists():
            if any((self._path / "wal").iterdir()):
                raise DataDamaged(f"{path} is missing beside a log; restore it or move {self._path} away")
            self._write_member(path, identity)
            return identity.config
        try:
            found = json.loads(path.read_bytes())
            version, member = int(found["format"]), int(found["member"])
        except (ValueError, KeyError, TypeError):
            raise DataDamaged(f"{path} is damaged; restore it, or move {self._path} away and join again") from None
        if version > DIRECTORY_FORMAT:
            raise DataDirForeign(
                f"the data directory {self._path} was written by a newer version (format {version}, this version reads "
                f"up to {DIRECTORY_FORMAT}): start the newer version"
            )
        if member != identity.member:
            raise DataDirForeign(
                f"the data directory {self._path} belongs to store member {member} ({found.get('name')}), not to "
                f"{identity.member} ({identity.name})"
            )
        return msgspec.convert(found["config"], Config)

    def _write_member(self, path: Path, identity: Identity) -> None:
        content = {
            "format": DIRECTORY_FORMAT,
            "member": identity.member,
            "name": identity.name,
            "config": msgspec.to_builtins(identity.config),
        }
        _write_durably(path, [json.dumps(content, indent=1).encode() + b"\n"])

    # the log

    def save(self, hard_state: HardState | None, entries: Sequence[Entry]) -> Saving:
        return self._in_thread(self._log_thread, lambda: self._wal.append(hard_state, entries))

    def _in_thread(self, thread: ThreadPoolExecutor | None, work: Callable[[], None]) -> asyncio.Future[None]:
        assert thread is not None
        return asyncio.get_running_loop().run_in_executor(thread, work)

    # snapshots

    def save_snapshot(self, meta: SnapshotMeta, state: Capture) -> Saving:
        return asyncio.ensure_future(self._write_beside(meta, state))

    def replace(self, hard_state: HardState | None, meta: SnapshotMeta, state: Capture) -> Saving:
        return self._in_thread(self._log_thread, lambda: self._replace(hard_state, meta, state))

    def _replace(self, hard_state: HardState | None, meta: SnapshotMeta, state: Capture) -> None:
        self._write_snapshot(meta, state)
        self._wal.restart(hard_state, meta)
        self._forget(meta)

    async def _write_beside(self, meta: SnapshotMeta, state: Capture) -> None:
        """Writes the snapshot while the log goes on, and only then lets the log forget."""
        await self._in_thread(self._snapshot_thread, lambda: self._write_snapshot(meta, state))
        await self._in_thread(self._log_thread, lambda: self._forget(meta))

    def _forget(self, meta: SnapshotMeta) -> None:
        self._wal.forget(meta.index)
        for path in self._snapshots()[:-1]:
            path.unlink()

    def _snapshots(self) -> list[Path]:
        """The snapshot files, the newest last; what was being written at a crash is no snapshot."""
        return sorted((self._path / "snap").glob("*.snap"))

    def _write_snapshot(self, meta: SnapshotMeta, state: Capture) -> None:
        path = self._path / "snap" / f"{meta.index:020d}.snap"
        _write_durably(path, snapshot_file(meta, state))

    def _read_snapshot(self) -> tuple[SnapshotMeta, Capture | None]:
        for leftover in (self._path / "snap").glob("*.tmp"):
            leftover.unlink()
        paths = self._snapshots()
        for older in paths[:-1]:
            older.unlink()
        return read_snapshot_file(paths[-1]) if paths else (SnapshotMeta(), None)

    # the rest

    def is_full(self) -> bool:
        space = os.statvfs(self._path)
        return space.f_bavail * space.f_frsize < self._reserve_bytes

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        for thread in (self._snapshot_thread, self._log_thread):
            if thread is not None:
                await loop.run_in_executor(None, thread.shutdown)
        self._log_thread = self._snapshot_thread = None
        self._wal.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def snapshot_file(meta: SnapshotMeta, state: Capture) -> Iterator[bytes]:
    """Yields the pieces of a snapshot's file: a header and records, the first of which is its place in the log."""
    yield file_header(SNAPSHOT_MAGIC)
    for block in chain((msgspec.msgpack.encode(meta),), encode(state)):
        yield record_header(block)
        yield block


def read_snapshot_file(path: Path) -> tuple[SnapshotMeta, Capture]:
    """Returns a snapshot and its place in the log.

    Raises:
        DataDamaged, DataDirForeign: the file cannot be used; the message says what to do.
    """
    content = path.read_bytes()
    check_file_header(path, content, SNAPSHOT_MAGIC)
    data, end = memoryview(content), FILE_HEADER_BYTES
    blocks: list[bytes] = []
    for end, payload in read_records(data, FILE_HEADER_BYTES):  # noqa: B007  (the offset after the last is needed)
        blocks.append(bytes(payload))
    try:
        if any(data[end:]):
            raise SnapshotDamaged(f"a checksum is wrong at byte {end}")
        return msgspec.msgpack.decode(blocks[0], type=SnapshotMeta), decode(blocks[1:])
    except (SnapshotDamaged, IndexError, msgspec.DecodeError) as error:
        raise DataDamaged(
            f"the snapshot {path} is damaged ({error}). If other members of the group are healthy, move "
            f"{path.parent.parent} away and let this member join again; otherwise restore a backup"
        ) from None


def _write_durably(path: Path, pieces: Iterable[bytes]) -> None:
    """Writes a file so that after a crash it is there as a whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_directory(path.parent)
