"""One replica under virtual time: no thread, socket or file, and the same seed gives the same story."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from steersman.actors.clocks import VirtualTimeLoop
from steersman.actors.store.disk import MemoryDisk
from steersman.actors.store.replica import Replica
from steersman.actors.store.settings import ReplicaSettings
from steersman.actors.store.transport import Letter, MemoryNetwork
from steersman.actors.store.watches import PENDING_EVENTS_MAX
from steersman.cluster.raft.values import Message, MessageKind
from steersman.cluster.store.values import (
    Compacted,
    InvalidRequest,
    LeaseNotFound,
    Put,
    Range,
    TooLarge,
    Txn,
    Unavailable,
)

T = TypeVar("T")
ALL = Range(key=b"\0", range_end=b"\0")


def run(work: Coroutine[Any, Any, T], loop: VirtualTimeLoop) -> T:
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


def replica_of(loop: VirtualTimeLoop, disk: MemoryDisk | None = None, seed: int = 1, **settings: Any) -> Replica:
    return Replica(
        name="s1", member_id=1, peers={}, disk=disk or MemoryDisk(), transport=None,
        rng=random.Random(seed), settings=ReplicaSettings(**settings),
    )  # fmt: skip


def put(key: str, value: str = "", lease: int = 0) -> Txn:
    return Txn(success=(Put(key=key.encode(), value=value.encode(), lease=lease),))


async def started(loop: VirtualTimeLoop, **options: Any) -> Replica:
    replica = replica_of(loop, **options)
    await replica.start()
    return replica


def test_a_group_of_one_serves_as_soon_as_it_is_started() -> None:
    loop = VirtualTimeLoop()

    async def story() -> None:
        replica = await started(loop)
        assert loop.time() == 0.0
        assert (await replica.txn(put("/a", "1"))).revision == 2
        assert (await replica.range(Range(key=b"/a"))).kvs[0].value == b"1"
        await replica.stop()
        with pytest.raises(Unavailable, match="stopped"):
            await replica.range(ALL)

    run(story(), loop)


def test_leases_end_when_nobody_keeps_them_alive() -> None:
    loop = VirtualTimeLoop()

    async def story() -> None:
        replica = await started(loop)
        kept, lost = await replica.lease_grant(10), await replica.lease_grant(10)
        await replica.txn(put("/kept", lease=kept))
        await replica.txn(put("/lost", lease=lost))
        watch = replica.watch(b"/lost", b"", 0)
        await anext(watch)
        for _ in range(5):
            await asyncio.sleep(5)
            assert await replica.lease_keep_alive(kept) == 10
        batch = await anext(watch)
        while not batch.events:
            batch = await anext(watch)
        event = batch.events[0]
        assert event.deleted and event.prev_kv is not None and event.prev_kv.lease == lost
        assert [kv.key for kv in (await replica.range(ALL)).kvs] == [b"/kept"]
        with pytest.raises(LeaseNotFound):
            await replica.lease_keep_alive(lost)
        await replica.stop()

    run(story(), loop)


def test_everything_is_there_when_it_starts_again_on_its_disk() -> None:
    loop = VirtualTimeLoop()

    async def story() -> None:
        disk = MemoryDisk()
        for life in range(3):
            replica = await started(loop, disk=disk, seed=life, snapshot_entries=40)
            assert (await replica.range(ALL)).count == 30 * life
            lease = await replica.lease_grant(1000, 7) if not life else 7
            for number in range(30):
                await replica.txn(put(f"/{life}/{number}", lease=lease))
            assert len((await replica.lease_remaining(7))[2]) == 30 * (life + 1)
            await replica.stop()

    run(story(), loop)


def test_watches_see_every_change_once_in_order() -> None:
    loop = VirtualTimeLoop()

    async def story() -> None:
        replica = await started(loop)
        await replica.txn(put("/before"))
        seen: list[int] = []

        async def watch(start: int) -> None:
            async for batch in replica.watch(b"/", b"0", start):
                seen.extend(event.kv.mod_revision for event in batch.events)
                assert not batch.events or batch.events[-1].kv.mod_revision <= batch.revision
                if batch.revision >= 502:
                    return

        tasks = [asyncio.create_task(watch(start)) for start in (2, 0, 300)]
        await asyncio.sleep(0)
        await asyncio.gather(*(replica.txn(put(f"/k{n % 7}", str(n))) for n in range(500)))
        await asyncio.gather(*tasks)
        counts = {revision: seen.count(revision) for revision in range(2, 503)}
        assert counts == {2: 1} | {r: 2 if r < 300 else 3 for r in range(3, 503)}
        await replica.stop()

    run(story(), loop)


def test_a_slow_watcher_costs_bounded_memory_and_misses_nothing() -> None:
    loop = VirtualTimeLoop()

    async def story() -> None:
        replica = await started(loop)
        watch = replica.watch(b"/", b"0", 0)
        await anext(watch)
        total = PENDING_EVENTS_MAX + 500
        for _ in range(total // 100):
            await replica.txn(Txn(success=tuple(Put(key=b"/%d" % n, value=b"") for n in range(100))))
        count = 0
        while count < total:
            count += len((await anext(watch)).events)
        assert count == total
        await replica.stop()

    run(story(), loop)


def test_progress_is_reported_while_nothing_changes() -> None:
    loop = VirtualTimeLoop()

    async def story() -> None:
        replica = await started(loop)
        watch = replica.watch(b"/x", b"", 0)
        assert (await anext(watch)).revision == 1
        await replica.txn(put("/other"))
        since = loop.time()
        batch = await anext(watch)
        while batch.revision < 2:
            batch = await anext(watch)
        assert not batch.events and loop.time() - since <= 5.0
        await replica.stop()

    run(story(), loop)


def test_the_past_is_forgotten_after_its_retention() -> None:
    loop = VirtualTimeLoop()

    async def story() -> None:
        replica = await started(loop, retention_s=60.0)
        for number in range(20):
            await replica.txn(put("/a", str(number)))
            await asyncio.sleep(10)
        assert 10 < replica.status().compacted < replica.revision
        with pytest.raises(Compacted):
            await anext(replica.watch(b"/a", b"", 2))
        await replica.stop()

    run(story(), loop)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        pytest.param(put(""), InvalidRequest, id="empty key"),
        pytest.param(put("/a", lease=4), LeaseNotFound, id="unknown lease"),
        pytest.param(put("/a", "x" * (9 << 20)), TooLarge, id="too large"),
    ],
)
def test_refused_writes_change_nothing(bad: Txn, error: type[Exception]) -> None:
    loop = VirtualTimeLoop()

    async def story() -> None:
        replica = await started(loop)
        with pytest.raises(error):
            await replica.txn(bad)
        assert replica.revision == 1
        await replica.stop()

    run(story(), loop)


def test_the_same_seed_gives_the_same_story() -> None:
    def story_of(seed: int) -> tuple[Any, ...]:
        loop = VirtualTimeLoop()

        async def story() -> tuple[Any, ...]:
            replica = await started(loop, seed=seed)
            leases = [await replica.lease_grant(3 + n) for n in range(5)]

            async def write(writer: int) -> None:
                for number in range(10):
                    await asyncio.sleep(0.1 * writer)
                    await replica.txn(put(f"/{writer}/{number}", lease=leases[writer]))

            await asyncio.gather(*(write(writer) for writer in range(5)))
            await asyncio.sleep(6)
            state = replica.snapshot()[1]
            await replica.stop()
            return loop.time(), leases, state.changes

        return run(story(), loop)

    assert story_of(1) == story_of(1)
    assert story_of(1)[1] != story_of(2)[1]


class CountingNetwork(MemoryNetwork):
    def __init__(self) -> None:
        super().__init__(delay_s=0.0004)
        self.kinds: Counter[MessageKind] = Counter()

    def deliver(self, letter: Letter) -> None:
        if isinstance(letter, Message):
            self.kinds[letter.kind] += 1
        super().deliver(letter)


def test_each_of_many_writes_costs_a_letter_to_each_other_member_and_its_answer() -> None:
    """The next one tells them that it is committed; only of the last one they are told by letters without an answer."""
    loop = VirtualTimeLoop()

    async def story() -> None:
        network, addresses = CountingNetwork(), {number: f"m{number}" for number in (1, 2, 3)}
        replicas = [
            Replica(
                name=f"s{number}", member_id=number, peers=addresses, disk=MemoryDisk(),
                transport=network.transport(number), rng=random.Random(number),
            )
            for number in addresses
        ]  # fmt: skip
        for replica in replicas:
            await replica.start()
        await asyncio.gather(*(replica.wait_ready() for replica in replicas))
        leader = next(replica for replica in replicas if replica.is_leader)
        await asyncio.sleep(5)
        network.kinds.clear()
        for number in range(100):
            await leader.txn(put(f"/{number}"))
        await asyncio.sleep(0.01)
        assert {replica.revision for replica in replicas} == {leader.revision}, (
            "everybody has heard of the last one too"
        )
        wanted = (MessageKind.APPEND, MessageKind.APPEND_REPLY, MessageKind.COMMIT)
        assert [network.kinds[kind] for kind in wanted] == [200, 200, 2]
        for replica in replicas:
            await replica.stop()

    run(story(), loop)


def test_an_idle_hour_costs_next_to_nothing() -> None:
    loop = VirtualTimeLoop()

    async def story() -> int:
        replica = await started(loop)
        calls = 0
        original = replica._driver.pump

        def counted() -> None:
            nonlocal calls
            calls += 1
            original()

        replica._driver.pump = counted  # type: ignore[method-assign]
        await asyncio.sleep(3600)
        await replica.stop()
        return calls

    assert run(story(), loop) <= 7300
