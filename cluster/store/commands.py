"""What the log replicates: each command changes the state the same way on every member, whatever its clock.

A lease's end is not decided here: the leader notices it (`leases.py`) and proposes a `LeaseRevoke`.
"""

from __future__ import annotations

from msgspec import Struct

from steersman.cluster.store.values import Put, Txn


class Compact(Struct, frozen=True, array_like=True, tag=16):
    """Forgets every version older than `revision`."""

    revision: int


class LeaseGrant(Struct, frozen=True, array_like=True, tag=17):
    """Args: lease: its id, never 0; ttl_s: seconds without a keep-alive after which it ends."""

    lease: int
    ttl_s: int


class LeaseRevoke(Struct, frozen=True, array_like=True, tag=18):
    """Ends a lease and deletes the keys bound to it, in one revision."""

    lease: int


class Alarm(Struct, frozen=True, array_like=True, tag=19):
    """A member's disk is full, or no longer; while any is, the store takes nothing that makes it larger."""

    member: int
    raised: bool


class Name(Struct, frozen=True, array_like=True, tag=20):
    """A member tells its name; with an empty one, of a member that has left, its name is forgotten."""

    member: int
    name: str


#: an entry of the log
Command = Txn | Compact | LeaseGrant | LeaseRevoke | Alarm | Name


def grows(command: Command) -> bool:
    """Whether a command may make the store larger: it is refused while a disk is full."""
    if not isinstance(command, Txn):
        return isinstance(command, LeaseGrant)
    return any(isinstance(op, Put) or (isinstance(op, Txn) and grows(op)) for op in command.success + command.failure)


#: the answer to every command but `Txn`: the store's revision after it
Done = int
