"""The network between simulated members: it loses, delays, repeats and reorders letters, breaks snapshots in the
middle, and parts members in one direction or both."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from steersman.actors.store.transport import Inbox, Letter, decode_letter, encode_letter
from steersman.cluster.raft.values import Message
from steersman.cluster.store.snapshot import SnapshotDamaged, decode

if TYPE_CHECKING:
    from tests.sim.process import Process


class Network:
    """Joins the members.

    Attributes:
        loss, repeats: share of the letters.
        delay_s: the longest way of a letter; each takes its own time, so that letters overtake each other.
        cut: pairs (from, to) between which nothing passes.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.loss, self.repeats, self.delay_s = 0.0, 0.0, 0.003
        self.cut: set[tuple[int, int]] = set()
        #: carried so far
        self.letters = 0
        self._homes: dict[int, tuple[Process, Inbox]] = {}

    def transport(self, member: int, process: Process) -> _Transport:
        return _Transport(self, member, process)

    def isolate(self, member: int, others: Iterable[int], *, inward: bool = True, outward: bool = True) -> None:
        for other in others:
            if other != member:
                self.cut |= {(other, member)} if inward else set()
                self.cut |= {(member, other)} if outward else set()

    def heal(self) -> None:
        self.cut.clear()
        self.loss, self.repeats, self.delay_s = 0.0, 0.0, 0.003

    def join(self, member: int, process: Process, inbox: Inbox) -> None:
        self._homes[member] = (process, inbox)

    def passes(self, sender: int, to: int) -> bool:
        return (sender, to) not in self.cut and self._rng.random() >= self.loss

    def delay(self) -> float:
        return self._rng.uniform(0.0002, self.delay_s)

    def home(self, member: int) -> tuple[Process, Inbox] | None:
        home = self._homes.get(member)
        return home if home is not None and home[0].alive else None

    def send(self, sender: Process, letter: Letter) -> None:
        if not self.passes(letter.sender, letter.to):
            return
        self.letters += 1
        data = encode_letter(letter)
        sender.world.call_later(self.delay(), self._arrive, data)
        if self._rng.random() < self.repeats:
            sender.world.call_later(3 * self.delay(), self._arrive, data)

    def _arrive(self, data: bytes) -> None:
        letter = decode_letter(data)
        home = self.home(letter.to)
        if home is not None and (letter.sender, letter.to) not in self.cut:
            process, inbox = home
            process.call_soon(inbox.receive, letter)

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
        if self._process.alive:
            self._network.send(self._process, letter)

    async def send_snapshot(self, message: Message, blocks: Iterable[bytes]) -> None:
        """Sends block by block; each of them may be the last that arrives."""
        sent = []
        for block in blocks:
            await asyncio.sleep(self._network.delay())
            if not self._network.passes(self._member, message.to):
                # the stream ends early, and sometimes the other side has taken what it got for the whole
                self._network.arrive_snapshot(encode_letter(message), sent)
                raise ConnectionResetError(f"the stream to member {message.to} broke")
            sent.append(block)
        self._network.arrive_snapshot(encode_letter(message), sent)
