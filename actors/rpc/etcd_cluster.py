"""etcd's Cluster service over a replica."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from steersman.actors.rpc.etcd_answers import guard, header_of
from steersman.actors.store.replica import Replica
from steersman.pb import etcd_pb2, etcd_pb2_grpc

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class ClusterServicer(etcd_pb2_grpc.ClusterServicer):
    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def MemberList(self, request: etcd_pb2.MemberListRequest, context: Context) -> etcd_pb2.MemberListResponse:
        if request.linearizable:
            await guard(context, self._replica.read_barrier())
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
        return etcd_pb2.MemberListResponse(header=header_of(self._replica), members=members)
