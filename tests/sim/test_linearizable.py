"""The judge of histories itself: known good and bad ones, with and without operations that nobody confirmed."""

from __future__ import annotations

import random

import pytest
from tests.sim.linearizable import Action, Verdict, judge, split

X, Y = b"x", b"y"


def put(value: bytes, called: float, returned: float | None, key: bytes = X) -> Action:
    return Action(writes={key: value}, called=(called, 0), returned=None if returned is None else (returned, 0))


def get(value: bytes | None, called: float, returned: float, key: bytes = X) -> Action:
    return Action(seen={key: value}, called=(called, 0), returned=(returned, 0))


def swap(old: bytes | None, new: bytes, called: float, returned: float | None, *, succeeded: bool = True,
         seen: bytes | None = None) -> Action:  # fmt: skip
    return Action(
        compare={X: old}, writes={X: new}, called=(called, 0), succeeded=succeeded,
        returned=None if returned is None else (returned, 0), seen={} if succeeded else {X: seen},
    )  # fmt: skip


def move(source: bytes, target: bytes, called: float, returned: float) -> Action:
    return Action(compare={X: source}, writes={X: None, Y: target}, called=(called, 0), returned=(returned, 0))


GOOD = {
    "nothing happened": [],
    "one after the other": [get(None, 0, 1), put(b"1", 2, 3), get(b"1", 4, 5)],
    "a read beside a write sees the old value": [put(b"1", 0, 4), get(None, 1, 2), get(b"1", 3, 5)],
    "a read beside a write sees the new value": [put(b"1", 0, 4), get(b"1", 1, 2), get(b"1", 3, 5)],
    "writes side by side in either order": [put(b"1", 0, 9), put(b"2", 0, 9), get(b"2", 1, 2), get(b"1", 3, 4)],
    "an unconfirmed write that happened much later": [put(b"1", 0, None), get(None, 5, 6), get(b"1", 7, 8)],
    "an unconfirmed write that never happened": [put(b"1", 0, None), get(None, 5, 6), get(None, 7, 8)],
    "a chain of swaps": [swap(None, b"1", 0, 9), swap(b"1", b"2", 0, 9), swap(b"2", b"3", 0, 9), get(b"3", 10, 11)],
    "a swap that fails and tells what it saw": [put(b"1", 0, 1), swap(None, b"2", 2, 3, succeeded=False, seen=b"1")],
    "an unconfirmed swap that the next one needs": [swap(None, b"1", 0, None), swap(b"1", b"2", 5, 6)],
    "two keys at once": [put(b"1", 0, 1), move(b"1", b"2", 2, 5), get(None, 3, 4), get(b"2", 4, 5, Y)],
    "keys that have nothing to do with each other": [put(b"1", 0, 3), get(None, 0, 3, Y), get(b"1", 4, 5)],
}
BAD = {
    "a read of what was never written": [get(b"1", 0, 1)],
    "a stale read": [put(b"1", 0, 1), put(b"2", 2, 3), get(b"1", 4, 5)],
    "a lost write": [put(b"1", 0, 1), get(None, 2, 3)],
    "new, then old again": [put(b"1", 0, 1), put(b"2", 2, 9), get(b"2", 3, 4), get(b"1", 5, 6)],
    "a read from the future": [get(b"1", 0, 1), put(b"1", 2, 3)],
    "an unconfirmed write seen before its call": [get(b"1", 0, 1), put(b"1", 2, None)],
    "an unconfirmed write that happens twice": [
        put(b"1", 0, None), get(b"1", 1, 2), put(b"2", 3, 4), get(b"2", 5, 6), get(b"1", 7, 8),
    ],
    "two swaps from one value": [put(b"1", 0, 1), swap(b"1", b"2", 2, 9), swap(b"1", b"3", 2, 9)],
    "a swap that fails without reason": [put(b"1", 0, 1), swap(b"1", b"2", 2, 3, succeeded=False, seen=b"1")],
    "half a transaction": [put(b"1", 0, 1), move(b"1", b"2", 2, 3), get(b"1", 4, 5)],
    "each key in order, both together not": [
        put(b"1", 0, 1), put(b"a", 0, 1, Y), move(b"1", b"b", 2, 9),
        Action(seen={X: None, Y: b"a"}, called=(3, 0), returned=(4, 0)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("history", GOOD.values(), ids=GOOD)
def test_what_can_have_happened_in_turn_is_accepted(history: list[Action]) -> None:
    assert judge(history) == (Verdict.LINEARIZABLE, [])


@pytest.mark.parametrize("history", BAD.values(), ids=BAD)
def test_what_cannot_have_happened_in_turn_is_refused(history: list[Action]) -> None:
    verdict, part = judge(history)
    assert verdict is Verdict.NOT_LINEARIZABLE
    assert part


def test_keys_are_judged_together_only_when_an_operation_joins_them() -> None:
    history = [put(b"1", 0, 1), put(b"2", 0, 1, Y), put(b"3", 0, 1, b"z"), move(b"1", b"2", 2, 3)]
    assert sorted(len(part) for part in split(history)) == [1, 3]


def test_a_search_that_takes_too_long_says_so() -> None:
    history = [put(b"%d" % number, 0, 99) for number in range(12)] + [get(b"0", 100, 101), get(b"1", 102, 103)]
    assert judge(history, steps_max=1000)[0] is Verdict.UNDECIDED


@pytest.mark.parametrize("seed", range(30))
def test_the_verdict_agrees_with_trying_every_order(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(20):
        history = _random_history(rng)
        assert (judge(history)[0] is Verdict.LINEARIZABLE) == _some_order_works(history, None)


def _random_history(rng: random.Random) -> list[Action]:
    history: list[Action] = []
    for number in range(rng.randint(2, 6)):
        called = rng.uniform(0, 6)
        returned = called + rng.uniform(0.1, 4)
        values = [None, *(b"%d" % other for other in range(6))]
        match rng.randrange(4):
            case 0:
                history.append(put(b"%d" % number, called, returned if rng.random() < 0.7 else None))
            case 1 | 2:
                history.append(get(rng.choice(values), called, returned))
            case _:
                history.append(
                    swap(rng.choice(values), b"%d" % number, called, returned if rng.random() < 0.7 else None)
                )
    return history


def _some_order_works(left: list[Action], value: bytes | None) -> bool:
    """By trying each operation that no other had returned before."""
    if all(action.returned is None for action in left):
        return True
    for action in left:
        if any(other.returned is not None and other.returned < action.called for other in left):
            continue
        holds = all(value == wanted for wanted in action.compare.values())
        if action.returned is not None and (
            holds is not action.succeeded or any(value != seen for seen in action.seen.values())
        ):
            continue
        after = action.writes[X] if holds and action.writes else value
        if _some_order_works([other for other in left if other is not action], after):
            return True
    return False
