"""The wire of the head's keeper: what it knows and does, served to other machines and to commands."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio

from steersman.actors.head import Head, Known
from steersman.actors.rpc.guard import NameGuard
from steersman.actors.site import Site
from steersman.actors.storegroup import GroupUnavailable
from steersman.actors.tls import Channels, client_credentials, server_credentials
from steersman.cluster.placement import ChangeRefused, StoreGroup, StoreMember
from steersman.cluster.topology import Host, keeper_port
from steersman.pb import keeper_pb2, keeper_pb2_grpc

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

T = TypeVar("T")

_OPTIONS = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]


class HeadAway(Exception):
    """The head's keeper does not answer, or refuses; the message is for the user.

    Attributes:
        refuses: whether it answered: asking again is of no use.
    """

    def __init__(self, message: str, *, refuses: bool = False) -> None:
        super().__init__(message)
        self.refuses = refuses


async def serve_keeper(head: Head) -> grpc.aio.Server:
    """Serves the head's keeper to the cluster's own components; the caller stops the server."""
    site = head.site
    server = grpc.aio.server(interceptors=(NameGuard(("steersman",)),), options=[("grpc.so_reuseport", 0)])
    keeper_pb2_grpc.add_KeeperServicer_to_server(_Servicer(head), server)
    address = f"{site.here.address}:{keeper_port(site.config)}"
    server.add_secure_port(address, server_credentials(site.credentials("component")))
    await server.start()
    return server


class _Servicer(keeper_pb2_grpc.KeeperServicer):
    def __init__(self, head: Head) -> None:
        self._head = head

    async def Meet(self, request: keeper_pb2.Host, context: Context) -> keeper_pb2.Cluster:
        try:
            return _cluster_message(self._head.meet(_host_of(request)))
        except ChangeRefused as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
            raise AssertionError("abort raises") from error

    async def Leave(self, request: keeper_pb2.Host, context: Context) -> keeper_pb2.Cluster:
        return _cluster_message(await _guarded(self._head.leave(request.name), context))

    async def Members(self, request: keeper_pb2.MembersRequest, context: Context) -> keeper_pb2.MembersReply:
        states = await _guarded(self._head.members(), context)
        rows = [
            keeper_pb2.MemberState(
                member=_member_message(state.member),
                address=state.address,
                learner=state.learner,
                leads=state.leads,
                answers=state.answers,
                lag=state.lag,
                size_bytes=state.size_bytes,
                retiring=retiring,
            )
            for state, retiring in states
        ]
        return keeper_pb2.MembersReply(members=rows)

    async def Change(self, request: keeper_pb2.ChangeRequest, context: Context) -> keeper_pb2.ChangeReply:
        work: Awaitable[str]
        match request.WhichOneof("change"):
            case "add_on":
                work = self._head.add(request.add_on)
            case "remove":
                work = self._head.remove(request.remove)
            case "replace":
                work = self._head.replace(request.replace.member, request.replace.on)
            case "transfer_to":
                work = self._head.transfer(request.transfer_to)
            case _:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request names no change")
        return keeper_pb2.ChangeReply(done=await _guarded(work, context))


async def _guarded(work: Awaitable[T], context: Context) -> T:
    try:
        return await work
    except ChangeRefused as error:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
    except GroupUnavailable as error:
        await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
    raise AssertionError("abort raises")


class HeadClient:
    """Calls the head's keeper of a site."""

    def __init__(self, site: Site) -> None:
        self._address = f"{site.hosts[0].address}:{keeper_port(site.config)}"
        self._channels = Channels(client_credentials(site.credentials("component")), _OPTIONS)

    async def close(self) -> None:
        await self._channels.close()

    @property
    def _stub(self) -> keeper_pb2_grpc.KeeperStub:
        return keeper_pb2_grpc.KeeperStub(self._channels.to(self._address))

    async def meet(self, host: Host, deadline_s: float = 2.0) -> Known:
        """Says that a machine is there; raises HeadAway."""
        return _known_of(await self._answer(self._stub.Meet(_host_message(host), timeout=deadline_s)))

    async def leave(self, host: Host, deadline_s: float = 20.0) -> None:
        """Says that a machine goes for good; raises HeadAway."""
        await self._answer(self._stub.Leave(_host_message(host), timeout=deadline_s))

    async def members(self, deadline_s: float = 10.0) -> list[keeper_pb2.MemberState]:
        """Returns the store's members; raises HeadAway."""
        reply = await self._answer(self._stub.Members(keeper_pb2.MembersRequest(), timeout=deadline_s))
        return list(reply.members)

    async def change(self, request: keeper_pb2.ChangeRequest, deadline_s: float = 30.0) -> str:
        """Changes the store's members; returns what was done; raises HeadAway."""
        reply: keeper_pb2.ChangeReply = await self._answer(self._stub.Change(request, timeout=deadline_s))
        return reply.done

    async def _answer(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            words = error.details() or "no answer"
            if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
                raise HeadAway(words, refuses=True) from None
            raise HeadAway(f"the head's keeper at {self._address}: {words}") from None


def _host_message(host: Host) -> keeper_pb2.Host:
    return keeper_pb2.Host(name=host.name, address=host.address, data_dir=host.data_dir, runtime=host.runtime)


def _host_of(message: keeper_pb2.Host) -> Host:
    return Host(name=message.name, address=message.address, data_dir=message.data_dir, runtime=message.runtime)


def _member_message(member: StoreMember) -> keeper_pb2.StoreMember:
    return keeper_pb2.StoreMember(id=member.id, host=member.host, slot=member.slot)


def _cluster_message(known: Known) -> keeper_pb2.Cluster:
    return keeper_pb2.Cluster(
        incarnation=known.incarnation,
        ray_token=known.ray_token,
        hosts=[_host_message(host) for host in known.hosts],
        members=[_member_message(member) for member in known.group.members],
        founders=known.group.founders,
    )


def _known_of(message: keeper_pb2.Cluster) -> Known:
    members = tuple(StoreMember(id=row.id, host=row.host, slot=row.slot) for row in message.members)
    return Known(
        incarnation=message.incarnation,
        ray_token=message.ray_token,
        hosts=tuple(_host_of(row) for row in message.hosts),
        group=StoreGroup(members=members, founders=message.founders),
    )
