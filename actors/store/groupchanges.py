"""Changes of the group itself: asked of any member, made by the one that leads, one at a time.

The leader refuses what makes no sense or would leave too few members that answer; it never removes itself but hands
leadership over first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from steersman.actors.store.refusals import (
    BadTransferee,
    GroupRefusal,
    LearnerBehind,
    MemberExists,
    MemberNotFound,
    NotEnoughMembers,
    NotLeader,
    NotLearner,
    TooManyLearners,
)
from steersman.actors.store.settings import ReplicaSettings
from steersman.actors.store.transport import ChangeAnswer, ChangeAsk, Transport
from steersman.cluster.raft import membership
from steersman.cluster.raft.core import Raft
from steersman.cluster.raft.values import ChangeKind, Config, ConfigChange
from steersman.cluster.store.values import StoreError, Unavailable

#: a member that was heard of within so many heartbeats answers
HEARD_HEARTBEATS = 10
#: learners at once, as in etcd: each is sent the whole log
LEARNERS_MAX = 1
_REFUSALS = {kind.__name__: kind for kind in GroupRefusal.__subclasses__()}


class GroupChanges:
    """The changes of one replica's group.

    Args:
        core: returns the consensus core; raises Unavailable when the replica serves no more.
        pump: lets the core's work be done soon.
        number: returns a number that was not used before.
        clock: seconds, of any epoch.
    """

    def __init__(
        self,
        member_id: int,
        transport: Transport | None,
        settings: ReplicaSettings,
        *,
        core: Callable[[], Raft],
        pump: Callable[[], None],
        number: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        self._member_id, self._transport, self._settings = member_id, transport, settings
        self._core, self._pump, self._number, self._clock = core, pump, number, clock
        #: number of a question to who waits for its answer
        self._asks: dict[int, asyncio.Future[ChangeAnswer]] = {}
        #: when each other member was last heard of; those that left are forgotten
        self._heard: dict[int, float] = {}

    def heard(self, member: int) -> None:
        self._heard[member] = self._clock()

    def configured(self, config: Config) -> None:
        """The group has changed."""
        self._heard = {member: at for member, at in self._heard.items() if member in config.members}

    async def change(self, change: ConfigChange) -> Config:
        """Makes a change through the leader; returns the configuration with it, as applied here.

        Raises:
            GroupRefusal: it makes no sense, or would do harm.
            Unavailable: it was not confirmed in time.
        """
        async with _within(self._settings.request_timeout_s):
            while True:
                core = self._core()
                try:
                    if core.is_leader:
                        return await self._change_here(core, change)
                    if core.leader and self._transport is not None:
                        return await self._ask(core, change)
                except NotLeader:
                    pass
                await asyncio.sleep(self._settings.tick_s)

    async def _change_here(self, core: Raft, change: ConfigChange) -> Config:
        self._check(core.config, change)
        if change.kind is ChangeKind.REMOVE and change.member == self._member_id:
            await self.transfer(self._successor(core.config))
            raise NotLeader("another member leads now")
        try:
            while not core.propose_change(change):
                if not core.is_leader:
                    raise NotLeader("another member leads now")
                await asyncio.sleep(self._settings.tick_s)
        except membership.ChangeRefused as error:
            raise LearnerBehind(str(error)) from None
        index, term = core.log.last, core.term
        self._pump()
        while core.log.applied < index:
            self._core()
            await asyncio.sleep(self._settings.tick_s)
        if core.log.term(index) not in (term, None):
            raise NotLeader("the change was lost when another member took over")
        return core.config

    def _check(self, config: Config, change: ConfigChange) -> None:
        """Raises GroupRefusal for a change that makes no sense or would do harm."""
        member, kind = change.member, change.kind
        adds = member not in config.members
        if adds and kind in (ChangeKind.REMOVE, ChangeKind.MOVE):
            raise MemberNotFound(f"there is no member {member}")
        if change.address and any(at == change.address and who != member for who, at in config.addresses):
            raise MemberExists(f"another member is at {change.address}")
        if kind is ChangeKind.ADD_LEARNER and len(config.learners) >= LEARNERS_MAX:
            raise TooManyLearners("the group has a learner already")
        if kind is ChangeKind.ADD_VOTER and member in config.voters:
            raise NotLearner(f"member {member} votes already")
        others = [voter for voter in config.voters if voter != member]
        answering = sum(map(self._answers, others))
        removes_voter = kind is ChangeKind.REMOVE and member in config.voters
        # a voter that is added at once does not answer yet; without that rule a group of one could not grow
        adds_voter = kind is ChangeKind.ADD_VOTER and adds and len(others) > 1
        if (removes_voter and answering < len(others) // 2 + 1) or (
            adds_voter and answering < (len(others) + 1) // 2 + 1
        ):
            raise NotEnoughMembers(f"only {answering} of the {len(others)} voters other than {member} answer")

    def _answers(self, member: int) -> bool:
        silence_s = self._clock() - self._heard.get(member, float("-inf"))
        patience_s = HEARD_HEARTBEATS * self._settings.heartbeat_ticks * self._settings.tick_s
        return member == self._member_id or silence_s <= patience_s

    def _successor(self, config: Config) -> int:
        """The voter that was heard of last."""
        others = [voter for voter in config.voters if voter != self._member_id]
        return max(others, key=lambda voter: self._heard.get(voter, float("-inf")))

    async def transfer(self, to: int) -> None:
        """Hands leadership to another member.

        Raises:
            GroupRefusal: this member does not lead, or the other one cannot.
            Unavailable: the other one did not take it in time.
        """
        core = self._core()
        if not core.is_leader:
            raise NotLeader("this member does not lead")
        if to == self._member_id:
            return
        if not core.transfer(to):
            raise BadTransferee(f"member {to} does not vote")
        self._pump()
        async with _within(self._settings.request_timeout_s):
            while core.leader != to:
                self._core()
                await asyncio.sleep(self._settings.tick_s)

    # through another member

    async def _ask(self, core: Raft, change: ConfigChange) -> Config:
        assert self._transport is not None
        number = self._number()
        future: asyncio.Future[ChangeAnswer] = asyncio.get_running_loop().create_future()
        self._asks[number] = future
        self._transport.send(ChangeAsk(self._member_id, core.leader, number, change))
        try:
            answer = await future
        finally:
            del self._asks[number]
        if answer.refusal:
            raise _REFUSALS.get(answer.refusal, Unavailable)(answer.words)
        while membership.changed(core.config, change) != core.config:
            self._core()
            await asyncio.sleep(self._settings.tick_s)
        return core.config

    async def asked(self, letter: ChangeAsk) -> None:
        """Makes a change for another member."""
        assert self._transport is not None
        refusal = words = ""
        try:
            core = self._core()
            if not core.is_leader:
                raise NotLeader("this member does not lead")
            async with _within(self._settings.request_timeout_s):
                await self._change_here(core, letter.change)
        except StoreError as error:
            refusal, words = type(error).__name__, str(error)
        self._transport.send(ChangeAnswer(self._member_id, letter.sender, letter.request, refusal, words))

    def answered(self, letter: ChangeAnswer) -> None:
        future = self._asks.get(letter.request)
        if future is not None and not future.done():
            future.set_result(letter)

    def fail(self, reason: str) -> None:
        for future in self._asks.values():
            if not future.done():
                future.set_exception(Unavailable(reason))


@asynccontextmanager
async def _within(delay_s: float) -> AsyncIterator[None]:
    """As `asyncio.timeout`, but ends in Unavailable."""
    try:
        async with asyncio.timeout(delay_s):
            yield
    except TimeoutError:
        raise Unavailable("the change was not confirmed in time") from None
