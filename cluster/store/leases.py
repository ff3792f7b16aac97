"""When leases end: kept by the leader alone, from the time it is told; the end itself is a command of the log.

A new leader gives every lease its whole time again, since it does not know when the last keep-alive came.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush


class LeaseClock:
    """The deadlines of the leases; empty on members that do not lead."""

    def __init__(self) -> None:
        #: lease id to (time to live, deadline), in seconds
        self._deadlines: dict[int, tuple[int, float]] = {}
        #: (deadline, lease) as first noted; a renewed lease is pushed again only when its old deadline comes up
        self._heap: list[tuple[float, int]] = []

    def lead(self, leases: Iterable[tuple[int, int]], now: float) -> None:
        """Starts with every lease (id, time to live) renewed."""
        self._deadlines = {lease: (ttl_s, now + ttl_s) for lease, ttl_s in leases}
        self._heap = [(deadline, lease) for lease, (_, deadline) in self._deadlines.items()]
        heapify(self._heap)

    def follow(self) -> None:
        """Forgets all deadlines: another member leads."""
        self._deadlines.clear()
        self._heap.clear()

    def granted(self, lease: int, ttl_s: int, now: float) -> None:
        self._deadlines[lease] = (ttl_s, now + ttl_s)
        heappush(self._heap, (now + ttl_s, lease))

    def revoked(self, lease: int) -> None:
        self._deadlines.pop(lease, None)

    def renew(self, lease: int, now: float) -> int | None:
        """Returns the time to live in seconds; None when the lease is unknown or has ended."""
        row = self._deadlines.get(lease)
        if row is None or row[1] <= now:
            return None
        self._deadlines[lease] = (row[0], now + row[0])
        return row[0]

    def remaining_s(self, lease: int, now: float) -> float | None:
        row = self._deadlines.get(lease)
        return None if row is None else max(0.0, row[1] - now)

    def expired(self, now: float) -> list[int]:
        """Returns the leases whose time is over; asking again returns them again after a second, until revoked."""
        over: list[int] = []
        while self._heap and self._heap[0][0] <= now:
            _, lease = heappop(self._heap)
            row = self._deadlines.get(lease)
            if row is None:
                continue
            if row[1] <= now:
                over.append(lease)
                heappush(self._heap, (now + 1.0, lease))
            else:
                heappush(self._heap, (row[1], lease))
        return over
