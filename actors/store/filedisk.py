"""A replica's disk as files: the log in `wal/`, the newest snapshot in `snap/`, who it is in `member.json`.

Writes of the log are made durable in one thread, whole groups at once; snapshots are written in another, and only
when one is durable does the log forget what it covers. Layout and formats are versioned: `member.json` names the
version of the directory, each file its own.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import google_crc32c
import msgspec
from msgspec import Struct

from steersman.actors.store.disk import (
    DataDamaged,
    DataDirForeign,
    DataDirInUse,
    Identity,
    Recovered,
    Saving,
    recovery,
)
from steersman.actors.store.files import Files, OsFiles, Threads, Workers, write_durably
from steersman.actors.store.records import (
    FILE_HEADER_BYTES,
    check_file_header,
    file_header,
    read_records,
    record_header,
)
from steersman.actors.store.wal import SEGMENT_BYTES, Wal
from steersman.cluster.raft.values import Config, Entry, HardState, SnapshotMeta
from steersman.cluster.store.snapshot import Capture, SnapshotDamaged, decode, encode

#: of the data directory as a whole
DIRECTORY_FORMAT = 1
#: writes are refused when less space than this is left, so that what is under way can still be finished
RESERVE_BYTES = 96 << 20
#: of the reserve a part is held by a file, which is given up when others have filled the disk all the same
SPARE_FRACTION = 6
SNAPSHOT_MAGIC = b"STEERSNP"


class _Member(Struct, frozen=True):
    """`member.json`; `founded` and what follows it are described in `founding.py`.

    Args:
        crc32c: of the rest, as `checksum` counts it; 0 where an older version wrote it.
    """

    format: int
    member: int
    name: str
    config: Config
    incarnation: int = 0
    founded: bool = True
    met: tuple[tuple[int, int], ...] = ()
    crc32c: int = 0

    @property
    def checksum(self) -> int:
        """Never 0."""
        return google_crc32c.value(msgspec.json.encode(msgspec.structs.replace(self, crc32c=0))) or 1


class FileDisk:
    """Keeps a member's data below a directory, which is made where missing.

    Args:
        reserve_bytes: see `RESERVE_BYTES`.
        segment_bytes: of one file of the log.
        files, workers: the operating system's where not given.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        reserve_bytes: int = RESERVE_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        files: Files | None = None,
        workers: Workers | None = None,
    ) -> None:
        self._path = Path(path)
        self._reserve_bytes = reserve_bytes
        self._files = files or OsFiles()
        self._workers = workers or Threads()
        self._wal = Wal(self._path / "wal", self._files, segment_bytes, self._give_up_spare)
        self._lock = -1
        self._member: _Member
        self._spare = self._path / "spare"
        self._has_spare = self._is_full = False

    async def open(self, identity: Identity) -> Recovered:
        try:
            return await self._workers.run("log", lambda: self._open(identity))
        except BaseException:
            await self.close()
            raise

    def _open(self, identity: Identity) -> Recovered:
        for directory in (self._path, self._path / "wal", self._path / "snap"):
            self._files.make_directory(directory)
        self._lock_directory()
        member = self._check_member(identity)
        snapshot, state = self._read_snapshot()
        hard_state, entries, cut_bytes = self._wal.read(snapshot)
        self._has_spare = self._files.exists(self._spare)
        self._keep_spare()
        self._wal.open()
        if not member.founded and member.config.members == (member.member,):
            self._member = msgspec.structs.replace(member, founded=True)
            self._write_member()
        return Recovered(
            config=member.config,
            incarnation=member.incarnation,
            met=dict(member.met),
            is_new=not self._member.founded and hard_state == HardState() and not entries and not snapshot.index,
            hard_state=hard_state,
            snapshot=snapshot,
            state=state,
            entries=entries,
            cut_bytes=cut_bytes,
        )

    def _lock_directory(self) -> None:
        try:
            self._lock = self._files.lock(self._path / "lock")
        except BlockingIOError as error:
            raise DataDirInUse(f"the data directory {self._path} is in use by another store member ({error})") from None

    def _check_member(self, identity: Identity) -> _Member:
        """Returns what `member.json` says; writes it where nothing was before."""
        path = self._path / "member.json"
        if not self._files.exists(path):
            if self._files.names(self._path / "wal"):
                raise DataDamaged(f"{path} is missing beside a log. {recovery(self._path)}")
            self._member = _Member(
                DIRECTORY_FORMAT, identity.member, identity.name, identity.config, identity.incarnation, founded=False
            )
            self._write_member()
            self._files.sync_directory(self._path.parent)
            return self._member
        try:
            found = msgspec.json.decode(self._files.read(path), type=_Member)
        except msgspec.DecodeError:
            raise DataDamaged(f"{path} is damaged. {recovery(self._path)}") from None
        if found.format > DIRECTORY_FORMAT:
            raise DataDirForeign(
                f"the data directory {self._path} was written by a newer version (format {found.format}, "
                f"this version reads up to {DIRECTORY_FORMAT}): start the newer version"
            )
        if found.crc32c not in (0, found.checksum):
            raise DataDamaged(f"{path} is damaged. {recovery(self._path)}")
        if found.member != identity.member:
            raise DataDirForeign(
                f"the data directory {self._path} belongs to store member {found.member} ({found.name}), not to "
                f"{identity.member} ({identity.name})"
            )
        if found.founded and not self._files.names(self._path / "wal"):
            raise DataDamaged(f"the log in {self._path / 'wal'} is missing. {recovery(self._path)}")
        self._member = found
        return found

    def _write_member(self) -> None:
        member = msgspec.structs.replace(self._member, crc32c=self._member.checksum)
        content = msgspec.json.format(msgspec.json.encode(member), indent=1)
        write_durably(self._files, self._path / "member.json", [content + b"\n"])

    def found(self, config: Config, met: Mapping[int, int]) -> Saving:
        rows = tuple(sorted(met.items()))
        self._member = msgspec.structs.replace(self._member, config=config, founded=True, met=rows)
        return self._workers.run("log", self._write_member)

    # the log

    def save(self, hard_state: HardState | None, entries: Sequence[Entry]) -> Saving:
        return self._workers.run("log", lambda: self._wal.append(hard_state, entries))

    # snapshots

    def save_snapshot(self, meta: SnapshotMeta, state: Capture) -> Saving:
        return asyncio.ensure_future(self._write_beside(meta, state))

    def replace(self, hard_state: HardState | None, meta: SnapshotMeta, state: Capture) -> Saving:
        return self._workers.run("log", lambda: self._replace(hard_state, meta, state))

    def _replace(self, hard_state: HardState | None, meta: SnapshotMeta, state: Capture) -> None:
        self._write_snapshot(meta, state)
        self._wal.restart(hard_state, meta)
        self._forget(meta)

    async def _write_beside(self, meta: SnapshotMeta, state: Capture) -> None:
        """Writes the snapshot while the log goes on, and only then lets the log forget."""
        await self._workers.run("snapshot", lambda: self._write_snapshot(meta, state))
        await self._workers.run("log", lambda: self._forget(meta))

    def _forget(self, meta: SnapshotMeta) -> None:
        self._wal.forget(meta.index)
        for path in self._snapshots(".snap")[:-1]:
            self._files.unlink(path)

    def _snapshots(self, suffix: str) -> list[Path]:
        """The snapshot files, the newest last."""
        directory = self._path / "snap"
        return [directory / name for name in self._files.names(directory) if name.endswith(suffix)]

    def _write_snapshot(self, meta: SnapshotMeta, state: Capture) -> None:
        path = self._path / "snap" / f"{meta.index:020d}.snap"
        write_durably(self._files, path, self._while_there_is_space(snapshot_file(meta, state)))

    def _while_there_is_space(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Ends a snapshot that would take the log's reserve."""
        for piece in pieces:
            if self._files.free_bytes(self._path) < self._reserve_bytes // 2:
                raise OSError(errno.ENOSPC, "too little space for a snapshot", str(self._path))
            yield piece

    def _read_snapshot(self) -> tuple[SnapshotMeta, Capture | None]:
        for leftover in self._snapshots(".tmp"):
            self._files.unlink(leftover)
        paths = self._snapshots(".snap")
        for older in paths[:-1]:
            self._files.unlink(older)
        return read_snapshot_file(paths[-1], self._files.read(paths[-1])) if paths else (SnapshotMeta(), None)

    # the rest

    def is_full(self) -> bool:
        free_bytes = self._files.free_bytes(self._path)
        # an alarm ends only when there is clearly more space than at its beginning
        wanted_bytes = self._reserve_bytes * 5 // 4 if self._is_full else self._reserve_bytes
        if free_bytes >= wanted_bytes and not self._has_spare:
            self._workers.run("log", self._keep_spare)
        self._is_full = free_bytes < wanted_bytes or not self._has_spare
        return self._is_full

    def _keep_spare(self) -> None:
        """Takes the spare space when there is plenty."""
        size_bytes = self._reserve_bytes // SPARE_FRACTION
        if not size_bytes:
            self._has_spare = True
        if not self._has_spare and self._files.free_bytes(self._path) >= self._reserve_bytes + size_bytes:
            try:
                self._files.allocate(self._spare, size_bytes)
                self._has_spare = True
            except OSError:
                self._give_up_spare()

    def _give_up_spare(self) -> bool:
        had, self._has_spare = self._has_spare, False
        if self._files.exists(self._spare):
            self._files.unlink(self._spare)
        return had

    async def close(self) -> None:
        await self._workers.close()
        self._wal.close()
        if self._lock >= 0:
            self._files.close(self._lock)
            self._lock = -1


def snapshot_file(meta: SnapshotMeta, state: Capture) -> Iterator[bytes]:
    """Yields the pieces of a snapshot's file: a header and records, the first of which is its place in the log."""
    yield file_header(SNAPSHOT_MAGIC)
    for block in chain((msgspec.msgpack.encode(meta),), encode(state)):
        yield record_header(block)
        yield block


def read_snapshot_file(path: Path, content: bytes) -> tuple[SnapshotMeta, Capture]:
    """Returns a snapshot and its place in the log.

    Raises:
        DataDamaged, DataDirForeign: the file cannot be used; the message says what to do.
    """
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
        raise DataDamaged(f"the snapshot {path} is damaged ({error}). {recovery(path.parent.parent)}") from None
