"""The leases of one replica: the leader keeps their time, the others ask it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from steersman.actors.store.transport import LeaseAnswer, LeaseAsk, Transport
from steersman.cluster.store.commands import Command, LeaseGrant, LeaseRevoke
from steersman.cluster.store.leases import LeaseClock
from steersman.cluster.store.mvcc import Mvcc
from steersman.cluster.store.values import Unavailable

#: what a lease has left, where the member asked does not lead or does not know all leases yet
NOT_LEADING = -2
#: the same where there is no such lease
NO_LEASE = -1


class LeaseKeeper:
    """Keeps the time of leases while this member leads, and asks the leader while it does not.

    Args:
        clock: seconds, of any epoch.
    """

    def __init__(self, member_id: int, transport: Transport | None, clock: Callable[[], float]) -> None:
        self._member_id, self._transport, self._clock = member_id, transport, clock
        self._deadlines = LeaseClock()
        #: number of a question to (who waits, until when)
        self._asks: dict[int, tuple[asyncio.Future[int], float]] = {}
        #: this member leads, and has applied what came before it
        self.leads = False

    def lead(self, state: Mvcc) -> None:
        """This member leads from now on; every lease has its whole time again."""
        self._deadlines.lead(state.leases(), self._clock())
        self.leads = True

    def follow(self) -> None:
        """Another member leads."""
        self._deadlines.follow()
        self.leads = False

    def applied(self, command: Command) -> None:
        if not self.leads:
            return
        match command:
            case LeaseGrant(lease=lease, ttl_s=ttl_s):
                self._deadlines.granted(lease, ttl_s, self._clock())
            case LeaseRevoke(lease=lease):
                self._deadlines.revoked(lease)

    def expired(self) -> list[int]:
        """Returns the leases whose time is over, while this member leads."""
        return self._deadlines.expired(self._clock()) if self.leads else []

    def left_ms(self, lease: int, *, renew: bool) -> int:
        """Returns what a lease has left in milliseconds, or `NO_LEASE`, or `NOT_LEADING`."""
        if not self.leads:
            return NOT_LEADING
        if renew:
            ttl_s = self._deadlines.renew(lease, self._clock())
            return NO_LEASE if ttl_s is None else ttl_s * 1000
        left_s = self._deadlines.remaining_s(lease, self._clock())
        return NO_LEASE if left_s is None else int(left_s * 1000)

    def ask(self, leader: int, number: int, lease: int, *, renew: bool, deadline: float) -> asyncio.Future[int]:
        """Asks the leader for the same; the future raises Unavailable when it does not answer until the deadline."""
        assert self._transport is not None
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._asks[number] = (future, deadline)
        self._transport.send(LeaseAsk(self._member_id, leader, number, lease, renew))
        return future

    def answer(self, ask: LeaseAsk, left_ms: int) -> None:
        if self._transport is not None:
            self._transport.send(LeaseAnswer(self._member_id, ask.sender, ask.request, left_ms))

    def answered(self, letter: LeaseAnswer) -> None:
        future, _ = self._asks.pop(letter.request, (None, 0.0))
        if future is not None and not future.done():
            future.set_result(letter.ttl_ms)

    def expire_asks(self) -> None:
        clock = self._clock()
        for number in [number for number, (_, deadline) in self._asks.items() if deadline <= clock]:
            future, _ = self._asks.pop(number)
            if not future.done():
                future.set_exception(Unavailable("the leader did not answer in time"))

    def fail(self, reason: str) -> None:
        for future, _ in self._asks.values():
            if not future.done():
                future.set_exception(Unavailable(reason))
        self._asks.clear()
