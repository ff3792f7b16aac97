"""A group under chance: lost, late, doubled and reordered messages, one-way cuts, slow disks, crashes, stopped
processes, membership changes, transfers and snapshots, while clients write and read.

Time is real to it: each member's ticks are at least `TICK_S` apart by its own clock and often late, messages take their
time, and a stopped member gets nothing done while the others' clocks go on. So leases are tested as they are meant.
"""

from __future__ import annotations

from tests.cluster.raft.group import TICK_S, Group, Member

from steersman.cluster.raft.core import Raft
from steersman.cluster.raft.membership import ChangeRefused
from steersman.cluster.raft.values import ChangeKind, ConfigChange

STEPS = 1200
#: clocks go too fast or too slow by so much
DRIFT = 0.04
#: members that join and leave beside the founders
STRANGERS = 2


class Story:
    """Args:
    seed: decides everything.
    raft: the class under test.
    """

    def __init__(self, seed: int, raft: type[Raft] = Raft, *, leases: bool | None = None) -> None:
        founders = 3 + 2 * (seed % 2)
        self.group = Group(
            founders, seed=seed, saves_at_once=False, tells_at_once=False,
            leases=seed % 4 < 2 if leases is None else leases, raft=raft,
        )  # fmt: skip
        self.rng = self.group.rng
        self.due = {number: self.group.now + self.rng.uniform(0, TICK_S) for number in self.group.members}
        self.group.rates = {number: self.rng.uniform(1 - DRIFT, 1 + DRIFT) for number in self.group.members}
        self.wakes: dict[int, float] = {}
        self.strangers = list(range(founders + 1, founders + 1 + STRANGERS))
        self.number = 0
        #: (member, number of the forwarding in its present life) to what it was
        self.forwarded: dict[tuple[int, int], str] = {}
        #: how rough this story is: in calm ones more gets done, in rough ones more goes wrong at once
        self.loss = self.rng.choice([0.0, 0.01, 0.05])
        self.trouble = self.rng.choice([0.01, 0.02, 0.04])

    def run(self) -> None:
        for _ in range(STEPS):
            self._step()
        self._recover()

    def _step(self) -> None:
        group, rng = self.group, self.rng
        roll = rng.random()
        awake = [member for member in group.alive if not member.is_paused]
        self._deliver_some()
        if awake and rng.random() < self.trouble:
            self._disturb(rng.choice(awake), rng.random())
        elif roll < 0.35:
            self._pass_time(rng.uniform(0, TICK_S / 2))
        elif roll < 0.70:
            for member in awake:
                if member.unsaved and rng.random() < 0.7:
                    group.save(member, 1 + rng.randrange(3))
                    group.drain(member)
        elif not awake:
            self._pass_time(TICK_S)
        elif roll < 0.85:
            self._propose(rng.choice(awake))
        else:
            leading = [member for member in awake if group[member.number].is_leader]
            self._read(rng.choice(leading if leading and rng.random() < 0.6 else awake).number)

    def _propose(self, member: Member) -> None:
        """Something new, or what a leader has not taken; that may be told twice."""
        assert member.core is not None
        self.number += 1
        refused = self.forwarded.pop((member.number, member.refused.pop()), "") if member.refused else ""
        text = refused or f"v{self.number}"
        self.group.propose(member.number, text)
        self.forwarded[member.number, member.core.forwards] = text

    def _read(self, number: int) -> None:
        self.number += 1
        self.group.read(number, self.number)

    def _deliver_some(self) -> None:
        group, rng = self.group, self.rng
        for _ in range(min(len(group.wire), rng.randrange(8))):
            message = group.wire.pop(rng.randrange(min(len(group.wire), 6)) if rng.random() < 0.3 else 0)
            if rng.random() < self.loss:
                group.lose(message)
                continue
            if rng.random() < self.loss:
                group.wire.append(message)
            receiver = group.members.get(message.to)
            if receiver is not None and receiver.is_paused:
                group.wire.append(message)
            else:
                group.arrive(message)
        while len(group.wire) > 300:
            group.lose(group.wire.pop(0))

    def _pass_time(self, seconds: float) -> None:
        group = self.group
        group.now += seconds
        for number, wake_at in list(self.wakes.items()):
            if wake_at <= group.now:
                del self.wakes[number]
                group.members[number].is_paused = False
                if group.members[number].core is not None:
                    self._read(number)  # by a client that has waited for it to go on
        for member in group.alive:
            if not member.is_paused and self.due.setdefault(member.number, group.now + TICK_S) <= group.now:
                assert member.core is not None
                self.due[member.number] = group.now + TICK_S / group.rates.get(member.number, 1.0)
                member.core.tick(group.clock(member.number))
                group.drain(member)
            if not member.is_paused and self.rng.random() < 0.3:
                group.tell(member.number)

    def _disturb(self, member: Member, roll: float) -> None:
        group, rng = self.group, self.rng
        numbers = list(group.members)
        if rng.random() < 0.4:
            member = group.members[group.leader() or member.number]
        if member.core is None or member.is_paused:
            return
        if roll < 0.15:
            group.crash(member.number)
        elif roll < 0.40:
            for other in group.members.values():
                if other.core is None and rng.random() < 0.7:
                    group.restart(other.number)
                    self.due[other.number] = group.now + TICK_S
        elif roll < 0.48:
            member.is_paused = True
            self.wakes[member.number] = group.now + rng.uniform(0, 3.0)
        elif roll < 0.53:
            group.isolate(member.number)
        elif roll < 0.58:
            group.cut.add((member.number, rng.choice(numbers)))
        elif roll < 0.72:
            group.heal()
        elif roll < 0.90:
            self._change(group.members[group.leader() or member.number])
        elif roll < 0.95:
            if member.core is not None:
                member.core.transfer(rng.choice(numbers))
                group.drain(member)
        elif not member.unsaved and member.core is not None and member.core.log.applied > member.core.snapshot_index:
            group.compact(member.number)

    def _change(self, leader: Member) -> None:
        core, rng = leader.core, self.rng
        if core is None or leader.is_paused:
            return
        target = rng.choice([*core.config.members, *self.strangers])
        if target not in core.config.members:
            kind = ChangeKind.ADD_LEARNER if rng.random() < 0.7 else ChangeKind.ADD_VOTER
        elif target in core.config.learners:
            kind = ChangeKind.ADD_VOTER if rng.random() < 0.8 else ChangeKind.REMOVE
        else:
            kind = ChangeKind.REMOVE
        if kind is ChangeKind.REMOVE and len(core.config.voters) <= 2:
            return
        if kind is not ChangeKind.REMOVE and target not in core.config.members:
            # an id is never used again: a member that was removed comes back as another one
            self.strangers.remove(target)
            self.strangers.append(max([*self.group.members, *self.strangers]) + 1)
            if target not in self.group.members:
                self.group.add(target, rng.choice([None, self.group.config]))
        try:
            self.group.change(leader.number, ConfigChange(kind, target, f"m{target}"))
        except ChangeRefused:
            assert kind is ChangeKind.ADD_VOTER, "only a promotion can be refused here"

    def _recover(self) -> None:
        """Everybody is healthy again: within a few elections all agree."""
        group = self.group
        group.heal()
        group.saves_at_once = True
        for member in group.members.values():
            member.is_paused = False
            if member.core is None:
                group.restart(member.number)
            group.save(member)
        for _ in range(40):
            for _ in range(10):
                self._pass_time(TICK_S)
                group.deliver()
            leader = group.leader()
            if leader and self._agree(group[leader]):
                return
        raise AssertionError("the group does not recover")

    def _agree(self, leader: Raft) -> bool:
        group, last = self.group, leader.log.last
        return leader.log.committed == last and all(
            group.members[number].applied == [group.committed[index] for index in range(1, last + 1)]
            for number in leader.config.members
        )
