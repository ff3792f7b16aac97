"""The Raft protocol of one member: ticks, proposals and messages go in, `Ready` work comes out.

It reads no clock (a tick is whatever the shell says, and the time is a value given to it), knows no disk (the shell
persists and tells by `persisted`), no network and no state machine. Elections ask first without disturbing (pre-vote),
a leader that hears no majority steps down (check-quorum), reads are answered after a round of heartbeats (read-index)
or on a lease, one member changes at a time and a leader counts only entries of its own term (paper, 5.4.2).

A membership change counts from when it is applied, not from when it is in the log. Majorities of neighbouring
configurations overlap; nobody is two changes behind, since the next change starts only when the one before is applied,
an entry never reaches a disk without the commit index that its leader knew, and nobody campaigns while it knows of a
committed change that it has not applied.

Source: Ongaro, the thesis: 3 (basics), 3.10 (transfer), 4 (membership), 6.4 (reads), 9.6 (pre-vote).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from steersman.cluster.raft import membership
from steersman.cluster.raft.leadership import Leadership
from steersman.cluster.raft.lease import lease_s
from steersman.cluster.raft.log import Log
from steersman.cluster.raft.outbox import Outbox
from steersman.cluster.raft.values import (
    Config,
    ConfigChange,
    Entry,
    EntryKind,
    HardState,
    Message,
    MessageKind,
    Ready,
    Role,
    SnapshotMeta,
)

#: entries handed out for applying at once, so that a member that catches up stays responsive
APPLY_ENTRIES_MAX = 4096

_REPLIES = {MessageKind.VOTE: MessageKind.VOTE_REPLY, MessageKind.PRE_VOTE: MessageKind.PRE_VOTE_REPLY}
#: messages that only the leader of their term sends
_FROM_LEADER = frozenset({MessageKind.APPEND, MessageKind.COMMIT, MessageKind.HEARTBEAT, MessageKind.SNAPSHOT})
_VOTES = frozenset({MessageKind.VOTE, MessageKind.PRE_VOTE})


class Raft:
    """One member's consensus state.

    Args:
        member: this member's id, above 0.
        config: valid at the snapshot; later changes are found in the entries. Without voters: this member is new and
            learns all from the leader that adds it.
        hard_state, snapshot, entries: as found on the disk.
        election_ticks: silence after which an election starts, up to twice as long; also the life of a leader's
            authority without a majority.
        heartbeat_ticks: between heartbeats; well below `election_ticks`.
        jitter: returns a number of `0 ..< n`, by chance: it keeps candidates from splitting the vote for ever.
        lease_tick_s: above 0, a leader answers reads on a lease; ticks are then at least that many seconds apart. The
            same on all members.

    `now` below is in seconds, of a clock that never goes back and goes on while this process is stopped; for leases.

    Attributes:
        term, vote, role, config: as in the paper.
        leader: the member that leads in `term` as far as known; 0 for nobody.
        forwards: how many times `propose` has asked the leader.
    """

    def __init__(
        self,
        member: int,
        config: Config,
        *,
        hard_state: HardState,
        snapshot: SnapshotMeta,
        entries: Sequence[Entry],
        election_ticks: int,
        heartbeat_ticks: int,
        jitter: Callable[[int], int],
        lease_tick_s: float = 0.0,
    ) -> None:
        self.member = member
        self.config = config
        self.term, self.vote = hard_state.term, hard_state.vote
        self.role = Role.FOLLOWER
        self.leader = 0
        self.log = Log(snapshot, entries, hard_state.commit)
        self.snapshot_index = snapshot.index
        self._election_ticks, self._heartbeat_ticks, self._jitter = election_ticks, heartbeat_ticks, jitter
        self._lease_s = lease_s(lease_tick_s, election_ticks)
        self._saved = HardState(self.term, self.vote, self.log.committed)
        self._elapsed = 0
        self._timeout = self._draw_timeout()
        #: ticks since a leader was heard of. A member that starts may have heard of one just before, whose lease
        #: relies on that; only where nobody else can lead this does not matter
        alone = config.voters == (member,) and not any(entry.kind is EntryKind.CONFIG for entry in entries)
        self._quiet_ticks = 0 if self._lease_s and not alone else election_ticks
        self._votes: dict[int, bool] = {}
        self._leadership: Leadership | None = None
        self._outbox = Outbox(member)
        #: the leader has asked this member to take over, as soon as it may
        self._summoned = False
        #: tells the proposals forwarded in this life of the member from those of others
        self._life, self.forwards = jitter(1 << 62), 0
        self._received: SnapshotMeta | None = None
        self._lost: list[int] = []
        self._refused: list[int] = []

    # what the shell may ask

    @property
    def is_leader(self) -> bool:
        return self._leadership is not None

    @property
    def is_alone(self) -> bool:
        """Whether this member is the only one: it needs no ticks."""
        return self.config.members == (self.member,)

    @property
    def transferee(self) -> int:
        """The member that this leader hands over to; 0 for none."""
        return self._leadership.transferee if self._leadership else 0

    def reads_now(self, now: float) -> bool:
        """Whether a read that must see every write before it may be answered from what is applied here already."""
        return (
            self._leadership is not None
            and self.log.applied == self.log.committed
            and self._leadership.may_answer_reads(now)
        )

    # what the shell may do

    def tick(self, now: float) -> None:
        """Lets one unit of time pass."""
        self._elapsed += 1
        self._quiet_ticks += 1
        if self._leadership is not None:
            if not self._leadership.tick(now):
                self._become_follower(self.term, 0)
        elif self._elapsed >= self._timeout and self._is_promotable():
            self._ask(MessageKind.PRE_VOTE, forced=False)

    def campaign(self) -> None:
        """Starts an election now; with leases not while a leader may rely on this member's silence."""
        if not self.is_leader and self._is_promotable() and not (self._lease_s and self._is_bound()):
            self._ask(MessageKind.PRE_VOTE, forced=False)

    def propose(self, commands: Sequence[bytes]) -> bool:
        """Adds commands to the log.

        Returns: False when this member knows no leader, or leads and takes no more: nothing of them was added. True
            otherwise; they may still be lost, when leadership changes, and what a leader elsewhere was asked for as
            `forwards`, may be in `Ready.refused` later.
        """
        if self._leadership is not None:
            return self._leadership.propose([(EntryKind.COMMAND, data) for data in commands])
        if not self.leader:
            return False
        self.forwards += 1
        self._outbox.messages.append(
            Message(
                kind=MessageKind.PROPOSE, sender=self.member, to=self.leader, term=self.term, context=self._life,
                index=self.forwards, entries=tuple(Entry(0, 0, data) for data in commands),
            )
        )  # fmt: skip
        return True

    def propose_change(self, change: ConfigChange) -> bool:
        """Adds a membership change.

        Returns: False when this member does not lead, or another change is under way, or the leader is too new.

        Raises:
            ChangeRefused: it makes no sense for this group, or promotes a learner that is far behind.
        """
        return self._leadership is not None and self._leadership.propose_change(change)

    def read_index(self, request: int, now: float) -> bool:
        """Asks from where on the state machine may answer a read that must see every write before it.

        Returns: False when no leader is known or too many reads wait; otherwise `Ready.reads` names the request later,
            or `Ready.lost`, or, asked through a leader elsewhere, nothing does when that leader is lost.
        """
        if self._leadership is not None:
            return self._leadership.read(self.member, request, now)
        if not self.leader:
            return False
        self._outbox.send(MessageKind.READ_INDEX, self.leader, term=self.term, context=request)
        return True

    @property
    def has_news(self) -> bool:
        """Whether members that were sent committed entries do not know that they are committed.

        The next append tells them, or a heartbeat; or `tell_commit`.
        """
        return self._leadership is not None and self._leadership.has_news

    def tell_commit(self, index: int) -> bool:
        """Tells members that know of no commit up to `index`; whether there are any."""
        return self._leadership is not None and self._leadership.tell_commit(index)

    def transfer(self, to: int) -> bool:
        """Hands leadership to another voter, after it has caught up; False when that is impossible."""
        return self._leadership is not None and self._leadership.transfer(to)

    def persisted(self, index: int, term: int) -> None:
        """Notes that the disk holds everything handed out up to the entry (index, term)."""
        if self.log.persisted(index, term) and self._leadership is not None:
            self._leadership.advance_commit()

    def unreachable(self, member: int) -> None:
        """Notes that messages to a member were lost: its pipeline is no longer known to be whole."""
        if self._leadership is not None:
            self._leadership.unreachable(member)

    def snapshot_sent(self, member: int, *, delivered: bool) -> None:
        """Notes that a snapshot is no longer on its way to a member."""
        if self._leadership is not None:
            self._leadership.snapshot_sent(member, delivered=delivered)

    def compact(self, index: int) -> None:
        """Forgets entries up to `index`, which a snapshot of the shell covers; a leader keeps some for the others."""
        self.log.compact(self._leadership.compactable(index) if self._leadership else index)
        self.snapshot_index = max(self.snapshot_index, self.log.start - 1)

    def step(self, message: Message, now: float) -> None:
        """Takes a message of another member, or of this one to itself."""
        if message.term < self.term:
            self._answer_lower_term(message)
            return
        if message.kind in _VOTES and not message.forced and self._is_bound():
            return
        if message.term > self.term and not self._is_only_asking(message):
            self._become_follower(message.term, message.sender if message.kind in _FROM_LEADER else 0)
        match message.kind:
            case MessageKind.VOTE | MessageKind.PRE_VOTE:
                self._decide_vote(message)
            case MessageKind.VOTE_REPLY | MessageKind.PRE_VOTE_REPLY:
                self._count_vote(message)
            case MessageKind.APPEND | MessageKind.COMMIT | MessageKind.HEARTBEAT | MessageKind.SNAPSHOT:
                self._follow(message)
            case MessageKind.TIMEOUT_NOW:
                self._summoned = not self.is_leader
                self._follow_summons()
            case MessageKind.READ_INDEX_REPLY:
                self._outbox.answered.append((message.context, message.index))
            case MessageKind.PROPOSE_REFUSED:
                if message.context == self._life:
                    self._refused.append(message.index)
            case _ if self._leadership is not None:
                self._lead(self._leadership, message, now)

    def ready(self, now: float) -> Ready | None:
        """Returns the work that has come up since the last call; None when there is none."""
        if self._leadership is not None:
            self._leadership.before_ready(now)
        if self._received is not None:
            snapshot, self._received = self._received, None
            return Ready(hard_state=self._hard_state(must_save=True), snapshot=snapshot, config=snapshot.config)
        log, outbox = self.log, self._outbox
        if not (
            log.has_work or outbox or self._summoned or self._lost or self._refused
            or (self.term, self.vote) != (self._saved.term, self._saved.vote)
        ):  # fmt: skip
            return None
        entries = log.to_persist()
        committed = log.to_apply(APPLY_ENTRIES_MAX)
        config = self._apply_changes(committed)
        self._follow_summons()
        hard_state = self._hard_state(must_save=bool(entries))
        if not (entries or hard_state or committed or outbox or self._lost or self._refused):
            return None
        ready = Ready(
            hard_state=hard_state,
            entries=entries,
            messages=tuple(outbox.messages),
            replies=tuple(outbox.replies),
            installs=tuple(outbox.installs),
            committed=committed,
            reads=tuple(outbox.answered),
            lost=tuple(self._lost),
            refused=tuple(self._refused),
            config=config,
        )
        outbox.messages, outbox.replies, outbox.installs, outbox.answered = [], [], [], []
        self._lost, self._refused = [], []
        return ready

    def _hard_state(self, *, must_save: bool) -> HardState | None:
        """Returns what is to be saved now. The commit index goes along with what must be saved anyway."""
        current = HardState(self.term, self.vote, self.log.committed)
        voted = (current.term, current.vote) != (self._saved.term, self._saved.vote)
        if current == self._saved or not (must_save or voted):
            return None
        self._saved = current
        return current

    # terms and roles

    def _draw_timeout(self) -> int:
        # one more than the silence that voters wait for: their ticks may come a little later than this member's
        return self._election_ticks + 1 + self._jitter(self._election_ticks)

    def _is_promotable(self) -> bool:
        if self.member not in self.config.voters or self._received is not None:
            return False
        pending = self.log.between(self.log.applied + 1, self.log.committed)
        return not any(entry.kind is EntryKind.CONFIG for entry in pending)

    def _is_bound(self) -> bool:
        """Whether a leader was heard of so lately that no vote is given: the one who asks was cut off and must not
        disturb (thesis, 4.2.3), and the leader's lease relies on it. No change of term ends this."""
        return self.is_leader or self._quiet_ticks < self._election_ticks

    @staticmethod
    def _is_only_asking(message: Message) -> bool:
        """Whether the higher term is one that nobody has entered yet."""
        return message.kind is MessageKind.PRE_VOTE or (
            message.kind is MessageKind.PRE_VOTE_REPLY and not message.rejected
        )

    def _answer_lower_term(self, message: Message) -> None:
        if message.kind in _FROM_LEADER:
            # an old leader, which pre-vote would let go on for ever, learns the term from this
            self._outbox.reply(MessageKind.HEARTBEAT_REPLY, message.sender, term=self.term)
        elif message.kind is MessageKind.PRE_VOTE:
            self._outbox.reply(MessageKind.PRE_VOTE_REPLY, message.sender, term=self.term, rejected=True)

    def _enter(self, role: Role, term: int) -> None:
        if self._leadership is not None:
            self._lost += self._leadership.end()
            self._leadership = None
        if term != self.term:
            self.term, self.vote = term, 0
        self.role = role
        self.leader = 0
        self._elapsed = 0
        self._timeout = self._draw_timeout()
        self._votes = {}
        self._summoned = False

    def _become_follower(self, term: int, leader: int) -> None:
        self._enter(Role.FOLLOWER, term)
        self.leader = leader

    def _become_leader(self) -> None:
        self._enter(Role.LEADER, self.term)
        self.leader = self.member
        self._leadership = Leadership(
            self.member, self.term, self.config, self.log, self._outbox, election_ticks=self._election_ticks,
            heartbeat_ticks=self._heartbeat_ticks, lease_s=self._lease_s,
        )  # fmt: skip
        self._leadership.begin()

    # elections

    def _ask(self, kind: MessageKind, *, forced: bool) -> None:
        """Asks all voters for their vote: first for a pre-vote, which binds nobody.

        The own vote counts when it is durable, as any other: were it forgotten in a crash, a group of one voter could
        be led twice in a term.
        """
        if kind is MessageKind.PRE_VOTE:
            self._enter(Role.PRE_CANDIDATE, self.term)
            term = self.term + 1
        else:
            self._enter(Role.CANDIDATE, self.term + 1)
            self.vote = self.member
            term = self.term
            self._outbox.reply(MessageKind.VOTE_REPLY, self.member, term=term)
        for voter in self.config.voters:
            if voter != self.member:
                self._outbox.reply(
                    kind, voter, term=term, index=self.log.last, log_term=self.log.last_term, forced=forced
                )  # fmt: skip
        if kind is MessageKind.PRE_VOTE:
            self._record_vote(self.member, granted=True)

    def _decide_vote(self, message: Message) -> None:
        free = self.vote == message.sender or (not self.vote and not self.leader)
        if message.kind is MessageKind.PRE_VOTE:
            free = free or message.term > self.term
        kind = _REPLIES[message.kind]
        if free and self.log.is_up_to_date(message.index, message.log_term):
            self._outbox.reply(kind, message.sender, term=message.term)
            if message.kind is MessageKind.VOTE:
                self._elapsed = 0
                self.vote = message.sender
        else:
            self._outbox.reply(kind, message.sender, term=self.term, rejected=True)

    def _count_vote(self, message: Message) -> None:
        if message.kind is MessageKind.VOTE_REPLY:
            counts = self.role is Role.CANDIDATE
        else:
            counts = self.role is Role.PRE_CANDIDATE and message.term == self.term + (not message.rejected)
        if counts:
            self._record_vote(message.sender, granted=not message.rejected)

    def _record_vote(self, member: int, *, granted: bool) -> None:
        self._votes.setdefault(member, granted)
        voters = self.config.voters
        majority = len(voters) // 2 + 1
        yes = sum(self._votes.get(voter) is True for voter in voters)
        no = sum(self._votes.get(voter) is False for voter in voters)
        if yes >= majority:
            if self.role is Role.PRE_CANDIDATE:
                self._ask(MessageKind.VOTE, forced=False)
            else:
                self._become_leader()
        elif no >= majority:
            self._become_follower(self.term, 0)

    def _follow_summons(self) -> None:
        if self._summoned and self._is_promotable():
            self._ask(MessageKind.VOTE, forced=True)

    # following

    def _follow(self, message: Message) -> None:
        if self.role is not Role.FOLLOWER:
            if self.is_leader:
                raise AssertionError(f"two leaders in term {self.term}: {self.member} and {message.sender}")
            self._become_follower(self.term, message.sender)
        self.leader = message.sender
        self._elapsed = self._quiet_ticks = 0
        match message.kind:
            case MessageKind.APPEND | MessageKind.COMMIT:
                self._take_entries(message)
            case MessageKind.HEARTBEAT:
                self.log.commit_to(min(message.commit, self.log.last))
                self._outbox.send(
                    MessageKind.HEARTBEAT_REPLY, message.sender, term=self.term, context=message.context
                )  # fmt: skip
            case _:
                self._take_snapshot(message)

    def _take_entries(self, message: Message) -> None:
        wants_answer = message.kind is MessageKind.APPEND
        if message.index < self.log.committed:
            if wants_answer:
                self._acknowledge(message.sender, self.log.committed)
            return
        agreed = self.log.append(message.index, message.log_term, message.entries) if self.config.voters else None
        if agreed is None:
            hint, hint_term = self.log.agreement_before(min(message.index, self.log.last), message.log_term)
            self._outbox.reply(
                MessageKind.APPEND_REPLY, message.sender, term=self.term, index=message.index, rejected=True,
                hint=hint, hint_term=hint_term,
            )  # fmt: skip
            return
        self.log.commit_to(min(message.commit, agreed))
        if wants_answer:
            self._acknowledge(message.sender, agreed)

    def _acknowledge(self, leader: int, index: int) -> None:
        self._outbox.reply(MessageKind.APPEND_REPLY, leader, term=self.term, index=index)

    def _take_snapshot(self, message: Message) -> None:
        snapshot = message.snapshot
        assert snapshot is not None
        if self.config.voters and self.log.term(snapshot.index) == snapshot.term:
            self.log.commit_to(snapshot.index)  # all of it is here already
        if snapshot.index <= self.log.committed:
            self._acknowledge(message.sender, self.log.committed)
            return
        self.log.restore(snapshot)
        self.config = snapshot.config
        self.snapshot_index = snapshot.index
        self._received = snapshot
        self._acknowledge(message.sender, snapshot.index)

    # leading

    def _lead(self, leadership: Leadership, message: Message, now: float) -> None:
        match message.kind:
            case MessageKind.APPEND_REPLY | MessageKind.HEARTBEAT_REPLY:
                leadership.hear(message)
            case MessageKind.READ_INDEX:
                leadership.read(message.sender, message.context, now)
            case MessageKind.PROPOSE:
                leadership.take_forwarded(message)

    def _apply_changes(self, committed: Sequence[Entry]) -> Config | None:
        before = self.config
        for entry in committed:
            if entry.kind is EntryKind.CONFIG:
                change = msgspec.msgpack.decode(entry.data, type=ConfigChange)
                self.config = membership.changed(self.config, change)
        if self.config is before:
            return None
        if self._leadership is not None and not self._leadership.configure(self.config):
            self._become_follower(self.term, 0)
        return self.config
