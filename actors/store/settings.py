"""How a replica behaves, and what it says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from steersman.cluster.raft.values import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSettings:
    """How one replica behaves; the same on all members of a group.

    Args:
        tick_s: the unit of the two below.
        heartbeat_ticks, election_ticks: see `Raft`; an outage after a leader's death lasts one to two elections.
        alone_tick_s: the tick of a group of one, which has nobody to listen to.
        request_timeout_s: after it a request ends with `Unavailable`.
        snapshot_entries, snapshot_bytes: a snapshot is taken when the log has grown by either.
        kept_entries: log entries kept beyond a snapshot for members that are a little behind.
        reads: how a leader proves that it still leads before it answers a read: by a round of heartbeats, or by a lease
            that such a round gives it. A lease saves the round and trusts the machines' clocks: one whose clock stands
            still with it (a virtual machine that is paused) may answer with what was true before.
        retention_s: how long changes are remembered; 0 for ever.
        retention_revisions: how many changes are remembered at most.
    """

    tick_s: float = 0.05
    heartbeat_ticks: int = 2
    election_ticks: int = 10
    alone_tick_s: float = 0.5
    request_timeout_s: float = 5.0
    snapshot_entries: int = 50_000
    snapshot_bytes: int = 128 << 20
    kept_entries: int = 5_000
    reads: Literal["read-index", "lease"] = "read-index"
    retention_s: float = 300.0
    retention_revisions: int = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """What one member says about itself.

    Args:
        leader: 0 when it knows none.
        alarms: the members whose disks are full.
        names: member id to name, of those that have told it.
    """

    name: str
    member: int
    leader: int
    term: int
    commit_index: int
    applied_index: int
    revision: int
    compacted: int
    size_bytes: int
    keys: int
    watches: int
    config: Config
    disk_full: bool
    names: Mapping[int, str]
    alarms: frozenset[int]
