"""A leader's lease: for how long no other leader can have been elected, so that reads need no round of heartbeats.

A voter that has heard from a leader refuses its vote for one election timeout, and a voter that has just started does
so as well, since it may have forgotten. The lease begins when the heartbeats that a majority answered were SENT and is
shorter than that timeout. It is measured by the clock that is given to it, never by ticks: a process that was stopped
counts no ticks, and would take itself for the leader still.

Source: the thesis, 6.4.1.
"""

from __future__ import annotations

from collections import deque

#: by this share of an election timeout the clocks of two members, and the timers of a voter, may run apart
DRIFT_MAX = 0.1
#: rounds of heartbeats that wait for a majority; older ones are forgotten, which only makes the lease begin later
ROUNDS_MAX = 1024


def lease_s(tick_s: float, election_ticks: int) -> float:
    """Returns how long a lease lasts; one tick is lost, since a voter's first may come right after the heartbeat."""
    return tick_s * (election_ticks - 1) * (1 - DRIFT_MAX)


class Lease:
    """Args: length_s: from the sending of the heartbeats on; 0 for no lease at all."""

    def __init__(self, length_s: float) -> None:
        self._length_s = length_s
        #: (round, when it was sent), the oldest first
        self._sent: deque[tuple[int, float]] = deque(maxlen=ROUNDS_MAX)
        self._until = float("-inf")
        self._given_up = False

    def sent(self, number: int, now: float) -> None:
        """Notes that the heartbeats of a round leave now, or later."""
        if self._length_s:
            self._sent.append((number, now))

    def answered(self, number: int) -> None:
        """Notes that a majority has answered this round."""
        while self._sent and self._sent[0][0] <= number:
            self._until = self._sent.popleft()[1] + self._length_s

    def end(self) -> None:
        """Ends the present lease: the majority that granted it is no majority any more."""
        self._until = float("-inf")
        self._sent.clear()

    def give_up(self) -> None:
        """Ends all leases of this term: another member may be elected at any time from now on."""
        self._given_up = True

    def covers(self, now: float) -> bool:
        return now < self._until and not self._given_up
