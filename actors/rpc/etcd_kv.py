"""etcd's KV and Lease services over a replica."""

from __future__ import annotations

from collections.abc import AsyncIterator

from steersman.actors.rpc import etcd_values as wire
from steersman.actors.rpc.etcd_answers import guard, header_of
from steersman.actors.rpc.h2.calls import Call as Context
from steersman.actors.rpc.h2.calls import Encoded
from steersman.actors.store.replica import Replica
from steersman.cluster.store.rules import check_operation
from steersman.cluster.store.values import DeleteResult, LeaseNotFound, LeaseTooLong, PutResult, Txn
from steersman.pb import etcd_pb2, etcd_pb2_grpc

#: shorter leases are granted this long, as etcd does: an election must not outlast them
LEASE_TTL_S_MIN = 2
#: etcd's own bound
LEASE_TTL_S_MAX = 9_000_000_000


class KvServicer(etcd_pb2_grpc.KVServicer):
    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def Range(self, request: etcd_pb2.RangeRequest, context: Context) -> etcd_pb2.RangeResponse | Encoded:
        return await guard(context, self._range(request))

    async def _range(self, request: etcd_pb2.RangeRequest) -> etcd_pb2.RangeResponse | Encoded:
        wanted = wire.range_of(request)
        check_operation(wanted)
        result = await self._replica.range(wanted)
        header = header_of(self._replica, result.revision)
        if len(result.kvs) <= 1:
            return wire.range_message(header, result)
        return Encoded(list(wire.range_pieces(header, result)))

    async def Put(self, request: etcd_pb2.PutRequest, context: Context) -> etcd_pb2.PutResponse:
        return await guard(context, self._put(request))

    async def _put(self, request: etcd_pb2.PutRequest) -> etcd_pb2.PutResponse:
        result = (await self._replica.txn(Txn(success=(wire.put_of(request),)))).results[0]
        assert isinstance(result, PutResult)
        return wire.put_message(header_of(self._replica, result.revision), result)

    async def DeleteRange(self, request: etcd_pb2.DeleteRangeRequest, context: Context) -> etcd_pb2.DeleteRangeResponse:
        result = await guard(context, self._replica.txn(Txn(success=(wire.delete_of(request),))))
        done = result.results[0]
        assert isinstance(done, DeleteResult)
        return wire.delete_message(header_of(self._replica, result.revision), done)

    async def Txn(self, request: etcd_pb2.TxnRequest, context: Context) -> etcd_pb2.TxnResponse:
        return await guard(context, self._txn(request))

    async def _txn(self, request: etcd_pb2.TxnRequest) -> etcd_pb2.TxnResponse:
        result = await self._replica.txn(wire.txn_of(request))
        return wire.txn_message(header_of(self._replica, result.revision), result)

    async def Compact(self, request: etcd_pb2.CompactionRequest, context: Context) -> etcd_pb2.CompactionResponse:
        await guard(context, self._replica.compact(request.revision))
        return etcd_pb2.CompactionResponse(header=header_of(self._replica))


class LeaseServicer(etcd_pb2_grpc.LeaseServicer):
    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def LeaseGrant(self, request: etcd_pb2.LeaseGrantRequest, context: Context) -> etcd_pb2.LeaseGrantResponse:
        return await guard(context, self._grant(request))

    async def _grant(self, request: etcd_pb2.LeaseGrantRequest) -> etcd_pb2.LeaseGrantResponse:
        if request.TTL > LEASE_TTL_S_MAX:
            raise LeaseTooLong(f"a lease lasts at most {LEASE_TTL_S_MAX} s")
        ttl_s = max(LEASE_TTL_S_MIN, request.TTL)
        lease = await self._replica.lease_grant(ttl_s, request.ID)
        return etcd_pb2.LeaseGrantResponse(header=header_of(self._replica), ID=lease, TTL=ttl_s)

    async def LeaseRevoke(self, request: etcd_pb2.LeaseRevokeRequest, context: Context) -> etcd_pb2.LeaseRevokeResponse:
        await guard(context, self._replica.lease_revoke(request.ID))
        return etcd_pb2.LeaseRevokeResponse(header=header_of(self._replica))

    async def LeaseKeepAlive(
        self, requests: AsyncIterator[etcd_pb2.LeaseKeepAliveRequest], context: Context
    ) -> AsyncIterator[etcd_pb2.LeaseKeepAliveResponse]:
        async for request in requests:
            ttl_s = await guard(context, self._keep_alive(request.ID))
            yield etcd_pb2.LeaseKeepAliveResponse(header=header_of(self._replica), ID=request.ID, TTL=ttl_s)

    async def _keep_alive(self, lease: int) -> int:
        """Returns 0 for a lease that has ended, as etcd does."""
        try:
            return await self._replica.lease_keep_alive(lease)
        except LeaseNotFound:
            return 0

    async def LeaseTimeToLive(
        self, request: etcd_pb2.LeaseTimeToLiveRequest, context: Context
    ) -> etcd_pb2.LeaseTimeToLiveResponse:
        return await guard(context, self._time_to_live(request))

    async def _time_to_live(self, request: etcd_pb2.LeaseTimeToLiveRequest) -> etcd_pb2.LeaseTimeToLiveResponse:
        try:
            left_s, granted_s, keys = await self._replica.lease_remaining(request.ID)
        except LeaseNotFound:
            return etcd_pb2.LeaseTimeToLiveResponse(header=header_of(self._replica), ID=request.ID, TTL=-1)
        return etcd_pb2.LeaseTimeToLiveResponse(
            header=header_of(self._replica),
            ID=request.ID,
            TTL=left_s,
            grantedTTL=granted_s,
            keys=keys if request.keys else (),
        )

    async def LeaseLeases(self, request: etcd_pb2.LeaseLeasesRequest, context: Context) -> etcd_pb2.LeaseLeasesResponse:
        leases = await guard(context, self._replica.leases())
        return etcd_pb2.LeaseLeasesResponse(
            header=header_of(self._replica), leases=[etcd_pb2.LeaseStatus(ID=lease) for lease in leases]
        )
