"""What a replica needs of its disk, and the disk that is none: a member's memory, for tests and embedded clusters."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from steersman.cluster.raft.values import Config, Entry, HardState, SnapshotMeta
from steersman.cluster.store.snapshot import Capture


class DiskFailure(Exception):
    """The data directory cannot be used or can be trusted no more; the message says what to do."""


class DataDirInUse(DiskFailure):
    """Another process holds the data directory."""


class DataDirForeign(DiskFailure):
    """The data directory belongs to another member, or was written by a newer version."""


class DataDamaged(DiskFailure):
    """The log or the snapshot is damaged where a crash cannot have done it."""


def recovery(directory: Path) -> str:
    """What to do about a member's damaged data."""
    return (
        "If the other members of the group are healthy, remove this member from the group (etcdctl member remove), "
        f"move {directory} away and add it anew (etcdctl member add --learner); otherwise restore a backup "
        "(steer restore)"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whose data directory it is.

    Args:
        config: the group as it is founded; incarnation: see `founding.py`. Both are used only where nothing was
            written before.
    """

    name: str
    member: int
    config: Config
    incarnation: int = 0


@dataclass(slots=True, kw_only=True)
class Recovered:
    """What a disk held.

    Args:
        config: the group as it was founded.
        state: of the snapshot; None without one.
        entries: of the log, in order, those of the snapshot left out.
        cut_bytes: of a torn write that were cut off.
        incarnation, met: see `founding.py`.
        is_new: it never took part in a group.
    """

    config: Config
    incarnation: int = 0
    met: dict[int, int] = field(default_factory=dict)
    is_new: bool = False
    hard_state: HardState = field(default_factory=HardState)
    snapshot: SnapshotMeta = field(default_factory=SnapshotMeta)
    state: Capture | None = None
    entries: list[Entry] = field(default_factory=list)
    cut_bytes: int = 0


#: resolved when what was given is durable; None when it is so already
Saving = asyncio.Future[None] | None


class Disk(Protocol):
    """Keeps a member's log and snapshots. Calls are carried out in their order; a failure is final."""

    async def open(self, identity: Identity) -> Recovered:
        """Raises DiskFailure when the data cannot be used."""
        ...

    def found(self, config: Config, met: Mapping[int, int]) -> Saving:
        """Keeps with whom the group was founded; from then on the member is not new."""
        ...

    def save(self, hard_state: HardState | None, entries: Sequence[Entry]) -> Saving:
        """Appends to the log; an entry whose index is there already replaces it and everything after it."""
        ...

    def save_snapshot(self, meta: SnapshotMeta, state: Capture) -> Saving:
        """Keeps a snapshot of this member's own, and then lets the log forget what it covers."""
        ...

    def replace(self, hard_state: HardState | None, meta: SnapshotMeta, state: Capture) -> Saving:
        """Keeps a snapshot received from the leader in place of the whole log."""
        ...

    def is_full(self) -> bool:
        """Whether so little space is left that writes must be refused."""
        ...

    async def close(self) -> None: ...


class MemoryDisk:
    """Durable as long as the object lives: a replica may be stopped and started on it again."""

    def __init__(self) -> None:
        self._recovered: Recovered | None = None

    async def open(self, identity: Identity) -> Recovered:
        if self._recovered is None:
            self._recovered = Recovered(
                config=identity.config,
                incarnation=identity.incarnation,
                is_new=identity.config.members != (identity.member,),
            )
        kept = self._recovered
        return Recovered(
            config=kept.config,
            hard_state=kept.hard_state,
            snapshot=kept.snapshot,
            state=kept.state,
            entries=list(kept.entries),
            incarnation=kept.incarnation,
            met=dict(kept.met),
            is_new=kept.is_new,
        )

    def found(self, config: Config, met: Mapping[int, int]) -> Saving:
        kept = self._recovered
        assert kept is not None
        kept.config, kept.met, kept.is_new = config, dict(met), False
        return None

    def save(self, hard_state: HardState | None, entries: Sequence[Entry]) -> Saving:
        kept = self._recovered
        assert kept is not None
        if hard_state is not None:
            kept.hard_state = hard_state
        merge_entries(kept.entries, entries)
        return None

    def save_snapshot(self, meta: SnapshotMeta, state: Capture) -> Saving:
        kept = self._recovered
        assert kept is not None
        kept.snapshot, kept.state = meta, state
        kept.entries = [entry for entry in kept.entries if entry.index > meta.index]
        return None

    def replace(self, hard_state: HardState | None, meta: SnapshotMeta, state: Capture) -> Saving:
        kept = self._recovered
        assert kept is not None
        kept.snapshot, kept.state, kept.entries = meta, state, []
        kept.hard_state = hard_state or kept.hard_state
        return None

    def is_full(self) -> bool:
        return False

    async def close(self) -> None:
        """Keeps everything."""


def merge_entries(kept: list[Entry], entries: Sequence[Entry]) -> None:
    """Appends entries to a log; one whose index is there already replaces it and everything after it."""
    if not entries:
        return
    if kept and entries[0].index <= kept[-1].index:
        del kept[max(0, entries[0].index - kept[0].index) :]
    kept.extend(entries)
