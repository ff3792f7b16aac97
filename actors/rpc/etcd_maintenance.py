"""etcd's Maintenance service over a replica."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import google_crc32c
import grpc
import grpc.aio

from steersman.actors.rpc.etcd_answers import guard, header_of
from steersman.actors.store.replica import Replica
from steersman.cluster.store.values import Range
from steersman.pb import etcd_pb2, etcd_pb2_grpc

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

#: the etcd whose wire this is
ETCD_VERSION = "3.4.0"


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
        async for chunk in self._replica.backup():
            yield etcd_pb2.SnapshotResponse(header=header, remaining_bytes=1, blob=chunk)
        yield etcd_pb2.SnapshotResponse(header=header, remaining_bytes=0)

    async def MoveLeader(self, request: etcd_pb2.MoveLeaderRequest, context: Context) -> etcd_pb2.MoveLeaderResponse:
        await guard(context, self._replica.transfer_leadership(request.targetID))
        return etcd_pb2.MoveLeaderResponse(header=header_of(self._replica))
