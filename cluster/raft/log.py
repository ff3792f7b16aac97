"""A log in memory: the entries since the last compaction, and how far they are handed out, durable and committed."""

from __future__ import annotations

from collections.abc import Sequence

from steersman.cluster.raft.values import Entry, SnapshotMeta

#: what an entry costs beside its data when bytes are counted
ENTRY_OVERHEAD_BYTES = 32
#: entries in one slice, so that a member far behind does not have the whole log copied again and again
SLICE_ENTRIES_MAX = 4096


class Log:
    """Entries `start ..= last`; of the one before `start` only the term is known.

    Attributes:
        committed: no entry up to it will ever change.
        applied: entries up to it have been handed out for applying.
        handed: entries up to it have been handed out for persisting.
        durable: entries up to it are on this member's disk.
    """

    def __init__(self, snapshot: SnapshotMeta, entries: Sequence[Entry], committed: int) -> None:
        self._before, self._before_term = snapshot.index, snapshot.term
        self._entries = [entry for entry in entries if entry.index > snapshot.index]
        if self._entries and self._entries[0].index != snapshot.index + 1:
            raise ValueError(f"the log starts at {self._entries[0].index}, the snapshot ends at {snapshot.index}")
        self.applied = snapshot.index
        self.handed = self.durable = self.last
        self.committed = max(snapshot.index, min(committed, self.last))

    @property
    def last(self) -> int:
        return self._before + len(self._entries)

    @property
    def start(self) -> int:
        """The first entry that is still held."""
        return self._before + 1

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self._before_term

    def term(self, index: int) -> int | None:
        """Returns the term of an entry; None when it is compacted away or does not exist."""
        if index == self._before:
            return self._before_term
        if self._before < index <= self.last:
            return self._entries[index - self._before - 1].term
        return None

    def slice(self, first: int, bytes_max: int) -> tuple[tuple[Entry, ...], int]:
        """Returns the entries from `first` on, as many as fit into `bytes_max` but at least one, and their bytes."""
        begin = first - self._before - 1
        found = self._entries[begin : begin + SLICE_ENTRIES_MAX]
        size_bytes = 0
        for count, entry in enumerate(found):
            entry_bytes = len(entry.data) + ENTRY_OVERHEAD_BYTES
            if size_bytes + entry_bytes > bytes_max and count:
                return tuple(found[:count]), size_bytes
            size_bytes += entry_bytes
        return tuple(found), size_bytes

    def extend(self, entries: Sequence[Entry]) -> None:
        """Adds entries that follow the last one."""
        self._entries.extend(entries)

    def append(self, index: int, term: int, entries: Sequence[Entry]) -> int | None:
        """Adds a leader's entries after (index, term), replacing those that differ.

        Returns: the index of the last entry now known to agree with the leader; None when (index, term) is not here.
        """
        if self.term(index) != term:
            return None
        agreed = index + len(entries)
        for position, entry in enumerate(entries):
            if self.term(entry.index) == entry.term:
                continue
            if entry.index <= self.committed:
                raise AssertionError(f"entry {entry.index} is committed and would be replaced")
            if entry.index <= self.last:
                self._truncate(entry.index)
            self._entries.extend(entries[position:])
            break
        return agreed

    def _truncate(self, index: int) -> None:
        del self._entries[index - self._before - 1 :]
        self.handed = min(self.handed, index - 1)
        self.durable = min(self.durable, index - 1)

    def is_up_to_date(self, index: int, term: int) -> bool:
        """Whether a candidate whose last entry is (index, term) has at least this log (paper, 5.4.1)."""
        return (term, index) >= (self.last_term, self.last)

    def agreement_before(self, index: int, term: int) -> tuple[int, int]:
        """Returns the last entry at or before `index` whose term is not above `term`, as (index, its term or 0).

        With it one refused append skips a whole term of a diverged log instead of a single entry.
        """
        index = min(index, self.last)
        while True:
            found = self.term(index)
            if found is None or found <= term:
                return index, found or 0
            index -= 1

    def commit_to(self, index: int) -> None:
        if index > self.committed:
            if index > self.last:
                raise AssertionError(f"commit index {index} is beyond the last entry {self.last}")
            self.committed = index

    @property
    def has_work(self) -> bool:
        """Whether entries are to be handed out."""
        return self.applied < self.committed or self.handed < self.last

    def to_persist(self) -> tuple[Entry, ...]:
        """Hands out what is not on its way to the disk yet."""
        found = tuple(self._entries[self.handed - self._before :])
        self.handed = self.last
        return found

    def to_apply(self, entries_max: int) -> tuple[Entry, ...]:
        """Hands out committed entries that were not handed out before."""
        stop = min(self.committed, self.applied + entries_max)
        found = tuple(self._entries[self.applied - self._before : stop - self._before])
        self.applied = stop
        return found

    def between(self, first: int, last: int) -> Sequence[Entry]:
        """Returns the entries `first ..= last`, all of which are held."""
        return self._entries[first - self._before - 1 : last - self._before]

    def persisted(self, index: int, term: int) -> bool:
        """Notes that everything up to (index, term) is on the disk; whether that is still this log's entry."""
        if index <= self.durable or self.term(index) != term:
            return False
        self.durable = index
        return True

    def compact(self, index: int) -> None:
        """Forgets entries up to `index`, which must be applied and durable, or part of a durable snapshot."""
        index = min(index, self.applied)
        if index <= self._before:
            return
        term = self.term(index)
        assert term is not None
        del self._entries[: index - self._before]
        self._before, self._before_term = index, term

    def reach_back(self, bytes_max: int) -> int:
        """Returns the lowest index after which the applied entries have no more than `bytes_max`."""
        position = self.applied - self._before
        while position > 0:
            bytes_max -= len(self._entries[position - 1].data) + ENTRY_OVERHEAD_BYTES
            if bytes_max < 0:
                break
            position -= 1
        return self._before + position

    def restore(self, snapshot: SnapshotMeta) -> None:
        """Forgets everything: the log begins after a snapshot received from the leader."""
        self._entries.clear()
        self._before, self._before_term = snapshot.index, snapshot.term
        self.committed = self.applied = self.handed = self.durable = snapshot.index
