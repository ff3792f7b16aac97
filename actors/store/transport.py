"""How replicas reach each other, as a port; and the network inside one process, for tests and embedded groups."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec
from msgspec import Struct

from steersman.cluster.raft.values import Config, ConfigChange, Message
from steersman.cluster.store.snapshot import Capture, decode
from steersman.cluster.store.snapshot import encode as encode_snapshot


class LeaseAsk(Struct, frozen=True, array_like=True, tag=2):
    """Asks the leader about a lease; with `renew` its time starts again."""

    sender: int
    to: int
    request: int
    lease: int
    renew: bool


class LeaseAnswer(Struct, frozen=True, array_like=True, tag=3):
    """Args: ttl_ms: what is left of the lease; -1 when there is none; -2 when the member asked does not lead."""

    sender: int
    to: int
    request: int
    ttl_ms: int


class Greeting(Struct, frozen=True, array_like=True, tag=4):
    """What a new member says to the others, and what they answer (`founding.py`).

    Args:
        known: the incarnation of the receiver with which the sender was founded; 0 for none.
        applied: the entry up to which the sender knows the group.
        config: of the group; None from a member that is new itself.
    """

    sender: int
    to: int
    incarnation: int
    known: int = 0
    applied: int = 0
    config: Config | None = None


class ChangeAsk(Struct, frozen=True, array_like=True, tag=5):
    """Asks the leader to change the group."""

    sender: int
    to: int
    request: int
    change: ConfigChange


class ChangeAnswer(Struct, frozen=True, array_like=True, tag=6):
    """Args: refusal: the kind of refusal; empty when the change is made."""

    sender: int
    to: int
    request: int
    refusal: str
    words: str


#: what travels between two replicas
Letter = Message | LeaseAsk | LeaseAnswer | Greeting | ChangeAsk | ChangeAnswer

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Letter] = msgspec.msgpack.Decoder(Letter)


def encode_letter(letter: Letter) -> bytes:
    return _encoder.encode(letter)


def decode_letter(data: bytes) -> Letter:
    return _decoder.decode(data)


class Inbox(Protocol):
    """A replica as its transport sees it."""

    @property
    def member_id(self) -> int: ...
    @property
    def config(self) -> Config:
        """The group as this member knows it."""
        ...

    @property
    def cluster(self) -> int:
        """Id of the group; 0 while this member takes no part in it yet."""
        ...

    @property
    def applied(self) -> int:
        """The entry of the log up to which `config` is right."""
        ...

    def receive(self, letter: Letter) -> None: ...
    def receive_snapshot(self, message: Message, state: Capture) -> None: ...
    def unreachable(self, member: int) -> None:
        """Letters to a member were lost."""
        ...

    def removed(self, applied: int) -> None:
        """Another member says that this one does not belong to the group at the entry `applied`."""
        ...


class Transport(Protocol):
    """Carries letters to other members, in order; any of them may be lost."""

    async def start(self, inbox: Inbox) -> None: ...
    async def stop(self) -> None: ...
    def send(self, letter: Letter) -> None: ...
    def connect(self, addresses: Mapping[int, str]) -> None:
        """Names the present members and where they are."""
        ...

    async def send_snapshot(self, message: Message, blocks: Iterable[bytes]) -> None:
        """Returns when the member has taken the snapshot; raises OSError when it has not."""
        ...


class MemoryNetwork:
    """Joins the replicas of one process; `cut` parts them.

    Attributes:
        delay_s: how long a letter travels.
    """

    def __init__(self, delay_s: float = 0.001) -> None:
        self.delay_s = delay_s
        self._inboxes: dict[int, Inbox] = {}
        self._cut: set[tuple[int, int]] = set()

    def transport(self, member: int) -> Transport:
        return _MemoryTransport(self, member)

    def cut(self, member: int, other: int) -> None:
        """Loses every letter between two members from now on."""
        self._cut |= {(member, other), (other, member)}

    def isolate(self, member: int) -> None:
        for other in self._inboxes:
            self.cut(member, other)

    def heal(self) -> None:
        self._cut.clear()

    def join(self, member: int, inbox: Inbox) -> None:
        self._inboxes[member] = inbox

    def leave(self, member: int) -> None:
        self._inboxes.pop(member, None)

    def deliver(self, letter: Letter) -> None:
        asyncio.get_running_loop().call_later(self.delay_s, self._arrive, encode_letter(letter))

    def _arrive(self, data: bytes) -> None:
        letter = decode_letter(data)
        inbox = self._inboxes.get(letter.to)
        if inbox is not None and (letter.sender, letter.to) not in self._cut:
            inbox.receive(letter)

    def deliver_snapshot(self, message: Message, blocks: list[bytes]) -> None:
        inbox = self._inboxes.get(message.to)
        if inbox is None or (message.sender, message.to) in self._cut:
            raise OSError(f"member {message.to} cannot be reached")
        inbox.receive_snapshot(message, decode(blocks))


class _MemoryTransport:
    def __init__(self, network: MemoryNetwork, member: int) -> None:
        self._network, self._member = network, member

    async def start(self, inbox: Inbox) -> None:
        self._network.join(self._member, inbox)

    async def stop(self) -> None:
        self._network.leave(self._member)

    def send(self, letter: Letter) -> None:
        self._network.deliver(letter)

    def connect(self, addresses: Mapping[int, str]) -> None:
        """Everybody of the process is reachable already."""

    async def send_snapshot(self, message: Message, blocks: Iterable[bytes]) -> None:
        await asyncio.sleep(self._network.delay_s)
        self._network.deliver_snapshot(message, list(blocks))


def snapshot_blocks(state: Capture) -> Iterable[bytes]:
    """The blocks in which a state travels."""
    return encode_snapshot(state)
