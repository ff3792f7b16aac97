"""The store's front door: sessions of the cluster's own components, the etcd services, and the wire of its members.

One address serves all three. Only certificates of the cluster get in, and of those only the names allowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from steersman.actors.rpc.etcd import add_etcd_services
from steersman.actors.rpc.guard import NameGuard
from steersman.actors.rpc.raft import MESSAGE_BYTES_MAX, PeerServicer
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
from steersman.pb import raft_pb2_grpc, store_pb2, store_pb2_grpc

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

#: calls of one session that may be under way; beyond it the session is not read
CALLS_MAX = 2048
#: bytes of an answer in one message
PIECE_BYTES = 1 << 20
#: how often a session looks whether another member leads now
LEADER_CHECK_S = 0.5

_STATUS: dict[type[StoreError], store_pb2.Reply.Status] = {
    Compacted: store_pb2.Reply.COMPACTED,
    FutureRevision: store_pb2.Reply.FUTURE_REVISION,
    LeaseNotFound: store_pb2.Reply.LEASE_NOT_FOUND,
    LeaseExists: store_pb2.Reply.LEASE_EXISTS,
    InvalidRequest: store_pb2.Reply.INVALID_REQUEST,
    TooLarge: store_pb2.Reply.TOO_LARGE,
    NoSpace: store_pb2.Reply.NO_SPACE,
}


class AddressInUse(OSError):
    """The address cannot be listened on."""


async def serve_store(
    replica: Replica,
    address: str,
    server_credentials: grpc.ServerCredentials | None,
    *,
    names: Collection[str] | None = None,
    meet: Callable[[int, str], None] | None = None,
) -> grpc.aio.Server:
    """Serves a replica; the caller stops the server before the replica.

    Args:
        meet: told which other member calls, and where it is (`GrpcTransport.meet`).
        address: `host:port`.
        server_credentials: with client certificates required; None for plain text (tests on loopback).
        names: common names of the client certificates that may use the store; None for every certificate that the
            credentials let in.

    Raises:
        AddressInUse: somebody listens there already, or the address is not this machine's.
    """
    server = grpc.aio.server(
        interceptors=() if names is None else (NameGuard(names),),
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_send_message_length", -1),
            ("grpc.http2.min_ping_interval_without_data_ms", 1000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_ping_strikes", 0),
        ],
    )
    store_pb2_grpc.add_SessionServicer_to_server(SessionServicer(replica), server)
    raft_pb2_grpc.add_PeerServicer_to_server(PeerServicer(replica.member_id, replica, meet), server)
    add_etcd_services(server, replica)
    try:
        if server_credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, server_credentials)
    except RuntimeError as error:
        raise AddressInUse(f"the store cannot listen on {address}: the port is in use ({error})") from None
    if port == 0:
        raise AddressInUse(f"the store cannot listen on {address}: the port is in use")
    await server.start()
    return server


class SessionServicer(store_pb2_grpc.SessionServicer):
    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def Open(self, requests: AsyncIterator[store_pb2.Calls], context: Context) -> None:
        session = _Session(self._replica, context)
        reader = asyncio.create_task(session.read(requests))
        try:
            await session.write(reader)
        finally:
            reader.cancel()
            session.close()
            await asyncio.gather(reader, return_exceptions=True)


class _Session:
    """One client's stream: calls are begun as they come, replies go out in batches."""

    def __init__(self, replica: Replica, context: Context) -> None:
        self._replica, self._context = replica, context
        self._replies: list[store_pb2.Reply] = []
        self._wake = asyncio.Event()
        self._under_way = 0
        self._room = asyncio.Event()
        self._room.set()
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def write(self, reader: asyncio.Task[None]) -> None:
        """Sends replies until the client leaves; the first message only says who leads, and who there is."""
        leader, config = self._leader(), self._replica.config
        await self._context.write(store_pb2.Replies(leader=leader, members=_addresses(config)))
        reader.add_done_callback(lambda _: self._wake.set())
        while not (reader.done() and not self._under_way and not self._replies):
            try:
                async with asyncio.timeout(LEADER_CHECK_S):
                    await self._wake.wait()
            except TimeoutError:
                if self._leader() == leader and self._replica.config is config:
                    continue
            self._wake.clear()
            before, leader, config = config, self._leader(), self._replica.config
            members = () if config is before else _addresses(config)
            replies = self._take_replies()
            self._room.set()
            await self._context.write(store_pb2.Replies(replies=replies, leader=leader, members=members))

    def _take_replies(self) -> list[store_pb2.Reply]:
        """Takes as many as one message may hold."""
        count = size_bytes = 0
        for reply in self._replies:
            count, size_bytes = count + 1, size_bytes + len(reply.body)
            if size_bytes >= PIECE_BYTES:
                break
        taken, self._replies = self._replies[:count], self._replies[count:]
        if self._replies:
            self._wake.set()
        return taken

    def _leader(self) -> str:
        """The leader's address; a group of one has no address to tell, and needs none; who was removed knows nobody."""
        replica = self._replica
        if replica.failure is not None or not replica.leader or replica.member_id not in replica.config.members:
            return ""
        if self._replica.is_leader:
            return "self"
        return self._replica.status().config.address(self._replica.leader)

    async def read(self, requests: AsyncIterator[store_pb2.Calls]) -> None:
        async for batch in requests:
            for call in batch.calls:
                if self._under_way >= CALLS_MAX:
                    self._room.clear()
                    await self._room.wait()
                self._begin(call)

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
            self._answer(number, codec.encode(self._replica.read_now(request)))
        except StoreError as error:
            self._refuse(number, error)

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
            self._finish()

    async def _watch(self, call: store_pb2.Call) -> None:
        request = codec.decode_range(call.body)
        async for batch in self._replica.watch(request.key, request.range_end, call.number):
            self._push_pieces(call.id, codec.encode(batch))
            while len(self._replies) > CALLS_MAX:
                self._room.clear()
                await self._room.wait()

    async def _keep_alive(self, call: store_pb2.Call) -> None:
        self._answer(call.id, value=await self._replica.lease_keep_alive(call.number))

    async def _lease_grant(self, call: store_pb2.Call) -> None:
        self._answer(call.id, value=await self._replica.lease_grant(call.number, call.lease))

    def _answer(self, number: int, body: bytes = b"", value: int = 0) -> None:
        self._push_pieces(number, body, value)
        self._finish()

    def _push_pieces(self, number: int, body: bytes, value: int = 0) -> None:
        """Parts a long answer, so that no message is long and others get through in between."""
        last = max(0, len(body) - 1) // PIECE_BYTES * PIECE_BYTES
        for start in range(0, last, PIECE_BYTES):
            self._push(store_pb2.Reply(id=number, body=body[start : start + PIECE_BYTES], more=True))
        self._push(store_pb2.Reply(id=number, body=body[last:] if last else body, number=value))

    def _refuse(self, number: int, error: StoreError) -> None:
        status = _STATUS.get(type(error), store_pb2.Reply.UNAVAILABLE)
        value = error.revision if isinstance(error, Compacted) else 0
        self._push(store_pb2.Reply(id=number, status=status, number=value, message=str(error)))
        self._finish()

    def _push(self, reply: store_pb2.Reply) -> None:
        self._replies.append(reply)
        self._wake.set()

    def _finish(self) -> None:
        self._under_way -= 1
        self._room.set()

    def close(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()


def _addresses(config: Config) -> tuple[str, ...]:
    """Of the members; a group of one may have no address to tell."""
    return tuple(address for _, address in config.addresses if address)
