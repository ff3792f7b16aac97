"""The loop around one member's consensus core: it feeds the core, and persists, sends and applies what that hands out.

One event loop, one writer: every input (a message, a tick, a request, a finished write to the disk) ends in `pump`,
which empties the core.
"""

from __future__ import annotations

import asyncio
import logging
import random
import struct
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from steersman.actors.store.disk import Disk, DiskFailure
from steersman.actors.store.leasekeeping import LeaseKeeper
from steersman.actors.store.requests import Proposals, QueuedReads
from steersman.actors.store.saving import Saver
from steersman.actors.store.settings import ReplicaSettings
from steersman.actors.store.snapshots import Snapshots
from steersman.actors.store.transport import Transport
from steersman.actors.store.upkeep import Upkeep
from steersman.actors.store.watches import Watches
from steersman.cluster.raft.core import Raft
from steersman.cluster.raft.values import Config, Entry, EntryKind, Message, Ready
from steersman.cluster.store import codec
from steersman.cluster.store.commands import Command, LeaseRevoke, grows
from steersman.cluster.store.mvcc import Change, Mvcc
from steersman.cluster.store.snapshot import Capture
from steersman.cluster.store.values import NoSpace, StoreError, TooLarge, TxnResult, Unavailable

logger = logging.getLogger(__name__)

#: bytes of one command: three objects of the largest size that the API server takes
COMMAND_BYTES_MAX = 8 << 20
#: for so long a leader waits for another append that tells the others of a commit; who waits for a write of its own is
#: told at once
NEWS_DELAY_S = 0.002
#: what precedes a command in a log entry: the member that proposed it and the number it gave it
_ORIGIN = struct.Struct(">QQ")


class Driver:
    """Drives the core of one replica.

    Args:
        name, member_id: of the replica.
        waits_for: says what a member that has no core yet waits for, for people.
        configured: called with each configuration of the group that is applied.
        ended: called once, with the reason, when all has ended.

    Attributes:
        core: None until the member takes part in its group.
        state: what was applied.
        failure: why nothing goes on any more; None while it does.
        ready_event: set when this member knows a leader and has applied what was committed before, or has failed.
    """

    def __init__(
        self,
        name: str,
        member_id: int,
        disk: Disk,
        transport: Transport | None,
        rng: random.Random,
        settings: ReplicaSettings,
        *,
        waits_for: Callable[[], str],
        configured: Callable[[Config], None],
        ended: Callable[[str], None],
    ) -> None:
        self._name, self._member_id, self._transport, self._settings = name, member_id, transport, settings
        self._waits_for, self._configured, self._ended = waits_for, configured, ended
        self.core: Raft | None = None
        self.state = Mvcc()
        self.failure: str | None = None
        self.ready_event = asyncio.Event()
        self.watches = Watches(lambda: self.state)
        self.leases = LeaseKeeper(member_id, transport, self.clock)
        self.proposals = Proposals(rng)
        self.reads = QueuedReads()
        self._saver = Saver(disk, saved=self._saved, resumed=self._resume, failed=self._disk_failed)
        self.snapshots = Snapshots(name, disk, transport, self._saver, settings, lambda: self.state)
        self._upkeep = Upkeep(
            name,
            member_id,
            disk,
            self.watches,
            settings,
            state=lambda: self.state,
            propose=self._propose_quietly,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._pump_scheduled = False
        self._news: asyncio.TimerHandle | None = None

    # life

    def awake(self) -> None:
        """Begins to tell the time, in the present event loop."""
        self._loop = asyncio.get_running_loop()

    def begin(self, core: Raft) -> None:
        """Takes part in the group from now on, with a core as the disk had it."""
        self.core = core
        entries = core.log.between(core.log.start, core.log.last)
        self._saver.begin_count(len(entries), sum(len(entry.data) for entry in entries))
        if core.config.voters == (self._member_id,):
            core.campaign()
        self.pump()
        self._ticker = asyncio.create_task(self._tick(), name=f"store-{self._name}-tick")

    async def stop(self) -> None:
        """Ends every request with `Unavailable`."""
        self.fail("the replica was stopped")
        tasks = [task for task in (self._ticker, *self._tasks) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._ticker = None

    def fail(self, reason: str) -> None:
        """Ends it all: a replica whose disk failed must not acknowledge anything any more."""
        if self.failure is not None:
            return
        self.failure = reason
        self.proposals.fail(reason)
        self.reads.fail(reason)
        self.leases.fail(reason)
        self._saver.stop()
        self.watches.fail(reason)
        self.ready_event.set()
        self._ended(reason)

    def alive(self) -> Raft:
        """Returns the core; raises Unavailable when nothing goes on, or not yet."""
        if self.failure is not None:
            raise Unavailable(self.failure)
        if self.core is None:
            raise Unavailable(f"store member {self._name} does not take part in its group yet{self._waits_for()}")
        return self.core

    @property
    def disk_full(self) -> bool:
        """Whether writes are refused for want of space."""
        return self._upkeep.disk_full

    # what comes in

    def step(self, message: Message) -> None:
        """Takes a message of another member."""
        if self.core is not None:
            self.core.step(message, self.clock())
            self.schedule()

    def step_snapshot(self, message: Message, state: Capture) -> None:
        """Takes a snapshot of the leader's state."""
        core = self.core
        if self.failure is not None or core is None:
            return
        before = core.snapshot_index
        core.step(message, self.clock())
        if core.snapshot_index != before:
            self.state = state.restore()
            self._saver.received(core.snapshot_index, state)
            self.watches.state_replaced()
        self.pump()

    def begin_submit(self, command: Command, data: bytes) -> asyncio.Future[TxnResult | int]:
        """See `Replica.begin_submit`."""
        core = self.alive()
        if len(data) > COMMAND_BYTES_MAX:
            raise TooLarge(f"the request has {len(data)} bytes, the store takes {COMMAND_BYTES_MAX}")
        if self._upkeep.disk_full and grows(command):
            raise NoSpace("the disk of the store is full: writes are refused until space is freed")
        if core.log.last - core.log.applied > 100_000:
            raise Unavailable("too many writes are waiting")
        future = self.proposals.add(command, data, self.deadline())
        self.schedule()
        return future

    def begin_read(self) -> asyncio.Future[None] | None:
        """See `Replica.begin_read`."""
        core = self.alive()
        if core.reads_now(self.clock()):
            return None
        future = self.reads.add(self.deadline())
        self.schedule()
        return future

    # the pump

    def clock(self) -> float:
        assert self._loop is not None
        return self._loop.time()

    def deadline(self) -> float:
        return self.clock() + self._settings.request_timeout_s

    def schedule(self) -> None:
        if not self._pump_scheduled and self._loop is not None:
            self._pump_scheduled = True
            self._loop.call_soon(self.pump)

    def pump(self) -> None:
        """Feeds the core what was asked, and carries out all it hands out."""
        self._pump_scheduled = False
        core = self.core
        if core is None or self.failure is not None:
            return
        # what comes in during a write of the log is proposed together, when that is done
        if not self._saver.is_writing_log:
            self._propose_queued(core)
        clock = self.clock()
        self.reads.ask(lambda number: core.read_index(number, clock), self.proposals.next_number, clock)
        changes: list[Change] = []
        while (ready := core.ready(clock)) is not None:
            self._carry_out(core, ready, changes)
            if self.failure is not None:
                return
        if changes:
            self.watches.publish(changes, self.state.revision)
        self.reads.applied(core.log.applied)
        self._notice_role(core)
        self._consider_snapshot(core)
        self._expect_news(core)

    def _expect_news(self, core: Raft) -> None:
        if self._news is None and core.has_news and self._loop is not None:
            self._news = self._loop.call_later(NEWS_DELAY_S, self._tell_news, core.log.committed)

    def _tell_news(self, committed: int) -> None:
        self._news = None
        core = self.core
        if core is None or self.failure is not None:
            return
        if core.tell_commit(committed):
            self.pump()
        else:
            self._expect_news(core)  # an append has told it meanwhile

    def _resume(self) -> None:
        """Goes on after a write; a member that always has another one to do must propose all the same."""
        if self.core is not None and self.failure is None:
            self._propose_queued(self.core)
            self.pump()

    def _propose_queued(self, core: Raft) -> None:
        batch = self.proposals.queued()
        if batch and core.propose([_ORIGIN.pack(self._member_id, number) + data for number, data in batch]):
            self.proposals.proposed(0 if core.is_leader else core.forwards)

    def _carry_out(self, core: Raft, ready: Ready, changes: list[Change]) -> None:
        self._send(core, ready.messages)
        if self._saver.concerns(ready):
            self._saver.add(ready)
        else:
            self._send(core, ready.replies)
        for entry in ready.committed:
            self._apply(entry, changes)
        for message in ready.installs:
            self.supervise(self.snapshots.send(core, message, *self.snapshots.begin(core)), "snapshot-send")
        if ready.config is not None:
            self._configured(ready.config)
        for number, index in ready.reads:
            self.reads.answered(number, index)
        self.reads.lost(ready.lost)
        if ready.refused:
            self.proposals.refused(ready.refused)
        if (ready.reads or ready.lost) and self.reads.are_queued:
            self.schedule()

    def _send(self, core: Raft, messages: tuple[Message, ...]) -> None:
        for message in messages:
            if message.to == self._member_id:
                core.step(message, self.clock())
            elif self._transport is not None:
                self._transport.send(message)

    # persisting

    def _saved(self, done: Sequence[Ready]) -> None:
        core = self.core
        assert core is not None
        for ready in done:
            if ready.entries:
                core.persisted(ready.entries[-1].index, ready.entries[-1].term)
            self._send(core, ready.replies)

    def _disk_failed(self, reason: str) -> None:
        self.fail(f"store member {self._name}: {reason}")

    def _consider_snapshot(self, core: Raft) -> None:
        if self.snapshots.is_due(core):
            self.supervise(self.keep_snapshot(self.snapshots.take(core)), "snapshot")

    async def keep_snapshot(self, work: Awaitable[None]) -> None:
        try:
            await work
        except (OSError, DiskFailure) as error:
            self._disk_failed(f"the disk failed: {error}")

    # applying

    def _apply(self, entry: Entry, changes: list[Change]) -> None:
        if entry.kind is not EntryKind.COMMAND or not entry.data:
            return
        origin, number = _ORIGIN.unpack_from(entry.data)
        proposal = self.proposals.take(number) if origin == self._member_id else None
        command = proposal.command if proposal else codec.decode_command(entry.data[_ORIGIN.size :])
        before = self.state.revision
        try:
            result = self.state.apply(command)
        except StoreError as error:
            if proposal:
                proposal.refuse(error)
            return
        if self.state.revision != before:
            changes.append(self.state.newest)
        self.leases.applied(command)
        if proposal:
            proposal.resolve(result)

    def _notice_role(self, core: Raft) -> None:
        # what an earlier leader decided, the end of a lease too, is applied before the first entry of this term
        if self.leases.leads != core.is_leader:
            if not core.is_leader:
                self.leases.follow()
            elif core.log.term(core.log.applied) == core.term:
                self.leases.lead(self.state)
                logger.info("store %s leads in term %d", self._name, core.term)
        if not self.ready_event.is_set() and core.leader and core.log.term(core.log.committed) == core.term:
            self.ready_event.set()

    def supervise(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=f"store-{self._name}-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, OSError):
            self._disk_failed(f"the disk failed: {error}")
        else:
            self.fail(f"a task of store member {self._name} failed: {error!r}")

    # time

    async def _tick(self) -> None:
        try:
            while self.failure is None:
                assert self.core is not None
                alone = self.core.is_alone and self.core.is_leader
                await asyncio.sleep(self._settings.alone_tick_s if alone else self._settings.tick_s)
                self._on_tick(self.core)
        except Exception as error:
            self.fail(f"store member {self._name} failed: {error!r}")
            raise

    def _on_tick(self, core: Raft) -> None:
        clock = self.clock()
        core.tick(clock)
        self.proposals.expire(clock)
        self.reads.expire(clock, self._settings.tick_s * self._settings.election_ticks)
        self.leases.expire_asks()
        self._upkeep.tick(core, clock)
        if self.leases.leads and core.is_leader:
            self._expire_leases(core)
            self._upkeep.compact_old(clock)
        self.pump()

    def _propose_quietly(self, command: Command) -> None:
        self.supervise(self._submit_quietly(command), "upkeep")

    async def _submit_quietly(self, command: Command) -> None:
        """For what is tried again with a later tick."""
        try:
            await self.begin_submit(command, codec.encode(command))
        except StoreError as error:
            logger.debug("store %s: %r: %s", self._name, command, error)

    def _expire_leases(self, core: Raft) -> None:
        """Proposes the end of leases in this leader's own term: if it was deposed unknowingly, nothing comes of it."""
        for lease in self.leases.expired():
            number = self.proposals.next_number()
            core.propose([_ORIGIN.pack(self._member_id, number) + codec.encode(LeaseRevoke(lease))])
