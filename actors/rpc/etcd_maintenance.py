"""etcd's Maintenance service over a replica."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc

from steersman.actors.rpc.etcd_answers import guard, header_of
from steersman.actors.rpc.h2.calls import Call as Context
from steersman.actors.store.backup import backup_pieces
from steersman.actors.store.replica import Replica
from steersman.cluster.store import codec
from steersman.cluster.store.commands import Alarm
from steersman.pb import etcd_pb2, etcd_pb2_grpc

#: the etcd whose wire this is
ETCD_VERSION = "3.4.0"


class MaintenanceServicer(etcd_pb2_grpc.MaintenanceServicer):
    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def Alarm(self, request: etcd_pb2.AlarmRequest, context: Context) -> etcd_pb2.AlarmResponse:
        """Lists the members whose disks are full, or disarms: an alarm whose reason lasts comes back at once."""
        if request.action == etcd_pb2.AlarmRequest.ACTIVATE:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this store raises its alarms itself, of a full disk")
        return await guard(context, self._alarm(request))

    async def _alarm(self, request: etcd_pb2.AlarmRequest) -> etcd_pb2.AlarmResponse:
        if request.alarm == etcd_pb2.CORRUPT:  # a member that finds its data damaged stops, and raises no alarm
            return etcd_pb2.AlarmResponse(header=header_of(self._replica))
        await self._replica.read_barrier()
        alarms = [m for m in sorted(self._replica.status().alarms) if request.memberID in (0, m)]
        if request.action == etcd_pb2.AlarmRequest.DEACTIVATE:
            for member in alarms:
                command = Alarm(member, False)
                await self._replica.submit(command, codec.encode(command))
        rows = [etcd_pb2.AlarmMember(memberID=member, alarm=etcd_pb2.NOSPACE) for member in alarms]
        return etcd_pb2.AlarmResponse(header=header_of(self._replica), alarms=rows)

    async def Status(self, request: etcd_pb2.StatusRequest, context: Context) -> etcd_pb2.StatusResponse:
        return await guard(context, self._status())

    async def _status(self) -> etcd_pb2.StatusResponse:
        status = self._replica.status()
        errors = [] if status.leader else ["etcdserver: no leader"]
        errors += [f"memberID:{member} alarm:NOSPACE " for member in sorted(status.alarms)]
        return etcd_pb2.StatusResponse(
            header=header_of(self._replica),
            version=ETCD_VERSION,
            dbSize=status.size_bytes,
            dbSizeInUse=status.size_bytes,
            leader=status.leader,
            raftIndex=status.commit_index,
            raftTerm=status.term,
            raftAppliedIndex=status.applied_index,
            errors=errors,
            isLearner=status.member in status.config.learners,
        )

    async def Defragment(self, request: etcd_pb2.DefragmentRequest, context: Context) -> etcd_pb2.DefragmentResponse:
        """Puts a snapshot in the place of this member's log: what a disk can be relieved of here."""
        await guard(context, self._replica.shorten_log())
        return etcd_pb2.DefragmentResponse(header=header_of(self._replica))

    async def Hash(self, request: etcd_pb2.HashRequest, context: Context) -> etcd_pb2.HashResponse:
        found = await guard(context, self._hash(0))
        return etcd_pb2.HashResponse(header=found.header, hash=found.hash)

    async def HashKV(self, request: etcd_pb2.HashKVRequest, context: Context) -> etcd_pb2.HashKVResponse:
        """A checksum of the versions live at a revision: equal on members that hold the same."""
        return await guard(context, self._hash(request.revision))

    async def _hash(self, revision: int) -> etcd_pb2.HashKVResponse:
        hashed, found = await self._replica.checksum(revision)
        return etcd_pb2.HashKVResponse(
            header=header_of(self._replica),
            hash=found,
            compact_revision=self._replica.status().compacted,
            hash_revision=hashed,
        )

    async def Snapshot(
        self, request: etcd_pb2.SnapshotRequest, context: Context
    ) -> AsyncIterator[etcd_pb2.SnapshotResponse]:
        """Streams the state as a database of etcd, and its checksum, of which the remaining bytes do not tell."""
        database = await guard(context, self._replica.database())
        header, remaining_bytes = header_of(self._replica), database.size_bytes
        async for piece in backup_pieces(database):
            remaining_bytes = max(0, remaining_bytes - len(piece))
            yield etcd_pb2.SnapshotResponse(header=header, remaining_bytes=remaining_bytes, blob=piece)

    async def MoveLeader(self, request: etcd_pb2.MoveLeaderRequest, context: Context) -> etcd_pb2.MoveLeaderResponse:
        await guard(context, self._replica.transfer_leadership(request.targetID))
        return etcd_pb2.MoveLeaderResponse(header=header_of(self._replica))
