"""One member of the store's group: begins from its disk, answers clients, and hands on what other members send.

It decides nothing about consensus (`cluster.raft`) or about keys (`cluster.store`); its `Driver` drives the core.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Mapping

from steersman.actors.store.backup import backup_pieces, plan
from steersman.actors.store.disk import Disk, DiskFailure, Identity, Recovered
from steersman.actors.store.driver import Driver
from steersman.actors.store.founding import Founding
from steersman.actors.store.groupchanges import GroupChanges
from steersman.actors.store.leasekeeping import NO_LEASE, NOT_LEADING
from steersman.actors.store.settings import ReplicaSettings, ReplicaStatus
from steersman.actors.store.snapshots import finish
from steersman.actors.store.transport import ChangeAnswer, ChangeAsk, Greeting, LeaseAnswer, LeaseAsk, Letter, Transport
from steersman.cluster.raft.core import Raft
from steersman.cluster.raft.values import (
    Config,
    ConfigChange,
    Message,
    SnapshotMeta,
    config_of,
)
from steersman.cluster.store import codec
from steersman.cluster.store.checksum import MODULUS as CHECKSUM_MODULUS
from steersman.cluster.store.checksum import parts as checksum_parts
from steersman.cluster.store.commands import Command, Compact, LeaseGrant, LeaseRevoke
from steersman.cluster.store.database import Database
from steersman.cluster.store.rules import check_txn
from steersman.cluster.store.snapshot import Capture, capture
from steersman.cluster.store.values import (
    Compacted,
    InvalidRequest,
    LeaseNotFound,
    Range,
    RangeResult,
    Txn,
    TxnResult,
    Unavailable,
    WatchBatch,
)

logger = logging.getLogger(__name__)

#: of the id of a member that is added; a founder's is its number
MEMBER_ID_BITS = 48
REMOVED = "store member {} was removed from the group: it stays stopped, and its data directory can go"


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
        #: this member has been in the configuration since it started: when it is no longer, it was removed
        self._belongs = False
        self._driver = Driver(
            name,
            member_id,
            disk,
            transport,
            rng,
            self.settings,
            waits_for=self._waits_for,
            configured=self._configured,
            ended=self._ended,
        )
        self._changes = GroupChanges(
            member_id,
            transport,
            self.settings,
            core=self._driver.alive,
            pump=self._driver.schedule,
            number=self._driver.proposals.next_number,
            clock=self._driver.clock,
        )
        #: resolved with the reason when the replica can go on no more
        self.failed: asyncio.Event = asyncio.Event()

    # component

    async def start(self) -> None:
        """Reads the disk and joins the group; a group of one serves when this returns.

        Raises:
            DiskFailure: the data directory is in use, foreign, newer or damaged; the message says which.
        """
        self._driver.awake()
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
            self._driver.supervise(self._meet(recovered), "founding")
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
        core = self._recover(recovered)
        self._belongs = self.member_id in core.config.members
        if self._transport is not None:
            self._transport.connect(dict(core.config.addresses))
        self._driver.begin(core)
        if core.is_alone:
            await self.wait_ready()

    def _recover(self, recovered: Recovered) -> Raft:
        config = recovered.snapshot.config if recovered.snapshot.index else recovered.config
        if self.member_id not in config.members and recovered.snapshot.index:
            raise DiskFailure(REMOVED.format(self.name))
        if recovered.state is not None:
            self._driver.state = recovered.state.restore()
        if recovered.cut_bytes:
            logger.warning("store %s: cut %d bytes of a torn write off the log", self.name, recovered.cut_bytes)
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
        await self._driver.ready_event.wait()
        self._driver.alive()

    async def stop(self) -> None:
        """Ends every request with `Unavailable` and lets go of the disk."""
        await self._driver.stop()
        if self._transport is not None:
            await self._transport.stop()
        await self._disk.close()

    def _ended(self, reason: str) -> None:
        self._changes.fail(reason)
        self.failed.set()

    def _waits_for(self) -> str:
        missing = self._founding.missing if self._founding else ()
        return f": it waits for members {', '.join(map(str, missing))}" if missing else ""

    def _configured(self, config: Config) -> None:
        self._changes.configured(config)
        if self._transport is not None:
            self._transport.connect(dict(config.addresses))
        if self.member_id in config.members:
            self._belongs = True
        elif self._belongs:
            self._driver.fail(REMOVED.format(self.name))

    # what is asked about it

    @property
    def is_leader(self) -> bool:
        return self._driver.core is not None and self._driver.core.is_leader

    @property
    def leader(self) -> int:
        """The id of the member that leads as far as known; 0 for nobody."""
        return 0 if self._driver.core is None else self._driver.core.leader

    @property
    def config(self) -> Config:
        """The group as this member knows it; another object whenever it has changed."""
        return self._founders if self._driver.core is None else self._driver.core.config

    @property
    def cluster(self) -> int:
        """Id of the group; 0 while this member takes no part in it yet."""
        return 0 if self._driver.core is None else self._driver.core.config.cluster

    @property
    def applied(self) -> int:
        """The entry of the log up to which everything is applied here."""
        return 0 if self._driver.core is None else self._driver.core.log.applied

    def position(self) -> tuple[int, int, int]:
        """Returns (id of the group, term, newest revision applied here); raises Unavailable."""
        core = self._driver.alive()
        return core.config.cluster, core.term, self._driver.state.revision

    @property
    def revision(self) -> int:
        """Of the newest change applied here."""
        return self._driver.state.revision

    @property
    def snapshot_index(self) -> int:
        """The log entry up to which this member holds a snapshot instead of entries."""
        return 0 if self._driver.core is None else self._driver.core.snapshot_index

    @property
    def failure(self) -> str | None:
        """Why the replica serves no more; None while it does."""
        return self._driver.failure

    def status(self) -> ReplicaStatus:
        core = self._driver.alive()
        return ReplicaStatus(
            name=self.name,
            member=self.member_id,
            leader=core.leader,
            term=core.term,
            commit_index=core.log.committed,
            applied_index=core.log.applied,
            revision=self._driver.state.revision,
            compacted=self._driver.state.compacted,
            size_bytes=self._driver.state.size_bytes,
            keys=self._driver.state.keys,
            watches=len(self._driver.watches),
            config=core.config,
            disk_full=self._driver.disk_full,
            alarms=self._driver.state.alarms,
            names=self._driver.state.names,
        )

    def snapshot(self) -> tuple[SnapshotMeta, Capture]:
        """Returns the present state and its place in the log."""
        return self._driver.snapshots.place(self._driver.alive()), capture(self._driver.state)

    async def shorten_log(self) -> None:
        """Puts a snapshot in the place of the log, as far as no member behind needs it; raises Unavailable."""
        core = self._driver.alive()
        if core.log.applied > core.snapshot_index:
            await self._driver.keep_snapshot(self._driver.snapshots.take(core))
            self._driver.alive()

    async def backup(self) -> AsyncIterator[bytes]:
        """As the port says; writes go on meanwhile."""
        async for piece in backup_pieces(await self.database()):
            yield piece

    async def database(self) -> Database:
        """Returns the present state as a database of etcd, planned; writes go on meanwhile."""
        await self.read_barrier()
        meta, capturing = self._driver.snapshots.begin(self._driver.alive())
        return await plan(Database(await finish(capturing), meta.index))

    async def checksum(self, revision: int) -> tuple[int, int]:
        """Returns the revision and a checksum of what lived at it, made while writes go on.

        Args:
            revision: 0 for this member's newest.

        Raises:
            Compacted, FutureRevision: it cannot be read.
        """
        self.read_now(Range(key=b"\0", revision=revision))
        if 0 < revision <= self._driver.state.compacted:
            raise Compacted(self._driver.state.compacted)  # as on etcd, which has thrown some of it away by then
        revision = revision or self._driver.state.revision
        _, capturing = self._driver.snapshots.begin(self._driver.alive())
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
        return self._driver.begin_read()

    def read_now(self, request: Range) -> RangeResult:
        """Answers from this member's state as it is."""
        self._driver.alive()
        return self._driver.state.range(request)

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
        return self._driver.begin_submit(command, data)

    def watch(self, key: bytes, range_end: bytes, start_revision: int) -> AsyncIterator[WatchBatch]:
        self._driver.alive()
        if not key:
            raise InvalidRequest("key is not provided")
        return self._driver.watches.watch(key, range_end, start_revision)

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
        granted_s = self._driver.state.lease_ttl_s(lease)
        left_ms = await self._ask_lease(lease, renew=False)
        return left_ms // 1000, granted_s, self._driver.state.lease_keys(lease)

    async def leases(self) -> list[int]:
        """Returns the ids of all leases."""
        await self.read_barrier()
        return [lease for lease, _ in self._driver.state.leases()]

    async def _ask_lease(self, lease: int, *, renew: bool) -> int:
        """Returns the milliseconds left, as the leader knows them."""
        deadline = self._driver.deadline()
        while True:
            core = self._driver.alive()
            answer = NOT_LEADING
            if core.is_leader:
                answer = self._driver.leases.left_ms(lease, renew=renew)
                await self.read_barrier()
                answer = answer if self._driver.leases.leads else NOT_LEADING
            elif core.leader and self._transport is not None:
                number = self._driver.proposals.next_number()
                answer = await self._driver.leases.ask(core.leader, number, lease, renew=renew, deadline=deadline)
            if answer == NO_LEASE:
                raise LeaseNotFound("requested lease not found")
            if answer >= 0:
                return answer
            if self._driver.clock() >= deadline:
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
        if self._driver.failure is not None:
            return
        if self._driver.core is None:
            if self._founding is not None:
                self._founding.called(letter.sender)
            return
        self._changes.heard(letter.sender)
        match letter:
            case Message():
                self._driver.step(letter)
            case LeaseAsk():
                self._answer_ask(letter)
            case LeaseAnswer():
                self._driver.leases.answered(letter)
            case ChangeAsk():
                self._driver.supervise(self._changes.asked(letter), "change")
            case ChangeAnswer():
                self._changes.answered(letter)

    def _answer_ask(self, ask: LeaseAsk) -> None:
        """Answers once it is proven that this member still led when it knew the answer: no other gave up the lease."""
        left_ms = self._driver.leases.left_ms(ask.lease, renew=ask.renew)
        proof = self.begin_read() if left_ms != NOT_LEADING else None
        if proof is None:
            self._driver.leases.answer(ask, left_ms)
        else:
            proof.add_done_callback(
                lambda proof: self._driver.leases.answer(
                    ask, NOT_LEADING if proof.exception() or not self._driver.leases.leads else left_ms
                )
            )

    def _greeted(self, letter: Greeting) -> None:
        founding, core = self._founding, self._driver.core
        if founding is None or self._transport is None or self._driver.failure is not None:
            return
        if core is not None:
            if letter.config is None:
                self._transport.send(founding.answer(letter, core.log.applied, core.config))
        elif founding.hear(letter):
            self._driver.fail(
                f"store member {self.name} has an empty data directory, but votes in its group already: it lost "
                "what it promised and may not vote again. Remove it from the group (etcdctl member remove) and add it "
                "anew (etcdctl member add --learner)"
            )

    def receive_snapshot(self, message: Message, state: Capture) -> None:
        """Takes a snapshot of the leader's state."""
        self._driver.step_snapshot(message, state)

    def removed(self, applied: int) -> None:
        """Ends this member when another one, which knows more, says that it belongs to the group no longer.

        A member that is new is not meant: whoever knows more than it also knows that it was added.
        """
        core = self._driver.core
        if core is not None and self.member_id in core.config.members and applied > core.log.committed:
            self._driver.fail(REMOVED.format(self.name))

    def unreachable(self, member: int) -> None:
        if self._driver.core is not None:
            self._driver.core.unreachable(member)
