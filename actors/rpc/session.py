"""A client's session with the store: many calls on one stream, begun as they come and answered in batches."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Awaitable, Callable

from google.protobuf.message import DecodeError
from grpc import StatusCode

from steersman.actors.rpc.h2.exchange import Exchange
from steersman.actors.rpc.h2.frames import Pieces, varint
from steersman.actors.rpc.h2.heads import RequestHead
from steersman.actors.rpc.h2.link import Link
from steersman.actors.rpc.h2.outlet import Stream
from steersman.actors.rpc.h2.server import Server
from steersman.actors.store.replica import Replica
from steersman.cluster.raft.values import Config
from steersman.cluster.store import codec
from steersman.cluster.store.rules import check_txn
from steersman.cluster.store.values import (
    Compacted,
    FutureRevision,
    InvalidRequest,
    LeaseExists,
    LeaseNotFound,
    NoSpace,
    Range,
    StoreError,
    TooLarge,
    Txn,
    TxnResult,
)
from steersman.pb import store_pb2

#: calls of one session that may be under way; beyond it the session is not read
CALLS_MAX = 2048
#: bytes of an answer in one message
PIECE_BYTES = 1 << 20
#: bytes of answers that the client has not taken; beyond it no calls are begun, and watches wait
UNSENT_BYTES_MAX = 8 << 20
#: how often a session looks whether another member leads now
LEADER_CHECK_S = 0.5

#: tags of `Replies.replies` and of `Reply.body`
_REPLY_TAG, _BODY_TAG = b"\x0a", b"\x1a"

_STATUS: dict[type[StoreError], store_pb2.Reply.Status] = {
    Compacted: store_pb2.Reply.COMPACTED,
    FutureRevision: store_pb2.Reply.FUTURE_REVISION,
    LeaseNotFound: store_pb2.Reply.LEASE_NOT_FOUND,
    LeaseExists: store_pb2.Reply.LEASE_EXISTS,
    InvalidRequest: store_pb2.Reply.INVALID_REQUEST,
    TooLarge: store_pb2.Reply.TOO_LARGE,
    NoSpace: store_pb2.Reply.NO_SPACE,
}


def add_session_service(server: Server, replica: Replica) -> None:
    server.add_exchange("/steersman.store.v1.Session/Open", functools.partial(Session, replica))


class Session(Exchange):
    """One client's stream."""

    __slots__ = (
        "_config",
        "_ended",
        "_leader",
        "_looking",
        "_queue",
        "_replica",
        "_replies",
        "_room",
        "_tasks",
        "_under_way",
        "_unsent_bytes",
    )

    def __init__(self, replica: Replica, link: Link, stream: Stream, head: RequestHead) -> None:
        super().__init__(link, stream, head)
        self._replica = replica
        #: answers that have not been handed to the stream: each in pieces, with its bytes; and the bytes of all
        self._replies: deque[tuple[int, Pieces]] = deque()
        self._unsent_bytes = 0
        #: calls that have not been begun
        self._queue: deque[store_pb2.Call] = deque()
        self._under_way = 0
        self._ended = False
        #: resolved when answers have been taken
        self._room: asyncio.Future[None] | None = None
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._leader, self._config = self._find_leader(), replica.config
        self._tell(_addresses(self._config))
        self._looking = self._later()

    # who leads

    def _later(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(LEADER_CHECK_S, self._look)

    def _look(self) -> None:
        """Tells the client when another member leads, or the members have changed."""
        if self._find_leader() != self._leader or self._replica.config is not self._config:
            self._write()
        self._looking = self._later()

    def _find_leader(self) -> str:
        """The leader's address; a group of one has no address to tell, and needs none; who was removed knows nobody."""
        replica = self._replica
        if replica.failure is not None or not replica.leader or replica.member_id not in replica.config.members:
            return ""
        if self._replica.is_leader:
            return "self"
        return self._replica.status().config.address(self._replica.leader)

    # answers

    def _tell(self, members: tuple[str, ...] = (), replies: Pieces = ()) -> None:
        head = store_pb2.Replies(leader=self._leader, members=members).SerializeToString()
        self.send_pieces((head, *replies))

    def _write(self) -> None:
        """Hands over what there is, with who leads now, as far as the client takes it."""
        if self.is_over:
            return
        before, self._config, self._leader = self._config, self._replica.config, self._find_leader()
        members = () if self._config is before else _addresses(self._config)
        while True:
            self._tell(members, self._take_replies())
            members = ()
            if not self._replies or self.waiting_bytes > UNSENT_BYTES_MAX:
                break
        self._settle()

    def _take_replies(self) -> list[bytes | memoryview]:
        """Takes as many as one message may hold."""
        taken: list[bytes | memoryview] = []
        size_bytes = 0
        while self._replies and size_bytes < PIECE_BYTES:
            reply_bytes, pieces = self._replies.popleft()
            size_bytes += reply_bytes
            taken += pieces
        self._unsent_bytes -= size_bytes
        return taken

    @property
    def _is_full(self) -> bool:
        return self._unsent_bytes + self.waiting_bytes > UNSENT_BYTES_MAX or len(self._replies) > CALLS_MAX

    def drained(self) -> None:
        if self._replies:
            self._write()
        else:
            self._settle()

    def _settle(self) -> None:
        """Goes on with what waited for room; ends the session when its client has asked all it wanted."""
        if self.is_over:
            return
        if self._room is not None and not self._room.done() and not self._is_full:
            self._room.set_result(None)
        self._begin_queued()
        if self._ended and not (self._under_way or self._queue or self._replies or self.is_over):
            self.closed()
            self.finish()

    def _answer(self, number: int, body: bytes = b"", value: int = 0) -> None:
        self._push_pieces(number, body, value)
        self._under_way -= 1

    def _push_pieces(self, number: int, body: bytes, value: int = 0) -> None:
        """Parts a long answer, so that no message is long and others get through in between."""
        start, view = 0, memoryview(body)
        while len(body) - start > PIECE_BYTES:
            self._push(store_pb2.Reply(id=number, more=True), view[start : start + PIECE_BYTES])
            start += PIECE_BYTES
        self._push(store_pb2.Reply(id=number, number=value), view[start:] if start else body)

    def _refuse(self, number: int, error: StoreError) -> None:
        status = _STATUS.get(type(error), store_pb2.Reply.UNAVAILABLE)
        value = error.revision if isinstance(error, Compacted) else 0
        self._push(store_pb2.Reply(id=number, status=status, number=value, message=str(error)))
        self._under_way -= 1

    def _push(self, reply: store_pb2.Reply, body: bytes | memoryview = b"") -> None:
        """Queues an answer; its body stays where it is."""
        if not self._replies:
            self.write_soon(self._write)
        pieces = _enveloped(reply, body)
        reply_bytes = sum(map(len, pieces))
        self._replies.append((reply_bytes, pieces))
        self._unsent_bytes += reply_bytes

    # calls

    def received(self, data: bytes) -> None:
        try:
            calls = store_pb2.Calls.FromString(data).calls
        except DecodeError:
            self.refuse(StatusCode.INTERNAL, "these are no calls")
            return
        self._queue.extend(calls)
        self._begin_queued()

    def _begin_queued(self) -> None:
        queue = self._queue
        while queue and self._under_way < CALLS_MAX and not self._is_full:
            self._begin(queue.popleft())
        is_held = self._stream.held
        if queue and not is_held:
            self.hold()
        elif is_held and not queue:
            self.release()

    def ended(self) -> None:
        self._ended = True
        self.write_soon(self._settle)

    def closed(self) -> None:
        self._looking.cancel()
        for task in list(self._tasks.values()):
            task.cancel()

    def _begin(self, call: store_pb2.Call) -> None:
        kind = call.kind
        self._under_way += 1
        try:
            if kind == store_pb2.Call.SUBMIT:
                self._begin_submit(call)
            elif kind == store_pb2.Call.RANGE:
                self._begin_range(call)
            elif kind == store_pb2.Call.CANCEL:
                task = self._tasks.get(call.id)
                if task is not None:
                    task.cancel()
                self._under_way -= 1
            else:
                self._begin_task(call)
        except StoreError as error:
            self._refuse(call.id, error)

    def _begin_submit(self, call: store_pb2.Call) -> None:
        command = codec.decode_command(call.body)
        if isinstance(command, Txn):
            check_txn(command)
        number = call.id
        future = self._replica.begin_submit(command, call.body)
        future.add_done_callback(lambda done: self._submitted(number, done))

    def _submitted(self, number: int, future: asyncio.Future[TxnResult | int]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            result = future.result()
            if isinstance(result, int):
                self._answer(number, value=result)
            else:
                self._answer(number, codec.encode(result))
        elif isinstance(error, StoreError):
            self._refuse(number, error)

    def _begin_range(self, call: store_pb2.Call) -> None:
        request = codec.decode_range(call.body)
        future = None if request.serializable else self._replica.begin_read()
        if future is None:
            self._read(call.id, request)
        else:
            number = call.id
            future.add_done_callback(lambda done: self._barrier_passed(number, request, done))

    def _barrier_passed(self, number: int, request: Range, future: asyncio.Future[None]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if isinstance(error, StoreError):
            self._refuse(number, error)
        else:
            self._read(number, request)

    def _read(self, number: int, request: Range) -> None:
        try:
            result = self._replica.read_now(request)
        except StoreError as error:
            self._refuse(number, error)
            return
        *parts, last = codec.encode_range_result(result, PIECE_BYTES)
        for part in parts:
            self._push(store_pb2.Reply(id=number, more=True), part)
        self._push(store_pb2.Reply(id=number), last)
        self._under_way -= 1

    def _begin_task(self, call: store_pb2.Call) -> None:
        work: Callable[[store_pb2.Call], Awaitable[None]]
        if call.kind == store_pb2.Call.WATCH:
            work = self._watch
        elif call.kind == store_pb2.Call.KEEP_ALIVE:
            work = self._keep_alive
        elif call.kind == store_pb2.Call.LEASE_GRANT:
            work = self._lease_grant
        else:
            raise InvalidRequest(f"the store knows no call of kind {call.kind}")
        task = asyncio.create_task(self._guarded(work, call))
        self._tasks[call.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(call.id, None))

    async def _guarded(self, work: Callable[[store_pb2.Call], Awaitable[None]], call: store_pb2.Call) -> None:
        try:
            await work(call)
        except StoreError as error:
            self._refuse(call.id, error)
        except asyncio.CancelledError:
            self._under_way -= 1
            self.write_soon(self._settle)

    async def _watch(self, call: store_pb2.Call) -> None:
        request = codec.decode_range(call.body)
        async for batch in self._replica.watch(request.key, request.range_end, call.number):
            self._push_pieces(call.id, codec.encode(batch))
            while self._is_full:
                self._room = self._room if self._room and not self._room.done() else asyncio.Future()
                await asyncio.shield(self._room)

    async def _keep_alive(self, call: store_pb2.Call) -> None:
        self._answer(call.id, value=await self._replica.lease_keep_alive(call.number))

    async def _lease_grant(self, call: store_pb2.Call) -> None:
        self._answer(call.id, value=await self._replica.lease_grant(call.number, call.lease))


def _enveloped(reply: store_pb2.Reply, body: bytes | memoryview) -> Pieces:
    """Returns what `Replies` holds of an answer: as protobuf encodes it, but without copies of the body."""
    rest = reply.SerializeToString()
    if not body:
        return (_REPLY_TAG + varint(len(rest)) + rest,)
    size = varint(len(body))
    whole = varint(len(rest) + len(_BODY_TAG) + len(size) + len(body))
    return (b"".join((_REPLY_TAG, whole, rest, _BODY_TAG, size)), body)


def _addresses(config: Config) -> tuple[str, ...]:
    """Of the members; a group of one may have no address to tell."""
    return tuple(address for _, address in config.addresses if address)
