"""How a member begins on an empty data directory: it may be new, or it may have lost what it promised.

A member that forgot its vote or the entries that it acknowledged may not vote again: the group could forget what it
acknowledged. So a member greets the others before it takes part, with an incarnation, a random number that its
directory holds from the first moment on. It takes part when every other member is as new as itself, or was founded
with this very incarnation; and once the newest configuration that all its voters know of has it as a
learner, which promised nothing. A member that votes in that of another is refused: it must be removed from the group
and added anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from steersman.actors.store.transport import Greeting
from steersman.cluster.raft.values import Config

#: members remembered that have called; a leader and those that it took over from are enough
CALLERS_MAX = 16


class Founding:
    """What a member knows of the others' beginnings.

    Args:
        incarnation: this member's own.
        met: the incarnation of each member that it was founded with.
        founders: the group as it begins; a member that is added later is not among them.
    """

    def __init__(self, member: int, incarnation: int, met: dict[int, int], founders: Config) -> None:
        self._member, self.incarnation, self.met, self._founders = member, incarnation, met, founders
        #: the newest (entry applied, configuration) of each member that is part of a group without this one
        self._strangers: dict[int, tuple[int, Config]] = {}
        #: members that have called: of the founders, who alone are known at first, none may be left
        self._callers: deque[int] = deque(maxlen=CALLERS_MAX)

    def called(self, member: int) -> None:
        """Notes that a member has written to this one, which it takes for a member of its group."""
        if member not in self._callers:
            self._callers.append(member)

    def greet(self, send: Callable[[Greeting], None]) -> None:
        """Asks every other member, as a new one."""
        for other in sorted({*self._founders.members, *self._callers, *self._newest.voters} - {self._member}):
            send(Greeting(self._member, other, self.incarnation))

    def answer(self, letter: Greeting, applied: int, config: Config) -> Greeting:
        """Returns what a member that takes part says to a new one."""
        known = self.met.get(letter.sender, 0)
        return Greeting(self._member, letter.sender, self.incarnation, known, applied, config)

    def hear(self, letter: Greeting) -> bool:
        """Takes what another member says to this new one; returns whether this one lost what it promised."""
        is_founder = self._member in self._founders.voters
        if letter.config is None or (is_founder and letter.known == self.incarnation):
            self.met[letter.sender] = letter.incarnation
            return False
        self._strangers[letter.sender] = (letter.applied, letter.config)
        return self._member in letter.config.voters

    @property
    def _newest(self) -> Config:
        rows = sorted(self._strangers.items(), key=lambda row: row[1][0])
        return rows[-1][1][1] if rows else Config()

    @property
    def cluster(self) -> int:
        """Id of the group that this member joins; 0 while nobody has told it."""
        return self._newest.cluster

    @property
    def addresses(self) -> dict[int, str]:
        """Where those are who are to be greeted."""
        return {**dict(self._founders.addresses), **dict(self._newest.addresses)}

    @property
    def missing(self) -> tuple[int, ...]:
        """The members that have not answered yet."""
        wanted = {*self._founders.members, *self._newest.voters} - {self._member}
        return tuple(sorted(wanted - self.met.keys() - self._strangers.keys()))

    @property
    def is_founded(self) -> bool:
        """Whether this member may take part as one of the founders."""
        return self._member in self._founders.voters and self.met.keys() >= {*self._founders.voters} - {self._member}

    @property
    def is_learner(self) -> bool:
        """Whether it may take part as a learner: nobody who could know better has not answered."""
        newest = self._newest
        return self._member in newest.learners and self._strangers.keys() >= set(newest.voters)
