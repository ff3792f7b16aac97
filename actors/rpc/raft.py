"""The wire between the members of the store's group: letters on long-lived streams, snapshots on their own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import msgspec

from steersman.actors.store.transport import Inbox, Letter, decode_letter, encode_letter
from steersman.cluster.raft.values import Message, MessageKind
from steersman.cluster.store.snapshot import SnapshotDamaged, decode
from steersman.pb import raft_pb2, raft_pb2_grpc

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

logger = logging.getLogger(__name__)

#: letters that wait for one member; more are dropped, which the consensus core makes good
QUEUE_LETTERS_MAX = 4096
QUEUE_BYTES_MAX = 64 << 20
#: pauses between attempts to reach a member
RETRY_MIN_S, RETRY_MAX_S = 0.05, 0.5
#: members that called without being in the group as this member knows it; of more the oldest are forgotten
MET_MAX = 16

#: metadata by which a caller says who it is, and where
_MEMBER, _ADDRESS = "steersman-member", "steersman-address"
#: metadata by which a caller says of which group it is
_CLUSTER = "steersman-cluster"
#: trailing metadata of a refusal: the caller does not belong to the group at this entry of the log
_APPLIED = "steersman-applied"
_VOTES = (MessageKind.PRE_VOTE, MessageKind.VOTE)

MESSAGE_BYTES_MAX = 128 << 20
_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
]


class GrpcTransport:
    """Sends letters to the other members; what comes in is handed over by `PeerServicer`.

    A member that has been away may not know the present leader: whoever calls says who and where it is, and is answered
    there.

    Args:
        member_id: of the member that sends.
        address: where it is called itself; empty where all members know each other.
        credentials: with this member's certificate; None for plain text (tests on loopback).
        server_name: the name in the members' certificates where they carry no addresses.
    """

    def __init__(
        self,
        member_id: int,
        credentials: grpc.ChannelCredentials | None = None,
        *,
        address: str = "",
        server_name: str = "",
    ) -> None:
        self._member_id, self._credentials, self._server_name = member_id, credentials, server_name
        self._address = address
        self._inbox: Inbox | None = None
        self._links: dict[int, _Link] = {}
        self._known: Mapping[int, str] = {}
        self._met: dict[int, str] = {}

    async def start(self, inbox: Inbox) -> None:
        self._inbox = inbox

    async def stop(self) -> None:
        links, self._links = list(self._links.values()), {}
        await asyncio.gather(*(link.stop() for link in links))

    def meet(self, member: int, address: str) -> None:
        """Notes that a member called, and from where it is to be answered."""
        if self._met.get(member) != address and self._inbox is not None:
            self._met.pop(member, None)
            self._met[member] = address
            while len(self._met) > MET_MAX:
                del self._met[next(iter(self._met))]
            self.connect(self._known)

    def connect(self, addresses: Mapping[int, str]) -> None:
        assert self._inbox is not None
        self._known = addresses
        # where a member says that it is goes before where the group believes it to be
        addresses = {**addresses, **self._met}
        for member, link in list(self._links.items()):
            if addresses.get(member) != link.address:
                link.abandon()
                del self._links[member]
        for member, address in sorted(addresses.items()):
            if member != self._member_id and member not in self._links:
                channel = open_channel(address, self._credentials, self._server_name)
                self._links[member] = _Link(member, address, channel, self._inbox, self._introduction())

    def _introduction(self) -> tuple[tuple[str, str], ...]:
        return ((_MEMBER, str(self._member_id)), (_ADDRESS, self._address)) if self._address else ()

    def send(self, letter: Letter) -> None:
        link = self._links.get(letter.to)
        if link is not None:
            link.send(encode_letter(letter))

    async def send_snapshot(self, message: Message, blocks: Iterable[bytes]) -> None:
        link = self._links.get(message.to)
        if link is None:
            raise OSError(f"member {message.to} is not known")
        try:
            stub = raft_pb2_grpc.PeerStub(link.channel)
            await stub.Install(_announced(encode_letter(message), blocks), metadata=link.metadata)
        except grpc.aio.AioRpcError as error:
            raise OSError(f"{link.address}: {error.details()}") from None


async def _announced(message: bytes, blocks: Iterable[bytes]) -> AsyncIterator[raft_pb2.Block]:
    yield raft_pb2.Block(message=message)
    for data in blocks:
        yield raft_pb2.Block(data=data)
        await asyncio.sleep(0)


def open_channel(address: str, credentials: grpc.ChannelCredentials | None, server_name: str) -> grpc.aio.Channel:
    """Returns a channel to a member; it connects by itself, again and again."""
    options: list[tuple[str, int | str]] = list(_OPTIONS)
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    if server_name:
        options.append(("grpc.ssl_target_name_override", server_name))
    return grpc.aio.secure_channel(address, credentials, options=options)


class _Link:
    """The stream to one member."""

    def __init__(
        self,
        member: int,
        address: str,
        channel: grpc.aio.Channel,
        inbox: Inbox,
        introduction: tuple[tuple[str, str], ...],
    ) -> None:
        self.address, self.channel = address, channel
        self._member, self._inbox, self._introduction = member, inbox, introduction
        self._queue: list[bytes] = []
        self._queue_bytes = 0
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"raft-link-{member}")

    def send(self, data: bytes) -> None:
        if len(self._queue) >= QUEUE_LETTERS_MAX or self._queue_bytes + len(data) > QUEUE_BYTES_MAX:
            self._lose()
            return
        self._queue.append(data)
        self._queue_bytes += len(data)
        self._wake.set()

    def _lose(self) -> None:
        self._queue, self._queue_bytes = [], 0
        self._inbox.unreachable(self._member)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.channel.close(None)

    def abandon(self) -> None:
        """Lets go of a member that left or moved."""
        self._task.cancel()
        self._task.add_done_callback(lambda _: asyncio.ensure_future(self.channel.close(None)))

    async def _run(self) -> None:
        pause_s = RETRY_MIN_S
        while True:
            try:
                await self._stream()
                pause_s = RETRY_MIN_S
            except grpc.aio.AioRpcError as error:
                self._take_refusal(error)
            except asyncio.InvalidStateError:
                logger.debug("raft link to %s ended", self.address)
            self._lose()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MAX_S)

    def _take_refusal(self, error: grpc.aio.AioRpcError) -> None:
        is_foreign = error.code() is grpc.StatusCode.PERMISSION_DENIED
        logger.log(logging.WARNING if is_foreign else logging.DEBUG, "link to %s: %s", self.address, error.details())
        metadata: Any = error.trailing_metadata()
        for key, applied in metadata or ():
            if key == _APPLIED and str(applied).isdecimal():
                self._inbox.removed(int(applied))

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a call says about its caller."""
        return (*self._introduction, (_CLUSTER, f"{self._inbox.cluster:x}"))

    async def _stream(self) -> None:
        """Writes letters until the stream breaks."""
        call = raft_pb2_grpc.PeerStub(self.channel).Deliver(metadata=self.metadata)
        call.add_done_callback(lambda _: self._wake.set())
        try:
            while not call.done():
                await self._wake.wait()
                self._wake.clear()
                if self._queue and not call.done():
                    letters, self._queue, self._queue_bytes = self._queue, [], 0
                    await call.write(raft_pb2.Letters(letters=letters))
            await call
        finally:
            call.cancel()


class PeerServicer(raft_pb2_grpc.PeerServicer):
    """Hands what other members send to this one.

    Args:
        meet: told which member calls, and where it is.
    """

    def __init__(self, member_id: int, inbox: Inbox, meet: Callable[[int, str], None] | None = None) -> None:
        self._member_id, self._inbox, self._meet = member_id, inbox, meet

    async def Deliver(self, requests: AsyncIterator[raft_pb2.Letters], context: Context) -> raft_pb2.Delivered:
        await self._check_cluster(context)
        told = dict(context.invocation_metadata() or ())
        if self._meet is not None and _ADDRESS in told and str(told.get(_MEMBER, "")).isdecimal():
            self._meet(int(told[_MEMBER]), str(told[_ADDRESS]))
        async for batch in requests:
            for data in batch.letters:
                letter = await self._open(data, context)
                if isinstance(letter, Message) and letter.kind in _VOTES:
                    await self._check_member(letter.sender, context)
                self._inbox.receive(letter)
        return raft_pb2.Delivered()

    async def Install(self, requests: AsyncIterator[raft_pb2.Block], context: Context) -> raft_pb2.Installed:
        await self._check_cluster(context)
        message: Letter | None = None
        blocks: list[bytes] = []
        async for block in requests:
            if message is None:
                message = await self._open(block.message, context)
            else:
                blocks.append(block.data)
        if not isinstance(message, Message):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the stream announces no snapshot")
        try:
            state = await asyncio.to_thread(decode, blocks)
        except SnapshotDamaged as error:
            await context.abort(grpc.StatusCode.DATA_LOSS, str(error))
        self._inbox.receive_snapshot(message, state)
        return raft_pb2.Installed()

    async def _check_cluster(self, context: Context) -> None:
        """Refuses members of another group: one that was restored from a backup, or one that got a wrong address."""
        told = dict(context.invocation_metadata() or ()).get(_CLUSTER, "0")
        own = f"{self._inbox.cluster:x}"
        if "0" not in (told, own) and told != own:
            words = f"store member {self._member_id} belongs to the group {own}, not to {told}"
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, words)

    async def _check_member(self, sender: int, context: Context) -> None:
        """Tells a member that asks for votes when it belongs to the group no longer."""
        if sender not in self._inbox.config.members:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"member {sender} does not belong to the group",
                trailing_metadata=((_APPLIED, str(self._inbox.applied)),),
            )

    async def _open(self, data: bytes, context: Context) -> Letter:
        try:
            letter = decode_letter(data)
        except msgspec.DecodeError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a letter between members: {error}")
        if letter.to != self._member_id:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION, f"this is member {self._member_id}, not {letter.to}"
            )
        return letter
