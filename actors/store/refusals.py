"""Why a change of the group itself is refused; each has its own code and words on etcd's wire."""

from __future__ import annotations

from steersman.cluster.store.values import StoreError


class GroupRefusal(StoreError):
    """A change of the members or of the leader that makes no sense or would do harm now."""


class NotLeader(GroupRefusal):
    """Only the leader can do it."""


class BadTransferee(GroupRefusal):
    """The member that is to lead is no voter of the group."""


class MemberNotFound(GroupRefusal):
    """There is no such member."""


class MemberExists(GroupRefusal):
    """Another member has the address already."""


class NotLearner(GroupRefusal):
    """Only a learner can be promoted."""


class LearnerBehind(GroupRefusal):
    """The learner lacks too much of the log to vote; wait until it has caught up."""


class TooManyLearners(GroupRefusal):
    """Promote or remove the learner that there is before adding another."""


class NotEnoughMembers(GroupRefusal):
    """Too few of the voters that would be left answer: the group would stand still."""


class BadAddress(GroupRefusal):
    """A member has one peer URL with a host and a port."""
