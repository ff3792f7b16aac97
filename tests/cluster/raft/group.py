"""A group of consensus cores on a desk: every message, crash, pause and lost disk write is chosen by the test.

After each step the safety properties of the paper's figure 3, and some more, are checked over everything that has
happened so far: `Witness` remembers it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from unittest import mock

import msgspec

from steersman.cluster.raft import leadership, membership
from steersman.cluster.raft.core import Raft
from steersman.cluster.raft.values import (
    Config,
    ConfigChange,
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
TICK_S = 0.05


class Member:
    """One member with its disk; what is not saved is lost in a crash."""

    def __init__(self, number: int, config: Config) -> None:
        self.number = number
        self.hard_state = HardState()
        self.snapshot = SnapshotMeta(config=config)
        self.entries: list[Entry] = []
        self.applied: list[Entry] = []
        self.reads: list[tuple[int, int]] = []
        #: of its forwarded proposals, by their number
        self.refused: list[int] = []
        self.unsaved: list[Ready] = []
        self.core: Raft | None = None
        self.is_paused = False
        self.commit_seen = 0

    def save(self, ready: Ready) -> None:
        if ready.snapshot is not None:
            assert not ready.entries, "a snapshot comes by itself"
            self.snapshot, self.entries = ready.snapshot, []
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state
        if ready.entries:
            first = ready.entries[0].index
            while self.entries and self.entries[-1].index >= first:
                self.entries.pop()
            self.entries += ready.entries

    def holds(self, entry: Entry) -> bool:
        """Whether an entry, or a snapshot that covers it, is on this disk."""
        if entry.index <= self.snapshot.index:
            return True
        position = entry.index - self.snapshot.index - 1
        return position < len(self.entries) and self.entries[position].term == entry.term


class Witness:
    """Remembers all that a group did, and refuses what no group may do."""

    def __init__(self, config: Config) -> None:
        #: as the committed changes made them, the newest last
        self.configs = [config]
        self.leaders: dict[int, int] = {}
        self.votes: dict[tuple[int, int], int] = {}
        #: (index, term) of every entry ever in a log to (data, term of the entry before)
        self.entries: dict[tuple[int, int], tuple[bytes, int | None]] = {}
        #: what was applied at each index, by anybody
        self.committed: dict[int, Entry] = {}
        #: applied; every proposal of a test is another one
        self.commands: set[bytes] = set()
        self.commit_max = 0
        #: (member, read) to the highest index that was committed when it was asked
        self.floors: dict[tuple[int, int], int] = {}

    def handed_out(self, member: Member, core: Raft, ready: Ready) -> None:
        before = core.log.term(ready.entries[0].index - 1) if ready.entries else None
        for entry in ready.entries:
            known = self.entries.setdefault((entry.index, entry.term), (entry.data, before))
            assert known[0] == entry.data and (None in (known[1], before) or known[1] == before), (
                f"log matching: two logs differ at or before {entry.index}, term {entry.term}"
            )
            before = entry.term
        if core.is_leader and any(entry.kind is EntryKind.CONFIG for entry in ready.entries):
            pending = core.log.between(max(self.commit_max + 1, core.log.start), core.log.last)
            assert sum(entry.kind is EntryKind.CONFIG for entry in pending) <= 1, "two membership changes overlap"
        assert ready.hard_state is None or ready.hard_state.term >= member.hard_state.term, "a term went back"
        for number, index in ready.reads:
            floor = self.floors.get((member.number, number), 0)
            assert index >= floor, f"a stale read: answered at {index}, {floor} was committed when it was asked"

    def leaves(self, reply: Message) -> None:
        if reply.kind is MessageKind.VOTE_REPLY and not reply.rejected:
            vote = self.votes.setdefault((reply.sender, reply.term), reply.to)
            assert vote == reply.to, f"member {reply.sender} voted twice in term {reply.term}"

    def applies(self, entry: Entry, members: Mapping[int, Member]) -> None:
        if entry.index in self.committed:
            assert self.committed[entry.index] == entry, (
                f"state machine safety: two values were committed at {entry.index}"
            )
            return
        # a leader may commit with the configuration before the last change, until it has applied that
        assert any(
            2 * sum(members[voter].holds(entry) for voter in config.voters if voter in members) > len(config.voters)
            for config in self.configs[-2:]
        ), f"entry {entry.index} was applied and no majority holds it durably"
        self.committed[entry.index] = entry
        if entry.kind is EntryKind.COMMAND and entry.data:
            assert entry.data not in self.commands, f"the command {entry.data!r} was applied twice"
            self.commands.add(entry.data)
        if entry.kind is EntryKind.CONFIG:
            change = msgspec.msgpack.decode(entry.data, type=ConfigChange)
            self.configs.append(membership.changed(self.configs[-1], change))

    def looks_at(self, member: Member, core: Raft) -> None:
        log = core.log
        assert log.applied <= log.committed <= log.last
        assert log.committed >= member.commit_seen, "a commit index went back"
        member.commit_seen = log.committed
        self.commit_max = max(self.commit_max, log.committed)
        if core.is_leader and core.term not in self.leaders:
            self.leaders[core.term] = core.member
            for index, entry in self.committed.items():
                assert index < log.start or log.term(index) == entry.term, (
                    f"leader completeness: {core.member} leads term {core.term} without entry {index}"
                )
        assert not core.is_leader or self.leaders[core.term] == core.member, f"two leaders in term {core.term}"


class Group:
    """Args:
    saves_at_once: every disk write is durable immediately; otherwise `save` makes one so.
    tells_at_once: leaders tell of a commit immediately; otherwise `tell` lets one do so.
    leases: leaders answer reads on a lease.
    raft: the class under test.
    """

    def __init__(
        self, members: int = 3, *, seed: int = 1, saves_at_once: bool = True, tells_at_once: bool = True,
        leases: bool = False, raft: type[Raft] = Raft,
    ) -> None:  # fmt: skip
        self.rng = random.Random(seed)
        self.saves_at_once, self.tells_at_once, self.leases, self._raft = saves_at_once, tells_at_once, leases, raft
        self.now = 1000.0
        #: how fast a member's clock goes; where it began nobody else knows
        self.rates: dict[int, float] = {}
        self.config = config_of({number: f"m{number}" for number in range(1, members + 1)})
        self.witness = Witness(self.config)
        self.wire: list[Message] = []
        self.cut: set[tuple[int, int]] = set()
        self.members = {number: Member(number, self.config) for number in self.config.voters}
        for number in self.members:
            self.restart(number)

    def __getitem__(self, number: int) -> Raft:
        core = self.members[number].core
        assert core is not None
        return core

    @property
    def alive(self) -> list[Member]:
        return [member for member in self.members.values() if member.core is not None]

    @property
    def committed(self) -> dict[int, Entry]:
        return self.witness.committed

    def clock(self, number: int) -> float:
        """What a member takes for the time."""
        return 7.0 * number + self.now * self.rates.get(number, 1.0)

    def leader(self) -> int:
        """The leader of the highest term; 0 for none."""
        leading = [(m.core.term, m.number) for m in self.alive if m.core is not None and m.core.is_leader]
        return max(leading, default=(0, 0))[1]

    # steps

    def drain(self, member: Member) -> None:
        """Carries out what a core hands out."""
        while member.core is not None:
            if self.tells_at_once and member.core.has_news:
                member.core.tell_commit(member.core.log.committed)
            ready = member.core.ready(self.clock(member.number))
            if ready is None:
                break
            self.witness.handed_out(member, member.core, ready)
            self.wire += ready.messages
            member.unsaved.append(ready)
            if self.saves_at_once:
                self.save(member)
            self.apply(member, ready)
        if member.core is not None:
            self.witness.looks_at(member, member.core)

    def save(self, member: Member, count: int = 1 << 30) -> None:
        """Makes the oldest disk writes durable and lets the answers that depended on them go."""
        done, member.unsaved = member.unsaved[:count], member.unsaved[count:]
        for ready in done:
            member.save(ready)
            if ready.entries and member.core is not None:
                member.core.persisted(ready.entries[-1].index, ready.entries[-1].term)
            for message in ready.replies:
                self.witness.leaves(message)
                if message.to != member.number:
                    self.wire.append(message)
                elif member.core is not None:
                    member.core.step(message, self.clock(member.number))

    def apply(self, member: Member, ready: Ready) -> None:
        core = member.core
        assert core is not None
        member.reads += ready.reads
        member.refused += ready.refused
        if ready.snapshot is not None:
            member.applied = [self.committed[index] for index in range(1, ready.snapshot.index + 1)]
        for entry in ready.committed:
            assert entry.index == (member.applied[-1].index if member.applied else 0) + 1, "applied out of order"
            member.applied.append(entry)
            self.witness.applies(entry, self.members)
        for message in ready.installs:
            index = core.log.applied
            meta = SnapshotMeta(index, core.log.term(index) or 0, core.config)
            self.wire.append(
                Message(kind=message.kind, sender=message.sender, to=message.to, term=message.term, snapshot=meta)
            )

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
            self.lose(message)
            return
        member.core.step(message, self.clock(member.number))
        self.drain(member)
        self._snapshot_sent(message, delivered=True)

    def lose(self, message: Message) -> None:
        """A message is gone; who sent a snapshot notices."""
        self._snapshot_sent(message, delivered=False)

    def _snapshot_sent(self, message: Message, *, delivered: bool) -> None:
        if message.kind is MessageKind.SNAPSHOT:
            sender = self.members[message.sender]
            if sender.core is not None:
                sender.core.snapshot_sent(message.to, delivered=delivered)
                self.drain(sender)

    # what tests say

    def tick(self, number: int, times: int = 1) -> None:
        """Lets time pass for everybody, of which only one member's ticks tell."""
        for _ in range(times):
            self.now += TICK_S
            self[number].tick(self.clock(number))
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

    def tell(self, number: int) -> None:
        self[number].tell_commit(self[number].log.committed)
        self.drain(self.members[number])

    def read(self, number: int, request: int) -> bool:
        self.witness.floors[number, request] = self.witness.commit_max
        taken = self[number].read_index(request, self.clock(number))
        self.drain(self.members[number])
        return taken

    def change(self, number: int, change: ConfigChange) -> bool:
        taken = self[number].propose_change(change)
        self.drain(self.members[number])
        return taken

    def add(self, number: int, config: Config | None = None) -> None:
        """Gets a machine ready that knows nothing of the group, or only how it was founded."""
        self.members[number] = Member(number, config or Config())
        self.restart(number)

    def isolate(self, number: int) -> None:
        for other in self.members:
            self.cut |= {(number, other), (other, number)}

    def heal(self) -> None:
        self.cut.clear()

    def crash(self, number: int) -> None:
        """The process is gone, with what it had not saved; what it had sent is still on its way."""
        member = self.members[number]
        member.core, member.is_paused = None, False
        member.unsaved.clear()
        member.refused.clear()

    def restart(self, number: int) -> None:
        member = self.members[number]
        member.applied = [entry for entry in member.applied if entry.index <= member.snapshot.index]
        member.commit_seen = 0
        member.core = self._raft(
            number,
            member.snapshot.config,
            hard_state=member.hard_state,
            snapshot=member.snapshot,
            entries=member.entries,
            election_ticks=ELECTION_TICKS,
            heartbeat_ticks=1,
            jitter=self.rng.randrange,
            lease_tick_s=TICK_S if self.leases else 0.0,
        )

    def compact(self, number: int) -> None:
        """Takes a snapshot of what a member has applied, and keeps no entry for those who lack it."""
        member, core = self.members[number], self[number]
        index = core.log.applied
        member.snapshot = SnapshotMeta(index, core.log.term(index) or 0, core.config)
        member.entries = [entry for entry in member.entries if entry.index > index]
        with mock.patch.object(leadership, "LAGGING_BYTES_MAX", 0):
            core.compact(index)

    def data(self, number: int) -> list[str]:
        """The commands a member has applied."""
        return [e.data.decode() for e in self.members[number].applied if e.data and e.kind is EntryKind.COMMAND]
