"""etcd's Cluster service over a replica."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from steersman.actors.rpc.etcd_answers import guard, header_of
from steersman.actors.store.replica import Replica
from steersman.cluster.raft import membership
from steersman.cluster.raft.values import ChangeKind, ConfigChange
from steersman.pb import etcd_pb2, etcd_pb2_grpc

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class ClusterServicer(etcd_pb2_grpc.ClusterServicer):
    """The members of the group; changes are made by the member that leads."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def MemberList(self, request: etcd_pb2.MemberListRequest, context: Context) -> etcd_pb2.MemberListResponse:
        if request.linearizable:
            await guard(context, self._replica.read_barrier())
        return etcd_pb2.MemberListResponse(header=header_of(self._replica), members=self._members())

    async def MemberAdd(self, request: etcd_pb2.MemberAddRequest, context: Context) -> etcd_pb2.MemberAddResponse:
        if len(request.peerURLs) != 1:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a member of this store has one peer URL")
        address = request.peerURLs[0].partition("://")[2] or request.peerURLs[0]
        if address in dict(self._replica.status().config.addresses).values():
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: Peer URLs already exists")
        member = self._replica.new_member_id()
        kind = ChangeKind.ADD_LEARNER if request.isLearner else ChangeKind.ADD_VOTER
        await self._change(ConfigChange(kind, member, address), context)
        members = self._members()
        added = next(row for row in members if member == row.ID)
        return etcd_pb2.MemberAddResponse(header=header_of(self._replica), member=added, members=members)

    async def MemberRemove(
        self, request: etcd_pb2.MemberRemoveRequest, context: Context
    ) -> etcd_pb2.MemberRemoveResponse:
        await self._check_known(request.ID, context)
        await self._change(ConfigChange(ChangeKind.REMOVE, request.ID), context)
        return etcd_pb2.MemberRemoveResponse(header=header_of(self._replica), members=self._members())

    async def MemberPromote(
        self, request: etcd_pb2.MemberPromoteRequest, context: Context
    ) -> etcd_pb2.MemberPromoteResponse:
        await self._check_known(request.ID, context)
        if request.ID not in self._replica.status().config.learners:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: can only promote a learner member")
        await self._change(ConfigChange(ChangeKind.ADD_VOTER, request.ID), context)
        return etcd_pb2.MemberPromoteResponse(header=header_of(self._replica), members=self._members())

    async def _check_known(self, member: int, context: Context) -> None:
        if member not in self._replica.status().config.members:
            await context.abort(grpc.StatusCode.NOT_FOUND, "etcdserver: member not found")

    async def _change(self, change: ConfigChange, context: Context) -> None:
        try:
            await guard(context, self._replica.change_members(change))
        except membership.ChangeRefused as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"etcdserver: {error}")

    def _members(self) -> list[etcd_pb2.Member]:
        config = self._replica.status().config
        return [
            etcd_pb2.Member(
                ID=member,
                name=self._replica.name if member == self._replica.member_id else f"member-{member:x}",
                peerURLs=[f"https://{config.address(member)}"],
                clientURLs=[f"https://{config.address(member)}"],
                isLearner=member in config.learners,
            )
            for member in config.members
        ]
