"""Where the store's members run: the group as it is known, and the next step to one that no single machine can end.

A machine that holds one member more than it must can take two of three members with it. As machines join, members
therefore move to those that have none: a learner is added there, promoted when it has caught up, and one of the crowded
machine's members is removed. A machine that is away keeps its member until somebody decides otherwise, since it may
come back with what it has.

Source: the thesis of Raft, 4.1 (one step at a time) and 4.2.1 (learners); etcd's guide to replacing members.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

#: a learner that lacks no more entries than this is promoted: the group waits for it only a moment
LAG_ENTRIES_MAX = 100


class ChangeRefused(ValueError):
    """The change would do harm or cannot be made; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreMember:
    """One member of the store's group.

    Args:
        id: as the group knows it; never used again for another member.
        host: name of its machine.
        slot: gives it its name and its ports; free for another when it is gone.
    """

    id: int
    host: str
    slot: int

    @property
    def name(self) -> str:
        return f"store-{self.slot}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreGroup:
    """The members as last known, learners too.

    Args:
        founders: how many the group began with, all on the head: where a log that is read from its beginning starts.
    """

    members: tuple[StoreMember, ...]
    founders: int

    def named(self, name: str) -> StoreMember:
        """Returns the member of a name or of an id in hexadecimal, as etcdctl shows it; raises ChangeRefused."""
        for member in self.members:
            if name in (member.name, f"{member.id:x}"):
                return member
        raise ChangeRefused(f"the store has no member {name}; it has {', '.join(m.name for m in self.members)}")


def founding_group(size: int, head: str) -> StoreGroup:
    """Returns the group of a new cluster: all its members on the head."""
    return StoreGroup(
        members=tuple(StoreMember(id=slot + 1, host=head, slot=slot) for slot in range(size)), founders=size
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberState:
    """A member as the group and it itself say.

    Args:
        address: `host:port`; lag: entries that the leader has committed and it has not applied.
    """

    member: StoreMember
    address: str
    learner: bool = False
    leads: bool = False
    answers: bool = False
    lag: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Add:
    """Add a learner on a machine."""

    host: str
    slot: int


@dataclass(frozen=True, slots=True)
class Promote:
    member: StoreMember


@dataclass(frozen=True, slots=True)
class Remove:
    member: StoreMember


@dataclass(frozen=True, slots=True)
class Transfer:
    """Let another member lead."""

    to: StoreMember


Step = Add | Promote | Remove | Transfer


def next_step(
    states: Sequence[MemberState], present: Sequence[str], wanted: int, retiring: Collection[int] = ()
) -> Step | None:
    """Returns the next change of the group; None when it is as it should be, or has to be waited for.

    Args:
        states: of every member.
        present: names of the machines that are there now, in the order in which they are to be used.
        wanted: number of voters.
        retiring: ids of members that are to go when others have taken their place.
    """
    if not any(state.leads for state in states):
        return None
    learners = [state for state in states if state.learner]
    voters = [state for state in states if not state.learner]
    for learner in learners:
        if learner.member.host not in present:
            return Remove(learner.member)
        if learner.answers and learner.lag <= LAG_ENTRIES_MAX:
            return Promote(learner.member)
    if learners:
        return None
    if len(voters) > wanted:
        leaving = _leaving(voters, retiring)
        return None if leaving is None else _part(states, leaving)
    host = _host_for_another(voters, present, wanted, retiring)
    return None if host is None else Add(host, free_slot(states))


def free_slot(states: Sequence[MemberState]) -> int:
    """Returns the lowest slot that no member has."""
    taken = {state.member.slot for state in states}
    return next(slot for slot in range(len(taken) + 1) if slot not in taken)


def _host_for_another(
    voters: Sequence[MemberState], present: Sequence[str], wanted: int, retiring: Collection[int]
) -> str | None:
    held = Counter(state.member.host for state in voters)
    least = min(present, key=lambda host: held[host], default=None)
    if least is None:
        return None
    moving = max(held.values()) > 1 or any(state.member.id in retiring for state in voters)
    if len(voters) < wanted or (moving and not held[least]):
        return least
    return None


def _leaving(voters: Sequence[MemberState], retiring: Collection[int]) -> MemberState | None:
    """Returns the voter that is one too many: one that is to retire, or one of the most crowded machine."""
    for state in voters:
        if state.member.id in retiring:
            return state
    held = Counter(state.member.host for state in voters)
    most = max(held.values())
    if most < 2:
        return None
    crowd = [state for state in voters if held[state.member.host] == most]
    return min(crowd, key=lambda state: (state.answers, state.leads, -state.member.slot))


def _part(states: Sequence[MemberState], leaving: MemberState) -> Step | None:
    """Returns the removal of a member, or first another leader; None while too few others answer."""
    if why_not_remove(states, leaving.member):
        return None
    if not leaving.leads:
        return Remove(leaving.member)
    others = [s for s in states if s is not leaving and not s.learner and s.answers]
    return Transfer(min(others, key=lambda state: state.lag).member)


def why_not_remove(states: Sequence[MemberState], member: StoreMember) -> str:
    """Returns why the group would not survive the loss of a member; empty when it would."""
    return _why_too_few([state for state in states if not state.learner and state.member != member])


def why_not_leave(states: Sequence[MemberState], host: str) -> str:
    """Returns why the group would not survive the loss of a machine with all its members; empty when it would."""
    voters = [state for state in states if not state.learner]
    rest = [state for state in voters if state.member.host != host]
    return "" if len(rest) == len(voters) else _why_too_few(rest)


def _why_too_few(rest: Sequence[MemberState]) -> str:
    answering = sum(state.answers for state in rest)
    if answering < len(rest) // 2 + 1:
        return f"only {answering} of the {len(rest)} other voters answer: the store would stand still"
    return ""


def addresses(members: Sequence[StoreMember], address_of: Mapping[str, str], first_port: int) -> dict[int, str]:
    """Returns member id to `host:port`; members of machines that are not known are left out.

    Args:
        address_of: machine name to its address.
    """
    return {m.id: f"{address_of[m.host]}:{first_port + m.slot}" for m in members if m.host in address_of}
