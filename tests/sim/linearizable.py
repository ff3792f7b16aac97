"""Whether a recorded history of concurrent operations can have happened one at a time.

The search is Wing and Gong's with Lowe's memory of what was tried; it trusts no revision and no clock but the order of
calls and returns. Keys that no operation touches together are judged apart (P-compositionality).

It is our own because PyPI has none: the checkers that are well kept are Porcupine (Go) and Knossos and Elle (Clojure),
which would bring another language's tools into every test run. `test_linearizable.py` compares it with trying every
order.

Sources: Wing and Gong, "Testing and verifying concurrent objects" (1993); Lowe, "Testing for linearizability" (2017);
Horn and Kroening, "Faster linearizability checking via P-compositionality" (2015).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

#: a moment: seconds, and a number that orders what happens in the same one
Moment = tuple[float, int]
Value = bytes | None
#: partial orders tried for one group of keys before the search gives up
STEPS_MAX = 50_000


@dataclass(slots=True, kw_only=True)
class Action:
    """An operation: when every key of `compare` has its value, `writes` happen; None is the value of an absent key.

    Args:
        returned: None when nobody knows whether and when it took effect.
        seen: values just before the operation, as far as its answer told them.
    """

    compare: Mapping[bytes, Value] = field(default_factory=dict)
    writes: Mapping[bytes, Value] = field(default_factory=dict)
    called: Moment
    returned: Moment | None = None
    succeeded: bool = True
    seen: Mapping[bytes, Value] = field(default_factory=dict)

    @property
    def keys(self) -> set[bytes]:
        return {*self.compare, *self.writes, *self.seen}


class Verdict(Enum):
    LINEARIZABLE = "linearizable"
    NOT_LINEARIZABLE = "not linearizable"
    UNDECIDED = "undecided"


def judge(history: Iterable[Action], steps_max: int = STEPS_MAX) -> tuple[Verdict, list[Action]]:
    """Returns the verdict over a whole history that began empty, and the part of it that the verdict is about."""
    undecided: list[Action] = []
    for part in split(_without_unseen(list(history))):
        verdict = _judge_part(part, steps_max)
        if verdict is Verdict.NOT_LINEARIZABLE:
            return verdict, part
        if verdict is Verdict.UNDECIDED:
            undecided = part
    return (Verdict.UNDECIDED, undecided) if undecided else (Verdict.LINEARIZABLE, [])


def split(history: Sequence[Action]) -> list[list[Action]]:
    """Parts a history into those that share no key."""
    owner: dict[bytes, bytes] = {}

    def root(key: bytes) -> bytes:
        while owner.setdefault(key, key) != key:
            key = owner[key]
        return key

    for action in history:
        first, *others = action.keys
        for key in others:
            owner[root(key)] = root(first)
    parts: dict[bytes, list[Action]] = {}
    for action in history:
        parts.setdefault(root(next(iter(action.keys))), []).append(action)
    return list(parts.values())


def _without_unseen(history: list[Action]) -> list[Action]:
    """Drops unconfirmed writes whose values nobody ever saw or compared: without them the rest can happen as well.

    It holds because values are written once, and because an operation that fails tells what it saw instead.
    """
    known = {value for action in history for row in (action.seen, action.compare) for value in row.values()}
    return [action for action in history if action.returned or not known.isdisjoint(action.writes.values())]


def _judge_part(part: Sequence[Action], steps_max: int) -> Verdict:
    keys = sorted({key for action in part for key in action.keys})
    places = {key: place for place, key in enumerate(keys)}
    search = _Search(part, places)
    return search.run(steps_max)


class _Search:
    """The search over one part: which action comes next, taken back when nothing can follow."""

    def __init__(self, part: Sequence[Action], places: Mapping[bytes, int]) -> None:
        self._part, self._places = part, places
        events = [(action.called, 0, number) for number, action in enumerate(part)]
        events += [(action.returned, 1, number) for number, action in enumerate(part) if action.returned]
        #: action number of each event, or its complement for a return; in a ring that starts and ends at event 0
        self._what = [0, *(number if not is_return else ~number for _, is_return, number in sorted(events))]
        count = len(self._what)
        self._next = [*range(1, count), 0]
        self._before = [count - 1, *range(count - 1)]
        self._return_of = {~what: place for place, what in enumerate(self._what) if place and what < 0}

    def run(self, steps_max: int) -> Verdict:
        state: tuple[Value, ...] = (None,) * len(self._places)
        done, open_returns, place = 0, len(self._return_of), self._next[0]
        tried: set[tuple[int, tuple[Value, ...]]] = set()
        trail: list[tuple[int, tuple[Value, ...]]] = []
        while open_returns:
            number = self._what[place]
            after = self._step(state, self._part[number]) if place and number >= 0 else None
            if after is not None and (done | 1 << number, after) not in tried:
                tried.add((done | 1 << number, after))
                if len(tried) > steps_max:
                    return Verdict.UNDECIDED
                trail.append((place, state))
                state, done = after, done | 1 << number
                open_returns -= self._take(place)
                place = self._next[0]
            elif after is None and (not place or number < 0):
                if not trail:
                    return Verdict.NOT_LINEARIZABLE
                place, state = trail.pop()
                done ^= 1 << self._what[place]
                open_returns += self._put_back(place)
                place = self._next[place]
            else:
                place = self._next[place]
        return Verdict.LINEARIZABLE

    def _step(self, state: tuple[Value, ...], action: Action) -> tuple[Value, ...] | None:
        """Returns the state after an action; None when its answer contradicts the state before."""
        places = self._places
        holds = all(state[places[key]] == value for key, value in action.compare.items())
        if action.returned is not None and (
            holds is not action.succeeded or any(state[places[key]] != value for key, value in action.seen.items())
        ):
            return None
        if not holds or not action.writes:
            return state
        after = list(state)
        for key, value in action.writes.items():
            after[places[key]] = value
        return tuple(after)

    def _take(self, place: int) -> int:
        """Takes the events of an action out of the ring; returns how many returns."""
        back = self._return_of.get(self._what[place])
        for event in (place, back) if back else (place,):
            self._next[self._before[event]] = self._next[event]
            self._before[self._next[event]] = self._before[event]
        return 1 if back else 0

    def _put_back(self, place: int) -> int:
        back = self._return_of.get(self._what[place])
        for event in (back, place) if back else (place,):
            self._next[self._before[event]] = event
            self._before[self._next[event]] = event
        return 1 if back else 0
