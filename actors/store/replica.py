"""One member of the store's group: persists, sends and applies what the consensus core hands out, and answers clients.

It decides nothing about consensus (`cluster.raft`) or about keys (`cluster.store`). One event loop, one writer: every
input (a message, a tick, a request, a finished write to the disk) ends in `_pump`, which empties the core.
"""

from __future__ import annotations

import asyncio
import logging
import random
import struct
from collections.abc import AsyncIterator, Awaitable, Coroutine, Mapping, Sequence
from typing import Any

from steersman.actors.store.backup import backup_pieces, plan
from steersman.actors.store.disk import Disk, DiskFailure, Identity, Recovered
from steersman.actors.store.founding import Founding
from steersman.actors.store.groupchanges import GroupChanges
from steersman.actors.store.leasekeeping import NO_LEASE, NOT_LEADING, LeaseKeeper
from steersman.actors.store.requests import Proposals, QueuedReads
from steersman.actors.store.saving import Saver
from steersman.actors.store.settings import ReplicaSettings, ReplicaStatus
from steersman.actors.store.snapshots import Snapshots, finish
from steersman.actors.store.transport import ChangeAnswer, ChangeAsk, Greeting, LeaseAnswer, LeaseAsk, Letter, Transport
from steersman.actors.store.upkeep import Upkeep
from steersman.actors.store.watches import Watches
from steersman.cluster.raft.core import Raft
from steersman.cluster.raft.values import (
    Config,
    ConfigChange,
    Entry,
    EntryKind,
    Message,
    Ready,
    SnapshotMeta,
    config_of,
)
from steersman.cluster.store import codec
from steersman.cluster.store.checksum import MODULUS as CHECKSUM_MODULUS
from steersman.cluster.store.checksum import parts as checksum_parts
from steersman.cluster.store.commands import Command, Compact, LeaseGrant, LeaseRevoke, grows
from steersman.cluster.store.database import Database
from steersman.cluster.store.mvcc import Change, Mvcc
from steersman.cluster.store.rules import check_txn
from steersman.cluster.store.snapshot import Capture, capture
from steersman.cluster.store.values import (
    Compacted,
    InvalidRequest,
    LeaseNotFound,
    NoSpace,
    Range,
    RangeResult,
    StoreError,
    TooLarge,
    Txn,
    TxnResult,
    Unavailable,
    WatchBatch,
)

logger = logging.getLogger(__name__)

#: bytes of one command: three objects of the largest size that the API server takes
COMMAND_BYTES_MAX = 8 << 20
#: for so long a leader waits for another append that tells the others of a commit; who waits for a write of its own is
#: told at once
NEWS_DELAY_S = 0.002
#: of the id of a member that is added; a founder's is its number
MEMBER_ID_BITS = 48
REMOVED = "store member {} was removed from the group: it stays stopped, and its data directory can go"
#: what precedes a command in a log entry: the member that proposed it and the number it gave it
_ORIGIN = struct.Struct(">QQ")


class Replica:
    """One replica; implements `ports.Store` and `ports.Component`.

    Args:
        name: shown in member lists.
        member_id: above 0, unique in the group, the same at every start on this disk.
        peers: member id to address (`host:port`) of the founding group, this member included; empty for a group of
            one. On a disk that was used before, what the disk says counts.
        transport: None for a group of one.
    """

    def __init__(
        self,
        *,
        name: str,
        member_id: int,
        peers: Mapping[int, str],
        disk: Disk,
        transport: Transport | None,
        rng: random.Random,
        settings: ReplicaSettings | None = None,
    ) -> None:
        addresses = dict(peers) or {member_id: ""}
        if member_id < 1:
            raise ValueError(f"member id {member_id} is not above 0")
        if len(addresses) > 1 and transport is None:
            raise ValueError("a group of several members needs a transport")
        self.name, self.member_id = name, member_id
        self.settings = settings or ReplicaSettings()
        self._founders = config_of(addresses)
        self._founding: Founding | None = None
        self._disk, self._transport, self._rng = disk, transport, rng
        self._state = Mvcc()
        self._watches = Watches(lambda: self._state)
        self._leases = LeaseKeeper(member_id, transport, self._clock)
        self._proposals = Proposals(rng)
        self._changes = GroupChanges(
            member_id,
            transport,
            self.settings,
            core=self._check_alive,
            pump=self._schedule_pump,
            number=self._proposals.next_number,
            clock=self._clock,
        )
        self._reads = QueuedReads()
        self._core: Raft | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._pump_scheduled = False
        self._news: asyncio.TimerHandle | None = None
        self._ready_event = asyncio.Event()
        self._failure: str | None = None
        #: this member has been in the configuration since it started: when it is no longer, it was removed
        self._belongs = False
        self._upkeep = Upkeep(
            name,
            member_id,
            disk,
            self._watches,
            self.settings,
            state=lambda: self._state,
            propose=self._propose_quietly,
        )
        self._saver = Saver(disk, saved=self._saved, resumed=self._resume, failed=self._disk_failed)
        self._snapshots = Snapshots(name, disk, transport, self._saver, self.settings, lambda: self._state)
        #: resolved with the reason when the replica can go on no more
        self.failed: asyncio.Event = asyncio.Event()

    # component

    async def start(self) -> None:
        """Reads the disk and joins the group; a group of one serves when this returns.

        Raises:
            DiskFailure: the data directory is in use, foreign, newer or damaged; the message says which.
        """
        self._loop = asyncio.get_running_loop()
        founders = self._founders
        identity = Identity(
            name=self.name, member=self.member_id, config=founders, incarnation=self._rng.getrandbits(62) + 1
        )
        recovered = await self._disk.open(identity)
        self._founding = Founding(self.member_id, recovered.incarnation, recovered.met, founders)
        if self._transport is not None:
            await self._transport.start(self)
            self._transport.connect(dict(recovered.config.addresses))
        if recovered.is_new:
            self._supervise(self._meet(recovered), "founding")
        else:
            await self._take_part(recovered)

    async def _meet(self, recovered: Recovered) -> None:
        """Greets the others until it is known whether this member may take part."""
        founding = self._founding
        assert founding is not None and self._transport is not None
        while not (founding.is_founded or founding.is_learner):
            self._transport.connect(founding.addresses)
            founding.greet(self._transport.send)
            await asyncio.sleep(self.settings.tick_s)
        config = recovered.config
        if not founding.is_founded:
            config = Config(addresses=config.addresses, cluster=founding.cluster)
        saving = self._disk.found(config, founding.met)
        if saving is not None:
            await saving
        recovered.config = config
        await self._take_part(recovered)

    async def _take_part(self, recovered: Recovered) -> None:
        self._core = self._recover(recovered)
        self._belongs = self.member_id in self._core.config.members
        if self._transport is not None:
            self._transport.connect(dict(self._core.config.addresses))
        if self._core.config.voters == (self.member_id,):
            self._core.campaign()
        self._pump()
        self._ticker = asyncio.create_task(self._tick(), name=f"store-{self.name}-tick")
        if self._core.is_alone:
            await self.wait_ready()

    def _recover(self, recovered: Recovered) -> Raft:
        config = recovered.snapshot.config if recovered.snapshot.index else recovered.config
        if self.member_id not in config.members and recovered.snapshot.index:
            raise DiskFailure(REMOVED.format(self.name))
        if recovered.state is not None:
            self._state = recovered.state.restore()
        if recovered.cut_bytes:
            logger.warning("store %s: cut %d bytes of a torn write off the log", self.name, recovered.cut_bytes)
        self._saver.begin_count(len(recovered.entries), sum(len(entry.data) for entry in recovered.entries))
        return Raft(
            self.member_id,
            config,
            hard_state=recovered.hard_state,
            snapshot=recovered.snapshot,
            entries=recovered.entries,
            election_ticks=self.settings.election_ticks,
            heartbeat_ticks=self.settings.heartbeat_ticks,
            jitter=self._rng.randrange,
            lease_tick_s=self.settings.tick_s if self.settings.reads == "lease" else 0.0,
        )

    async def wait_ready(self) -> None:
        """Returns when this member knows a leader and has applied what was committed before.

        Raises:
            Unavailable: the replica failed or was stopped.
        """
        await self._ready_event.wait()
        self._check_alive()

    async def stop(self) -> None:
        """Ends every request with `Unavailable` and lets go of the disk."""
        self._fail("the replica was stopped")
        tasks = [task for task in (self._ticker, *self._tasks) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._ticker = None
        if self._transport is not None:
            await self._transport.stop()
        await self._disk.close()

    def _fail(self, reason: str) -> None:
        """Ends it all: a replica whose disk failed must not acknowledge anything any more."""
        if self._failure is not None:
            return
        self._failure = reason
        self._proposals.fail(reason)
        self._reads.fail(reason)
        self._leases.fail(reason)
        self._changes.fail(reason)
        self._saver.stop()
        self._watches.fail(reason)
        self._ready_event.set()
        self.failed.set()

    def _check_alive(self) -> Raft:
        if self._failure is not None:
            raise Unavailable(self._failure)
        if self._core is None:
            missing = self._founding.missing if self._founding else ()
            waits = f": it waits for members {', '.join(map(str, missing))}" if missing else ""
            raise Unavailable(f"store member {self.name} does not take part in its group yet{waits}")
        return self._core

    # what is asked about it

    @property
    def is_leader(self) -> bool:
        return self._core is not None and self._core.is_leader

    @property
    def leader(self) -> int:
        """The id of the member that leads as far as known; 0 for nobody."""
        return 0 if self._core is None else self._core.leader

    @property
    def config(self) -> Config:
        """The group as this member knows it; another object whenever it has changed."""
        return self._founders if self._core is None else self._core.config

    @property
    def cluster(self) -> int:
        """Id of the group; 0 while this member takes no part in it yet."""
        return 0 if self._core is None else self._core.config.cluster

    @property
    def applied(self) -> int:
        """The entry of the log up to which everything is applied here."""
        return 0 if self._core is None else self._core.log.applied

    def position(self) -> tuple[int, int, int]:
        """Returns (id of the group, term, newest revision applied here); raises Unavailable."""
        core = self._check_alive()
        return core.config.cluster, core.term, self._state.revision

    @property
    def revision(self) -> int:
        """Of the newest change applied here."""
        return self._state.revision

    @property
    def snapshot_index(self) -> int:
        """The log entry up to which this member holds a snapshot instead of entries."""
        return 0 if self._core is None else self._core.snapshot_index

    @property
    def failure(self) -> str | None:
        """Why the replica serves no more; None while it does."""
        return self._failure

    def status(self) -> ReplicaStatus:
        core = self._check_alive()
        return ReplicaStatus(
            name=self.name,
            member=self.member_id,
            leader=core.leader,
            term=core.term,
            commit_index=core.log.committed,
            applied_index=core.log.applied,
            revision=self._state.revision,
            compacted=self._state.compacted,
            size_bytes=self._state.size_bytes,
            keys=self._state.keys,
            watches=len(self._watches),
            config=core.config,
            disk_full=self._upkeep.disk_full,
            alarms=self._state.alarms,
            names=self._state.names,
        )

    def snapshot(self) -> tuple[SnapshotMeta, Capture]:
        """Returns the present state and its place in the log."""
        return self._snapshots.place(self._check_alive()), capture(self._state)

    async def shorten_log(self) -> None:
        """Puts a snapshot in the place of the log, as far as no member behind needs it; raises Unavailable."""
        core = self._check_alive()
        if core.log.applied > core.snapshot_index:
            await self._take_snapshot(self._snapshots.take(core))
            self._check_alive()

    async def backup(self) -> AsyncIterator[bytes]:
        """As the port says; writes go on meanwhile."""
        async for piece in backup_pieces(await self.database()):
            yield piece

    async def database(self) -> Database:
        """Returns the present state as a database of etcd, planned; writes go on meanwhile."""
        await self.read_barrier()
        meta, capturing = self._snapshots.begin(self._check_alive())
        return await plan(Database(await finish(capturing), meta.index))

    async def checksum(self, revision: int) -> tuple[int, int]:
        """Returns the revision and a checksum of what lived at it, made while writes go on.

        Args:
            revision: 0 for this member's newest.

        Raises:
            Compacted, FutureRevision: it cannot be read.
        """
        self.read_now(Range(key=b"\0", revision=revision))
        if 0 < revision <= self._state.compacted:
            raise Compacted(self._state.compacted)  # as on etcd, which has thrown some of it away by then
        revision = revision or self._state.revision
        _, capturing = self._snapshots.begin(self._check_alive())
        found = 0
        for part in checksum_parts(await finish(capturing), revision):
            found += part
            await asyncio.sleep(0)
        return revision, found % CHECKSUM_MODULUS

    # ports.Store

    async def range(self, request: Range) -> RangeResult:
        if not request.serializable:
            await self.read_barrier()
        return self.read_now(request)

    async def read_barrier(self) -> None:
        """Returns when this member has applied every write acknowledged before the call."""
        future = self.begin_read()
        if future is not None:
            await future

    def begin_read(self) -> asyncio.Future[None] | None:
        """As `read_barrier`, for callers without a task: None when there is nothing to wait for."""
        core = self._check_alive()
        if core.reads_now(self._clock()):
            return None
        future = self._reads.add(self._deadline())
        self._schedule_pump()
        return future

    def read_now(self, request: Range) -> RangeResult:
        """Answers from this member's state as it is."""
        self._check_alive()
        return self._state.range(request)

    async def txn(self, request: Txn) -> TxnResult:
        check_txn(request)
        result = await self.submit(request, codec.encode(request))
        assert isinstance(result, TxnResult)
        return result

    async def submit(self, command: Command, data: bytes) -> TxnResult | int:
        """Commits a command that is encoded already and has passed `check_txn`; returns its result.

        Raises:
            StoreError: it was refused; `Unavailable` when whether it took effect is unknown.
        """
        return await self.begin_submit(command, data)

    def begin_submit(self, command: Command, data: bytes) -> asyncio.Future[TxnResult | int]:
        """As `submit`, for callers without a task."""
        core = self._check_alive()
        if len(data) > COMMAND_BYTES_MAX:
            raise TooLarge(f"the request has {len(data)} bytes, the store takes {COMMAND_BYTES_MAX}")
        if self._upkeep.disk_full and grows(command):
            raise NoSpace("the disk of the store is full: writes are refused until space is freed")
        if core.log.last - core.log.applied > 100_000:
            raise Unavailable("too many writes are waiting")
        future = self._proposals.add(command, data, self._deadline())
        self._schedule_pump()
        return future

    def watch(self, key: bytes, range_end: bytes, start_revision: int) -> AsyncIterator[WatchBatch]:
        self._check_alive()
        if not key:
            raise InvalidRequest("key is not provided")
        return self._watches.watch(key, range_end, start_revision)

    async def compact(self, revision: int) -> None:
        command = Compact(revision)
        await self.submit(command, codec.encode(command))

    async def lease_grant(self, ttl_s: int, lease: int = 0) -> int:
        if ttl_s < 1:
            raise InvalidRequest("a lease lasts at least a second")
        command = LeaseGrant(lease or self._rng.getrandbits(62) + 1, ttl_s)
        await self.submit(command, codec.encode(command))
        return command.lease

    async def lease_revoke(self, lease: int) -> None:
        command = LeaseRevoke(lease)
        await self.submit(command, codec.encode(command))

    async def lease_keep_alive(self, lease: int) -> int:
        return -(-await self._ask_lease(lease, renew=True) // 1000)

    async def lease_remaining(self, lease: int) -> tuple[int, int, list[bytes]]:
        """Returns (seconds left, seconds granted, keys bound) of a lease; raises LeaseNotFound."""
        await self.read_barrier()
        granted_s = self._state.lease_ttl_s(lease)
        left_ms = await self._ask_lease(lease, renew=False)
        return left_ms // 1000, granted_s, self._state.lease_keys(lease)

    async def leases(self) -> list[int]:
        """Returns the ids of all leases."""
        await self.read_barrier()
        return [lease for lease, _ in self._state.leases()]

    async def _ask_lease(self, lease: int, *, renew: bool) -> int:
        """Returns the milliseconds left, as the leader knows them."""
        deadline = self._deadline()
        while True:
            core = self._check_alive()
            answer = NOT_LEADING
            if core.is_leader:
                answer = self._leases.left_ms(lease, renew=renew)
                await self.read_barrier()
                answer = answer if self._leases.leads else NOT_LEADING
            elif core.leader and self._transport is not None:
                number = self._proposals.next_number()
                answer = await self._leases.ask(core.leader, number, lease, renew=renew, deadline=deadline)
            if answer == NO_LEASE:
                raise LeaseNotFound("requested lease not found")
            if answer >= 0:
                return answer
            if self._clock() >= deadline:
                raise Unavailable("the store has no leader")
            await asyncio.sleep(self.settings.tick_s)

    # the group

    def new_member_id(self) -> int:
        """Returns an id that no member has had: the data of a former one must never be taken for another's."""
        return self._rng.getrandbits(MEMBER_ID_BITS - 1) | 1 << (MEMBER_ID_BITS - 1)

    async def change_members(self, change: ConfigChange) -> Config:
        """Changes one member, through the leader; see `GroupChanges.change`."""
        return await self._changes.change(change)

    async def transfer_leadership(self, to: int) -> None:
        """Hands leadership to another member; see `GroupChanges.transfer`."""
        await self._changes.transfer(to)

    # Inbox

    def receive(self, letter: Letter) -> None:
        """Takes a letter of another member."""
        if isinstance(letter, Greeting):
            self._greeted(letter)
            return
        if self._failure is not None:
            return
        if self._core is None:
            if self._founding is not None:
                self._founding.called(letter.sender)
            return
        self._changes.heard(letter.sender)
        match letter:
            case Message():
                self._core.step(letter, self._clock())
                self._schedule_pump()
            case LeaseAsk():
                self._answer_ask(letter)
            case LeaseAnswer():
                self._leases.answered(letter)
            case ChangeAsk():
                self._supervise(self._changes.asked(letter), "change")
            case ChangeAnswer():
                self._changes.answered(letter)

    def _answer_ask(self, ask: LeaseAsk) -> None:
        """Answers once it is proven that this member still led when it knew the answer: no other gave up the lease."""
        left_ms = self._leases.left_ms(ask.lease, renew=ask.renew)
        proof = self.begin_read() if left_ms != NOT_LEADING else None
        if proof is None:
            self._leases.answer(ask, left_ms)
        else:
            proof.add_done_callback(
                lambda proof: self._leases.answer(
                    ask, NOT_LEADING if proof.exception() or not self._leases.leads else left_ms
                )
            )

    def _greeted(self, letter: Greeting) -> None:
        founding, core = self._founding, self._core
        if founding is None or self._transport is None or self._failure is not None:
            return
        if core is not None:
            if letter.config is None:
                self._transport.send(founding.answer(letter, core.log.applied, core.config))
        elif founding.hear(letter):
            self._fail(
                f"store member {self.name} has an empty data directory, but votes in its group already: it lost "
                "what it promised and may not vote again. Remove it from the group (etcdctl member remove) and add it "
                "anew (etcdctl member add --learner)"
            )

    def receive_snapshot(self, message: Message, state: Capture) -> None:
        """Takes a snapshot of the leader's state."""
        if self._failure is not None or self._core is None:
            return
        before = self._core.snapshot_index
        self._core.step(message, self._clock())
        if self._core.snapshot_index != before:
            self._state = state.restore()
            self._saver.received(self._core.snapshot_index, state)
            self._watches.state_replaced()
        self._pump()

    def removed(self, applied: int) -> None:
        """Ends this member when another one, which knows more, says that it belongs to the group no longer.

        A member that is new is not meant: whoever knows more than it also knows that it was added.
        """
        core = self._core
        if core is not None and self.member_id in core.config.members and applied > core.log.committed:
            self._fail(REMOVED.format(self.name))

    def unreachable(self, member: int) -> None:
        if self._core is not None:
            self._core.unreachable(member)

    # the pump

    def _clock(self) -> float:
        assert self._loop is not None
        return self._loop.time()

    def _deadline(self) -> float:
        return self._clock() + self.settings.request_timeout_s

    def _schedule_pump(self) -> None:
        if not self._pump_scheduled and self._loop is not None:
            self._pump_scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Feeds the core what was asked, and carries out all it hands out."""
        self._pump_scheduled = False
        core = self._core
        if core is None or self._failure is not None:
            return
        # what comes in during a write of the log is proposed together, when that is done
        if not self._saver.is_writing_log:
            self._propose_queued(core)
        clock = self._clock()
        self._reads.ask(lambda number: core.read_index(number, clock), self._proposals.next_number, clock)
        changes: list[Change] = []
        while (ready := core.ready(clock)) is not None:
            self._carry_out(core, ready, changes)
            if self._failure is not None:
                return
        if changes:
            self._watches.publish(changes, self._state.revision)
        self._reads.applied(core.log.applied)
        self._notice_role(core)
        self._consider_snapshot(core)
        self._expect_news(core)

    def _expect_news(self, core: Raft) -> None:
        if self._news is None and core.has_news and self._loop is not None:
            self._news = self._loop.call_later(NEWS_DELAY_S, self._tell_news, core.log.committed)

    def _tell_news(self, committed: int) -> None:
        self._news = None
        core = self._core
        if core is None or self._failure is not None:
            return
        if core.tell_commit(committed):
            self._pump()
        else:
            self._expect_news(core)  # an append has told it meanwhile

    def _resume(self) -> None:
        """Goes on after a write; a member that always has another one to do must propose all the same."""
        if self._core is not None and self._failure is None:
            self._propose_queued(self._core)
            self._pump()

    def _propose_queued(self, core: Raft) -> None:
        batch = self._proposals.queued()
        if batch and core.propose([_ORIGIN.pack(self.member_id, number) + data for number, data in batch]):
            self._proposals.proposed(0 if core.is_leader else core.forwards)

    def _carry_out(self, core: Raft, ready: Ready, changes: list[Change]) -> None:
        self._send(core, ready.messages)
        if self._saver.concerns(ready):
            self._saver.add(ready)
        else:
            self._send(core, ready.replies)
        for entry in ready.committed:
            self._apply(entry, changes)
        for message in ready.installs:
            self._supervise(self._snapshots.send(core, message, *self._snapshots.begin(core)), "snapshot-send")
        if ready.config is not None:
            self._configure(ready.config)
        for number, index in ready.reads:
            self._reads.answered(number, index)
        self._reads.lost(ready.lost)
        if ready.refused:
            self._proposals.refused(ready.refused)
        if (ready.reads or ready.lost) and self._reads.are_queued:
            self._schedule_pump()

    def _configure(self, config: Config) -> None:
        self._changes.configured(config)
        if self._transport is not None:
            self._transport.connect(dict(config.addresses))
        if self.member_id in config.members:
            self._belongs = True
        elif self._belongs:
            self._fail(REMOVED.format(self.name))

    def _send(self, core: Raft, messages: tuple[Message, ...]) -> None:
        for message in messages:
            if message.to == self.member_id:
                core.step(message, self._clock())
            elif self._transport is not None:
                self._transport.send(message)

    # persisting

    def _saved(self, done: Sequence[Ready]) -> None:
        core = self._core
        assert core is not None
        for ready in done:
            if ready.entries:
                core.persisted(ready.entries[-1].index, ready.entries[-1].term)
            self._send(core, ready.replies)

    def _disk_failed(self, reason: str) -> None:
        self._fail(f"store member {self.name}: {reason}")

    def _consider_snapshot(self, core: Raft) -> None:
        if self._snapshots.is_due(core):
            self._supervise(self._take_snapshot(self._snapshots.take(core)), "snapshot")

    async def _take_snapshot(self, work: Awaitable[None]) -> None:
        try:
            await work
        except (OSError, DiskFailure) as error:
            self._disk_failed(f"the disk failed: {error}")

    # applying

    def _apply(self, entry: Entry, changes: list[Change]) -> None:
        if entry.kind is not EntryKind.COMMAND or not entry.data:
            return
        origin, number = _ORIGIN.unpack_from(entry.data)
        proposal = self._proposals.take(number) if origin == self.member_id else None
        command = proposal.command if proposal else codec.decode_command(entry.data[_ORIGIN.size :])
        before = self._state.revision
        try:
            result = self._state.apply(command)
        except StoreError as error:
            if proposal:
                proposal.refuse(error)
            return
        if self._state.revision != before:
            changes.append(self._state.newest)
        self._leases.applied(command)
        if proposal:
            proposal.resolve(result)

    def _notice_role(self, core: Raft) -> None:
        # what an earlier leader decided, the end of a lease too, is applied before the first entry of this term
        if self._leases.leads != core.is_leader:
            if not core.is_leader:
                self._leases.follow()
            elif core.log.term(core.log.applied) == core.term:
                self._leases.lead(self._state)
                logger.info("store %s leads in term %d", self.name, core.term)
        if not self._ready_event.is_set() and core.leader and core.log.term(core.log.committed) == core.term:
            self._ready_event.set()

    def _supervise(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=f"store-{self.name}-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, OSError):
            self._disk_failed(f"the disk failed: {error}")
        else:
            self._fail(f"a task of store member {self.name} failed: {error!r}")

    # time

    async def _tick(self) -> None:
        try:
            while self._failure is None:
                assert self._core is not None
                alone = self._core.is_alone and self._core.is_leader
                await asyncio.sleep(self.settings.alone_tick_s if alone else self.settings.tick_s)
                self._on_tick(self._core)
        except Exception as error:
            self._fail(f"store member {self.name} failed: {error!r}")
            raise

    def _on_tick(self, core: Raft) -> None:
        clock = self._clock()
        core.tick(clock)
        self._proposals.expire(clock)
        self._reads.expire(clock, self.settings.tick_s * self.settings.election_ticks)
        self._leases.expire_asks()
        self._upkeep.tick(core, clock)
        if self._leases.leads and core.is_leader:
            self._expire_leases(core)
            self._upkeep.compact_old(clock)
        self._pump()

    def _propose_quietly(self, command: Command) -> None:
        self._supervise(self._submit_quietly(command), "upkeep")

    async def _submit_quietly(self, command: Command) -> None:
        """For what is tried again with a later tick."""
        try:
            await self.submit(command, codec.encode(command))
        except StoreError as error:
            logger.debug("store %s: %r: %s", self.name, command, error)

    def _expire_leases(self, core: Raft) -> None:
        """Proposes the end of leases in this leader's own term: if it was deposed unknowingly, nothing comes of it."""
        for lease in self._leases.expired():
            number = self._proposals.next_number()
            core.propose([_ORIGIN.pack(self.member_id, number) + codec.encode(LeaseRevoke(lease))])
