"""Persists what the consensus core hands out: in its order, all that waits as one group, one write at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from steersman.actors.store.disk import Disk, DiskFailure, merge_entries
from steersman.cluster.raft.values import Entry, HardState, Ready
from steersman.cluster.store.snapshot import Capture


class Saver:
    """What one replica has not made durable yet.

    Args:
        saved: called with each group that is durable, in order.
        resumed: called after a write that took time, when everything of its group is told.
        failed: called with the reason when the disk can be trusted no more; nothing is saved after that.

    Attributes:
        entries, bytes: how far the log has grown since `begin_count`.
    """

    def __init__(
        self,
        disk: Disk,
        *,
        saved: Callable[[Sequence[Ready]], None],
        resumed: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:
        self._disk, self._saved, self._resumed, self._failed = disk, saved, resumed, failed
        #: not durable yet, in order; the first `_saving` of them are being written
        self._waiting: list[Ready] = []
        self._saving = 0
        self._has_failed = False
        #: the states that came with snapshots of `_waiting`, by the index they stand at
        self._received: dict[int, Capture] = {}
        self.entries = self.bytes = 0

    @property
    def is_writing_log(self) -> bool:
        return self._saving > 0 and self._waiting[0].snapshot is None

    def begin_count(self, entries: int = 0, size_bytes: int = 0) -> None:
        self.entries, self.bytes = entries, size_bytes

    def received(self, index: int, state: Capture) -> None:
        """Keeps the state of a snapshot until the Ready that carries its place in the log."""
        self._received[index] = state

    def concerns(self, ready: Ready) -> bool:
        """Whether the replies of a Ready must wait for the disk."""
        is_new = ready.entries or ready.hard_state is not None or ready.snapshot is not None
        return bool(is_new or (ready.replies and self._waiting))

    def add(self, ready: Ready) -> None:
        self._waiting.append(ready)
        self._save_more()

    def _save_more(self) -> None:
        while self._waiting and not self._saving and not self._has_failed:
            group = self._take_group()
            try:
                saving = self._save(group)
            except (OSError, DiskFailure) as error:
                self._fail(error)
                return
            if saving is None:
                self._finish(len(group))
            else:
                self._saving = len(group)
                saving.add_done_callback(self._written)

    def _take_group(self) -> list[Ready]:
        """Returns the Readys that may be written at once: a snapshot is written by itself."""
        if self._waiting[0].snapshot is not None:
            return self._waiting[:1]
        group: list[Ready] = []
        for ready in self._waiting:
            if ready.snapshot is not None:
                break
            group.append(ready)
        return group

    def _save(self, group: list[Ready]) -> asyncio.Future[None] | None:
        hard_states = [ready.hard_state for ready in group if ready.hard_state is not None]
        hard_state: HardState | None = hard_states[-1] if hard_states else None
        snapshot = group[0].snapshot
        if snapshot is not None:
            state = self._received[snapshot.index]
            self._received = {index: kept for index, kept in self._received.items() if index > snapshot.index}
            return self._disk.replace(hard_state, snapshot, state)
        entries: list[Entry] = []
        for ready in group:
            merge_entries(entries, ready.entries)  # a later one may replace what an earlier one added
        if not entries and hard_state is None:
            return None
        self.entries += len(entries)
        self.bytes += sum(len(entry.data) for entry in entries)
        return self._disk.save(hard_state, entries)

    def _written(self, future: asyncio.Future[None]) -> None:
        error = None if future.cancelled() else future.exception()
        if self._has_failed or future.cancelled():
            return
        if error is not None:
            self._fail(error)
            return
        count, self._saving = self._saving, 0
        self._finish(count)
        self._save_more()
        self._resumed()

    def _fail(self, error: BaseException) -> None:
        self.stop()
        self._failed(f"the disk failed: {error}")

    def stop(self) -> None:
        """Tells nothing more, whatever is being written."""
        self._has_failed = True

    def _finish(self, count: int) -> None:
        done, self._waiting = self._waiting[:count], self._waiting[count:]
        self._saved(done)
