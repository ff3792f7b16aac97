"""etcd's Maintenance service over a replica."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

import google_crc32c
import grpc
import grpc.aio

from steersman.actors.rpc.etcd_answers import guard, header_of
from steersman.actors.store.filedisk import snapshot_file
from steersman.actors.store.replica import Replica
from steersman.cluster.store.values import Range
from steersman.pb import etcd_pb2, etcd_pb2_grpc

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

#: the etcd whose wire this is
ETCD_VERSION = "3.4.0"
#: bytes of a snapshot in one message
SNAPSHOT_CHUNK_BYTES = 1 << 20
SNAPSHOT_PAGE_BYTES = 512


class MaintenanceServicer(etcd_pb2_grpc.MaintenanceServicer):
    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def Alarm(self, request: etcd_pb2.AlarmRequest, context: Context) -> etcd_pb2.AlarmResponse:
        """Lists the members whose disks are full; an alarm goes by itself when there is space again."""
        if request.action == etcd_pb2.AlarmRequest.ACTIVATE:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "alarms of this store are raised by the store itself")
        alarms = sorted(self._replica.status().alarms)
        rows = [etcd_pb2.AlarmMember(memberID=member, alarm=etcd_pb2.NOSPACE) for member in alarms]
        return etcd_pb2.AlarmResponse(header=header_of(self._replica), alarms=rows)

    async def Status(self, request: etcd_pb2.StatusRequest, context: Context) -> etcd_pb2.StatusResponse:
        status = self._replica.status()
        errors = [] if status.leader else ["etcdserver: no leader"]
        return etcd_pb2.StatusResponse(
            header=header_of(self._replica),
            version=ETCD_VERSION,
            dbSize=status.size_bytes,
            dbSizeInUse=status.size_bytes,
            leader=status.leader,
            raftIndex=status.commit_index,
            raftTerm=status.term,
            raftAppliedIndex=status.applied_index,
            errors=[*errors, "NOSPACE"] if status.alarms else errors,
            isLearner=status.member in status.config.learners,
        )

    async def HashKV(self, request: etcd_pb2.HashKVRequest, context: Context) -> etcd_pb2.HashKVResponse:
        """A checksum of the versions live at a revision: equal on members that hold the same."""
        wanted = Range(key=b"\0", range_end=b"\0", revision=request.revision, serializable=True)
        result = await guard(context, self._replica.range(wanted))
        checksum = google_crc32c.Checksum()
        for kv in result.kvs:
            checksum.update(b"%d:%d:%s%s" % (len(kv.key), kv.mod_revision, kv.key, kv.value))
        status = self._replica.status()
        return etcd_pb2.HashKVResponse(
            header=header_of(self._replica),
            hash=int.from_bytes(checksum.digest(), "big"),
            compact_revision=status.compacted,
            hash_revision=request.revision or status.revision,
        )

    async def Snapshot(
        self, request: etcd_pb2.SnapshotRequest, context: Context
    ) -> AsyncIterator[etcd_pb2.SnapshotResponse]:
        await guard(context, self._replica.read_barrier())
        header = header_of(self._replica)
        meta, state = self._replica.snapshot()
        for chunk in _with_checksum(snapshot_file(meta, state)):
            yield etcd_pb2.SnapshotResponse(header=header, remaining_bytes=1, blob=chunk)
            await asyncio.sleep(0)
        yield etcd_pb2.SnapshotResponse(header=header, remaining_bytes=0)

    async def MoveLeader(self, request: etcd_pb2.MoveLeaderRequest, context: Context) -> etcd_pb2.MoveLeaderResponse:
        await guard(context, self._replica.transfer_leadership(request.targetID))
        return etcd_pb2.MoveLeaderResponse(header=header_of(self._replica))


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
