"""The services of etcd v3 over a replica: wire to values and back, nothing else.

What is left out is refused by name: authentication by user and password (certificates decide), defragmentation (there
is nothing to defragment), membership changes (the cluster's own commands do them), downgrades.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import google_crc32c
import grpc
import grpc.aio

from steersman.actors.rpc import etcd_values as wire
from steersman.actors.store.filedisk import snapshot_file
from steersman.actors.store.replica import Replica
from steersman.cluster.store.values import (
    Compacted,
    Compare,
    CompareTarget,
    DeleteResult,
    InvalidRequest,
    LeaseNotFound,
    Put,
    PutResult,
    Range,
    StoreError,
    Txn,
    Unavailable,
    WatchBatch,
)
from steersman.pb import etcd_pb2, etcd_pb2_grpc, mvcc_pb2

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

T = TypeVar("T")

#: the etcd whose wire this is
ETCD_VERSION = "3.4.0"
#: bytes of a snapshot in one message
SNAPSHOT_CHUNK_BYTES = 1 << 20
SNAPSHOT_PAGE_BYTES = 512
#: event bytes of one watch response when the watcher asked for fragments
FRAGMENT_BYTES_MAX = 1 << 20
#: responses of one watch stream that wait for the client
WATCH_RESPONSES_MAX = 256
#: attempts at a put that keeps the value or lease that is there
KEEP_ATTEMPTS_MAX = 16


def add_etcd_services(server: grpc.aio.Server, replica: Replica) -> None:
    etcd_pb2_grpc.add_KVServicer_to_server(KvServicer(replica), server)
    etcd_pb2_grpc.add_WatchServicer_to_server(WatchServicer(replica), server)
    etcd_pb2_grpc.add_LeaseServicer_to_server(LeaseServicer(replica), server)
    etcd_pb2_grpc.add_ClusterServicer_to_server(ClusterServicer(replica), server)
    etcd_pb2_grpc.add_MaintenanceServicer_to_server(MaintenanceServicer(replica), server)


async def _refuse(context: Context, error: StoreError) -> NoReturn:
    code, words = wire.status_of(error)
    await context.abort(code, words)
    raise AssertionError("abort raises")


async def _guard(context: Context, work: Awaitable[T]) -> T:
    """Returns what the store answers, or ends the call with etcd's code for the refusal."""
    try:
        return await work
    except StoreError as error:
        await _refuse(context, error)


def _header(replica: Replica, revision: int = 0) -> etcd_pb2.ResponseHeader:
    status = replica.status()
    addresses = ",".join(address for _, address in status.config.addresses)
    return etcd_pb2.ResponseHeader(
        cluster_id=google_crc32c.value(addresses.encode()),
        member_id=replica.member_id,
        revision=revision or status.revision,
        raft_term=status.term,
    )


class KvServicer(etcd_pb2_grpc.KVServicer):
    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def Range(self, request: etcd_pb2.RangeRequest, context: Context) -> etcd_pb2.RangeResponse:
        return await _guard(context, self._range(request))

    async def _range(self, request: etcd_pb2.RangeRequest) -> etcd_pb2.RangeResponse:
        result = wire.trimmed(request, await self._replica.range(wire.range_of(request)))
        return wire.range_message(_header(self._replica, result.revision), result)

    async def Put(self, request: etcd_pb2.PutRequest, context: Context) -> etcd_pb2.PutResponse:
        return await _guard(context, self._put(request))

    async def _put(self, request: etcd_pb2.PutRequest) -> etcd_pb2.PutResponse:
        if request.ignore_value or request.ignore_lease:
            return await self._put_keeping(request)
        result = (await self._replica.txn(Txn(success=(wire.put_of(request),)))).results[0]
        assert isinstance(result, PutResult)
        return wire.put_message(_header(self._replica, result.revision), result)

    async def _put_keeping(self, request: etcd_pb2.PutRequest) -> etcd_pb2.PutResponse:
        """Puts with the value or the lease that the key has, under the condition that it still has them."""
        if (request.ignore_value and request.value) or (request.ignore_lease and request.lease):
            what = "value" if request.value else "lease"
            raise InvalidRequest(f"{what} is provided")
        for _ in range(KEEP_ATTEMPTS_MAX):
            found = await self._replica.range(Range(key=request.key))
            if not found.kvs:
                raise InvalidRequest("key not found")
            old = found.kvs[0]
            put = Put(
                key=request.key,
                value=old.value if request.ignore_value else request.value,
                lease=old.lease if request.ignore_lease else request.lease,
                prev_kv=request.prev_kv,
            )
            unchanged = Compare(key=request.key, target=CompareTarget.MOD, operand=old.mod_revision)
            result = await self._replica.txn(Txn(compare=(unchanged,), success=(put,)))
            if result.succeeded:
                done = result.results[0]
                assert isinstance(done, PutResult)
                return wire.put_message(_header(self._replica, result.revision), done)
        raise Unavailable("the key changes too fast")

    async def DeleteRange(self, request: etcd_pb2.DeleteRangeRequest, context: Context) -> etcd_pb2.DeleteRangeResponse:
        result = await _guard(context, self._replica.txn(Txn(success=(wire.delete_of(request),))))
        done = result.results[0]
        assert isinstance(done, DeleteResult)
        return wire.delete_message(_header(self._replica, result.revision), done)

    async def Txn(self, request: etcd_pb2.TxnRequest, context: Context) -> etcd_pb2.TxnResponse:
        return await _guard(context, self._txn(request))

    async def _txn(self, request: etcd_pb2.TxnRequest) -> etcd_pb2.TxnResponse:
        result = await self._replica.txn(wire.txn_of(request))
        return wire.txn_message(_header(self._replica, result.revision), result)

    async def Compact(self, request: etcd_pb2.CompactionRequest, context: Context) -> etcd_pb2.CompactionResponse:
        await _guard(context, self._replica.compact(request.revision))
        return etcd_pb2.CompactionResponse(header=_header(self._replica))


class LeaseServicer(etcd_pb2_grpc.LeaseServicer):
    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def LeaseGrant(self, request: etcd_pb2.LeaseGrantRequest, context: Context) -> etcd_pb2.LeaseGrantResponse:
        lease = await _guard(context, self._replica.lease_grant(request.TTL, request.ID))
        return etcd_pb2.LeaseGrantResponse(header=_header(self._replica), ID=lease, TTL=request.TTL)

    async def LeaseRevoke(self, request: etcd_pb2.LeaseRevokeRequest, context: Context) -> etcd_pb2.LeaseRevokeResponse:
        await _guard(context, self._replica.lease_revoke(request.ID))
        return etcd_pb2.LeaseRevokeResponse(header=_header(self._replica))

    async def LeaseKeepAlive(
        self, requests: AsyncIterator[etcd_pb2.LeaseKeepAliveRequest], context: Context
    ) -> AsyncIterator[etcd_pb2.LeaseKeepAliveResponse]:
        async for request in requests:
            ttl_s = await _guard(context, self._keep_alive(request.ID))
            yield etcd_pb2.LeaseKeepAliveResponse(header=_header(self._replica), ID=request.ID, TTL=ttl_s)

    async def _keep_alive(self, lease: int) -> int:
        """Returns 0 for a lease that has ended, as etcd does."""
        try:
            return await self._replica.lease_keep_alive(lease)
        except LeaseNotFound:
            return 0

    async def LeaseTimeToLive(
        self, request: etcd_pb2.LeaseTimeToLiveRequest, context: Context
    ) -> etcd_pb2.LeaseTimeToLiveResponse:
        return await _guard(context, self._time_to_live(request))

    async def _time_to_live(self, request: etcd_pb2.LeaseTimeToLiveRequest) -> etcd_pb2.LeaseTimeToLiveResponse:
        try:
            left_s, granted_s, keys = await self._replica.lease_remaining(request.ID)
        except LeaseNotFound:
            return etcd_pb2.LeaseTimeToLiveResponse(header=_header(self._replica), ID=request.ID, TTL=-1)
        return etcd_pb2.LeaseTimeToLiveResponse(
            header=_header(self._replica),
            ID=request.ID,
            TTL=left_s,
            grantedTTL=granted_s,
            keys=keys if request.keys else (),
        )

    async def LeaseLeases(self, request: etcd_pb2.LeaseLeasesRequest, context: Context) -> etcd_pb2.LeaseLeasesResponse:
        leases = await _guard(context, self._replica.leases())
        return etcd_pb2.LeaseLeasesResponse(
            header=_header(self._replica), leases=[etcd_pb2.LeaseStatus(ID=lease) for lease in leases]
        )


class ClusterServicer(etcd_pb2_grpc.ClusterServicer):
    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def MemberList(self, request: etcd_pb2.MemberListRequest, context: Context) -> etcd_pb2.MemberListResponse:
        if request.linearizable:
            await _guard(context, self._replica.read_barrier())
        config = self._replica.status().config
        members = [
            etcd_pb2.Member(
                ID=member,
                name=self._replica.name if member == self._replica.member_id else f"member-{member}",
                peerURLs=[f"https://{config.address(member)}"],
                clientURLs=[f"https://{config.address(member)}"],
                isLearner=member in config.learners,
            )
            for member in config.members
        ]
        return etcd_pb2.MemberListResponse(header=_header(self._replica), members=members)


class MaintenanceServicer(etcd_pb2_grpc.MaintenanceServicer):
    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def Alarm(self, request: etcd_pb2.AlarmRequest, context: Context) -> etcd_pb2.AlarmResponse:
        """Lists the alarm of a full disk; it goes by itself when there is space again."""
        if request.action == etcd_pb2.AlarmRequest.ACTIVATE:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "alarms of this store are raised by the store itself")
        full = self._replica.status().disk_full
        row = etcd_pb2.AlarmMember(memberID=self._replica.member_id, alarm=etcd_pb2.NOSPACE)
        return etcd_pb2.AlarmResponse(header=_header(self._replica), alarms=[row] if full else [])

    async def Status(self, request: etcd_pb2.StatusRequest, context: Context) -> etcd_pb2.StatusResponse:
        status = self._replica.status()
        errors = [] if status.leader else ["etcdserver: no leader"]
        return etcd_pb2.StatusResponse(
            header=_header(self._replica),
            version=ETCD_VERSION,
            dbSize=status.size_bytes,
            dbSizeInUse=status.size_bytes,
            leader=status.leader,
            raftIndex=status.commit_index,
            raftTerm=status.term,
            raftAppliedIndex=status.applied_index,
            errors=[*errors, "NOSPACE"] if status.disk_full else errors,
            isLearner=status.member in status.config.learners,
        )

    async def HashKV(self, request: etcd_pb2.HashKVRequest, context: Context) -> etcd_pb2.HashKVResponse:
        """A checksum of the versions live at a revision: equal on members that hold the same."""
        wanted = Range(key=b"\0", range_end=b"\0", revision=request.revision, serializable=True)
        result = await _guard(context, self._replica.range(wanted))
        checksum = google_crc32c.Checksum()
        for kv in result.kvs:
            checksum.update(b"%d:%d:%s%s" % (len(kv.key), kv.mod_revision, kv.key, kv.value))
        status = self._replica.status()
        return etcd_pb2.HashKVResponse(
            header=_header(self._replica),
            hash=int.from_bytes(checksum.digest(), "big"),
            compact_revision=status.compacted,
            hash_revision=request.revision or status.revision,
        )

    async def Snapshot(
        self, request: etcd_pb2.SnapshotRequest, context: Context
    ) -> AsyncIterator[etcd_pb2.SnapshotResponse]:
        await _guard(context, self._replica.read_barrier())
        header = _header(self._replica)
        meta, state = self._replica.snapshot()
        for chunk in _with_checksum(snapshot_file(meta, state)):
            yield etcd_pb2.SnapshotResponse(header=header, remaining_bytes=1, blob=chunk)
            await asyncio.sleep(0)
        yield etcd_pb2.SnapshotResponse(header=header, remaining_bytes=0)

    async def MoveLeader(self, request: etcd_pb2.MoveLeaderRequest, context: Context) -> etcd_pb2.MoveLeaderResponse:
        await _guard(context, self._replica.transfer_leadership(request.targetID))
        return etcd_pb2.MoveLeaderResponse(header=_header(self._replica))


def _with_checksum(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the pieces in chunks, then zeros up to a whole page and the SHA-256 of all, which etcdctl looks for."""
    digest = hashlib.sha256()
    chunk = bytearray()
    size_bytes = 0
    for piece in chain(pieces, (None,)):
        if piece is None:
            chunk += bytes(-(size_bytes + len(chunk)) % SNAPSHOT_PAGE_BYTES)
        else:
            chunk += piece
        if piece is None or len(chunk) >= SNAPSHOT_CHUNK_BYTES:
            digest.update(chunk)
            size_bytes += len(chunk)
            yield bytes(chunk)
            chunk.clear()
    yield digest.digest()


class WatchServicer(etcd_pb2_grpc.WatchServicer):
    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def Watch(
        self, requests: AsyncIterator[etcd_pb2.WatchRequest], context: Context
    ) -> AsyncIterator[etcd_pb2.WatchResponse]:
        stream = _WatchStream(self._replica)
        reader = asyncio.create_task(stream.read(requests))
        try:
            while (response := await stream.responses.get()) is not None:
                yield response
        finally:
            reader.cancel()
            stream.close()
            await asyncio.gather(reader, return_exceptions=True)


class _WatchStream:
    """The watches of one client stream."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.responses: asyncio.Queue[etcd_pb2.WatchResponse | None] = asyncio.Queue(WATCH_RESPONSES_MAX)
        self._watches: dict[int, asyncio.Task[None]] = {}
        #: each watch to the revision up to which its events have been queued
        self._reached: dict[int, int] = {}
        self._next_id = 0

    async def read(self, requests: AsyncIterator[etcd_pb2.WatchRequest]) -> None:
        async for request in requests:
            match request.WhichOneof("request_union"):
                case "create_request":
                    await self._create(request.create_request)
                case "cancel_request":
                    await self._cancel(request.cancel_request.watch_id)
                case "progress_request":
                    revision = min(self._reached.values(), default=self._replica.revision)
                    await self._respond(-1, revision=revision)
        await asyncio.gather(*self._watches.values(), return_exceptions=True)
        await self.responses.put(None)

    def close(self) -> None:
        for task in self._watches.values():
            task.cancel()

    async def _respond(self, watch_id: int, *, revision: int = 0, created: bool = False, canceled: bool = False,
                       reason: str = "", compact_revision: int = 0) -> None:  # fmt: skip
        await self.responses.put(
            etcd_pb2.WatchResponse(
                header=_header(self._replica, revision), watch_id=watch_id, created=created, canceled=canceled,
                cancel_reason=reason, compact_revision=compact_revision,
            )
        )  # fmt: skip

    async def _create(self, request: etcd_pb2.WatchCreateRequest) -> None:
        watch_id = request.watch_id
        if not watch_id:
            while self._next_id in self._watches:
                self._next_id += 1
            watch_id = self._next_id
            self._next_id += 1
        if watch_id in self._watches:
            reason = "etcdserver: duplicate watch ID provided on the watch stream"
            await self._respond(-1, created=True, canceled=True, reason=reason)
            return
        try:
            batches = self._replica.watch(request.key or b"\0", request.range_end, max(0, request.start_revision))
        except StoreError as error:
            await self._respond(-1, created=True, canceled=True, reason=wire.status_of(error)[1])
            return
        self._reached[watch_id] = (request.start_revision or self._replica.revision + 1) - 1
        await self._respond(watch_id, created=True)
        task = asyncio.create_task(self._deliver(watch_id, request, batches))
        self._watches[watch_id] = task

    async def _cancel(self, watch_id: int) -> None:
        task = self._watches.pop(watch_id, None)
        self._reached.pop(watch_id, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._respond(watch_id, canceled=True)

    async def _deliver(
        self, watch_id: int, request: etcd_pb2.WatchCreateRequest, batches: AsyncIterator[WatchBatch]
    ) -> None:
        try:
            async for batch in batches:
                await self._hand_over(watch_id, request, batch)
        except Compacted as error:
            reason = wire.status_of(error)[1]
            await self._respond(watch_id, canceled=True, reason=reason, compact_revision=error.revision)
        except StoreError as error:
            await self._respond(watch_id, canceled=True, reason=wire.status_of(error)[1])
        self._reached.pop(watch_id, None)

    async def _hand_over(self, watch_id: int, request: etcd_pb2.WatchCreateRequest, batch: WatchBatch) -> None:
        no_put = etcd_pb2.WatchCreateRequest.NOPUT in request.filters
        no_delete = etcd_pb2.WatchCreateRequest.NODELETE in request.filters
        events = [
            wire.event_message(event, prev_kv=request.prev_kv)
            for event in batch.events
            if not (no_delete if event.deleted else no_put)
        ]
        if not events:
            if request.progress_notify and not batch.events:
                await self._respond(watch_id, revision=batch.revision)
            self._reached[watch_id] = batch.revision
            return
        header = _header(self._replica, batch.revision)
        pieces = _fragments(events) if request.fragment else [events]
        for position, piece in enumerate(pieces):
            await self.responses.put(
                etcd_pb2.WatchResponse(
                    header=header, watch_id=watch_id, events=piece, fragment=position < len(pieces) - 1
                )
            )
        self._reached[watch_id] = batch.revision


def _fragments(events: list[mvcc_pb2.Event]) -> list[list[mvcc_pb2.Event]]:
    pieces: list[list[mvcc_pb2.Event]] = [[]]
    size_bytes = 0
    for event in events:
        event_bytes = event.ByteSize()
        if size_bytes + event_bytes > FRAGMENT_BYTES_MAX and pieces[-1]:
            pieces.append([])
            size_bytes = 0
        pieces[-1].append(event)
        size_bytes += event_bytes
    return pieces
