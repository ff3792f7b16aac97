"""The store's group as an operator sees it: its members asked one by one, and changed through etcd's own services."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import grpc
import grpc.aio

from steersman.actors.tls import ChannelCredentials, Channels
from steersman.pb import etcd_pb2, etcd_pb2_grpc

#: of one question to one member
_ASK_S_MAX = 1.0
#: of one change, which a majority has to write to its disks
_CHANGE_S_MAX = 6.0
_OPTIONS = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]


class GroupUnavailable(Exception):
    """No member answers that leads, or it did not do what it was asked; the message is for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one member says about itself.

    Args:
        leader: id of the member that leads; 0 when it knows none.
    """

    leader: int
    committed: int
    applied: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The group at a moment.

    Args:
        members: id to `host:port`, as the leader says; learners: the ids of those that do not vote.
        answers: of those that answered, by id.
        leader: id of the member that says that it leads.
    """

    members: Mapping[int, str]
    learners: frozenset[int]
    answers: Mapping[int, Answer]
    leader: int


class GroupClient:
    """Asks and changes the group.

    Args:
        credentials: with a client certificate that the store lets in.
    """

    def __init__(self, credentials: ChannelCredentials) -> None:
        self._channels = Channels(credentials, _OPTIONS)

    async def close(self) -> None:
        await self._channels.close()

    async def look(self, known: Mapping[int, str]) -> View:
        """Returns the group as its leader knows it.

        Args:
            known: id to address of the members as last known; one of them must lead, or know who does.

        Raises:
            GroupUnavailable: no leader answers.
        """
        answers = await self._ask(known)
        leader = _leader(answers)
        if leader == 0 or leader not in known:
            raise GroupUnavailable(f"no leader of the store answers at {', '.join(known.values())}")
        request = etcd_pb2.MemberListRequest(linearizable=True)
        try:
            stub = etcd_pb2_grpc.ClusterStub(self._channels.to(known[leader]))
            listed = await stub.MemberList(request, timeout=_ASK_S_MAX)
        except grpc.aio.AioRpcError as error:
            raise GroupUnavailable(f"the store's leader does not answer: {error.details()}") from error
        members = {row.ID: row.peerURLs[0].removeprefix("https://") for row in listed.members}
        unknown = {member: address for member, address in members.items() if member not in known}
        answers |= await self._ask(unknown)
        learners = frozenset(row.ID for row in listed.members if row.isLearner)
        return View(members=members, learners=learners, answers=answers, leader=leader)

    async def _ask(self, members: Mapping[int, str]) -> dict[int, Answer]:
        replies = await asyncio.gather(*(self._status(address) for address in members.values()))
        return {member: reply for member, reply in zip(members, replies, strict=True) if reply is not None}

    async def _status(self, address: str) -> Answer | None:
        stub = etcd_pb2_grpc.MaintenanceStub(self._channels.to(address))
        try:
            status = await stub.Status(etcd_pb2.StatusRequest(), timeout=_ASK_S_MAX)
        except grpc.aio.AioRpcError:
            return None
        return Answer(
            leader=status.leader,
            committed=status.raftIndex,
            applied=status.raftAppliedIndex,
            size_bytes=status.dbSize,
        )

    async def add_learner(self, leader: str, address: str) -> int:
        """Returns the id of the new member; raises GroupUnavailable."""
        request = etcd_pb2.MemberAddRequest(peerURLs=[f"https://{address}"], isLearner=True)
        reply = await self._change(leader, "MemberAdd", request)
        assert isinstance(reply, etcd_pb2.MemberAddResponse)
        return reply.member.ID

    async def promote(self, leader: str, member: int) -> None:
        """Gives a learner its vote; raises GroupUnavailable."""
        await self._change(leader, "MemberPromote", etcd_pb2.MemberPromoteRequest(ID=member))

    async def remove(self, leader: str, member: int) -> None:
        """Takes a member out of the group; raises GroupUnavailable."""
        await self._change(leader, "MemberRemove", etcd_pb2.MemberRemoveRequest(ID=member))

    async def transfer(self, leader: str, to: int) -> None:
        """Has another member lead; raises GroupUnavailable."""
        stub = etcd_pb2_grpc.MaintenanceStub(self._channels.to(leader))
        try:
            await stub.MoveLeader(etcd_pb2.MoveLeaderRequest(targetID=to), timeout=_CHANGE_S_MAX)
        except grpc.aio.AioRpcError as error:
            raise GroupUnavailable(f"the store does not change its leader: {error.details()}") from error

    async def _change(self, leader: str, method: str, request: object) -> object:
        call = getattr(etcd_pb2_grpc.ClusterStub(self._channels.to(leader)), method)
        try:
            return await call(request, timeout=_CHANGE_S_MAX)
        except grpc.aio.AioRpcError as error:
            raise GroupUnavailable(f"the store refuses the change: {error.details()}") from error


def _leader(answers: Mapping[int, Answer]) -> int:
    """The member that says of itself that it leads; of several the one that has committed most."""
    leading = [member for member, answer in answers.items() if answer.leader == member]
    return max(leading, key=lambda member: answers[member].committed, default=0)
