"""What one membership change does to a configuration.

Source: the thesis, 4.1: any majority before and any majority after a change of one member overlap.
"""

from __future__ import annotations

from steersman.cluster.raft.values import ChangeKind, Config, ConfigChange


class ChangeRefused(ValueError):
    """The change makes no sense for this group."""


def check(config: Config, change: ConfigChange) -> None:
    """Refuses a change that could not be applied.

    Raises:
        ChangeRefused: says why.
    """
    member = change.member
    match change.kind:
        case ChangeKind.ADD_LEARNER:
            if member in config.members:
                raise ChangeRefused(f"member {member} belongs to the group already")
        case ChangeKind.ADD_VOTER:
            if member in config.voters:
                raise ChangeRefused(f"member {member} votes already")
        case ChangeKind.MOVE:
            if member not in config.members:
                raise ChangeRefused(f"member {member} does not belong to the group")
        case ChangeKind.REMOVE:
            if member not in config.members:
                raise ChangeRefused(f"member {member} does not belong to the group")
            if config.voters == (member,):
                raise ChangeRefused("the last voter cannot be removed")


def changed(config: Config, change: ConfigChange) -> Config:
    """Returns the configuration after a change; one that `check` would refuse changes nothing."""
    try:
        check(config, change)
    except ChangeRefused:
        return config
    member = change.member
    voters, learners, addresses = set(config.voters), set(config.learners), dict(config.addresses)
    if change.address:
        addresses[member] = change.address
    match change.kind:
        case ChangeKind.ADD_LEARNER:
            learners.add(member)
        case ChangeKind.ADD_VOTER:
            learners.discard(member)
            voters.add(member)
        case ChangeKind.REMOVE:
            learners.discard(member)
            voters.discard(member)
            addresses.pop(member, None)
    return Config(
        voters=tuple(sorted(voters)),
        learners=tuple(sorted(learners)),
        addresses=tuple(sorted(addresses.items())),
        cluster=config.cluster,
    )
