"""What a replica writes to its disk at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from steersman.actors.store.disk import MemoryDisk, Saving
from steersman.actors.store.saving import Saver
from steersman.cluster.raft.values import Entry, HardState, Ready


class SlowDisk(MemoryDisk):
    """Writes when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[list[Entry]] = []
        self.pending: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def save(self, hard_state: HardState | None, entries: Sequence[Entry]) -> Saving:
        self.written.append(list(entries))
        self.pending = asyncio.get_running_loop().create_future()
        return self.pending


async def test_of_entries_that_wait_together_the_later_replace_the_earlier() -> None:
    disk, done = SlowDisk(), []
    saver = Saver(disk, saved=done.extend, resumed=lambda: None, failed=lambda reason: None)
    saver.add(Ready(entries=(Entry(1, 1), Entry(2, 1))))
    saver.add(Ready(entries=(Entry(3, 1), Entry(4, 1), Entry(5, 1))))
    saver.add(Ready(entries=(Entry(4, 2), Entry(5, 2))))
    saver.add(Ready(entries=(Entry(5, 3),)))
    disk.pending.set_result(None)
    await asyncio.sleep(0)
    assert disk.written[1] == [Entry(3, 1), Entry(4, 2), Entry(5, 3)]
    disk.pending.set_result(None)
    await asyncio.sleep(0)
    assert len(done) == 4
