"""What a member does while it leads, in one term: takes and commits proposals, proves reads, changes the group.

It begins when the election is won and is thrown away when the member steps down, so nothing of it can outlive its term.
Elections and terms are `core`'s.

Source: Ongaro, the thesis: 3.5 (replication), 3.10 (transfer), 4 (membership), 6.4 (reads), 10.2 (pipelines).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from steersman.cluster.raft import membership
from steersman.cluster.raft.forwards import Forwards
from steersman.cluster.raft.lease import Lease
from steersman.cluster.raft.log import ENTRY_OVERHEAD_BYTES, Log
from steersman.cluster.raft.outbox import Outbox
from steersman.cluster.raft.progress import Flow, Progress, quorum_value
from steersman.cluster.raft.reads import Reads
from steersman.cluster.raft.values import ChangeKind, Config, ConfigChange, Entry, EntryKind, Message, MessageKind

#: entry bytes in one append; keeps one message's encoding and one disk write short
APPEND_BYTES_MAX = 1 << 20
#: entry bytes proposed and not yet committed; beyond it a leader refuses proposals
UNCOMMITTED_BYTES_MAX = 64 << 20
#: snapshots on their way at once: each occupies the leader's memory and link with the whole state
SNAPSHOTS_MAX = 2
#: entries that a learner may lack when it is promoted: what it makes good within a heartbeat or two. Were it far
#: behind, the group could commit nothing after the next failure until it has caught up (thesis, 4.2.1)
PROMOTION_LAG_MAX = 1000
#: applied entries kept in memory, by their bytes, for members that need them still; without that a member could be
#: sent one snapshot after the other and never reach the log
LAGGING_BYTES_MAX = 32 << 20


class Leadership:
    """One term of one leader.

    Args:
        config: the membership applied so far; `configure` tells later ones.
        lease_s: how long an answered round of heartbeats vouches for reads; 0: every read needs a round of its own.

    Attributes:
        transferee: the member that is to lead next; 0 for none.
        progress: what is known of each other member.
    """

    def __init__(
        self, member: int, term: int, config: Config, log: Log, outbox: Outbox, *, election_ticks: int,
        heartbeat_ticks: int, lease_s: float,
    ) -> None:  # fmt: skip
        self.transferee = 0
        self.progress = {other: Progress(log.last + 1) for other in config.members if other != member}
        self._member, self._term, self._config, self._log, self._outbox = member, term, config, log, outbox
        self._election_ticks, self._heartbeat_ticks = election_ticks, heartbeat_ticks
        self._quorum_elapsed = self._heartbeat_elapsed = 0
        self._reads = Reads()
        self._lease = Lease(lease_s)
        self._forwards = Forwards()
        #: (last entry, bytes) of each proposal that is not committed yet
        self._uncommitted: deque[tuple[int, int]] = deque()
        self._uncommitted_bytes = 0
        #: no further membership change before this entry is applied; one may be among the entries of older terms
        self._config_index = log.last

    def begin(self) -> None:
        """Adds the entry whose commitment commits all older ones."""
        self._append([(EntryKind.COMMAND, b"")])
        self._broadcast_append()

    def tick(self, now: float) -> bool:
        """Lets one unit of time pass; False when no majority has answered for an election timeout."""
        self._quorum_elapsed += 1
        if self._quorum_elapsed >= self._election_ticks:
            self._quorum_elapsed = 0
            self.transferee = 0
            voters = self._config.voters
            active = sum(voter == self._member or self.progress[voter].active for voter in voters)
            if active <= len(voters) // 2:
                return False
            for progress in self.progress.values():
                progress.active = False
        self._heartbeat_elapsed += 1
        if self._heartbeat_elapsed >= self._heartbeat_ticks:
            self._broadcast_heartbeat(now)
        return True

    def before_ready(self, now: float) -> None:
        """Starts the round of heartbeats that new reads wait for."""
        if self._reads.wants_round:
            self._broadcast_heartbeat(now)

    def end(self) -> list[int]:
        """Returns the own reads that will not be answered."""
        return self._reads.pending(self._member)

    # proposals

    def propose(self, rows: Sequence[tuple[EntryKind, bytes]]) -> bool:
        """Adds entries and spreads them; False when none is taken now."""
        size_bytes = sum(len(data) + ENTRY_OVERHEAD_BYTES for _, data in rows)
        if self.transferee or (
            self._uncommitted_bytes and self._uncommitted_bytes + size_bytes > UNCOMMITTED_BYTES_MAX
        ):
            return False
        self._append(rows)
        self._uncommitted.append((self._log.last, size_bytes))
        self._uncommitted_bytes += size_bytes
        self._broadcast_append()
        return True

    def take_forwarded(self, message: Message) -> None:
        """Takes another member's proposals, once, or tells that it does not."""
        if not self._forwards.take(message.sender, message.context, message.index):
            return
        if not self.propose([(EntryKind.COMMAND, entry.data) for entry in message.entries]):
            self._outbox.send(
                MessageKind.PROPOSE_REFUSED, message.sender, term=self._term, context=message.context,
                index=message.index,
            )  # fmt: skip
        elif message.sender in self.progress:
            self.progress[message.sender].awaits = self._log.last

    def propose_change(self, change: ConfigChange) -> bool:
        """Adds a membership change; False while another one is under way or this term has committed nothing yet.

        Without the second rule two majorities that do not overlap can come about (the bug of single-server changes).
        """
        if self._config_index > self._log.applied or not self._knows_commit:
            return False
        membership.check(self._config, change)
        if change.kind is ChangeKind.ADD_VOTER and change.member in self._config.learners:
            self._check_promotion(change.member)
        return self.propose([(EntryKind.CONFIG, msgspec.msgpack.encode(change))])

    def _check_promotion(self, learner: int) -> None:
        progress = self.progress[learner]
        lag = self._log.last - progress.match
        if lag > PROMOTION_LAG_MAX or progress.flow is not Flow.REPLICATE:
            raise membership.ChangeRefused(
                f"learner {learner} is {lag} entries behind; it can be promoted when it receives the log steadily and "
                f"lacks at most {PROMOTION_LAG_MAX}"
            )

    def _append(self, rows: Sequence[tuple[EntryKind, bytes]]) -> None:
        index = self._log.last
        entries = []
        for kind, data in rows:
            index += 1
            entries.append(Entry(index, self._term, data, kind))
            if kind is EntryKind.CONFIG:
                self._config_index = index
        self._log.extend(entries)

    # replication

    def _broadcast_append(self) -> None:
        for member in self.progress:
            self._send_append(member)

    def _send_append(self, to: int, *, even_if_empty: bool = True, asks: bool = False) -> bool:
        """Sends what a member lacks, as far as the flow to it allows; whether anything was sent.

        Args:
            asks: where nothing more may be on its way, asks by an empty append how far the member is: what it had
                acknowledged may be lost.
        """
        progress, log = self.progress[to], self._log
        is_paused = progress.is_paused
        if is_paused and not (asks and progress.flow is Flow.REPLICATE):
            return False
        before = progress.next - 1
        before_term = log.term(before)
        if before_term is None:
            return self._send_snapshot(to, progress)
        is_empty = is_paused or before >= log.last
        entries, size_bytes = ((), 0) if is_empty else log.slice(progress.next, APPEND_BYTES_MAX)
        if not entries and not even_if_empty:
            return False
        self._outbox.messages.append(
            Message(
                kind=MessageKind.APPEND, sender=self._member, to=to, term=self._term, index=before,
                log_term=before_term, commit=log.committed, entries=entries,
            )
        )  # fmt: skip
        progress.sent(before + len(entries), len(entries), size_bytes, log.committed)
        return True

    def _send_snapshot(self, to: int, progress: Progress) -> bool:
        """Asks the shell to send its state, unless the member is silent or enough snapshots are on their way."""
        under_way = sum(other.flow is Flow.SNAPSHOT for other in self.progress.values())
        if not progress.active or under_way >= SNAPSHOTS_MAX:
            return False
        progress.install(self._log.applied)
        self._outbox.installs.append(
            Message(
                kind=MessageKind.SNAPSHOT, sender=self._member, to=to, term=self._term, index=self._log.applied
            )
        )  # fmt: skip
        return True

    def compactable(self, index: int) -> int:
        """Returns up to where the log may be forgotten when `index` is wished for."""
        needed = min((progress.reaches for progress in self.progress.values()), default=index)
        return index if needed >= index else min(index, max(needed, self._log.reach_back(LAGGING_BYTES_MAX)))

    def hear(self, message: Message) -> None:
        """Takes another member's answer."""
        progress = self.progress.get(message.sender)
        if progress is None:
            return
        progress.active = True
        if message.kind is MessageKind.HEARTBEAT_REPLY:
            progress.heard()
            progress.round = max(progress.round, message.context)
            if progress.match < self._log.last:
                self._send_append(message.sender, asks=True)
            self._finish_round()
        elif message.rejected:
            self._take_refusal(message, progress)
        else:
            self._take_acknowledgement(message, progress)

    def _take_refusal(self, message: Message, progress: Progress) -> None:
        hint = message.hint
        if message.hint_term:
            hint, _ = self._log.agreement_before(hint, message.hint_term)
        if not progress.refused(message.index, hint):
            return
        if message.index == 0:
            # it lacks even the founding configuration, which no entry holds: it is new and starts from a snapshot
            self._send_snapshot(message.sender, progress)
        else:
            self._send_append(message.sender)

    def _take_acknowledgement(self, message: Message, progress: Progress) -> None:
        if not progress.acknowledged(message.index) and not (
            progress.flow is Flow.PROBE and progress.match == message.index
        ):
            return
        if progress.flow is Flow.PROBE or (progress.flow is Flow.SNAPSHOT and progress.match + 1 >= self._log.start):
            progress.replicate()
        self.advance_commit()
        while self._send_append(message.sender, even_if_empty=False):
            pass
        if message.sender == self.transferee and progress.match == self._log.last:
            self._hand_over(message.sender)

    def advance_commit(self) -> bool:
        """Commits what a majority holds durably; whether that is more than before.

        The news goes at once to a member that waits for it, and to everybody when it is a membership change: who is
        removed by it hears nothing any more afterwards. To the others it goes with the next append, or `tell_commit`.
        """
        log = self._log
        matches = {member: progress.match for member, progress in self.progress.items()}
        matches[self._member] = log.durable
        index = quorum_value(matches, self._config.voters)
        if index <= log.committed or log.term(index) != self._term:
            return False
        while self._uncommitted and self._uncommitted[0][0] <= index:
            self._uncommitted_bytes -= self._uncommitted.popleft()[1]
        is_change = log.committed < self._config_index <= index
        log.commit_to(index)
        self._start_reads()
        for member, progress in self.progress.items():
            if is_change or progress.told < progress.awaits:
                self._tell_commit(member, progress, index)
        return True

    @property
    def has_news(self) -> bool:
        """See `Raft.has_news`."""
        return any(progress.news(self._log.committed) for progress in self.progress.values())

    def tell_commit(self, index: int) -> bool:
        """See `Raft.tell_commit`."""
        told = [self._tell_commit(member, progress, index) for member, progress in self.progress.items()]
        return any(told)

    def _tell_commit(self, to: int, progress: Progress, index: int) -> bool:
        sent = progress.next - 1
        term = self._log.term(sent) if progress.news(index) else None
        if term is None:
            return False
        committed = min(self._log.committed, sent)
        progress.told = committed
        self._outbox.messages.append(
            Message(
                kind=MessageKind.COMMIT, sender=self._member, to=to, term=self._term, index=sent, log_term=term,
                commit=committed,
            )
        )  # fmt: skip
        return True

    def unreachable(self, member: int) -> None:
        progress = self.progress.get(member)
        if progress is not None and progress.flow is Flow.REPLICATE:
            progress.probe()

    def snapshot_sent(self, member: int, *, delivered: bool) -> None:
        progress = self.progress.get(member)
        if progress is not None and progress.flow is Flow.SNAPSHOT:
            progress.snapshot_sent(delivered=delivered)

    # the next leader

    def transfer(self, to: int) -> bool:
        """Prepares to hand over to another voter; False when that is impossible."""
        if to == self._member or to not in self._config.voters:
            return False
        if self.transferee != to:
            self.transferee = to
            self._quorum_elapsed = 0
            if self.progress[to].match == self._log.last:
                self._hand_over(to)
            else:
                self._send_append(to)
        return True

    def _hand_over(self, to: int) -> None:
        self._lease.give_up()
        self._outbox.send(MessageKind.TIMEOUT_NOW, to, term=self._term)

    # reads

    def may_answer_reads(self, now: float) -> bool:
        """Whether the commit index is proven to be the newest one without asking anybody."""
        return self._knows_commit and (self._config.voters == (self._member,) or self._lease.covers(now))

    @property
    def _knows_commit(self) -> bool:
        """Whether this leader has committed an entry of its term, and so knows all that was committed before."""
        return self._log.term(self._log.committed) == self._term

    def read(self, sender: int, request: int, now: float) -> bool:
        """Takes a read; False when too many wait."""
        if self.may_answer_reads(now):
            self._outbox.answer_read(sender, request, self._log.committed, self._term)
            return True
        taken = self._reads.add(sender, request)
        self._start_reads()
        return taken

    def _start_reads(self) -> None:
        """Lets reads that came in join the next round, once this leader knows the commit index (thesis, 6.4)."""
        if self._knows_commit:
            self._reads.admit(self._log.committed)

    def _broadcast_heartbeat(self, now: float) -> None:
        self._heartbeat_elapsed = 0
        number = self._reads.start_round()
        self._lease.sent(number, now)
        for member, progress in self.progress.items():
            commit = min(progress.match, self._log.committed)
            progress.told = max(progress.told, commit)
            self._outbox.send(MessageKind.HEARTBEAT, member, term=self._term, commit=commit, context=number)
        self._finish_round()

    def _finish_round(self) -> None:
        rounds = {member: progress.round for member, progress in self.progress.items()}
        rounds[self._member] = self._reads.newest_round
        answered = quorum_value(rounds, self._config.voters)
        self._lease.answered(answered)
        for sender, request, index in self._reads.finish(answered):
            self._outbox.answer_read(sender, request, index, self._term)

    # membership

    def configure(self, config: Config) -> bool:
        """Goes on with a changed group; False when this member votes no more: it has told another one to lead."""
        self._config = config
        self._lease.end()
        if self._member not in config.voters:
            best = max(config.voters, key=lambda voter: (self.progress[voter].match, -voter))
            self._hand_over(best)
            return False
        self.progress = {
            member: self.progress.get(member) or Progress(self._log.last + 1)
            for member in config.members
            if member != self._member
        }
        if self.transferee not in config.voters:
            self.transferee = 0
        self.advance_commit()
        self._broadcast_append()
        self._finish_round()
        return True
