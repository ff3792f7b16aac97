"""Priority and fairness: which request runs now, which waits, and which is refused.

A level has seats; a request takes one or more while it runs. What does not fit waits in one of the level's queues,
chosen by its flow (shuffle sharding), and the queues take turns by the work they had done (fair queuing in virtual
time). Levels lend seats they do not use. Pure: the caller tells the time, wakes those that may go on, and gives up
those that waited too long.

Source: https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/1040-priority-and-fairness and
k8s.io/apiserver/pkg/util/flowcontrol/fairqueuing/queueset
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from steersman.cluster.auth.attributes import Attributes
from steersman.cluster.auth.flowschemas import LevelSpec, Schema

#: seconds of a seat that a request is thought to need before it has run
GUESS_S = 0.003
#: flows remembered with their queues; the table starts anew when it is full
_FLOWS_MAX = 20_000
#: the most seats of one request, and the part of its level's seats
_WIDTH_MAX, _WIDTH_SHARE = 10, 0.15
#: the part of a level's seats that requests of several seats may have together: who asks for little finds others free
_WIDE_SHARE = 0.75
#: how slowly the remembered demand of a level falls
_SMOOTHING = 0.977

QUEUE_FULL, NO_SEATS, TIMED_OUT, CANCELLED = "queue-full", "concurrency-limit", "time-out", "cancelled"


class Queue:
    """Requests of some flows that wait, and how many of them run."""

    __slots__ = ("executing", "index", "next_r", "seats", "waiting")

    def __init__(self, index: int) -> None:
        self.index = index
        self.waiting: deque[Ticket] = deque()
        self.executing = 0
        self.seats = 0
        #: virtual time at which its next request begins
        self.next_r = 0.0


class Level:
    """The requests of one level of priority."""

    def __init__(self, spec: LevelSpec, now: float) -> None:
        self.spec = spec
        #: seats it may use now, with those borrowed or without those lent
        self.current = spec.nominal
        self.seats = 0
        #: of them those of requests that have several
        self.wide_seats = 0
        self.running: dict[Ticket, None] = {}
        self.waiting = 0
        self.waiting_seats = 0
        self.queues = [Queue(index) for index in range(spec.queues)]
        #: queues in which somebody waits
        self.busy: dict[Queue, None] = {}
        #: queues in which somebody waits or runs
        self.active = 0
        self.dispatched: Counter[str] = Counter()
        #: by schema and reason
        self.refused: Counter[tuple[str, str]] = Counter()
        self.smoothed = 0.0
        self._turn = 0
        self._r = 0.0
        self._then = now
        self._began = now
        self._sum = self._squares = 0.0
        self._high = 0

    @property
    def executing(self) -> int:
        return len(self.running)

    def change(self, spec: LevelSpec) -> None:
        """Takes a new configuration; whoever waits in a queue that is gone waits on there."""
        if spec.nominal != self.spec.nominal:
            self.current = spec.nominal
        self.spec = spec
        self.queues = [*self.queues[: spec.queues], *(Queue(n) for n in range(len(self.queues), spec.queues))]

    def advance(self, now: float) -> None:
        """Lets virtual time and the record of demand go on to `now`."""
        passed = now - self._then
        if passed > 0:
            demand = self.seats + self.waiting_seats
            if self.active:
                self._r += passed * min(demand, self.current) / self.active
            self._sum += demand * passed
            self._squares += demand * demand * passed
            self._then = now

    def _demanded(self) -> None:
        demand = self.seats + self.waiting_seats
        if demand > self._high:
            self._high = demand

    def demand(self, now: float) -> int:
        """The most seats wanted at once since the last call; also renews the smoothed demand."""
        self.advance(now)
        passed, high = now - self._began, self._high
        if passed > 0:
            mean = self._sum / passed
            envelope = mean + math.sqrt(max(0.0, self._squares / passed - mean * mean))
            self.smoothed = max(envelope, _SMOOTHING * self.smoothed + (1 - _SMOOTHING) * envelope)
        self._began, self._sum, self._squares = now, 0.0, 0.0
        self._high = self.seats + self.waiting_seats
        return high

    def fits(self, width: int) -> bool:
        has_room = self.seats + width <= self.current or (width > self.current and not self.seats)
        return has_room and not self._is_crowded(width)

    def _is_crowded(self, width: int) -> bool:
        """Whether a request waits for others of several seats, however many seats are free."""
        return width > 1 and self.wide_seats > 0 and self.wide_seats + width > self.current * _WIDE_SHARE

    def choose(self, hand: Sequence[int]) -> Queue | None:
        """The queue of a flow with the least to do; None where nobody ever waits."""
        queues = self.queues
        if not queues:
            return None
        self._turn += 1
        if not self.waiting:
            return queues[hand[self._turn % len(hand)]]
        return min((queues[index] for index in hand), key=lambda queue: len(queue.waiting))

    # ---- tickets

    def run(self, ticket: Ticket, now: float) -> None:
        """Gives a ticket its seats."""
        if ticket.queue is not None:
            self._wake(ticket.queue)
        self._start(ticket, now)
        self._demanded()

    def _wake(self, queue: Queue) -> None:
        if not queue.executing and not queue.waiting:
            self.active += 1
            queue.next_r = self._r

    def _start(self, ticket: Ticket, now: float) -> None:
        queue, width = ticket.queue, ticket.width
        self.seats += width
        self.wide_seats += width if width > 1 else 0
        self.running[ticket] = None
        self.dispatched[ticket.flow.schema.name] += 1
        ticket.started = now
        if queue is not None:
            queue.executing += 1
            queue.seats += width
            queue.next_r += GUESS_S * width

    def wait(self, ticket: Ticket) -> None:
        queue = ticket.queue
        assert queue is not None
        self._wake(queue)
        queue.waiting.append(ticket)
        self.busy[queue] = None
        self.waiting += 1
        self.waiting_seats += ticket.width
        self._demanded()

    def give_up(self, ticket: Ticket) -> None:
        """Takes a waiting ticket out."""
        queue = ticket.queue
        assert queue is not None
        queue.waiting.remove(ticket)
        self._left(queue, ticket)
        self._rest(queue)

    def _left(self, queue: Queue, ticket: Ticket) -> None:
        self.waiting -= 1
        self.waiting_seats -= ticket.width
        if not queue.waiting:
            del self.busy[queue]

    def _rest(self, queue: Queue) -> None:
        if not queue.executing and not queue.waiting:
            self.active -= 1

    def end(self, ticket: Ticket, now: float) -> None:
        """A running ticket is done; its queue is charged what it took."""
        queue, width = ticket.queue, ticket.width
        self.seats -= width
        self.wide_seats -= width if width > 1 else 0
        del self.running[ticket]
        if queue is not None and ticket.started is not None:
            queue.executing -= 1
            queue.seats -= width
            queue.next_r -= (GUESS_S - (now - ticket.started)) * width
            self._rest(queue)

    def go_on(self, now: float) -> list[Ticket]:
        """Returns those that waited and run now."""
        found = []
        while queues := [queue for queue in self.busy if not self._is_crowded(queue.waiting[0].width)]:
            queue = min(queues, key=lambda queue: queue.next_r + GUESS_S * queue.waiting[0].width)
            if not self.fits(queue.waiting[0].width):
                break
            ticket = queue.waiting.popleft()
            self._left(queue, ticket)
            self._start(ticket, now)
            found.append(ticket)
        return found


class Ticket:
    """One request: running once `started` is set."""

    __slots__ = ("arrived", "flow", "queue", "started", "width")

    def __init__(self, flow: Flow, queue: Queue | None, width: int, now: float) -> None:
        self.flow = flow
        self.queue = queue
        self.width = width
        self.arrived = now
        self.started: float | None = None


class Flow:
    """The requests of one schema that share a distinguisher: where they go, and what their answers say of it."""

    __slots__ = ("distinguisher", "hand", "headers", "level", "schema")

    def __init__(self, schema: Schema, distinguisher: str, level: Level) -> None:
        self.schema = schema
        self.distinguisher = distinguisher
        self.level = level
        spec = level.spec
        self.headers = {
            "x-kubernetes-pf-flowschema-uid": schema.uid,
            "x-kubernetes-pf-prioritylevel-uid": spec.uid,
        }
        self.hand = deal(f"{schema.name}\0{distinguisher}", spec.queues, spec.hand_size) if spec.queues else ()


def deal(name: str, queues: int, hand_size: int) -> tuple[int, ...]:
    """The queues of a flow: as many as a hand has, by its name alone."""
    value = int.from_bytes(sha256(name.encode()).digest()[:8], "little")
    deck, hand = list(range(queues)), []
    for _ in range(min(hand_size, queues)):
        value, card = divmod(value, len(deck))
        hand.append(deck.pop(card))
    return tuple(hand)


class Dispatcher:
    """All levels of one server."""

    def __init__(self, seats: int) -> None:
        self.seats = seats
        self.levels: dict[str, Level] = {}
        self._schemas: Sequence[Schema] = ()
        self._flows: dict[tuple[object, ...], Flow] = {}

    def configure(self, schemas: Sequence[Schema], levels: Mapping[str, LevelSpec], now: float) -> None:
        """Takes a new configuration; of levels that are gone those in flight end in peace."""
        for name, spec in levels.items():
            if name in self.levels and self.levels[name].spec.exempt == spec.exempt:
                self.levels[name].change(spec)
            else:
                self.levels[name] = Level(spec, now)
        self.levels = {name: self.levels[name] for name in levels}
        self._schemas = tuple(schemas)
        self._flows.clear()

    def classify(self, user: str, groups: tuple[str, ...], attributes: Attributes) -> Flow:
        """The flow of a request."""
        place = attributes.namespace if attributes.resource else attributes.path
        key = (
            user, groups, attributes.verb, attributes.group, attributes.resource, attributes.subresource, place,
        )  # fmt: skip
        flow = self._flows.get(key)
        if flow is None:
            schema = next((row for row in self._schemas if row.matches(user, groups, attributes)), self._schemas[-1])
            flow = Flow(schema, schema.flow(user, attributes), self.levels[schema.level])
            if len(self._flows) >= _FLOWS_MAX:
                self._flows.clear()
            self._flows[key] = flow
        return flow

    def enter(self, flow: Flow, width: int, now: float) -> Ticket | str:
        """Returns the ticket of a request, which runs or waits; or why there is none.

        Args:
            width: seats it takes; it gets no more than its level can spare.
        """
        level = flow.level
        level.advance(now)
        if level.spec.exempt:
            ticket = Ticket(flow, None, width, now)
            level.run(ticket, now)
            return ticket
        if width > 1:
            width = max(1, min(width, _WIDTH_MAX, round(level.spec.nominal * _WIDTH_SHARE)))
        queue = level.choose(flow.hand)
        ticket = Ticket(flow, queue, width, now)
        if not level.waiting and level.fits(width):
            level.run(ticket, now)
        elif queue is None:
            level.refused[flow.schema.name, NO_SEATS] += 1
            return NO_SEATS
        elif len(queue.waiting) >= level.spec.queue_length_max:
            level.refused[flow.schema.name, QUEUE_FULL] += 1
            return QUEUE_FULL
        else:
            has_room = level.fits(width)
            level.wait(ticket)
            if has_room:  # it may be that all the others wait for something else
                level.go_on(now)
        return ticket

    def leave(self, ticket: Ticket, now: float) -> list[Ticket]:
        """A running request is done; returns those that waited for it."""
        level = ticket.flow.level
        level.advance(now)
        level.end(ticket, now)
        return level.go_on(now) if level.waiting else []

    def give_up(self, ticket: Ticket, why: str, now: float) -> list[Ticket]:
        """A waiting request waits no longer; returns those that go on instead."""
        level = ticket.flow.level
        level.advance(now)
        level.refused[ticket.flow.schema.name, why] += 1
        level.give_up(ticket)
        return level.go_on(now)

    def lend(self, now: float) -> list[Ticket]:
        """Shares the seats out anew by what each level wanted lately; returns those that go on with what they got."""
        exempt: list[Level] = []
        limited: list[Level] = []
        demand: dict[Level, int] = {}
        for level in self.levels.values():
            demand[level] = level.demand(now)
            (exempt if level.spec.exempt else limited).append(level)
        total = sum(level.spec.nominal for level in self.levels.values())
        left = total - sum(max(level.spec.lower, demand[level]) for level in exempt)
        assured = {
            level: max(level.spec.lower, min(level.spec.nominal, demand[level])) for level in limited
        }  # what each wanted of its own
        least, wanted = sum(level.spec.lower for level in limited), sum(assured.values())
        if left <= least:
            shares = {level: float(level.spec.lower) for level in limited}
        elif left <= wanted:
            part = (left - least) / (wanted - least)
            shares = {level: level.spec.lower + (assured[level] - level.spec.lower) * part for level in limited}
        else:
            rows = [(assured[level], level.spec.upper, max(assured[level], level.smoothed)) for level in limited]
            shares = dict(zip(limited, share_out(left, rows), strict=True))
        for level, share in shares.items():
            level.current = max(1, round(share))
        return [ticket for level in limited for ticket in level.go_on(now)]


def share_out(total: float, rows: Iterable[tuple[float, float, float]]) -> list[float]:
    """Shares `total` out in proportion to targets, within bounds.

    Args:
        rows: lower bound, upper bound and target of each.
    """
    rows = [(low, high, max(target, 0.001)) for low, high, target in rows]

    def shares(factor: float) -> list[float]:
        return [max(low, min(high, factor * target)) for low, high, target in rows]

    below, above = 0.0, max((high / target for _, high, target in rows), default=0.0)
    if sum(shares(above)) <= total:
        return shares(above)
    for _ in range(60):  # halves the error each time
        middle = (below + above) / 2
        if sum(shares(middle)) < total:
            below = middle
        else:
            above = middle
    return shares(above)
