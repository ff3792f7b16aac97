"""The wire between the members of the store's group: letters on long-lived streams, snapshots on their own."""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

import msgspec
from google.protobuf.message import DecodeError
from grpc import StatusCode

from steersman.actors.rpc.h2.calls import Call as Context
from steersman.actors.rpc.h2.client import Channel
from steersman.actors.rpc.h2.exchange import Exchange
from steersman.actors.rpc.h2.heads import AnswerHead, Metadata, RequestHead
from steersman.actors.rpc.h2.link import Link
from steersman.actors.rpc.h2.outgoing import CallFailed, OutgoingCall, PulledCall
from steersman.actors.rpc.h2.outlet import Stream
from steersman.actors.rpc.h2.server import Server
from steersman.actors.store.transport import Inbox, Letter, decode_letter, encode_letter
from steersman.cluster.raft.values import Message, MessageKind
from steersman.cluster.store.snapshot import SnapshotDamaged, decode
from steersman.pb import raft_pb2, raft_pb2_grpc

logger = logging.getLogger(__name__)

#: letters that wait for one member; more are dropped, which the consensus core makes good
QUEUE_LETTERS_MAX = 4096
QUEUE_BYTES_MAX = 64 << 20
#: of letters in one message
BATCH_BYTES = 1 << 20
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
_DELIVER, _INSTALL = "/steersman.raft.v1.Peer/Deliver", "/steersman.raft.v1.Peer/Install"


class GrpcTransport:
    """Sends letters to the other members; what comes in is handed over by `add_peer_service`.

    A member that has been away may not know the present leader: whoever calls says who and where it is, and is answered
    there.

    Args:
        member_id: of the member that sends.
        address: where it is called itself; empty where all members know each other.
        tls: with this member's certificate; None for plain text (tests on loopback).
        server_name: the name in the members' certificates where they carry no addresses.
    """

    def __init__(
        self,
        member_id: int,
        tls: ssl.SSLContext | None = None,
        *,
        address: str = "",
        server_name: str = "",
    ) -> None:
        self._member_id, self._tls, self._server_name = member_id, tls, server_name
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
                channel = Channel(address, self._tls, server_name=self._server_name)
                self._links[member] = _Link(member, address, channel, self._inbox, self._introduction())

    def _introduction(self) -> Metadata:
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
            call = await link.channel.open(_INSTALL, PulledCall, link.metadata)
            try:
                await call.write(raft_pb2.Block(message=encode_letter(message)).SerializeToString())
                for data in blocks:
                    await call.write(raft_pb2.Block(data=data).SerializeToString())
                    await asyncio.sleep(0)
                call.end()
                while await call.read() is not None:
                    """The member says that it has installed the snapshot, then that the call ended well."""
            finally:
                call.cancel()
        except CallFailed as error:
            raise OSError(f"{link.address}: {error.words}") from None


class _Delivery(OutgoingCall):
    """The stream of letters to one member, while it lasts."""

    def __init__(self, link: Link, stream: Stream) -> None:
        super().__init__(link, stream)
        self.outcome: asyncio.Future[AnswerHead] = link.loop.create_future()

    def received(self, data: bytes) -> None:
        """Nothing is answered before the end."""

    def closed(self, outcome: AnswerHead) -> None:
        self.outcome.set_result(outcome)


class _Link:
    """What goes to one member: letters on a stream that is opened again and again."""

    def __init__(self, member: int, address: str, channel: Channel, inbox: Inbox, introduction: Metadata) -> None:
        self.address, self.channel = address, channel
        self._member, self._inbox, self._introduction = member, inbox, introduction
        self._delivery: _Delivery | None = None
        #: letters that go out with the end of this turn of the loop, or when the member is reached
        self._queue: list[bytes] = []
        self._queue_bytes = 0
        self._task = asyncio.create_task(self._run(), name=f"raft-link-{member}")

    def send(self, data: bytes) -> None:
        delivery = self._delivery
        waiting_bytes = self._queue_bytes + (delivery.waiting_bytes if delivery is not None else 0)
        if len(self._queue) >= QUEUE_LETTERS_MAX or waiting_bytes + len(data) > QUEUE_BYTES_MAX:
            self._lose()
            return
        if delivery is not None and not self._queue:
            delivery.write_soon(self._write)
        self._queue.append(data)
        self._queue_bytes += len(data)

    def _write(self) -> None:
        delivery = self._delivery
        if delivery is not None:
            for letters in _batches(self._queue):
                delivery.send(raft_pb2.Letters(letters=letters).SerializeToString())
            self._queue, self._queue_bytes = [], 0

    def _lose(self) -> None:
        self._queue, self._queue_bytes = [], 0
        self._inbox.unreachable(self._member)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.channel.close()

    def abandon(self) -> None:
        """Lets go of a member that left or moved."""
        self._task.cancel()
        self._task.add_done_callback(lambda _: asyncio.ensure_future(self.channel.close()))

    async def _run(self) -> None:
        pause_s = RETRY_MIN_S
        while True:
            try:
                outcome = await self._deliver()
                pause_s = RETRY_MIN_S
                self._take_refusal(outcome)
            except CallFailed as error:
                logger.debug("link to %s: %s", self.address, error)
            self._lose()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MAX_S)

    def _take_refusal(self, outcome: AnswerHead) -> None:
        is_foreign = outcome.code is StatusCode.PERMISSION_DENIED
        logger.log(logging.WARNING if is_foreign else logging.DEBUG, "link to %s: %s", self.address, outcome.words)
        for key, applied in outcome.metadata:
            if key == _APPLIED and str(applied).isdecimal():
                self._inbox.removed(int(applied))

    @property
    def metadata(self) -> Metadata:
        """What a call says about its caller."""
        return (*self._introduction, (_CLUSTER, f"{self._inbox.cluster:x}"))

    async def _deliver(self) -> AnswerHead:
        """Returns how the stream ended; raises CallFailed when there is none."""
        delivery = await self.channel.open(_DELIVER, _Delivery, self.metadata)
        self._delivery = delivery
        try:
            self._write()
            return await delivery.outcome
        finally:
            self._delivery = None
            delivery.cancel()


def _batches(letters: list[bytes]) -> Iterable[list[bytes]]:
    """Parts letters into messages of about `BATCH_BYTES`."""
    batch: list[bytes] = []
    size_bytes = 0
    for letter in letters:
        batch.append(letter)
        size_bytes += len(letter)
        if size_bytes >= BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch


def add_peer_service(server: Server, inbox: Inbox, meet: Callable[[int, str], None] | None) -> None:
    """Hands what other members send to this one.

    Args:
        meet: told which member calls, and where it is.
    """
    raft_pb2_grpc.add_PeerServicer_to_server(_Installer(inbox), server)
    server.add_exchange(_DELIVER, functools.partial(_Deliveries, inbox, meet))


class _Refused(Exception):
    """Another member may not do what it wants."""

    def __init__(self, code: StatusCode, words: str, metadata: Metadata = ()) -> None:
        super().__init__(code, words)
        self.code, self.words, self.metadata = code, words, metadata


class _Deliveries(Exchange):
    """The letters of one member."""

    __slots__ = ("_inbox",)

    def __init__(
        self,
        inbox: Inbox,
        meet: Callable[[int, str], None] | None,
        link: Link,
        stream: Stream,
        head: RequestHead,
    ) -> None:
        super().__init__(link, stream, head)
        self._inbox = inbox
        try:
            _check_cluster(inbox, head.metadata)
        except _Refused as error:
            self.finish(error.code, error.words)
            return
        told = dict(head.metadata)
        if meet is not None and _ADDRESS in told and str(told.get(_MEMBER, "")).isdecimal():
            meet(int(told[_MEMBER]), str(told[_ADDRESS]))

    def received(self, data: bytes) -> None:
        try:
            for letter in _letters(data):
                self._take(_open(letter, self._inbox))
        except _Refused as error:
            self.finish(error.code, error.words, error.metadata)

    def _take(self, letter: Letter) -> None:
        """Hands a letter over; a member that asks for votes is told when it belongs to the group no longer."""
        inbox = self._inbox
        if isinstance(letter, Message) and letter.kind in _VOTES and letter.sender not in inbox.config.members:
            words = f"member {letter.sender} does not belong to the group"
            raise _Refused(StatusCode.NOT_FOUND, words, ((_APPLIED, str(inbox.applied)),))
        inbox.receive(letter)

    def ended(self) -> None:
        self.send(raft_pb2.Delivered().SerializeToString())
        self.finish()


class _Installer(raft_pb2_grpc.PeerServicer):
    """Takes snapshots."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    async def Install(self, requests: AsyncIterator[raft_pb2.Block], context: Context) -> raft_pb2.Installed:
        try:
            return await self._install(requests, context.invocation_metadata())
        except _Refused as error:
            await context.abort(error.code, error.words)

    async def _install(self, requests: AsyncIterator[raft_pb2.Block], metadata: Metadata) -> raft_pb2.Installed:
        _check_cluster(self._inbox, metadata)
        message: Letter | None = None
        blocks: list[bytes] = []
        async for block in requests:
            if message is None:
                message = _open(block.message, self._inbox)
            else:
                blocks.append(block.data)
        if not isinstance(message, Message):
            raise _Refused(StatusCode.INVALID_ARGUMENT, "the stream announces no snapshot")
        try:
            state = await asyncio.to_thread(decode, blocks)
        except SnapshotDamaged as error:
            raise _Refused(StatusCode.DATA_LOSS, str(error)) from None
        self._inbox.receive_snapshot(message, state)
        return raft_pb2.Installed()


def _check_cluster(inbox: Inbox, metadata: Metadata) -> None:
    """Refuses members of another group: one that was restored from a backup, or one that got a wrong address."""
    told = dict(metadata).get(_CLUSTER, "0")
    own = f"{inbox.cluster:x}"
    if "0" not in (told, own) and told != own:
        words = f"store member {inbox.member_id} belongs to the group {own}, not to {told!s}"
        raise _Refused(StatusCode.PERMISSION_DENIED, words)


def _letters(data: bytes) -> Sequence[bytes]:
    try:
        return raft_pb2.Letters.FromString(data).letters
    except DecodeError as error:
        raise _Refused(StatusCode.INVALID_ARGUMENT, f"not letters between members: {error}") from None


def _open(data: bytes, inbox: Inbox) -> Letter:
    try:
        letter = decode_letter(data)
    except msgspec.DecodeError as error:
        raise _Refused(StatusCode.INVALID_ARGUMENT, f"not a letter between members: {error}") from None
    if letter.to != inbox.member_id:
        words = f"this is member {inbox.member_id}, not {letter.to}"
        raise _Refused(StatusCode.FAILED_PRECONDITION, words)
    return letter
