"""etcd's Cluster service over a replica."""

from __future__ import annotations

from collections.abc import Sequence

from steersman.actors.rpc.etcd_answers import guard
from steersman.actors.rpc.h2.calls import Call as Context
from steersman.actors.store.refusals import BadAddress, MemberNotFound
from steersman.actors.store.replica import Replica
from steersman.cluster.raft.values import ChangeKind, Config, ConfigChange
from steersman.pb import etcd_pb2, etcd_pb2_grpc


class ClusterServicer(etcd_pb2_grpc.ClusterServicer):
    """The members of the group; the one that leads makes the changes, whichever is asked."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def MemberList(self, request: etcd_pb2.MemberListRequest, context: Context) -> etcd_pb2.MemberListResponse:
        if request.linearizable:
            await guard(context, self._replica.read_barrier())
        return etcd_pb2.MemberListResponse(header=self._header(), members=self._members())

    async def MemberAdd(self, request: etcd_pb2.MemberAddRequest, context: Context) -> etcd_pb2.MemberAddResponse:
        return await guard(context, self._add(request))

    async def _add(self, request: etcd_pb2.MemberAddRequest) -> etcd_pb2.MemberAddResponse:
        member = self._replica.new_member_id()
        kind = ChangeKind.ADD_LEARNER if request.isLearner else ChangeKind.ADD_VOTER
        await self._replica.change_members(ConfigChange(kind, member, _address(request.peerURLs)))
        members = self._members()
        added = next(row for row in members if member == row.ID)
        return etcd_pb2.MemberAddResponse(header=self._header(), member=added, members=members)

    async def MemberRemove(
        self, request: etcd_pb2.MemberRemoveRequest, context: Context
    ) -> etcd_pb2.MemberRemoveResponse:
        return await guard(context, self._remove(request))

    async def _remove(self, request: etcd_pb2.MemberRemoveRequest) -> etcd_pb2.MemberRemoveResponse:
        header = self._header()
        config = await self._replica.change_members(ConfigChange(ChangeKind.REMOVE, request.ID))
        return etcd_pb2.MemberRemoveResponse(header=header, members=self._members(config))

    async def MemberUpdate(
        self, request: etcd_pb2.MemberUpdateRequest, context: Context
    ) -> etcd_pb2.MemberUpdateResponse:
        return await guard(context, self._update(request))

    async def _update(self, request: etcd_pb2.MemberUpdateRequest) -> etcd_pb2.MemberUpdateResponse:
        change = ConfigChange(ChangeKind.MOVE, request.ID, _address(request.peerURLs))
        await self._replica.change_members(change)
        return etcd_pb2.MemberUpdateResponse(header=self._header(), members=self._members())

    async def MemberPromote(
        self, request: etcd_pb2.MemberPromoteRequest, context: Context
    ) -> etcd_pb2.MemberPromoteResponse:
        return await guard(context, self._promote(request))

    async def _promote(self, request: etcd_pb2.MemberPromoteRequest) -> etcd_pb2.MemberPromoteResponse:
        if request.ID not in self._replica.status().config.members:
            raise MemberNotFound(f"there is no member {request.ID}")
        await self._replica.change_members(ConfigChange(ChangeKind.ADD_VOTER, request.ID))
        return etcd_pb2.MemberPromoteResponse(header=self._header(), members=self._members())

    def _header(self) -> etcd_pb2.ResponseHeader:
        """The header of this service tells no revision."""
        status, member = self._replica.status(), self._replica.member_id
        return etcd_pb2.ResponseHeader(cluster_id=status.config.cluster, member_id=member, raft_term=status.term)

    def _members(self, config: Config | None = None) -> list[etcd_pb2.Member]:
        names = self._replica.status().names
        config = config or self._replica.config
        return [_member(config, member, names.get(member, "")) for member in config.members]


def _member(config: Config, member: int, name: str) -> etcd_pb2.Member:
    url = f"https://{config.address(member)}"
    is_learner = member in config.learners
    # nobody is sent to a learner that has not started: it has not told its name yet
    client_urls = [url] if name or not is_learner else []
    return etcd_pb2.Member(ID=member, name=name, peerURLs=[url], clientURLs=client_urls, isLearner=is_learner)


def _address(urls: Sequence[str]) -> str:
    """The one `host:port` of a member's peer URLs; raises BadAddress."""
    address = urls[0].removeprefix("https://").removeprefix("http://").rstrip("/") if len(urls) == 1 else ""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise BadAddress("a member has one peer URL, https://HOST:PORT")
    return address
