"""Backups: a snapshot of etcd, that is its database (`cluster.store.database`) and the SHA-256 of it; and their return.

One format serves `steer backup`, `etcdctl snapshot save` and etcd's own tools and servers, both ways: what a format of
our own could hold beyond it, the group's members and alarms, is not what a new group begins with.

A restored group is a new one: its members begin a log of their own on the state of the backup. Its revisions begin far
above the backup's, and everything older counts as compacted, so that a client that had seen later revisions of the lost
group is told to read anew instead of going back in time.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import mmap
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from steersman.actors.store.disk import DataDamaged, DataDirInUse, DiskFailure, Identity
from steersman.actors.store.filedisk import FileDisk
from steersman.cluster.raft.values import HardState, SnapshotMeta, config_of
from steersman.cluster.store.bolt import Damaged
from steersman.cluster.store.database import Database, read_database
from steersman.cluster.store.snapshot import Capture, Header

#: bytes of a backup handed out at once: of small keys the work of a few milliseconds
CHUNK_BYTES = 64 << 10
#: of the SHA-256 after the database
DIGEST_BYTES = 32
#: a file without its checksum has whole sectors: etcdctl tells by that whether there is one
SECTOR_BYTES = 512
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

    state: Capture
    sha256: str
    size_bytes: int

    @property
    def revision(self) -> int:
        return self.state.header.compacted

    @property
    def keys(self) -> int:
        return len(self.state.base)


async def plan(database: Database) -> Database:
    """Plans a database piece by piece; what else there is to do goes on in between."""
    for _ in database.plan():
        await asyncio.sleep(0)
    return database


async def backup_pieces(database: Database) -> AsyncIterator[bytes]:
    """Yields the bytes of a backup; the last 32 of them are the checksum."""
    digest = hashlib.sha256()
    chunk: list[bytes] = []
    chunk_bytes = 0
    for page in database.pieces():
        chunk.append(page)
        chunk_bytes += len(page)
        if chunk_bytes >= CHUNK_BYTES:
            joined = b"".join(chunk)
            digest.update(joined)
            yield joined
            chunk, chunk_bytes = [], 0
        await asyncio.sleep(0)
    rest = b"".join(chunk)
    digest.update(rest)
    yield rest + digest.digest()


def read_backup(path: Path) -> Backup:
    """Reads a backup, ours or of etcd, and checks all of it.

    Raises:
        DataDamaged: it is no backup, or not whole; the message says which.
    """
    with path.open("rb") as file:
        size_bytes = path.stat().st_size
        if size_bytes <= DIGEST_BYTES:
            raise DataDamaged(f"{path} is no backup: it is too short for one")
        if size_bytes % SECTOR_BYTES != DIGEST_BYTES:
            raise DataDamaged(f"{path} is damaged or was cut off: it does not end with a checksum; take another one")
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    content, digest = data[:-DIGEST_BYTES], bytes(data[-DIGEST_BYTES:])
    if hashlib.sha256(content).digest() != digest:
        raise DataDamaged(f"{path} is damaged or was cut off: its checksum is wrong; take another one")
    try:
        return Backup(read_database(content), digest.hex(), size_bytes)
    except Damaged as error:
        raise DataDamaged(f"{path} cannot be read: {error}") from None


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
    state = Capture(Header(revision, revision + 1, backup.state.header.leases), backup.state.base, [])
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
