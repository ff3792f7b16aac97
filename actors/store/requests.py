"""What clients wait for in one replica: writes until applied, reads until it is proven that they see every write."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence

from steersman.cluster.store.commands import Command
from steersman.cluster.store.values import StoreError, TxnResult, Unavailable


class Proposal:
    """A write under way."""

    __slots__ = ("_future", "command", "data", "deadline", "forward")

    def __init__(self, command: Command, data: bytes, future: asyncio.Future[TxnResult | int], deadline: float) -> None:
        self.command, self.data, self._future, self.deadline = command, data, future, deadline
        #: with which of `Raft.forwards` the leader was asked; 0 for none
        self.forward = 0

    def resolve(self, result: TxnResult | int) -> None:
        if not self._future.done():
            self._future.set_result(result)

    def refuse(self, error: StoreError) -> None:
        if not self._future.done():
            self._future.set_exception(error)


class Proposals:
    """The writes that this replica was asked for.

    Args:
        rng: gives the first number; entries that an earlier life of this member proposed must not be taken for ours.
    """

    def __init__(self, rng: random.Random) -> None:
        self._number = rng.getrandbits(62)
        self._pending: dict[int, Proposal] = {}
        #: not given to the consensus core yet
        self._queue: list[tuple[int, bytes]] = []
        #: not taken by the leader; asked again with the next tick, lest it be flooded
        self._refused: list[tuple[int, bytes]] = []

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def add(self, command: Command, data: bytes, deadline: float) -> asyncio.Future[TxnResult | int]:
        future: asyncio.Future[TxnResult | int] = asyncio.get_running_loop().create_future()
        number = self.next_number()
        self._pending[number] = Proposal(command, data, future, deadline)
        self._queue.append((number, data))
        return future

    def queued(self) -> Sequence[tuple[int, bytes]]:
        return self._queue

    def proposed(self, forward: int = 0) -> None:
        """Everything queued was given to the core, which has forwarded it under this number; 0 for not."""
        if forward:
            for number, _ in self._queue:
                self._pending[number].forward = forward
        self._queue = []

    def refused(self, forwards: Sequence[int]) -> None:
        """The leader has not taken what was forwarded under these numbers."""
        for number, proposal in self._pending.items():
            if proposal.forward and proposal.forward in forwards:
                proposal.forward = 0
                self._refused.append((number, proposal.data))

    def take(self, number: int) -> Proposal | None:
        """Returns a write that is applied now; None when nobody waits for it any more."""
        return self._pending.pop(number, None)

    def expire(self, clock: float) -> None:
        """Ends writes whose time is over, whether they take effect later is unknown; queues what was refused anew."""
        self._queue, self._refused = self._refused + self._queue, []
        over = []
        for number, proposal in self._pending.items():
            if proposal.deadline > clock:
                break
            over.append(number)
        if over:
            gone = frozenset(over)
            self._queue = [row for row in self._queue if row[0] not in gone]
            for number in over:
                self._pending.pop(number).refuse(Unavailable("the write was not confirmed in time"))

    def fail(self, reason: str) -> None:
        for proposal in self._pending.values():
            proposal.refuse(Unavailable(reason))
        self._pending.clear()
        self._queue, self._refused = [], []


#: questions under way at once: reads that come in meanwhile share the next one; two, so that a lost one stops nobody
QUESTIONS_MAX = 2
#: a reader's future and its deadline
_Reader = tuple[asyncio.Future[None], float]


class QueuedReads:
    """The reads that wait for a read index; those that came in together ask once."""

    def __init__(self) -> None:
        self._queue: list[_Reader] = []
        #: number of the question to (asked at, readers)
        self._asked: dict[int, tuple[float, list[_Reader]]] = {}
        #: (index that must be applied first, readers)
        self._waiting: deque[tuple[int, list[_Reader]]] = deque()

    def add(self, deadline: float) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((future, deadline))
        return future

    @property
    def are_queued(self) -> bool:
        return bool(self._queue)

    def ask(self, read_index: Callable[[int], bool], next_number: Callable[[], int], clock: float) -> None:
        if self._queue and len(self._asked) < QUESTIONS_MAX:
            number = next_number()
            if read_index(number):
                self._asked[number] = (clock, self._queue)
                self._queue = []

    def answered(self, number: int, index: int) -> None:
        row = self._asked.pop(number, None)
        if row is not None:
            self._waiting.append((index, row[1]))

    def lost(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            row = self._asked.pop(number, None)
            if row is not None:
                self._queue += row[1]

    def applied(self, index: int) -> None:
        for _ in range(len(self._waiting)):
            wanted, readers = self._waiting.popleft()
            if wanted > index:
                self._waiting.append((wanted, readers))
                continue
            for future, _ in readers:
                if not future.done():
                    future.set_result(None)

    def expire(self, clock: float, retry_s: float) -> None:
        """Asks again what was not answered, and ends what waits for too long."""
        self.lost([number for number, (asked_at, _) in self._asked.items() if asked_at + retry_s <= clock])
        self._queue = self._still_in_time(self._queue, clock)
        self._waiting = deque((index, self._still_in_time(readers, clock)) for index, readers in self._waiting)

    def _still_in_time(self, readers: list[_Reader], clock: float) -> list[_Reader]:
        kept = []
        for future, deadline in readers:
            if future.done():
                continue
            if deadline > clock:
                kept.append((future, deadline))
            else:
                future.set_exception(Unavailable("the store has no leader"))
        return kept

    def fail(self, reason: str) -> None:
        rows = [self._queue, *(readers for _, readers in self._asked.values()), *(row[1] for row in self._waiting)]
        for readers in rows:
            for future, _ in readers:
                if not future.done():
                    future.set_exception(Unavailable(reason))
        self._queue = []
        self._asked.clear()
        self._waiting.clear()
