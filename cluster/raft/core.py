"""The Raft protocol of one member: ticks, proposals and messages go in, `Ready` work comes out.

It knows no clock (a tick is whatever the shell says), no disk (the shell persists and tells by `persisted`), no
network and no state machine. Elections ask first without disturbing (pre-vote), a leader that hears no majority steps
down (check-quorum), reads are answered after a round of heartbeats (read-index), one member changes at a time and a
leader counts only entries of its own term (paper, 5.4.2).

Source: Ongaro, the thesis: 3 (basics), 3.10 (transfer), 4 (membership), 6.4 (reads), 9.6 (pre-vote), 10.2 (pipelines).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from steersman.cluster.raft import membership
from steersman.cluster.raft.log import ENTRY_OVERHEAD_BYTES, Log
from steersman.cluster.raft.progress import Flow, Progress, quorum_value
from steersman.cluster.raft.reads import Reads
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

#: entry bytes in one append; keeps one message's encoding and one disk write short
APPEND_BYTES_MAX = 1 << 20
#: entry bytes proposed and not yet committed; beyond it a leader refuses proposals
UNCOMMITTED_BYTES_MAX = 64 << 20
#: entries handed out for applying at once, so that a member that catches up stays responsive
APPLY_ENTRIES_MAX = 4096

_REPLIES = {MessageKind.VOTE: MessageKind.VOTE_REPLY, MessageKind.PRE_VOTE: MessageKind.PRE_VOTE_REPLY}
#: messages that only the leader of their term sends
_FROM_LEADER = frozenset({MessageKind.APPEND, MessageKind.HEARTBEAT, MessageKind.SNAPSHOT})
_VOTES = frozenset({MessageKind.VOTE, MessageKind.PRE_VOTE})


class Raft:
    """One member's consensus state.

    Args:
        member: this member's id, above 0.
        config: valid at the snapshot; later changes are found in the entries.
        hard_state, snapshot, entries: as found on the disk.
        election_ticks: silence after which an election starts, up to twice as long; also the life of a leader's
            authority without a majority.
        heartbeat_ticks: between heartbeats; well below `election_ticks`.
        jitter: returns a number of `0 ..< n`, by chance: it keeps candidates from splitting the vote for ever.

    Attributes:
        term, vote, role, config: as in the paper.
        leader: the member that leads in `term` as far as known; 0 for nobody.
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
    ) -> None:
        self.member = member
        self.config = config
        self.term, self.vote = hard_state.term, hard_state.vote
        self.role = Role.FOLLOWER
        self.leader = 0
        self.log = Log(snapshot, entries, hard_state.commit)
        self.snapshot_index = snapshot.index
        self._election_ticks, self._heartbeat_ticks, self._jitter = election_ticks, heartbeat_ticks, jitter
        self._saved = HardState(self.term, self.vote, self.log.committed)
        self._elapsed = 0
        self._heartbeat_elapsed = 0
        self._timeout = self._draw_timeout()
        self._votes: dict[int, bool] = {}
        self._progress: dict[int, Progress] = {}
        self._reads = Reads()
        #: the member that is to lead next; 0 for none
        self._transferee = 0
        #: no further membership change before this entry is applied
        self._config_index = 0
        self._uncommitted_bytes = 0
        self._messages: list[Message] = []
        self._replies: list[Message] = []
        self._received: SnapshotMeta | None = None
        self._answered: list[tuple[int, int]] = []
        self._lost: list[int] = []

    # what the shell may ask

    @property
    def is_leader(self) -> bool:
        return self.role is Role.LEADER

    @property
    def is_alone(self) -> bool:
        """Whether this member is the only one: it needs no ticks."""
        return self.config.members == (self.member,)

    @property
    def transferee(self) -> int:
        return self._transferee

    def match(self, member: int) -> int:
        """Returns, on the leader, the last entry known to be durable on a member."""
        return self.log.durable if member == self.member else self._progress[member].match

    # what the shell may do

    def tick(self) -> None:
        """Lets one unit of time pass."""
        self._elapsed += 1
        if self.role is Role.LEADER:
            self._tick_leader()
        elif self._elapsed >= self._timeout and self._is_promotable():
            self._elapsed = 0
            self.campaign()

    def campaign(self) -> None:
        """Starts an election now."""
        if self.role is not Role.LEADER and self._is_promotable():
            self._ask(MessageKind.PRE_VOTE, forced=False)

    def propose(self, commands: Sequence[bytes]) -> bool:
        """Adds commands to the log.

        Returns: False when this member knows no leader, or the leader takes no more: nothing of them was added. True
            otherwise; they may still be lost, when leadership changes.
        """
        return self._propose([(EntryKind.COMMAND, data) for data in commands])

    def propose_change(self, change: ConfigChange) -> bool:
        """Adds a membership change; False when there is no leader here or another change is under way."""
        if not self.is_leader or not self._may_change():
            return False
        membership.check(self.config, change)
        return self._propose([(EntryKind.CONFIG, msgspec.msgpack.encode(change))])

    def read_index(self, request: int) -> bool:
        """Asks from where on the state machine may answer a read that must see every write before it.

        Returns: False when no leader is known; otherwise `Ready.reads` names the request later, or `Ready.lost`, or,
            asked through a leader elsewhere, nothing does when that leader is lost.
        """
        if self.is_leader:
            self._reads.add(self.member, request)
            self._start_reads()
            return True
        if not self.leader:
            return False
        self._send(MessageKind.READ_INDEX, self.leader, term=self.term, context=request)
        return True

    def transfer(self, to: int) -> bool:
        """Hands leadership to another voter, after it has caught up; False when that is impossible."""
        if not self.is_leader or to == self.member or to not in self.config.voters:
            return False
        self._transferee = to
        self._elapsed = 0
        if self._progress[to].match == self.log.last:
            self._send(MessageKind.TIMEOUT_NOW, to, term=self.term)
        else:
            self._send_append(to)
        return True

    def persisted(self, index: int, term: int) -> None:
        """Notes that the disk holds everything handed out up to the entry (index, term)."""
        if self.log.persisted(index, term) and self.is_leader:
            self._advance_commit()

    def unreachable(self, member: int) -> None:
        """Notes that messages to a member were lost: its pipeline is no longer known to be whole."""
        progress = self._progress.get(member)
        if self.is_leader and progress is not None and progress.flow is Flow.REPLICATE:
            progress.probe()

    def snapshot_failed(self, member: int) -> None:
        """Notes that a snapshot could not be delivered."""
        progress = self._progress.get(member)
        if self.is_leader and progress is not None and progress.flow is Flow.SNAPSHOT:
            progress.snapshot_failed()

    def compact(self, index: int) -> None:
        """Forgets log entries up to `index`, which a snapshot of the shell covers."""
        self.log.compact(index)
        self.snapshot_index = max(self.snapshot_index, self.log.start - 1)

    def step(self, message: Message) -> None:
        """Takes a message of another member."""
        if message.term > self.term and not self._take_higher_term(message):
            return
        if message.term < self.term:
            self._answer_lower_term(message)
            return
        match message.kind:
            case MessageKind.VOTE | MessageKind.PRE_VOTE:
                self._decide_vote(message)
            case MessageKind.VOTE_REPLY | MessageKind.PRE_VOTE_REPLY:
                self._count_vote(message)
            case MessageKind.APPEND | MessageKind.HEARTBEAT | MessageKind.SNAPSHOT:
                self._follow(message)
            case MessageKind.APPEND_REPLY | MessageKind.HEARTBEAT_REPLY:
                if self.is_leader and message.sender in self._progress:
                    self._hear(message, self._progress[message.sender])
            case MessageKind.TIMEOUT_NOW:
                if self.role is not Role.LEADER and self._is_promotable():
                    self._ask(MessageKind.VOTE, forced=True)
            case MessageKind.READ_INDEX:
                if self.is_leader:
                    self._reads.add(message.sender, message.context)
                    self._start_reads()
            case MessageKind.READ_INDEX_REPLY:
                self._answered.append((message.context, message.index))
            case MessageKind.PROPOSE:
                if self.is_leader:
                    self._propose([(EntryKind.COMMAND, entry.data) for entry in message.entries])

    def ready(self) -> Ready | None:
        """Returns the work that has come up since the last call; None when there is none."""
        if self.is_leader and self._reads.wants_round:
            self._broadcast_heartbeat()
        entries = self.log.to_persist()
        committed = self.log.to_apply(APPLY_ENTRIES_MAX)
        config = self._apply_changes(committed)
        now_hard = HardState(self.term, self.vote, self.log.committed)
        voted = (now_hard.term, now_hard.vote) != (self._saved.term, self._saved.vote)
        must_save = bool(entries or self._received or voted)
        changed = must_save and now_hard != self._saved
        if changed:
            self._saved = now_hard
        if not (must_save or committed or self._messages or self._replies or self._answered or self._lost):
            return None
        ready = Ready(
            hard_state=now_hard if changed else None,
            entries=entries,
            snapshot=self._received,
            messages=tuple(self._messages),
            replies=tuple(self._replies),
            committed=committed,
            reads=tuple(self._answered),
            lost=tuple(self._lost),
            config=config,
        )
        self._received = None
        self._messages, self._replies, self._answered, self._lost = [], [], [], []
        return ready

    # sending

    def _send(
        self, kind: MessageKind, to: int, *, term: int, context: int = 0, index: int = 0, commit: int = 0
    ) -> None:
        """Sends what depends on nothing that is not durable yet."""
        self._messages.append(
            Message(kind=kind, sender=self.member, to=to, term=term, context=context, index=index, commit=commit)
        )

    def _reply(
        self, kind: MessageKind, to: int, *, term: int, index: int = 0, rejected: bool = False, hint: int = 0,
        hint_term: int = 0, context: int = 0, log_term: int = 0, forced: bool = False,
    ) -> None:  # fmt: skip
        """Sends what others may rely on: it leaves after everything handed out so far is durable."""
        self._replies.append(
            Message(
                kind=kind, sender=self.member, to=to, term=term, index=index, rejected=rejected, hint=hint,
                hint_term=hint_term, context=context, log_term=log_term, forced=forced,
            )
        )  # fmt: skip

    def _others(self) -> list[int]:
        return [member for member in self.config.members if member != self.member]

    # terms and roles

    def _draw_timeout(self) -> int:
        return self._election_ticks + self._jitter(self._election_ticks)

    def _is_promotable(self) -> bool:
        if self.member not in self.config.voters or self._received is not None:
            return False
        pending = self.log.between(self.log.applied + 1, self.log.committed)
        return not any(entry.kind is EntryKind.CONFIG for entry in pending)

    def _take_higher_term(self, message: Message) -> bool:
        """Whether the message still is to be handled, after this member's term follows the sender's if it must."""
        if message.kind in _VOTES and not message.forced and self.leader and self._elapsed < self._election_ticks:
            return False  # a leader is alive here: the sender was cut off and must not disturb it (thesis, 4.2.3)
        if message.kind is MessageKind.PRE_VOTE:
            return True
        if message.kind is MessageKind.PRE_VOTE_REPLY and not message.rejected:
            return True
        self._become_follower(message.term, message.sender if message.kind in _FROM_LEADER else 0)
        return True

    def _answer_lower_term(self, message: Message) -> None:
        if message.kind in _FROM_LEADER:
            # an old leader, which pre-vote would let go on for ever, learns the term from this
            self._reply(MessageKind.APPEND_REPLY, message.sender, term=self.term, rejected=True)
        elif message.kind is MessageKind.PRE_VOTE:
            self._reply(MessageKind.PRE_VOTE_REPLY, message.sender, term=self.term, rejected=True)

    def _enter(self, role: Role, term: int) -> None:
        if self.role is Role.LEADER and role is not Role.LEADER:
            self._lost += self._reads.drop(self.member)
        if term != self.term:
            self.term, self.vote = term, 0
        self.role = role
        self.leader = 0
        self._elapsed = self._heartbeat_elapsed = 0
        self._timeout = self._draw_timeout()
        self._votes = {}
        self._progress = {}
        self._transferee = 0
        self._uncommitted_bytes = 0

    def _become_follower(self, term: int, leader: int) -> None:
        self._enter(Role.FOLLOWER, term)
        self.leader = leader

    def _become_leader(self) -> None:
        self._enter(Role.LEADER, self.term)
        self.leader = self.member
        self._progress = {member: Progress(self.log.last + 1) for member in self._others()}
        for progress in self._progress.values():
            progress.active = True
        # a membership change may be among the entries of older terms: none starts before they are applied
        self._config_index = self.log.last
        self._append([(EntryKind.COMMAND, b"")])
        self._advance_commit()
        self._broadcast_append()

    # elections

    def _ask(self, kind: MessageKind, *, forced: bool) -> None:
        """Asks all voters for their vote: first for a pre-vote, which binds nobody."""
        if kind is MessageKind.PRE_VOTE:
            self._enter(Role.PRE_CANDIDATE, self.term)
            term = self.term + 1
        else:
            self._enter(Role.CANDIDATE, self.term + 1)
            self.vote = self.member
            term = self.term
        for voter in self.config.voters:
            if voter != self.member:
                self._reply(
                    kind, voter, term=term, index=self.log.last, log_term=self.log.last_term, forced=forced
                )  # fmt: skip
        self._record_vote(self.member, granted=True)

    def _decide_vote(self, message: Message) -> None:
        free = self.vote == message.sender or (not self.vote and not self.leader)
        if message.kind is MessageKind.PRE_VOTE:
            free = free or message.term > self.term
        kind = _REPLIES[message.kind]
        if free and self.log.is_up_to_date(message.index, message.log_term):
            self._reply(kind, message.sender, term=message.term)
            if message.kind is MessageKind.VOTE:
                self._elapsed = 0
                self.vote = message.sender
        else:
            self._reply(kind, message.sender, term=self.term, rejected=True)

    def _count_vote(self, message: Message) -> None:
        wanted = Role.PRE_CANDIDATE if message.kind is MessageKind.PRE_VOTE_REPLY else Role.CANDIDATE
        if self.role is wanted:
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

    # following

    def _follow(self, message: Message) -> None:
        if self.role is not Role.FOLLOWER:
            if self.role is Role.LEADER:
                raise AssertionError(f"two leaders in term {self.term}: {self.member} and {message.sender}")
            self._become_follower(self.term, message.sender)
        self.leader = message.sender
        self._elapsed = 0
        match message.kind:
            case MessageKind.APPEND:
                self._take_entries(message)
            case MessageKind.HEARTBEAT:
                self.log.commit_to(min(message.commit, self.log.last))
                self._reply(MessageKind.HEARTBEAT_REPLY, message.sender, term=self.term, context=message.context)
            case _:
                self._take_snapshot(message)

    def _take_entries(self, message: Message) -> None:
        if message.index < self.log.committed:
            self._reply(MessageKind.APPEND_REPLY, message.sender, term=self.term, index=self.log.committed)
            return
        agreed = self.log.append(message.index, message.log_term, message.entries)
        if agreed is None:
            hint, hint_term = self.log.agreement_before(min(message.index, self.log.last), message.log_term)
            self._reply(
                MessageKind.APPEND_REPLY, message.sender, term=self.term, index=message.index, rejected=True,
                hint=hint, hint_term=hint_term,
            )  # fmt: skip
            return
        self.log.commit_to(min(message.commit, agreed))
        self._reply(MessageKind.APPEND_REPLY, message.sender, term=self.term, index=agreed)

    def _take_snapshot(self, message: Message) -> None:
        snapshot = message.snapshot
        assert snapshot is not None
        if snapshot.index <= self.log.committed:
            self._reply(MessageKind.APPEND_REPLY, message.sender, term=self.term, index=self.log.committed)
            return
        self.log.restore(snapshot)
        self.config = snapshot.config
        self.snapshot_index = snapshot.index
        self._received = snapshot
        self._reply(MessageKind.APPEND_REPLY, message.sender, term=self.term, index=snapshot.index)

    # leading

    def _tick_leader(self) -> None:
        if self._elapsed >= self._election_ticks:
            self._elapsed = 0
            self._transferee = 0
            active = sum(voter == self.member or self._progress[voter].active for voter in self.config.voters)
            if active < len(self.config.voters) // 2 + 1:
                self._become_follower(self.term, 0)
                return
            for progress in self._progress.values():
                progress.active = False
        for progress in self._progress.values():
            progress.idle_ticks += 1
            if progress.flow is Flow.SNAPSHOT and progress.idle_ticks > 20 * self._election_ticks:
                progress.snapshot_failed()
        self._heartbeat_elapsed += 1
        if self._heartbeat_elapsed >= self._heartbeat_ticks:
            self._broadcast_heartbeat()

    def _may_change(self) -> bool:
        """Whether a membership change may start: none is under way, and an entry of this term is committed.

        Without the second rule two majorities that do not overlap can come about (the bug of single-server changes).
        """
        return self._config_index <= self.log.applied and self.log.term(self.log.committed) == self.term

    def _propose(self, rows: Sequence[tuple[EntryKind, bytes]]) -> bool:
        if not self.is_leader:
            if not self.leader or any(kind is EntryKind.CONFIG for kind, _ in rows):
                return False
            entries = tuple(Entry(0, 0, data, kind) for kind, data in rows)
            self._messages.append(
                Message(
                    kind=MessageKind.PROPOSE, sender=self.member, to=self.leader, term=self.term, entries=entries
                )
            )  # fmt: skip
            return True
        size_bytes = sum(len(data) + ENTRY_OVERHEAD_BYTES for _, data in rows)
        if self._transferee or (
            self._uncommitted_bytes and self._uncommitted_bytes + size_bytes > UNCOMMITTED_BYTES_MAX
        ):
            return False
        self._uncommitted_bytes += size_bytes
        self._append(rows)
        self._broadcast_append()
        return True

    def _append(self, rows: Sequence[tuple[EntryKind, bytes]]) -> None:
        first = self.log.last + 1
        entries = [Entry(first + offset, self.term, data, kind) for offset, (kind, data) in enumerate(rows)]
        for entry in entries:
            if entry.kind is EntryKind.CONFIG:
                self._config_index = entry.index
        self.log.extend(entries)

    def _broadcast_append(self) -> None:
        for member in self._others():
            self._send_append(member)

    def _send_append(self, to: int, *, even_if_empty: bool = True) -> bool:
        """Sends what a member lacks, as far as the flow to it allows; whether anything was sent."""
        progress = self._progress[to]
        if progress.is_paused:
            return False
        before = progress.next - 1
        before_term = self.log.term(before)
        if before_term is None:
            self._send_snapshot(to, progress)
            return True
        entries = self.log.slice(progress.next, self.log.last, APPEND_BYTES_MAX) if before < self.log.last else ()
        if not entries and not even_if_empty:
            return False
        self._messages.append(
            Message(
                kind=MessageKind.APPEND, sender=self.member, to=to, term=self.term, index=before, log_term=before_term,
                commit=self.log.committed, entries=entries,
            )
        )  # fmt: skip
        progress.sent(before + len(entries), len(entries))
        return True

    def _send_snapshot(self, to: int, progress: Progress) -> None:
        """Asks the shell to send its newest state; the shell fills in the snapshot, at `applied` or later."""
        if not progress.active:
            return
        progress.install(self.log.applied)
        self._send(MessageKind.SNAPSHOT, to, term=self.term, index=self.log.applied)

    def _broadcast_heartbeat(self) -> None:
        self._heartbeat_elapsed = 0
        number = self._reads.start_round()
        for member in self._others():
            commit = min(self._progress[member].match, self.log.committed)
            self._send(MessageKind.HEARTBEAT, member, term=self.term, commit=commit, context=number)
        self._finish_reads()

    def _hear(self, message: Message, progress: Progress) -> None:
        progress.active = True
        if message.kind is MessageKind.HEARTBEAT_REPLY:
            progress.heard()
            progress.round = max(progress.round, message.context)
            if progress.match < self.log.last:
                self._send_append(message.sender)
            self._finish_reads()
        elif message.rejected:
            hint = message.hint
            if message.hint_term:
                hint, _ = self.log.agreement_before(hint, message.hint_term)
            if progress.refused(message.index, hint):
                self._send_append(message.sender)
        else:
            self._take_acknowledgement(message, progress)

    def _take_acknowledgement(self, message: Message, progress: Progress) -> None:
        was_paused = progress.is_paused
        if not progress.acknowledged(message.index) and progress.flow is not Flow.PROBE:
            return
        if progress.flow is Flow.PROBE or (
            progress.flow is Flow.SNAPSHOT and progress.match >= progress.pending_snapshot
        ):
            progress.replicate()
        if not self._advance_commit() and was_paused:
            self._send_append(message.sender)
        while self._send_append(message.sender, even_if_empty=False):
            pass
        if message.sender == self._transferee and progress.match == self.log.last:
            self._send(MessageKind.TIMEOUT_NOW, message.sender, term=self.term)

    def _advance_commit(self) -> bool:
        """Commits what a majority holds durably; the news goes to everybody at once."""
        matches = {member: progress.match for member, progress in self._progress.items()}
        matches[self.member] = self.log.durable
        index = quorum_value(matches, self.config.voters)
        if index <= self.log.committed or self.log.term(index) != self.term:
            return False
        freed = self.log.between(self.log.committed + 1, index)
        self._uncommitted_bytes -= sum(len(entry.data) + ENTRY_OVERHEAD_BYTES for entry in freed)
        self._uncommitted_bytes = max(0, self._uncommitted_bytes)
        self.log.commit_to(index)
        self._start_reads()
        self._broadcast_append()
        return True

    # reads

    def _start_reads(self) -> None:
        """Lets reads that came in join the next round, once this leader knows the commit index (thesis, 6.4)."""
        if self.log.term(self.log.committed) == self.term:
            self._reads.admit(self.log.committed)
            self._finish_reads()

    def _finish_reads(self) -> None:
        rounds = {member: progress.round for member, progress in self._progress.items()}
        rounds[self.member] = self._reads.newest_round
        for sender, request, index in self._reads.finish(quorum_value(rounds, self.config.voters)):
            if sender == self.member:
                self._answered.append((request, index))
            else:
                self._send(MessageKind.READ_INDEX_REPLY, sender, term=self.term, context=request, index=index)

    # membership

    def _apply_changes(self, committed: Sequence[Entry]) -> Config | None:
        changed = False
        for entry in committed:
            if entry.kind is EntryKind.CONFIG:
                change = msgspec.msgpack.decode(entry.data, type=ConfigChange)
                self.config = membership.changed(self.config, change)
                changed = True
        if not changed:
            return None
        if self.is_leader:
            self._lead_changed_group()
        return self.config

    def _lead_changed_group(self) -> None:
        if self.member not in self.config.voters:
            self._become_follower(self.term, 0)
            return
        others = self._others()
        self._progress = {
            member: self._progress.get(member) or Progress(self.log.last + 1) for member in others
        }  # fmt: skip
        if self._transferee not in self.config.voters:
            self._transferee = 0
        self._advance_commit()
        for member in others:
            self._progress[member].active = True
            self._send_append(member)
