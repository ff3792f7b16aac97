"""Reads that wait at a leader for the proof that it still leads: any number of them share one round of heartbeats.

Source: the thesis, 6.4.
"""

from __future__ import annotations

from collections import deque

#: reads that wait at once; a shell that lets its readers share one question never comes near it
READS_MAX = 10_000


class Reads:
    """The reads at one leader, in one term.

    Attributes:
        newest_round: of heartbeats; a member that answered it knew no newer leader when it did.
    """

    def __init__(self) -> None:
        self.newest_round = 0
        #: (member, request) that came in
        self._incoming: list[tuple[int, int]] = []
        #: (round, index, member, request): may be answered at `index` once a majority answered `round`
        self._waiting: deque[tuple[int, int, int, int]] = deque()

    def add(self, member: int, request: int) -> bool:
        """Takes a read, unless too many wait."""
        if len(self._incoming) + len(self._waiting) >= READS_MAX:
            return False
        self._incoming.append((member, request))
        return True

    def admit(self, committed: int) -> None:
        """Binds the reads that came in to the present commit index and to a round that is still to start."""
        for member, request in self._incoming:
            self._waiting.append((self.newest_round + 1, committed, member, request))
        self._incoming.clear()

    @property
    def wants_round(self) -> bool:
        return bool(self._waiting) and self._waiting[-1][0] > self.newest_round

    def start_round(self) -> int:
        """Returns the number that the next heartbeats carry."""
        self.newest_round += 1
        return self.newest_round

    def finish(self, answered_round: int) -> list[tuple[int, int, int]]:
        """Returns (member, request, index) of the reads whose round a majority has answered."""
        done = []
        while self._waiting and self._waiting[0][0] <= answered_round:
            _, index, member, request = self._waiting.popleft()
            done.append((member, request, index))
        return done

    def pending(self, member: int) -> list[int]:
        """Returns the requests of one member that are not answered."""
        return [request for _, _, sender, request in self._waiting if sender == member] + [
            request for sender, request in self._incoming if sender == member
        ]
