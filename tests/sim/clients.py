"""Clients of a simulated store, who remember everything they asked, were told and were shown."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from tests.sim.group import DRIFT_MAX, Group
from tests.sim.history import Broken, LeaseLife, Operation, Watched
from tests.sim.linearizable import Moment, Value

from steersman.actors.store.refusals import GroupRefusal
from steersman.actors.store.replica import Replica
from steersman.cluster.store.values import (
    Compacted,
    Compare,
    CompareTarget,
    DeleteRange,
    FutureRevision,
    KeyValue,
    LeaseNotFound,
    NoSpace,
    Put,
    Range,
    RangeResult,
    StoreError,
    Txn,
    TxnResult,
    Unavailable,
)

T = TypeVar("T")

REGISTERS = (b"/r/0", b"/r/1")
TOGETHER = (b"/t/0", b"/t/1", b"/t/2")
LEASE_S = 1


class Clients:
    """All clients of one story.

    Attributes:
        over: set when they are to come to an end.
    """

    def __init__(self, group: Group, rng: random.Random) -> None:
        self._group, self._rng = group, rng
        self.operations: list[Operation] = []
        self.leases: dict[int, LeaseLife] = {}
        #: the first sees everything, from the beginning to the end
        self.watches = [Watched(b"/", b"0", 2)]
        #: what reads of the past found of `TOGETHER`, by revision
        self.past: dict[int, Sequence[KeyValue]] = {}
        self.over = False
        #: of the whole story; None while it goes on
        self.last_revision: int | None = None
        self._ticket = 0

    def moment(self) -> Moment:
        self._ticket += 1
        return (self._group.world.time(), self._ticket)

    def works(self) -> list[Coroutine[None, None, None]]:
        """All that goes on until `over`."""
        users = [self.use(f"c{number}") for number in range(3)]
        others = [self.hold_leases("a"), self.hold_leases("b"), self.watch_anew(), self.compact(), self.administer()]
        return [*users, *others]

    async def pause(self, longest_s: float) -> None:
        await asyncio.sleep(self._rng.uniform(0, longest_s))

    def _member(self, member: int) -> int:
        """The member to ask next: mostly the same, sometimes whichever."""
        known = sorted(self._group.machines)
        return member if member in known and self._rng.random() < 0.8 else self._rng.choice(known)

    # reads and writes

    async def use(self, name: str) -> None:
        number, member = 0, 1
        while not self.over:
            number += 1
            member = self._member(member)
            try:
                await self._one(f"{name}-{number}", member)
            except (Unavailable, NoSpace):
                member = self._rng.choice(sorted(self._group.machines))
                await self.pause(0.05)
            await self.pause(0.06)

    async def _one(self, name: str, member: int) -> None:
        rng, value = self._rng, name.encode()
        key = rng.choice(REGISTERS)
        match rng.choices(("get", "put", "swap", "delete", "move", "range", "old"), (5, 4, 4, 1, 4, 3, 1))[0]:
            case "get":
                await self.read(name, member, (key,))
            case "put":
                await self.write(name, member, {}, {key: value})
            case "swap":
                found = await self.read(f"{name}r", member, (key,))
                await self.write(name, member, found, {key: value})
            case "delete":
                await self.write(name, member, {}, {key: None})
            case "move":
                first, second, third = rng.sample(TOGETHER, 3)
                found = await self.read(f"{name}r", member, TOGETHER)
                await self.write(
                    name, member, {first: found[first]}, {second: value, third: rng.choice((value + b"'", None))}
                )
            case "range":
                await self.read(name, member, TOGETHER)
            case _:
                await self.read_old(member, rng.randint(2, max(2, self.watches[0].next - 1)))

    async def read(self, name: str, member: int, keys: Sequence[bytes]) -> Mapping[bytes, Value]:
        """Reads keys that lie beside each other, again and again until it is answered."""
        end = b"" if len(keys) == 1 else keys[-1] + b"\0"
        op = Operation(name=name, called=self.moment())
        while True:
            try:
                result = await self._group.call(
                    member, lambda replica: replica.range(Range(key=keys[0], range_end=end))
                )
                break
            except Unavailable:
                if self.over:
                    raise
                await self.pause(0.1)
                member = self._rng.choice(sorted(self._group.machines))
        op.returned = self.moment()
        self._saw(op, keys, result)
        return op.seen

    def _saw(self, op: Operation, keys: Sequence[bytes], result: RangeResult) -> None:
        values = {kv.key: kv.value for kv in result.kvs}
        op.seen = {key: values.get(key) for key in keys}
        op.revision, op.found = result.revision, result.kvs
        self.operations.append(op)

    async def read_old(self, member: int, revision: int) -> None:
        """Reads the past, which must be what it was; it says nothing about the present."""
        request = Range(key=TOGETHER[0], range_end=TOGETHER[-1] + b"\0", revision=revision)
        try:
            result = await self._group.call(member, lambda replica: replica.range(request))
        except Unavailable:
            raise
        except StoreError:
            return  # compacted, or not there yet
        self.past[revision] = result.kvs

    async def write(
        self, name: str, member: int, compare: Mapping[bytes, Value], writes: Mapping[bytes, Value], lease: int = 0
    ) -> bool:
        """Writes once; whether it happened stays open when no answer comes."""
        keys = sorted({*compare, *writes})
        looks = tuple(Range(key=key) for key in keys)
        request = Txn(
            compare=tuple(_equals(key, value) for key, value in compare.items()),
            success=(*looks, *(_put(key, value, lease) for key, value in writes.items())),
            failure=looks,
        )
        op = Operation(name=name, compare=compare, writes=writes, called=self.moment())
        self.operations.append(op)
        try:
            result = await self._group.call(member, lambda replica: replica.txn(request))
        except (LeaseNotFound, NoSpace):
            self.operations.remove(op)  # refused for certain
            raise
        op.returned = self.moment()
        op.succeeded, op.revision = result.succeeded, result.revision
        op.seen = {key: _value(result, place) for place, key in enumerate(keys)}
        return result.succeeded

    # leases

    async def hold_leases(self, name: str) -> None:
        number = 0
        while not self.over:
            number += 1
            lease, value = self._rng.getrandbits(40) + 1, f"{name}-{number}".encode()
            try:
                await self._live(lease, f"{name}-{number}", b"/l/" + value, value)
            except (Unavailable, NoSpace):
                await self.pause(0.1)

    async def _live(self, lease: int, name: str, key: bytes, value: bytes) -> None:
        """Grants a lease, binds a key to it, keeps it alive for a while and lets it go or revokes it."""
        life = self.leases[lease] = LeaseLife(keys={key: value}, ends_after=self.lease_end())
        await self._ask(lambda replica: replica.lease_grant(LEASE_S, lease))
        try:
            await self.write(name, self._any(), {}, {key: value}, lease)
            for _ in range(self._rng.randrange(5)):
                await self.pause(self._rng.choice((0.05, 0.6)))
                end = self.lease_end()
                await self._ask(lambda replica: replica.lease_keep_alive(lease))
                life.ends_after = max(life.ends_after, end)
                await self.read(f"{name}r", self._any(), (key,))
        except LeaseNotFound:
            if self.moment() < life.ends_after:
                raise Broken(f"lease {lease} was gone before {life.ends_after}") from None
            return
        if self._rng.random() < 0.3:
            life.ended = self.moment()
            with suppress(LeaseNotFound):
                await self._ask(lambda replica: replica.lease_revoke(lease))
        await self.pause(1.0)
        await self.read(f"{name}r", self._any(), (key,))

    def lease_end(self) -> Moment:
        """When a lease that is renewed now may end at the earliest, on whichever member's clock."""
        return (self._group.world.time() + LEASE_S / (1 + DRIFT_MAX), 0)

    def _any(self) -> int:
        return self._rng.choice(sorted(self._group.machines))

    async def _ask(self, work: Callable[[Replica], Awaitable[T]]) -> T:
        return await self._group.call(self._any(), work)

    # watches

    async def watch(self, watched: Watched) -> None:
        """Watches to the end, at whichever member, resuming where it was cut off."""
        while self._has_more(watched):
            await self._watch_at(self._any(), watched, 1.0)
            await self.pause(0.05)

    def _has_more(self, watched: Watched) -> bool:
        return self.last_revision is None or watched.next <= self.last_revision

    async def watch_anew(self) -> None:
        """Watches for a while, again and again, from now on or from somewhere in the past."""
        while not self.over:
            key, end = self._rng.choice(((b"/", b"0"), (b"/t/", b"/t0"), (b"/r/0", b"")))
            newest = self.watches[0].next
            watched = Watched(key, end, self._rng.choice((0, newest, self._rng.randint(2, newest), newest + 3)))
            for _ in range(self._rng.randint(1, 4)):
                await self._watch_at(self._any(), watched, 0.4)
            if watched.batches:
                self.watches.append(watched)
            await self.pause(0.1)

    async def _watch_at(self, member: int, watched: Watched, silence_s: float) -> None:
        """Follows one member until it dies or is silent for so long."""
        try:
            start = watched.next
            opened = await self._group.open_watch(member, watched.key, watched.end, start)
            if watched.batches:
                watched.resumes.append((len(watched.batches), start))
            while self._has_more(watched):
                async with asyncio.timeout(silence_s):
                    batch = await opened()
                if not watched.start:
                    watched.start = batch.revision + 1
                else:
                    watched.batches.append(batch)
        except (Unavailable, TimeoutError):
            return
        except Compacted as error:
            if watched is self.watches[0] or error.revision <= watched.next:
                raise Broken(f"a watch from {watched.next} was refused: {error}") from None

    async def compact(self) -> None:
        """Forgets the past now and then, never what the first watch has still to see."""
        while not self.over:
            await self.pause(2.0)
            revision = self.watches[0].next - 1 - self._rng.randrange(20)
            if revision > 1:
                try:
                    await self._ask(lambda replica: replica.compact(revision))  # noqa: B023  (awaited here)
                    await self.read_old(self._any(), revision)
                except (Compacted, Unavailable):
                    await self.pause(0.1)

    # what administrators ask

    async def administer(self) -> None:
        """Moves the leader, has logs shortened, looks at leases and compares members, now and then."""
        works = (self._move_leader, self._shorten_a_log, self._look_at_leases, self._compare_members)
        while not self.over:
            await self.pause(1.0)
            try:
                async with asyncio.timeout(2.0):
                    await self._rng.choice(works)()
            except (Unavailable, GroupRefusal, TimeoutError):
                await self.pause(0.1)

    async def _move_leader(self) -> None:
        leader, to = self._group.leader(), self._any()
        member = self._any() if leader is None else leader.member
        await self._group.call(member, lambda replica: replica.transfer_leadership(to))

    async def _shorten_a_log(self) -> None:
        await self._ask(lambda replica: replica.shorten_log())

    async def _look_at_leases(self) -> None:
        asked = self.moment()
        for lease in await self._ask(lambda replica: replica.leases()):
            life = self.leases.get(lease)
            try:
                _, granted_s, _ = await self._ask(lambda replica: replica.lease_remaining(lease))  # noqa: B023
            except LeaseNotFound:
                if life is not None and life.ended is None and self.moment() < life.ends_after:
                    raise Broken(f"lease {lease} was gone before {life.ends_after}") from None
                continue
            if life is None or granted_s != LEASE_S:
                raise Broken(f"lease {lease} of {granted_s} s was seen at {asked}, which nobody was granted")

    async def _compare_members(self) -> None:
        """Two members must have had the same at the same revision."""
        revision = self.watches[0].next - 1
        try:
            sums = {(await self._ask(lambda replica: replica.checksum(revision)))[1] for _ in range(2)}
        except (Compacted, FutureRevision):
            return
        if len(sums) > 1:
            raise Broken(f"two members had different things at revision {revision}")


def _equals(key: bytes, value: Value) -> Compare:
    if value is None:
        return Compare(key=key, target=CompareTarget.VERSION, operand=0)
    return Compare(key=key, target=CompareTarget.VALUE, operand=value)


def _put(key: bytes, value: Value, lease: int) -> Put | DeleteRange:
    return DeleteRange(key=key) if value is None else Put(key=key, value=value, lease=lease)


def _value(result: TxnResult, place: int) -> Value:
    found = result.results[place]
    assert isinstance(found, RangeResult)
    return found.kvs[0].value if found.kvs else None
