"""When a replica takes a snapshot of itself to keep its log short, and how it sends one to a member far behind."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable

from steersman.actors.store.disk import Disk
from steersman.actors.store.saving import Saver
from steersman.actors.store.settings import ReplicaSettings
from steersman.actors.store.transport import Transport, snapshot_blocks
from steersman.cluster.raft.core import Raft
from steersman.cluster.raft.values import Message, SnapshotMeta
from steersman.cluster.store.mvcc import Mvcc
from steersman.cluster.store.snapshot import Capture, Capturing

#: pause after a snapshot for which there was no space
RETRY_S = 30.0

logger = logging.getLogger(__name__)


class Snapshots:
    """The snapshots of one replica.

    Args:
        state: returns the replica's present state.
        saver: tells how far the log has grown.
    """

    def __init__(
        self,
        name: str,
        disk: Disk,
        transport: Transport | None,
        saver: Saver,
        settings: ReplicaSettings,
        state: Callable[[], Mvcc],
    ) -> None:
        self._name, self._disk, self._transport, self._saver = name, disk, transport, saver
        self._settings, self._state = settings, state
        self._taking = False
        self._not_before = 0.0

    def place(self, core: Raft) -> SnapshotMeta:
        """Returns where in the log the present state stands."""
        index = core.log.applied
        return SnapshotMeta(index, core.log.term(index) or 0, core.config)

    def begin(self, core: Raft) -> tuple[SnapshotMeta, Capturing]:
        """Begins to capture the present state, which `finish` does."""
        return self.place(core), Capturing(self._state())

    def is_due(self, core: Raft) -> bool:
        saver, settings = self._saver, self._settings
        if saver.entries < settings.snapshot_entries and saver.bytes < settings.snapshot_bytes:
            return False
        is_time = not self._taking and asyncio.get_running_loop().time() >= self._not_before
        return is_time and core.log.applied > core.snapshot_index

    def take(self, core: Raft) -> Awaitable[None]:
        """Begins to keep a snapshot; the rest, which lets the log forget, raises OSError when the disk failed."""
        self._taking = True
        grown = self._saver.entries, self._saver.bytes
        self._saver.begin_count()
        return asyncio.ensure_future(self._take(core, grown, *self.begin(core)))

    async def _take(self, core: Raft, grown: tuple[int, int], meta: SnapshotMeta, capturing: Capturing) -> None:
        try:
            saving = self._disk.save_snapshot(meta, await finish(capturing))
            if saving is not None:
                await saving
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            logger.warning("store %s: no snapshot was taken: %s", self._name, error)
            self._not_before = asyncio.get_running_loop().time() + RETRY_S
            self._saver.begin_count(*grown)
            return
        finally:
            self._taking = False
        core.compact(meta.index if core.is_alone else meta.index - self._settings.kept_entries)

    async def send(self, core: Raft, message: Message, meta: SnapshotMeta, capturing: Capturing) -> None:
        """Sends the state as it was when the core asked: at least as new as it asked for."""
        assert self._transport is not None
        filled = Message(
            kind=message.kind, sender=message.sender, to=message.to, term=message.term, index=meta.index, snapshot=meta
        )
        try:
            await self._transport.send_snapshot(filled, snapshot_blocks(await finish(capturing)))
            core.snapshot_sent(message.to, delivered=True)
        except OSError as error:
            logger.warning("store %s: snapshot to member %d: %s", self._name, message.to, error)
            core.snapshot_sent(message.to, delivered=False)


async def finish(capturing: Capturing) -> Capture:
    """Captures piece by piece; what else there is to do goes on in between."""
    try:
        while capturing.step():  # noqa: ASYNC110  (the state has no event)
            await asyncio.sleep(0)
        return capturing.captured
    finally:
        capturing.close()
