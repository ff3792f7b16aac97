"""A group of consensus cores on a desk: every message, crash and lost disk write is chosen by the test.

After each step the safety properties of the paper's figure 3 are checked over everything that has happened so far.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from steersman.cluster.raft.core import Raft
from steersman.cluster.raft.values import (
    Config,
    Entry,
    EntryKind,
    HardState,
    Message,
    MessageKind,
    Ready,
    SnapshotMeta,
    config_of,
)

ELECTION_TICKS = 10


class Member:
    """One member with its disk; what is not saved is lost in a crash."""

    def __init__(self, number: int, config: Config, rng: random.Random) -> None:
        self.number, self.rng = number, rng
        self.hard_state = HardState()
        self.snapshot = SnapshotMeta(config=config)
        self.entries: list[Entry] = []
        self.applied: list[Entry] = []
        self.reads: list[tuple[int, int]] = []
        self.unsaved: list[Ready] = []
        self.core: Raft | None = None
        self.start()

    def start(self) -> None:
        self.applied = [entry for entry in self.applied if entry.index <= self.snapshot.index]
        self.core = Raft(
            self.number,
            self.snapshot.config,
            hard_state=self.hard_state,
            snapshot=self.snapshot,
            entries=self.entries,
            election_ticks=ELECTION_TICKS,
            heartbeat_ticks=1,
            jitter=self.rng.randrange,
        )

    def crash(self) -> None:
        self.core = None
        self.unsaved.clear()

    def save(self, ready: Ready) -> None:
        if ready.snapshot is not None:
            self.snapshot, self.entries = ready.snapshot, []
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state
        if ready.entries:
            first = ready.entries[0].index
            self.entries = [entry for entry in self.entries if entry.index < first] + list(ready.entries)


class Group:
    """Args: saves_at_once: every disk write is durable immediately; otherwise `save` makes one so."""

    def __init__(self, members: int = 3, *, seed: int = 1, saves_at_once: bool = True) -> None:
        self.rng = random.Random(seed)
        self.saves_at_once = saves_at_once
        self.config = config_of({number: f"m{number}" for number in range(1, members + 1)})
        self.members = {number: Member(number, self.config, self.rng) for number in self.config.voters}
        self.wire: list[Message] = []
        self.cut: set[tuple[int, int]] = set()
        #: what was ever applied at an index, by anybody
        self.committed: dict[int, tuple[int, bytes]] = {}
        self.leaders: dict[int, int] = {}

    def __getitem__(self, number: int) -> Raft:
        core = self.members[number].core
        assert core is not None
        return core

    @property
    def alive(self) -> list[Member]:
        return [member for member in self.members.values() if member.core is not None]

    def leader(self) -> int:
        """The leader of the highest term; 0 for none."""
        leading = [(m.core.term, m.number) for m in self.alive if m.core is not None and m.core.is_leader]
        return max(leading, default=(0, 0))[1]

    # steps

    def drain(self, member: Member) -> None:
        """Carries out what a core hands out."""
        while member.core is not None and (ready := member.core.ready()) is not None:
            self.wire += ready.messages
            member.unsaved.append(ready)
            self.apply(member, ready)
            if self.saves_at_once:
                self.save(member)
        self.check()

    def save(self, member: Member, count: int = 1 << 30) -> None:
        """Makes the oldest disk writes durable and lets the answers that depended on them go."""
        for ready in member.unsaved[:count]:
            member.save(ready)
            if ready.entries and member.core is not None:
                member.core.persisted(ready.entries[-1].index, ready.entries[-1].term)
            self.wire += ready.replies
        del member.unsaved[:count]

    def apply(self, member: Member, ready: Ready) -> None:
        member.reads += ready.reads
        if ready.snapshot is not None:
            member.applied = [
                Entry(index, *row) for index, row in sorted(self.committed.items()) if index <= ready.snapshot.index
            ]
        for entry in ready.committed:
            assert entry.index == (member.applied[-1].index if member.applied else 0) + 1
            member.applied.append(entry)
            known = self.committed.setdefault(entry.index, (entry.term, entry.data))
            assert known == (entry.term, entry.data), f"two values were committed at {entry.index}"

    def check(self) -> None:
        for member in self.alive:
            core = member.core
            assert core is not None
            if core.is_leader:
                assert self.leaders.setdefault(core.term, core.member) == core.member, "two leaders in one term"
            assert core.log.applied <= core.log.committed <= core.log.last

    def deliver(self, wanted: Callable[[Message], bool] = lambda _: True) -> None:
        """Delivers messages, and what follows from them, until none of the wanted ones is left."""
        for member in self.alive:
            self.drain(member)
        for _ in range(100_000):
            position = next((i for i, message in enumerate(self.wire) if wanted(message)), None)
            if position is None:
                return
            self.arrive(self.wire.pop(position))
        raise AssertionError("the group does not come to rest")

    def arrive(self, message: Message) -> None:
        member = self.members.get(message.to)
        if member is None or member.core is None or (message.sender, message.to) in self.cut:
            return
        if message.kind is MessageKind.SNAPSHOT:
            message = self.filled(message)
        member.core.step(message)
        self.drain(member)

    def filled(self, message: Message) -> Message:
        sender = self.members[message.sender].core
        if message.snapshot is not None or sender is None:
            return message
        index = sender.log.applied
        meta = SnapshotMeta(index, sender.log.term(index) or 0, sender.config)
        return Message(kind=message.kind, sender=message.sender, to=message.to, term=message.term, snapshot=meta)

    # what tests say

    def tick(self, number: int, times: int = 1) -> None:
        for _ in range(times):
            self[number].tick()
            self.drain(self.members[number])

    def elect(self, number: int) -> None:
        self[number].campaign()
        self.deliver()
        assert self.leader() == number

    def run(self, *numbers: int, wanted: Callable[[Message], bool] = lambda _: True) -> int:
        """Lets time pass for some members until one of them leads; returns it."""
        for _ in range(40 * ELECTION_TICKS):
            for number in numbers:
                self.tick(number)
            self.deliver(wanted)
            leading = [number for number in numbers if self[number].is_leader]
            if leading and self.leader() == leading[0]:
                return leading[0]
        raise AssertionError("nobody was elected")

    def propose(self, number: int, *data: str) -> bool:
        taken = self[number].propose([text.encode() for text in data])
        self.drain(self.members[number])
        return taken

    def isolate(self, number: int) -> None:
        for other in self.members:
            self.cut |= {(number, other), (other, number)}

    def heal(self) -> None:
        self.cut.clear()

    def crash(self, number: int) -> None:
        self.members[number].crash()
        self.wire = [message for message in self.wire if message.sender != number]

    def restart(self, number: int) -> None:
        self.members[number].start()

    def compact(self, number: int) -> None:
        """Takes a snapshot of what a member has applied."""
        member, core = self.members[number], self[number]
        index = core.log.applied
        member.snapshot = SnapshotMeta(index, core.log.term(index) or 0, core.config)
        member.entries = [entry for entry in member.entries if entry.index > index]
        core.compact(index)

    def data(self, number: int) -> list[str]:
        """The commands a member has applied."""
        return [e.data.decode() for e in self.members[number].applied if e.data and e.kind is EntryKind.COMMAND]


@pytest.fixture
def group() -> type[Group]:
    return Group
