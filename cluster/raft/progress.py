"""What a leader knows about each other member, and what it may send to it: probing, pipelining or a snapshot."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from enum import IntEnum

#: appends on their way to one member, and bytes in them; more wait for an acknowledgement
INFLIGHT_MAX = 256
INFLIGHT_BYTES_MAX = 16 << 20


class Flow(IntEnum):
    #: where the logs agree is unknown: one append at a time
    PROBE = 0
    #: appends follow each other without waiting
    REPLICATE = 1
    #: the log no longer reaches back far enough: a snapshot is on its way
    SNAPSHOT = 2


class Progress:
    """One member as its leader sees it.

    Attributes:
        match: the highest entry known to be durable there.
        next: the first entry to send next.
        active: it has answered since the last check of the quorum.
        round: the latest round of heartbeats that it answered.
        waiting: a probe is on its way.
        told: the commit index that it was sent since the flow to it began; what is lost, a heartbeat makes good.
        awaits: the newest entry that it asked for itself.
        pending_snapshot: the entry that the snapshot on its way reaches at least; 0 for none.
    """

    __slots__ = (
        "_inflight", "_inflight_bytes", "active", "awaits", "flow", "match", "next", "pending_snapshot", "round",
        "told", "waiting",
    )  # fmt: skip

    def __init__(self, next_index: int) -> None:
        self.match = 0
        self.next = next_index
        self.flow = Flow.PROBE
        self.active = True
        self.round = 0
        self.waiting = False
        self.pending_snapshot = self.told = self.awaits = 0
        #: (last entry, bytes) of each append on its way
        self._inflight: deque[tuple[int, int]] = deque()
        self._inflight_bytes = 0

    @property
    def is_paused(self) -> bool:
        match self.flow:
            case Flow.PROBE:
                return self.waiting
            case Flow.REPLICATE:
                return len(self._inflight) >= INFLIGHT_MAX or self._inflight_bytes >= INFLIGHT_BYTES_MAX
            case _:
                return True

    @property
    def reaches(self) -> int:
        """The entry after which this member will need the log."""
        return max(self.match, self.pending_snapshot)

    def probe(self) -> None:
        """Falls back to one append at a time, from what is known to be there."""
        self.next = self.reaches + 1
        self._enter(Flow.PROBE)

    def replicate(self) -> None:
        self._enter(Flow.REPLICATE)
        self.pending_snapshot = 0
        self.next = self.match + 1

    def install(self, index: int) -> None:
        self._enter(Flow.SNAPSHOT)
        self.pending_snapshot = index

    def snapshot_sent(self, *, delivered: bool) -> None:
        """The snapshot is no longer on its way: the next answer of the member says where it stands."""
        if not delivered:
            self.pending_snapshot = 0
        self.probe()
        self.waiting = True

    def _enter(self, flow: Flow) -> None:
        self.flow = flow
        self.waiting = False
        self.told = 0
        self._inflight.clear()
        self._inflight_bytes = 0

    def news(self, committed: int) -> bool:
        """Whether the member was sent committed entries without being told that they are committed."""
        return self.told < min(committed, self.next - 1) and self.flow is Flow.REPLICATE and not self.is_paused

    def sent(self, last: int, count: int, size_bytes: int, committed: int) -> None:
        """Notes an append of `count` entries up to `last`."""
        if self.flow is Flow.PROBE:
            self.waiting = True
            return
        self.told = max(self.told, min(committed, last))
        if count:
            self.next = last + 1
            self._inflight.append((last, size_bytes))
            self._inflight_bytes += size_bytes

    def acknowledged(self, index: int) -> bool:
        """Notes that everything up to `index` is durable there; whether that is news."""
        inflight = self._inflight
        while inflight and inflight[0][0] <= index:
            self._inflight_bytes -= inflight.popleft()[1]
        self.next = max(self.next, index + 1)
        if index <= self.match:
            return False
        self.match = index
        self.waiting = False
        return True

    def refused(self, index: int, hint: int) -> bool:
        """Notes that the entry at `index` is not there; whether that is news and another place is to be tried."""
        if self.flow is Flow.REPLICATE:
            if index <= self.match:
                return False
            self.probe()
            return True
        if self.flow is Flow.SNAPSHOT or self.next - 1 != index:
            return False
        self.pending_snapshot = 0
        self.next = max(min(index, hint + 1), self.match + 1)
        self.waiting = False
        return True

    def heard(self) -> None:
        """Notes any answer: a lost probe may be repeated."""
        self.waiting = False


def quorum_value(values: Mapping[int, int], voters: Iterable[int]) -> int:
    """Returns the highest number that a majority of the voters has reached; 0 with no voters."""
    ordered = sorted(values.get(voter, 0) for voter in voters)
    return ordered[(len(ordered) - 1) // 2] if ordered else 0
