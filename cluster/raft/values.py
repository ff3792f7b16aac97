"""What the consensus core takes and gives: entries, messages, the durable state and the work it hands out.

Like the store's values these are msgspec structs laid out as arrays: the same encoding serves the disk and the peers.

Source: Ongaro, "Consensus: Bridging Theory and Practice" (the thesis), chapters 3, 4, 6, 9 and 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from hashlib import sha256

from msgspec import Struct


class EntryKind(IntEnum):
    #: a command of the state machine; with no data the entry that a new leader commits first
    COMMAND = 0
    #: a `ConfigChange`
    CONFIG = 1


class Entry(Struct, frozen=True, array_like=True, gc=False):
    index: int
    term: int
    data: bytes = b""
    kind: EntryKind = EntryKind.COMMAND


class HardState(Struct, frozen=True, array_like=True, gc=False):
    """What must be on the disk before any message that depends on it leaves.

    Args:
        vote: the member voted for in `term`; 0 for none.
        commit: known to be committed; may be older than the truth, and is only a help after a restart.
    """

    term: int = 0
    vote: int = 0
    commit: int = 0


class Config(Struct, frozen=True, array_like=True):
    """Who belongs to the group.

    Args:
        voters: member ids, ascending.
        learners: members that receive the log and have no vote, ascending.
        addresses: (member id, address) of all of them, ascending.
        cluster: the group's id, made when it was founded and never changed; 0 where it is not known.
    """

    voters: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    addresses: tuple[tuple[int, str], ...] = ()
    cluster: int = 0

    def address(self, member: int) -> str:
        """Returns a member's address; empty when it is none."""
        return dict(self.addresses).get(member, "")

    @property
    def members(self) -> tuple[int, ...]:
        return tuple(sorted(self.voters + self.learners))


def config_of(addresses: Mapping[int, str], cluster: int | None = None) -> Config:
    """Returns the configuration in which all these members vote.

    Args:
        cluster: the group's id; None for that of a group founded by these members, which each of them can tell alone.
    """
    rows = tuple(sorted(addresses.items()))
    if cluster is None:
        told = "\n".join(f"{member} {address}" for member, address in rows)
        cluster = int.from_bytes(sha256(told.encode()).digest()[:8], "big") >> 1
    return Config(voters=tuple(member for member, _ in rows), addresses=rows, cluster=cluster)


class ChangeKind(IntEnum):
    ADD_LEARNER = 0
    #: makes a learner a voter, or adds a voter at once
    ADD_VOTER = 1
    REMOVE = 2
    #: gives a member another address
    MOVE = 3


class ConfigChange(Struct, frozen=True, array_like=True):
    """A change of one member; the next one waits until it is applied (thesis, 4.1)."""

    kind: ChangeKind
    member: int
    address: str = ""


class SnapshotMeta(Struct, frozen=True, array_like=True):
    """Where a snapshot stands: it replaces the log up to and including `index`."""

    index: int = 0
    term: int = 0
    config: Config = Config()


class MessageKind(IntEnum):
    PRE_VOTE = 0
    PRE_VOTE_REPLY = 1
    VOTE = 2
    VOTE_REPLY = 3
    APPEND = 4
    APPEND_REPLY = 5
    HEARTBEAT = 6
    HEARTBEAT_REPLY = 7
    SNAPSHOT = 8
    TIMEOUT_NOW = 9
    READ_INDEX = 10
    READ_INDEX_REPLY = 11
    PROPOSE = 12
    PROPOSE_REFUSED = 13
    COMMIT = 14


class Message(Struct, frozen=True, kw_only=True, array_like=True, tag=1):
    """One message between two members.

    Args:
        index: of the entry before `entries` (APPEND); up to which the receiver was sent all entries (COMMIT);
            acknowledged or refused (APPEND_REPLY); of the last entry (VOTE, PRE_VOTE); safe to read at
            (READ_INDEX_REPLY).
        log_term: of the entry at `index`.
        commit: the sender's commit index.
        rejected: a refusal; then `hint` and `hint_term` say where the logs may still agree.
        context: the round of a heartbeat, the id of a read; of PROPOSE the sender's life, in which `index` counts;
            PROPOSE_REFUSED repeats both.
        forced: a vote that may disturb a living leader, since that leader itself asked for it (leader transfer).
        snapshot: of SNAPSHOT; its data travels beside the message.
    """

    kind: MessageKind
    sender: int
    to: int
    term: int = 0
    index: int = 0
    log_term: int = 0
    commit: int = 0
    entries: tuple[Entry, ...] = ()
    rejected: bool = False
    hint: int = 0
    hint_term: int = 0
    context: int = 0
    forced: bool = False
    snapshot: SnapshotMeta | None = None


class Role(IntEnum):
    FOLLOWER = 0
    PRE_CANDIDATE = 1
    CANDIDATE = 2
    LEADER = 3


class Ready(Struct, kw_only=True):
    """Work for the shell, in this order of safety.

    1. `messages` may leave at once. 2. `hard_state` and `snapshot` or `entries` go to the disk, after those of the
    Ready before; the shell then calls `Raft.persisted`. 3. only when all that is durable may `replies` leave; one that
    is addressed to this member itself (its own vote) is given back to it by `Raft.step`. 4. `committed` may be applied
    at once, in order. 5. only after that is the state machine sent to the receivers of `installs`. 6. a read whose id
    is in `reads` may be answered from the state machine once that has applied the index.

    Args:
        entries: an entry whose index is on the disk already replaces it and everything after it; none with a snapshot.
        installs: SNAPSHOT messages; the shell fills in its state, at the index applied then, and tells the end by
            `Raft.snapshot_sent`.
        config: set when the committed entries or a snapshot changed the membership: the one now valid.
        lost: a leader's `reads` that will not be answered, since it leads no more.
        refused: of `Raft.forwards`, those that the leader did not take; nothing of them was added.
    """

    hard_state: HardState | None = None
    entries: tuple[Entry, ...] = ()
    snapshot: SnapshotMeta | None = None
    messages: tuple[Message, ...] = ()
    replies: tuple[Message, ...] = ()
    installs: tuple[Message, ...] = ()
    committed: tuple[Entry, ...] = ()
    reads: tuple[tuple[int, int], ...] = ()
    lost: tuple[int, ...] = ()
    refused: tuple[int, ...] = ()
    config: Config | None = None
