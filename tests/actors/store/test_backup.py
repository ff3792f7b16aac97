"""Backups: taken while writers run, checked, and the beginning of a new group."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steersman.actors.store.backup import REVISION_STEP, NotEmpty, read_backup, restore
from steersman.actors.store.disk import DataDamaged, DataDirInUse
from steersman.actors.store.filedisk import FileDisk
from steersman.actors.store.replica import Replica
from steersman.cluster.store.values import Compacted, Put, Range, Txn

ALL = Range(key=b"\0", range_end=b"\0")


def put(key: bytes, value: bytes = b"", lease: int = 0) -> Txn:
    return Txn(success=(Put(key=key, value=value, lease=lease),))


async def save(store: Any, path: Path) -> None:
    content = b"".join([piece async for piece in store.backup()])
    await asyncio.to_thread(path.write_bytes, content)


def replica_on(directory: Path) -> Replica:
    return Replica(
        name="store-0", member_id=1, peers={}, disk=FileDisk(directory), transport=None, rng=random.Random(1)
    )


def _summed(content: bytes) -> bytes:
    return content + hashlib.sha256(content).digest()


@pytest.fixture
async def saved(served: Callable[..., Any], tmp_path: Path) -> Path:
    """A backup of a group of three, taken through a client: three keys, one of them on a lease."""
    path = tmp_path / "saved.backup"
    async with served(3) as group:
        client = await group.client()
        lease = await client.lease_grant(600, 77)
        for request in (put(b"/a", b"1"), put(b"/b", b"x" * 3_000_000), put(b"/a", b"2"), put(b"/c", b"", lease)):
            await client.txn(request)
        await save(client, path)
    return path


def test_a_backup_says_what_is_in_it(saved: Path) -> None:
    backup = read_backup(saved)
    assert (backup.revision, backup.keys, backup.size_bytes) == (5, 3, saved.stat().st_size)
    assert [(kv.key, kv.version) for kv in backup.state.base] == [(b"/a", 2), (b"/b", 1), (b"/c", 1)]


async def test_a_backup_taken_while_writers_run_is_one_moment_and_stops_nobody(
    served: Callable[..., Any], tmp_path: Path
) -> None:
    async with served(1) as group:
        client = await group.client()
        for number in range(50):
            await client.txn(put(b"/before/%02d" % number, b"x" * 100_000))
        written: list[int] = []

        async def write() -> None:
            while True:
                pair = Txn(success=(Put(key=b"/left", value=b"%d" % len(written)), Put(key=b"/right", value=b"")))
                written.append((await client.txn(pair)).revision)

        writer = asyncio.create_task(write())
        pieces = client.backup()
        content = await anext(pieces)
        after_first = len(written)
        content += b"".join([piece async for piece in pieces])
        assert len(written) > after_first, "the writer went on meanwhile"
        writer.cancel()
        await asyncio.to_thread((tmp_path / "file").write_bytes, content)
    live = {kv.key: kv for kv in read_backup(tmp_path / "file").state.base}
    assert sum(key.startswith(b"/before/") for key in live) == 50
    if b"/left" in live:
        assert live[b"/left"].mod_revision == live[b"/right"].mod_revision, "a transaction is in it whole"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(lambda data: data[:-1000], "does not end with a checksum", id="cut off"),
        pytest.param(lambda data: data[:-4096], "checksum is wrong", id="a page cut off"),
        pytest.param(lambda data: data[:2000] + b"?" + data[2001:], "checksum is wrong", id="a byte"),
        pytest.param(lambda data: b"", "too short", id="empty"),
        pytest.param(lambda data: b"not a backup at all" * 9, "does not end with a checksum", id="something else"),
        pytest.param(lambda data: _summed(bytes(8192)), "does not begin as a database", id="zeros"),
        pytest.param(lambda data: _summed(data[: 5 * 4096]), "cannot be where it is named", id="a whole half"),
    ],
)
def test_a_damaged_backup_is_refused(saved: Path, damage: Callable[[bytes], bytes], words: str) -> None:
    saved.write_bytes(damage(saved.read_bytes()))
    with pytest.raises(DataDamaged, match=words):
        read_backup(saved)


async def test_a_restored_store_has_everything_and_forgets_what_came_before(saved: Path, tmp_path: Path) -> None:
    backup = read_backup(saved)
    assert await restore(backup, {1: ("store-0", "", tmp_path / "1")}, force=False) == []
    replica = replica_on(tmp_path / "1")
    await replica.start()
    try:
        found = await replica.range(ALL)
        assert list(found.kvs) == list(backup.state.base), "with their revisions and versions"
        assert found.revision == backup.revision + REVISION_STEP
        assert (await replica.lease_remaining(77))[2] == [b"/c"]
        with pytest.raises(Compacted):
            await anext(replica.watch(b"/a", b"", backup.revision + 1))
        await replica.txn(put(b"/d"))
    finally:
        await replica.stop()
    again = await _state_of(tmp_path / "1")
    assert (again.keys, again.revision) == (4, backup.revision + REVISION_STEP + 1)


async def _state_of(directory: Path) -> Any:
    replica = replica_on(directory)
    await replica.start()
    try:
        return replica.snapshot()[1].restore()
    finally:
        await replica.stop()


async def test_three_members_begin_together_from_a_backup(
    served: Callable[..., Any], saved: Path, tmp_path: Path
) -> None:
    async with served(3) as group:
        for member in group.peers:
            await group.stop(member)
        members = {n: (f"s{n}", address, tmp_path / str(n)) for n, address in group.peers.items()}
        await restore(read_backup(saved), members, force=False)
        group.disks = {n: FileDisk(tmp_path / str(n)) for n in group.peers}
        for member in group.peers:
            await group.start(member)
        client = await group.client()
        assert [kv.key for kv in (await client.range(ALL)).kvs] == [b"/a", b"/b", b"/c"]
        await client.txn(put(b"/d"))


async def test_a_store_that_is_there_is_kept_or_put_aside_and_never_taken_from_under_a_member(
    saved: Path, tmp_path: Path
) -> None:
    replica = replica_on(tmp_path / "1")
    members = {1: ("store-0", "", tmp_path / "1")}
    await replica.start()
    await replica.txn(put(b"/kept"))
    with pytest.raises(DataDirInUse, match="stop the cluster"):
        await restore(read_backup(saved), members, force=True)
    await replica.stop()
    with pytest.raises(NotEmpty):
        await restore(read_backup(saved), members, force=False)
    (aside,) = await restore(read_backup(saved), members, force=True)
    assert [kv.key for kv in (await _state_of(aside)).live()] == [b"/kept"]
    assert len((await _state_of(tmp_path / "1")).live()) == 3
