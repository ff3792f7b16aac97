"""The network between simulated members: it loses, delays, repeats and reorders letters, breaks snapshots in the
middle, and parts members in one direction or both. As the real one does, it tells a member sometimes that its letters
were lost, and one that asks for votes that it belongs to the group no longer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tests.sim.faults import Fault, Faults

from steersman.actors.store.transport import Inbox, Letter, decode_letter, encode_letter
from steersman.cluster.raft.values import Message, MessageKind
from steersman.cluster.store.snapshot import SnapshotDamaged, decode

if TYPE_CHECKING:
    from tests.sim.process import Process


#: the longest way of a letter in peace
DELAY_S = 0.003
#: share of the lost letters of which the sender is told
TOLD = 0.2
_VOTES = (MessageKind.PRE_VOTE, MessageKind.VOTE)


class Network:
    """Joins the members.

    Attributes:
        loss, repeats: share of the letters.
        delay_s: the longest way of a letter; each takes its own time, so that letters overtake each other.
        blocks: of a snapshot, after which its stream breaks; None for no such.
        cut: pairs (from, to) between which nothing passes.
    """

    def __init__(self, rng: random.Random, faults: Faults) -> None:
        self._rng, self._faults = rng, faults
        self.loss, self.repeats, self.delay_s = 0.0, 0.0, DELAY_S
        self.blocks: int | None = None
        self.cut: set[tuple[int, int]] = set()
        #: carried so far
        self.letters = 0
        self._homes: dict[int, tuple[Process, Inbox]] = {}
        #: number of the newest letter that has arrived, by its way
        self._arrived: dict[tuple[int, int], int] = {}

    def transport(self, member: int, process: Process) -> _Transport:
        return _Transport(self, member, process)

    def isolate(self, member: int, others: Iterable[int], *, inward: bool = True, outward: bool = True) -> None:
        for other in others:
            if other != member:
                self.cut |= {(other, member)} if inward else set()
                self.cut |= {(member, other)} if outward else set()

    def heal(self) -> None:
        self.cut.clear()
        self.loss, self.repeats, self.delay_s = 0.0, 0.0, DELAY_S
        self.blocks = None

    def join(self, member: int, process: Process, inbox: Inbox) -> None:
        self._homes[member] = (process, inbox)

    def passes(self, sender: int, to: int) -> bool:
        if (sender, to) in self.cut:
            self._faults[Fault.CUT_BOTH_WAYS if (to, sender) in self.cut else Fault.CUT_ONE_WAY] += 1
            return False
        if self._rng.random() < self.loss:
            self._faults[Fault.LETTER_LOST] += 1
            return False
        return True

    def delay(self) -> float:
        delay_s = self._rng.uniform(0.0002, self.delay_s)
        self._faults[Fault.LETTER_LATE] += delay_s > 3 * DELAY_S
        return delay_s

    def home(self, member: int) -> tuple[Process, Inbox] | None:
        home = self._homes.get(member)
        return home if home is not None and home[0].alive else None

    def send(self, sender: Process, letter: Letter) -> None:
        if not self.passes(letter.sender, letter.to):
            if self._rng.random() < TOLD:
                self._faults[Fault.LOSS_TOLD] += 1
                sender.world.call_later(self.delay(), self._tell_of_loss, sender, letter)
            return
        self.letters += 1
        data = encode_letter(letter)
        sender.world.call_later(self.delay(), self._arrive, data, self.letters)
        if self._rng.random() < self.repeats:
            sender.world.call_later(3 * self.delay(), self._arrive, data, self.letters)

    def _tell_of_loss(self, sender: Process, letter: Letter) -> None:
        home = self.home(letter.sender)
        if home is not None and home[0] is sender:
            sender.call_soon(home[1].unreachable, letter.to)

    def _arrive(self, data: bytes, number: int) -> None:
        letter = decode_letter(data)
        home, way = self.home(letter.to), (letter.sender, letter.to)
        if home is None or way in self.cut:
            return
        newest = self._arrived.get(way, 0)
        if number != newest:
            self._arrived[way] = max(newest, number)
            self._faults[Fault.LETTER_OVERTAKEN] += number < newest
        else:
            self._faults[Fault.LETTER_REPEATED] += 1
        process, inbox = home
        if isinstance(letter, Message) and letter.kind in _VOTES and letter.sender not in inbox.config.members:
            process.world.call_later(self.delay(), self._tell_of_removal, letter, inbox.applied)
        else:
            process.call_soon(inbox.receive, letter)

    def _tell_of_removal(self, letter: Message, applied: int) -> None:
        home = self.home(letter.sender)
        if home is not None and self.passes(letter.to, letter.sender):
            self._faults[Fault.REMOVAL_TOLD] += 1
            home[0].call_soon(home[1].removed, applied)

    def snapshot_broke(self) -> None:
        self._faults[Fault.SNAPSHOT_BROKEN] += 1

    def arrive_snapshot(self, letter: bytes, blocks: list[bytes]) -> None:
        message = decode_letter(letter)
        assert isinstance(message, Message)
        home = self.home(message.to)
        if home is None:
            raise ConnectionResetError(f"member {message.to} cannot be reached")
        process, inbox = home
        try:
            state = decode(blocks)
        except SnapshotDamaged as error:
            raise OSError(str(error)) from None
        process.call_soon(inbox.receive_snapshot, message, state)


class _Transport:
    """One member's end; implements the store's `Transport`."""

    def __init__(self, network: Network, member: int, process: Process) -> None:
        self._network, self._member, self._process = network, member, process

    async def start(self, inbox: Inbox) -> None:
        self._network.join(self._member, self._process, inbox)

    async def stop(self) -> None:
        """Nothing to let go."""

    def connect(self, addresses: Mapping[int, str]) -> None:
        """Everybody can be reached by number."""

    def send(self, letter: Letter) -> None:
        if self._process.alive and self._process.reaches("letter"):
            self._network.send(self._process, letter)

    async def send_snapshot(self, message: Message, blocks: Iterable[bytes]) -> None:
        """Sends block by block; each of them may be the last that arrives."""
        sent = []
        for block in blocks:
            await asyncio.sleep(self._network.delay())
            if len(sent) == self._network.blocks or not self._network.passes(self._member, message.to):
                self._network.snapshot_broke()
                # the other side must not take what it got for the whole
                self._network.arrive_snapshot(encode_letter(message), sent)
                raise ConnectionResetError(f"the stream to member {message.to} broke")
            sent.append(block)
        self._network.arrive_snapshot(encode_letter(message), sent)
