"""Backups: a snapshot's file, zeros up to a whole page, and the SHA-256 of all, as etcdctl saves it; and their return.

A restored group is a new one: its members begin a log of their own on the state of the backup. Its revisions begin far
above the backup's, and everything older counts as compacted, so that a client that had seen later revisions of the lost
group is told to read anew instead of going back in time.
"""

from __future__ import annotations

import fcntl
import hashlib
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import msgspec

from steersman.actors.store.disk import DataDamaged, DataDirInUse, DiskFailure, Identity
from steersman.actors.store.filedisk import SNAPSHOT_MAGIC, FileDisk, snapshot_file
from steersman.actors.store.records import FILE_HEADER_BYTES, check_file_header, read_records
from steersman.cluster.raft.values import HardState, SnapshotMeta, config_of
from steersman.cluster.store.mvcc import Mvcc
from steersman.cluster.store.snapshot import Capture, Header, SnapshotDamaged, decode

#: bytes of a backup handed out at once
CHUNK_BYTES = 1 << 20
#: a file without its checksum has whole pages: etcdctl tells by that whether there is one
PAGE_BYTES = 512
#: by how much a restored store's revision is above the backup's: more than any store writes between two backups
REVISION_STEP = 1_000_000_000


class NotEmpty(DiskFailure):
    """There is a store already where one is to be restored."""


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was read as a whole and found good.

    Args:
        sha256: of its contents, hexadecimal; size_bytes: of the file.
    """

    state: Mvcc
    sha256: str
    size_bytes: int

    @property
    def revision(self) -> int:
        return self.state.revision

    @property
    def keys(self) -> int:
        return self.state.keys


def backup_pieces(meta: SnapshotMeta, state: Capture) -> Iterator[bytes]:
    """Yields the bytes of a backup; the last 32 of them are the checksum."""
    digest = hashlib.sha256()
    chunk = bytearray()
    size_bytes = 0
    pieces: Iterable[bytes | None] = chain(snapshot_file(meta, state), (None,))
    for piece in pieces:
        if piece is None:
            chunk += bytes(-(size_bytes + len(chunk)) % PAGE_BYTES)
        else:
            chunk += piece
        if piece is None or len(chunk) >= CHUNK_BYTES:
            digest.update(chunk)
            size_bytes += len(chunk)
            yield bytes(chunk)
            chunk.clear()
    yield digest.digest()


def read_backup(path: Path) -> Backup:
    """Reads a backup and checks all of it.

    Raises:
        DataDamaged: it is no backup, or not whole; the message says which.
        DataDirForeign: a newer version wrote it.
    """
    data = path.read_bytes()
    content, digest = memoryview(data)[:-32], data[-32:]
    check_file_header(path, data, SNAPSHOT_MAGIC)
    if hashlib.sha256(content).digest() != digest:
        raise DataDamaged(f"the backup {path} is damaged or was cut off: its checksum is wrong; take another one")
    blocks = [bytes(payload) for _, payload in read_records(content, FILE_HEADER_BYTES)]
    try:
        state = decode(blocks[1:]).restore()
    except (SnapshotDamaged, IndexError, KeyError, msgspec.DecodeError) as error:
        raise DataDamaged(f"the backup {path} cannot be read: {error}") from None
    return Backup(state, digest.hex(), len(data))


async def restore(backup: Backup, members: Mapping[int, tuple[str, str, Path]], *, force: bool) -> list[Path]:
    """Makes the data directories of a new group that begins with a backup's state.

    Args:
        members: id to name, address and data directory of each member, all on this machine and none running.
        force: what is there is put aside rather than refused.

    Returns:
        the directories put aside.

    Raises:
        DataDirInUse: a member runs.
        NotEmpty: there is a store already, and no `force`.
    """
    used = [directory for _, _, directory in members.values() if directory.exists() and any(directory.iterdir())]
    if used and not force:
        raise NotEmpty(f"there is a store in {used[0]} already")
    for directory in used:
        _check_unused(directory)
    aside = [_put_aside(directory) for directory in used]
    addresses = {member: address for member, (_, address, _) in members.items()}
    config = config_of(addresses, cluster=secrets.randbits(63))
    revision = backup.revision + REVISION_STEP
    state = Capture(Header(revision, revision + 1, tuple(backup.state.leases())), backup.state.live(), [])
    for member, (name, _, directory) in members.items():
        disk = FileDisk(directory)
        await disk.open(Identity(name=name, member=member, config=config))
        try:
            saving = disk.replace(HardState(term=1, commit=1), SnapshotMeta(1, 1, config), state)
            if saving is not None:
                await saving
        finally:
            await disk.close()
    return aside


def _put_aside(directory: Path) -> Path:
    target = directory.with_name(f"{directory.name}.before-restore-{time.strftime('%Y%m%d-%H%M%S')}")
    directory.rename(target)
    return target


def _check_unused(directory: Path) -> None:
    with (directory / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataDirInUse(f"a store member runs on {directory}: stop the cluster first") from None
