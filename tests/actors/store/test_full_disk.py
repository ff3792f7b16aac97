"""Replicas on a file system that is really full: a small one in memory, which only root may mount."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.actors.store.conftest import until

from steersman.actors.store.filedisk import FileDisk
from steersman.actors.store.replica import Replica
from steersman.actors.store.settings import ReplicaSettings
from steersman.actors.store.transport import MemoryNetwork
from steersman.cluster.store.values import DeleteRange, NoSpace, Put, Range, Txn

MIB = 1 << 20
ALL = Range(key=b"\0", range_end=b"\0")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(tmp_path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def replica_on(path: Path, reserve_bytes: int = 6 * MIB, **settings: int) -> Replica:
    disk = FileDisk(path, reserve_bytes=reserve_bytes, segment_bytes=MIB)
    return Replica(
        name="s1", member_id=1, peers={}, disk=disk, transport=None, rng=random.Random(),
        settings=ReplicaSettings(**settings),  # type: ignore[arg-type]
    )  # fmt: skip


def put(key: str, value: bytes = b"") -> Txn:
    return Txn(success=(Put(key=key.encode(), value=value),))


async def fill(replica: Replica) -> int:
    """Writes until it is refused; returns how many writes were acknowledged."""
    with pytest.raises(NoSpace):
        for number in range(10_000):
            await replica.txn(put(f"/k{number}", os.urandom(40_000)))
            await asyncio.sleep(0.005)
    return number


async def test_writes_are_refused_before_the_disk_is_full_reads_go_on_and_space_ends_it(small: Path) -> None:
    big = small / "somebody-elses"
    big.write_bytes(bytes(8 * MIB))
    replica = replica_on(small / "store")
    await replica.start()
    acknowledged = await fill(replica)
    assert (await replica.range(ALL)).count >= acknowledged > 50
    await until(lambda: replica.status().alarms == {1})
    deletion = await replica.txn(Txn(success=(DeleteRange(key=b"/k0"),)))
    assert deletion.succeeded, "what frees space is still taken"
    big.unlink()
    await until(lambda: not replica.status().alarms)
    await replica.txn(put("/again"))
    await replica.stop()
    again = replica_on(small / "store")
    await again.start()
    assert (await again.range(ALL)).count >= acknowledged
    await again.stop()


async def test_a_disk_that_others_fill_in_an_instant_costs_no_write_that_was_taken(small: Path) -> None:
    replica = replica_on(small / "store")
    await replica.start()
    await replica.txn(put("/before", b"x" * 1000))
    try:
        with (small / "somebody-elses").open("wb", buffering=0) as file:
            while file.write(bytes(MIB)):
                pass
    except OSError:
        pass
    taken = await asyncio.gather(*(replica.txn(put(f"/in-time{n}", b"x" * 9000)) for n in range(20)))
    assert len(taken) == 20, "the spare space served the writes before the alarm"
    await until(lambda: replica.status().disk_full)
    with pytest.raises(NoSpace):
        await replica.txn(put("/late"))
    assert (await replica.range(ALL)).count == 21
    await replica.stop()
    again = replica_on(small / "store")
    await again.start()
    assert (await again.range(ALL)).count == 21, "a full disk is no reason not to serve reads after a restart"
    await until(lambda: again.status().alarms)
    await again.stop()


async def test_a_snapshot_for_which_there_is_no_space_ends_nothing(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    replica = replica_on(small / "store")
    await replica.start()
    for number in range(20):
        await replica.txn(put(f"/k{number}"))
    await replica.stop()
    replica = replica_on(small / "store", reserve_bytes=1 << 40, snapshot_entries=10)
    await replica.start()
    await until(lambda: "no snapshot was taken" in caplog.text)
    assert (await replica.range(ALL)).count == 20
    assert replica.failure is None
    assert not list((small / "store" / "snap").iterdir())
    await replica.stop()


async def test_one_full_disk_refuses_the_writes_of_the_whole_group(small: Path) -> None:
    network, replicas = MemoryNetwork(), []
    for member in (1, 2, 3):
        reserve_bytes = 1 << 40 if member == 3 else 0
        replicas.append(
            Replica(
                name=f"s{member}", member_id=member, peers={1: "a", 2: "b", 3: "c"},
                disk=FileDisk(small / str(member), reserve_bytes=reserve_bytes), transport=network.transport(member),
                rng=random.Random(member),
            )
        )  # fmt: skip
        await replicas[-1].start()
    for replica in replicas:
        await replica.wait_ready()
    await until(lambda: all(replica.status().alarms == {3} for replica in replicas))
    for replica in replicas:
        with pytest.raises(NoSpace):
            await replica.txn(put("/more"))
        assert (await replica.range(ALL)).count == 0
    for replica in replicas:
        await replica.stop()
