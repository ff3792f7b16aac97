"""A client of the store's group: `ports.Store` over one long-lived stream to whichever member leads.

Calls that are made together travel together. Reads and keep-alives are asked again when a stream breaks; a write that
may have reached the store is not: it ends with `Unavailable`, and the caller finds out by reading.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Sequence

from steersman.actors.rpc.h2.client import Channel
from steersman.actors.rpc.h2.heads import AnswerHead
from steersman.actors.rpc.h2.link import Link
from steersman.actors.rpc.h2.outgoing import CallFailed, OutgoingCall, PulledCall
from steersman.actors.rpc.h2.outlet import Stream
from steersman.cluster.store import codec
from steersman.cluster.store.commands import Command, Compact, LeaseRevoke
from steersman.cluster.store.rules import check_txn
from steersman.cluster.store.values import (
    Compacted,
    FutureRevision,
    InvalidRequest,
    LeaseExists,
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
from steersman.pb import etcd_pb2, store_pb2

logger = logging.getLogger(__name__)

#: calls of one client under way at once; more wait
CALLS_MAX = 1024
#: a member that does not answer a new stream within it is passed over
CONNECT_TIMEOUT_S = 2.0
#: how long the members that have not answered are waited for when the others know no leader
ROUND_S = 0.5
#: pause after all members were asked in vain
ROUND_PAUSE_S = 0.1
#: a leader that leaves calls unanswered for so long may be one no more: the others are asked who is
SILENCE_S = 1.0
#: how long a member that leads no more may take over calls that were under way: it may never learn their outcome
RETIRED_S = 1.0

#: how often it is looked whether calls have waited too long
DEADLINES_CHECK_S = 0.25

_OPEN, _SNAPSHOT = "/steersman.store.v1.Session/Open", "/etcdserverpb.Maintenance/Snapshot"

_ERRORS: dict[int, type[StoreError]] = {
    store_pb2.Reply.FUTURE_REVISION: FutureRevision,
    store_pb2.Reply.UNAVAILABLE: Unavailable,
    store_pb2.Reply.LEASE_NOT_FOUND: LeaseNotFound,
    store_pb2.Reply.LEASE_EXISTS: LeaseExists,
    store_pb2.Reply.INVALID_REQUEST: InvalidRequest,
    store_pb2.Reply.TOO_LARGE: TooLarge,
    store_pb2.Reply.NO_SPACE: NoSpace,
}


#: the last reply to a call, and the bodies of all
Answer = tuple[store_pb2.Reply, list[bytes]]


class _NotSent(Exception):
    """The call did not leave: it may be made again whatever it was."""


class StoreClient:
    """Uses the store over gRPC; implements `ports.Store` and `ports.Component`.

    Args:
        endpoints: `host:port` of members; it is enough that one of them answers, and says who the others are.
        tls: with a client certificate of the cluster; None for plain text (tests on loopback).
        server_name: the name in the members' certificates where they carry no addresses.
        timeout_s: after it a call ends with `Unavailable`.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        tls: ssl.SSLContext | None = None,
        *,
        server_name: str = "",
        timeout_s: float = 10.0,
    ) -> None:
        if not endpoints:
            raise ValueError("a store client needs at least one endpoint")
        self._given = tuple(endpoints)
        #: those to ask for the leader, the last one first; members that left are forgotten, what was given is not
        self._endpoints = list(endpoints)
        self._tls, self._server_name, self._timeout_s = tls, server_name, timeout_s
        self._channels: dict[str, Channel] = {}
        self._stream: _Stream | None = None
        self._connected = asyncio.Event()
        self._slots = asyncio.Semaphore(CALLS_MAX)
        self._keeper: asyncio.Task[None] | None = None
        self._stopped = False

    async def start(self) -> None:
        """Begins to look for the leader; calls wait until it is found."""
        self._keeper = asyncio.create_task(self._keep_connected(), name="store-client")

    async def stop(self) -> None:
        """Ends every call with `Unavailable`."""
        self._stopped = True
        self._connected.set()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._stream is not None:
            self._stream.end()
        channels, self._channels = list(self._channels.values()), {}
        await asyncio.gather(*(channel.close() for channel in channels))

    # ports.Store

    async def range(self, request: Range) -> RangeResult:
        _, bodies = await self._read(store_pb2.Call(kind=store_pb2.Call.RANGE, body=codec.encode(request)))
        return codec.decode_range_parts(bodies)

    async def txn(self, request: Txn) -> TxnResult:
        check_txn(request)
        _, bodies = await self._submit(request)
        return codec.decode_txn_result(b"".join(bodies))

    async def compact(self, revision: int) -> None:
        await self._submit(Compact(revision))

    async def lease_grant(self, ttl_s: int, lease: int = 0) -> int:
        reply, _ = await self._write(store_pb2.Call(kind=store_pb2.Call.LEASE_GRANT, number=ttl_s, lease=lease))
        return reply.number

    async def lease_revoke(self, lease: int) -> None:
        await self._submit(LeaseRevoke(lease))

    async def lease_keep_alive(self, lease: int) -> int:
        reply, _ = await self._read(store_pb2.Call(kind=store_pb2.Call.KEEP_ALIVE, number=lease))
        return reply.number

    async def watch(self, key: bytes, range_end: bytes, start_revision: int) -> AsyncIterator[WatchBatch]:
        """As the port says; goes on by itself, without loss or repetition, when the stream breaks."""
        request = codec.encode(Range(key=key, range_end=range_end))
        next_revision = start_revision
        while True:
            stream = await self._find_stream(self._deadline())
            try:
                async for batch in self._watch_once(stream, request, next_revision):
                    next_revision = max(next_revision, batch.revision + 1)
                    yield batch
            except Unavailable as error:
                logger.debug("store watch: %s", error)
                if self._stopped:
                    raise
            await asyncio.sleep(ROUND_PAUSE_S)

    async def _watch_once(self, stream: _Stream, request: bytes, start_revision: int) -> AsyncIterator[WatchBatch]:
        """Watches at the member of a stream, for as long as the stream lives: it may be lost without a sign of it."""
        address = stream.address
        watch = store_pb2.Call(id=1, kind=store_pb2.Call.WATCH, body=request, number=start_revision)
        pieces = _Pieces()
        call: PulledCall | None = None
        try:
            call = await self._channel(address).open(_OPEN, PulledCall)
            stream.watches.add(call)
            if stream.is_over:
                raise Unavailable(f"the stream to the store at {address} broke")
            call.send(store_pb2.Calls(calls=[watch]).SerializeToString())
            async for data in call:
                replies = store_pb2.Replies.FromString(data)
                for reply in replies.replies:
                    if reply.status:
                        raise _error(reply)
                    if (bodies := pieces.take(reply)) is not None:
                        yield codec.decode_watch_batch(b"".join(bodies))
                if not replies.leader:
                    raise Unavailable(f"the member at {address} has lost its group")
        except CallFailed as error:
            raise Unavailable(f"the watch at {address} broke: {error}") from None
        finally:
            if call is not None:
                stream.watches.discard(call)
                call.cancel()

    async def backup(self) -> AsyncIterator[bytes]:
        """As the port says: of the member that leads."""
        stream = await self._find_stream(self._deadline())
        try:
            call = await self._channel(stream.address).open(_SNAPSHOT, PulledCall)
            try:
                call.send(etcd_pb2.SnapshotRequest().SerializeToString())
                call.end()
                async for data in call:
                    if blob := etcd_pb2.SnapshotResponse.FromString(data).blob:
                        yield blob
            finally:
                call.cancel()
        except CallFailed as error:
            raise Unavailable(f"the backup from {stream.address} broke off: {error.words}") from None

    # calls

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._timeout_s

    async def _submit(self, command: Command) -> Answer:
        return await self._write(store_pb2.Call(kind=store_pb2.Call.SUBMIT, body=codec.encode(command)))

    async def _write(self, call: store_pb2.Call) -> Answer:
        """Makes a call at most once."""
        deadline = self._deadline()
        async with self._slots:
            while True:
                stream = await self._find_stream(deadline)
                try:
                    return await stream.call(call, deadline)
                except _NotSent:
                    continue

    async def _read(self, call: store_pb2.Call) -> Answer:
        """Makes a call again and again until it is answered."""
        deadline = self._deadline()
        async with self._slots:
            while True:
                stream = await self._find_stream(deadline)
                try:
                    return await stream.call(call, deadline)
                except _NotSent:
                    continue
                except Unavailable:
                    if asyncio.get_running_loop().time() >= deadline or self._stopped:
                        raise
                    await asyncio.sleep(ROUND_PAUSE_S)

    async def _find_stream(self, deadline: float) -> _Stream:
        while True:
            if self._stopped or self._keeper is None:
                raise Unavailable("the store client is not running")
            stream = self._stream
            if stream is not None and not stream.is_over:
                return stream
            self._connected.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._connected.wait()
            except TimeoutError:
                raise Unavailable(f"no leader of the store at {', '.join(self._endpoints)}") from None

    # finding the leader

    def _channel(self, address: str) -> Channel:
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = Channel(address, self._tls, server_name=self._server_name)
        return channel

    async def _keep_connected(self) -> None:
        stream = await self._connect()
        while True:
            old, self._stream = self._stream, stream
            self._connected.set()
            if old is not None:
                old.retire()
            stream = await self._next(stream)

    async def _next(self, stream: _Stream) -> _Stream:
        """Returns a stream to another leader once this one is lost, or leaves calls unanswered while another leads."""
        while True:
            try:
                async with asyncio.timeout(SILENCE_S):
                    await stream.led.wait()
                return await self._connect()
            except TimeoutError:
                if stream.silent_s() < SILENCE_S:
                    continue
            found = await self._find_leader(without=stream.address)
            if found is not None:
                stream.end()
                return found

    def _learn_members(self, leader: str, members: Sequence[str]) -> None:
        """Takes over who there is, from a member that knows who leads: one that was removed may know no better."""
        if leader and members:
            known = dict.fromkeys((*members, *self._given))
            kept = [endpoint for endpoint in self._endpoints if endpoint in known]
            self._endpoints = list(dict.fromkeys((*kept, *known)))

    async def _connect(self) -> _Stream:
        """Returns a stream to the leader, asking all members again and again."""
        while True:
            found = await self._find_leader()
            if found is not None:
                return found
            await asyncio.sleep(ROUND_PAUSE_S)

    async def _find_leader(self, without: str = "") -> _Stream | None:
        """Asks all members at once, but one; returns the stream to the one that leads."""
        pending = {
            asyncio.create_task(self._open(address), name=f"store-open-{address}")
            for address in self._endpoints
            if address != without
        }
        opening, count = set(pending), len(pending)
        found: _Stream | None = None
        try:
            while pending and found is None:
                timeout_s = ROUND_S if len(pending) < count else None
                done, pending = await asyncio.wait(pending, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
                found = next((stream for task in done if (stream := task.result()) and stream.leads), None)
                if not done:
                    break
            return found
        finally:
            for task in opening:
                task.add_done_callback(lambda task: _end_unless(found, task))
                task.cancel()

    async def _open(self, address: str) -> _Stream | None:
        """Returns a stream to a member; None when it does not answer."""
        stream: _Stream | None = None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                stream = await self._channel(address).open(
                    _OPEN, lambda link, opened: _Stream(address, self._learn_members, link, opened)
                )
                await stream.answered
                return stream
        except (CallFailed, TimeoutError, Unavailable):
            if stream is not None:
                stream.end()
            return None
        except asyncio.CancelledError:
            if stream is not None:
                stream.end()
            raise


def _end_unless(found: _Stream | None, task: asyncio.Task[_Stream | None]) -> None:
    """Ends the stream that a task opened, if it is not the one found."""
    stream = None if task.cancelled() else task.result()
    if stream is not None and stream is not found:
        stream.end()


class _Stream(OutgoingCall):
    """One stream to one member.

    Attributes:
        leader: the address of the leader as this member says: `self`, or empty when it knows none.
        answered: resolved when the member has said who leads; `Unavailable` when it never did.
        led: set when this member leads no more, or the stream is over.
        watches: calls to the same member that end with this stream.
    """

    def __init__(
        self, address: str, learn_members: Callable[[str, Sequence[str]], None], link: Link, stream: Stream
    ) -> None:
        super().__init__(link, stream)
        self.address = address
        self._learn_members = learn_members
        self.leader = ""
        self.answered: asyncio.Future[None] = link.loop.create_future()
        self.led = asyncio.Event()
        self.watches: set[PulledCall] = set()
        self._heard_at = 0.0
        self._number = 0
        self._outgoing: list[store_pb2.Call] = []
        #: number of a call to (who waits, deadline); in order of numbers
        self._pending: dict[int, tuple[asyncio.Future[Answer], float]] = {}
        self._pieces = _Pieces()
        self._retired = False
        self._timer = link.loop.call_later(DEADLINES_CHECK_S, self._look)

    def silent_s(self) -> float:
        """How long nothing has come while calls wait."""
        return self._link.loop.time() - self._heard_at if self._pending else 0.0

    @property
    def leads(self) -> bool:
        return self.leader == "self"

    async def call(self, call: store_pb2.Call, deadline: float) -> Answer:
        """Raises the error that the reply stands for, `Unavailable` when none came, `_NotSent` when it never left."""
        if self.is_over:
            raise _NotSent
        self._number += 1
        call.id = self._number
        loop = self._link.loop
        future: asyncio.Future[Answer] = loop.create_future()
        if not self._pending:
            self._heard_at = loop.time()
        self._pending[call.id] = (future, deadline)
        if not self._outgoing:
            self.write_soon(self._write)
        self._outgoing.append(call)
        answer = await future
        if answer[0].status:
            raise _error(answer[0])
        return answer

    def _write(self) -> None:
        """Sends together what was asked in one turn of the loop."""
        calls, self._outgoing = self._outgoing, []
        self.send(store_pb2.Calls(calls=calls).SerializeToString())

    def received(self, data: bytes) -> None:
        replies = store_pb2.Replies.FromString(data)
        self._heard_at = self._link.loop.time()
        for reply in replies.replies:
            bodies = self._pieces.take(reply)
            if bodies is None:
                continue
            future, _ = self._pending.pop(reply.id, (None, 0.0))
            if future is not None and not future.done():
                future.set_result((reply, bodies))
        self.leader = replies.leader
        if replies.members:
            self._learn_members(replies.leader, replies.members)
        if not self.answered.done():
            self.answered.set_result(None)
        if not self.leads:
            self.led.set()
        if self._retired and not self._pending:
            self.end()

    def _look(self) -> None:
        """Gives up calls that are not answered, and with them a member that hangs."""
        first = next(iter(self._pending.values()), None)
        if first is not None and first[1] <= self._link.loop.time():
            self.end()
        else:
            self._timer = self._link.loop.call_later(DEADLINES_CHECK_S, self._look)

    def retire(self) -> None:
        """Takes no more calls; ends when those under way are answered, or soon."""
        self._retired = True
        if self._pending:
            self._link.loop.call_later(RETIRED_S, self.end)
        else:
            self.end()

    def end(self) -> None:
        """Ends the stream, and every call on it."""
        self.cancel()

    def closed(self, outcome: AnswerHead) -> None:
        logger.debug("store stream to %s: %s", self.address, outcome.words)
        self._timer.cancel()
        unsent = {call.id for call in self._outgoing}
        self._outgoing = []
        pending, self._pending = self._pending, {}
        for number, (future, _) in pending.items():
            if not future.done():
                lost = Unavailable(f"the stream to the store at {self.address} broke")
                future.set_exception(_NotSent() if number in unsent else lost)
        self.led.set()
        if not self.answered.done():
            self.answered.set_exception(Unavailable(outcome.words))
            self.answered.exception()
        for watch in list(self.watches):
            watch.cancel()


class _Pieces:
    """Gathers answers that come in several replies."""

    def __init__(self) -> None:
        self._begun: dict[int, list[bytes]] = {}

    def take(self, reply: store_pb2.Reply) -> list[bytes] | None:
        """Returns the bodies of an answer once it is whole."""
        if reply.more:
            self._begun.setdefault(reply.id, []).append(reply.body)
            return None
        if not self._begun:
            return [reply.body]
        return [*self._begun.pop(reply.id, ()), reply.body]


def _error(reply: store_pb2.Reply) -> StoreError:
    if reply.status == store_pb2.Reply.COMPACTED:
        return Compacted(reply.number)
    return _ERRORS.get(reply.status, Unavailable)(reply.message)
