"""What a data directory survives, and what it refuses with one clear line."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from steersman.actors.store.disk import (
    DataDamaged,
    DataDirForeign,
    DataDirInUse,
    DiskFailure,
    Identity,
    Recovered,
)
from steersman.actors.store.filedisk import FileDisk
from steersman.actors.store.replica import Replica
from steersman.actors.store.settings import ReplicaSettings
from steersman.cluster.raft.values import config_of
from steersman.cluster.store.values import NoSpace, Put, Range, Txn, Unavailable

ALL = Range(key=b"\0", range_end=b"\0")


def replica_on(path: Path, *, segment_bytes: int = 64 << 20, reserve_bytes: int = 0, **settings: int) -> Replica:
    disk = FileDisk(path, segment_bytes=segment_bytes, reserve_bytes=reserve_bytes)
    return Replica(
        name="s1", member_id=1, peers={}, disk=disk, transport=None, rng=random.Random(),
        settings=ReplicaSettings(**settings),  # type: ignore[arg-type]
    )  # fmt: skip


def put(key: str, value: bytes = b"") -> Txn:
    return Txn(success=(Put(key=key.encode(), value=value),))


async def fill(path: Path, count: int, **options: int) -> None:
    replica = replica_on(path, **options)
    await replica.start()
    for number in range(count):
        await replica.txn(put(f"/k{number}", b"x" * 100))
    await replica.stop()


async def keys_in(path: Path) -> int:
    replica = replica_on(path)
    await replica.start()
    count = (await replica.range(ALL)).count
    await replica.stop()
    return count


async def names_in(path: Path) -> set[str]:
    replica = replica_on(path)
    await replica.start()
    found = {kv.key.decode() for kv in (await replica.range(ALL)).kvs}
    await replica.stop()
    return found


def segments(path: Path) -> list[Path]:
    return sorted((path / "wal").glob("*.wal"))


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    await fill(tmp_path, 50)
    await fill(tmp_path, 50)
    replica = replica_on(tmp_path)
    await replica.start()
    found = await replica.range(Range(key=b"/k7"))
    assert found.kvs[0].version == 2
    assert replica.revision == 101
    watch = replica.watch(b"/k7", b"", 2)
    assert [event.kv.version for event in (await anext(watch)).events] == [1, 2], "the past can be watched too"
    await replica.stop()


async def test_snapshots_bound_the_log_and_keep_everything(tmp_path: Path) -> None:
    await fill(tmp_path, 300, segment_bytes=4096, snapshot_entries=100)
    assert sum(path.stat().st_size for path in segments(tmp_path)) < 60_000
    assert await keys_in(tmp_path) == 300
    assert len(list((tmp_path / "snap").iterdir())) == 1


@pytest.mark.parametrize("cut_bytes", [1, 5, 17, 60, 200])
async def test_a_torn_tail_is_cut_off(tmp_path: Path, cut_bytes: int) -> None:
    await fill(tmp_path, 20)
    last = segments(tmp_path)[-1]
    os.truncate(last, last.stat().st_size - cut_bytes)
    assert await keys_in(tmp_path) in (18, 19)
    assert await keys_in(tmp_path) in (18, 19), "and the log goes on from there"


async def test_a_tail_of_zeros_is_cut_off(tmp_path: Path) -> None:
    await fill(tmp_path, 20)
    with segments(tmp_path)[-1].open("ab") as file:
        file.write(bytes(5000))
    assert await keys_in(tmp_path) == 20


async def test_a_segment_that_was_being_made_at_the_crash_is_made_again(tmp_path: Path) -> None:
    await fill(tmp_path, 20)
    (tmp_path / "wal" / f"{len(segments(tmp_path)) + 1:016d}.wal").write_bytes(b"STE")
    assert await keys_in(tmp_path) == 20


@pytest.mark.parametrize("where", [0.2, 0.5, 0.8])
async def test_damage_in_the_middle_is_refused_and_nothing_is_cut(tmp_path: Path, where: float) -> None:
    await fill(tmp_path, 50)
    path = segments(tmp_path)[0]
    content = bytearray(path.read_bytes())
    content[int(len(content) * where)] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataDamaged, match=r"the log is damaged: .* remove this member from the group"):
        await keys_in(tmp_path)
    assert path.read_bytes() == content


async def test_a_flipped_bit_in_the_very_last_record_is_refused(tmp_path: Path) -> None:
    await fill(tmp_path, 20)
    path = segments(tmp_path)[-1]
    content = bytearray(path.read_bytes())
    content[-60] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataDamaged, match=r"the log is damaged: .* remove this member from the group"):
        await keys_in(tmp_path)


async def test_a_missing_segment_is_refused(tmp_path: Path) -> None:
    await fill(tmp_path, 100, segment_bytes=2048)
    segments(tmp_path)[2].unlink()
    with pytest.raises(DataDamaged, match="is missing"):
        await keys_in(tmp_path)


async def test_a_damaged_snapshot_is_refused(tmp_path: Path) -> None:
    await fill(tmp_path, 120, segment_bytes=4096, snapshot_entries=50)
    path = next((tmp_path / "snap").glob("*.snap"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataDamaged, match=r"the snapshot .* is damaged"):
        await keys_in(tmp_path)


async def test_a_bit_that_flips_in_member_json_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    await fill(tmp_path, 1)
    path = tmp_path / "member.json"
    content = path.read_bytes()
    identity = Identity(name="s1", member=1, config=config_of({1: ""}))
    before = await _opened(tmp_path, identity)
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            assert await _opened(tmp_path, identity) == before, f"byte {position}"
        except (DataDamaged, DataDirForeign):
            continue


async def _opened(path: Path, identity: Identity) -> Recovered:
    disk = FileDisk(path)
    try:
        return await disk.open(identity)
    finally:
        await disk.close()


async def test_a_directory_of_a_newer_version_is_refused_in_one_line(tmp_path: Path) -> None:
    await fill(tmp_path, 1)
    path = tmp_path / "member.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(DataDirForeign, match="was written by a newer version") as caught:
        await keys_in(tmp_path)
    assert "\n" not in str(caught.value)


async def test_a_directory_of_another_member_is_refused(tmp_path: Path) -> None:
    await fill(tmp_path, 1)
    other = Replica(name="s2", member_id=2, peers={}, disk=FileDisk(tmp_path), transport=None, rng=random.Random())
    with pytest.raises(DataDirForeign, match=r"belongs to store member 1 \(s1\), not to 2 \(s2\)"):
        await other.start()


async def test_a_directory_in_use_is_refused_with_the_process_that_uses_it(tmp_path: Path) -> None:
    first = replica_on(tmp_path)
    await first.start()
    with pytest.raises(DataDirInUse, match=rf"in use by another store member \(process {os.getpid()}\)"):
        await replica_on(tmp_path).start()
    assert (await first.txn(put("/still"))).revision == 2
    await first.stop()


async def test_a_full_disk_refuses_writes_and_serves_reads(tmp_path: Path) -> None:
    await fill(tmp_path, 3)
    replica = replica_on(tmp_path, reserve_bytes=1 << 60)
    await replica.start()
    async with asyncio.timeout(10):
        while not replica.status().disk_full:  # noqa: ASYNC110  (it has no event)
            await asyncio.sleep(0.05)
    with pytest.raises(NoSpace):
        await replica.txn(put("/more"))
    assert (await replica.range(ALL)).count == 3
    await replica.stop()


async def test_an_error_of_the_disk_ends_the_replica_and_acknowledges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = replica_on(tmp_path)
    await replica.start()
    await replica.txn(put("/before"))

    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(Unavailable, match="store member s1: the disk failed"):
        await replica.txn(put("/lost"))
    assert replica.failed.is_set()
    with pytest.raises(Unavailable):
        await replica.range(ALL)
    monkeypatch.undo()
    await replica.stop()


async def test_a_member_json_that_is_no_json_is_refused(tmp_path: Path) -> None:
    await fill(tmp_path, 1)
    (tmp_path / "member.json").write_text("{")
    with pytest.raises(DiskFailure, match="is damaged"):
        await keys_in(tmp_path)


_WRITER = """
import asyncio, random, sys, time
from steersman.actors.store.filedisk import FileDisk
from steersman.actors.store.replica import Replica
from steersman.actors.store.settings import ReplicaSettings
from steersman.cluster.store.values import Put, Txn

async def main():
    replica = Replica(name="s1", member_id=1, peers={}, disk=FileDisk(sys.argv[1], segment_bytes=1 << 18),
                      transport=None, rng=random.Random(),
                      settings=ReplicaSettings(snapshot_entries=500))
    await replica.start()
    async def write(writer):
        for number in range(1_000_000):
            await replica.txn(Txn(success=(Put(key=b"/%d/%d" % (writer, number), value=b"x" * 300),)))
            sys.stdout.write(f"/{writer}/{number}\\n")
            sys.stdout.flush()
    await asyncio.gather(*(write(writer) for writer in range(16)))

asyncio.run(main())
"""


@pytest.mark.parametrize("writes", [40, 700, 2500])
def test_kill_9_in_the_middle_of_writes_loses_nothing_acknowledged(tmp_path: Path, writes: int) -> None:
    child = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    acknowledged = [child.stdout.readline() for _ in range(writes)]
    child.send_signal(signal.SIGKILL)
    acknowledged += child.stdout.readlines()
    child.wait()
    complete = [line.strip() for line in acknowledged if line.endswith("\n")]
    assert len(complete) >= writes
    found = asyncio.run(names_in(tmp_path))
    assert not set(complete) - found
    for writer in range(16):  # and no hole in what was not acknowledged
        numbers = sorted(int(key.split("/")[2]) for key in found if key.startswith(f"/{writer}/"))
        assert numbers == list(range(len(numbers)))
