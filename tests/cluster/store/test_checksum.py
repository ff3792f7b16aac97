"""The checksum of a state: the same for the same keys, whatever became of the past; another for every other state."""

from __future__ import annotations

import random

from steersman.cluster.store.checksum import MODULUS, parts
from steersman.cluster.store.commands import Command, Compact, LeaseGrant
from steersman.cluster.store.mvcc import Mvcc
from steersman.cluster.store.snapshot import Capture, capture, decode, encode
from steersman.cluster.store.values import DeleteRange, Put, Range, Txn


def checksum(state: Mvcc, revision: int = 0, captured: Capture | None = None) -> int:
    return sum(parts(captured or capture(state), revision or state.revision)) % MODULUS


def changed_at_random(seed: int, count: int) -> list[Command]:
    rng = random.Random(seed)
    keys = [b"k%d" % number for number in range(12)]
    commands: list[Command] = [LeaseGrant(7, 60)]
    for _ in range(count):
        if rng.random() < 0.25:
            commands.append(Txn(success=(DeleteRange(key=rng.choice(keys), range_end=rng.choice((b"", b"k3"))),)))
        else:
            commands.append(Txn(success=(Put(key=rng.choice(keys), value=rng.randbytes(3), lease=rng.choice((0, 7))),)))
    return commands


def test_it_depends_on_what_lives_and_on_nothing_else() -> None:
    for seed in range(20):
        state, compacted, then = Mvcc(), Mvcc(), {}
        for number, command in enumerate(changed_at_random(seed, 60)):
            state.apply(command)
            compacted.apply(command)
            if number % 7 == 3 and compacted.revision > compacted.compacted:
                compacted.apply(Compact(compacted.revision))
            then[state.revision] = checksum(state)
        assert checksum(compacted) == checksum(state) == checksum(decode(encode(capture(state))).restore())
        assert {revision: checksum(state, revision) for revision in then} == then, "of the past as it was then"
        assert len(set(then.values())) == len({state_at(state, revision) for revision in then})


def state_at(state: Mvcc, revision: int) -> tuple[object, ...]:
    return state.range(Range(key=b"\0", range_end=b"\0", revision=revision)).kvs


def test_every_field_counts() -> None:
    def of(*commands: Command) -> int:
        state = Mvcc()
        for command in (LeaseGrant(7, 60), *commands):
            state.apply(command)
        return checksum(state)

    def put(key: bytes, value: bytes, lease: int = 0) -> Txn:
        return Txn(success=(Put(key=key, value=value, lease=lease),))

    states = [
        (put(b"a", b"bc"),), (put(b"ab", b"c"),), (put(b"a", b"bc", 7),), (put(b"a", b"x"), put(b"a", b"bc")),
        (put(b"z", b"x"), Txn(success=(DeleteRange(key=b"z"),)), put(b"a", b"bc")),
    ]  # fmt: skip
    assert len({of(*commands) for commands in states}) == len(states)
