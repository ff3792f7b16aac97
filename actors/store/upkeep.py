"""What a replica does as time goes by, unasked: it tells watchers how far they are, tells the group its name and of a
full disk, and has old changes forgotten. What is refused or lost is proposed again with a later tick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from steersman.actors.store.disk import Disk
from steersman.actors.store.settings import ReplicaSettings
from steersman.actors.store.watches import Watches
from steersman.cluster.raft.core import Raft
from steersman.cluster.store.commands import Alarm, Command, Compact, Name
from steersman.cluster.store.mvcc import Mvcc
from steersman.cluster.store.retention import Retention

#: how often a watch reports progress while nothing changes
PROGRESS_S = 5.0
#: how often the free space of the disk is looked at
DISK_CHECK_S = 1.0


class Upkeep:
    """The upkeep of one replica.

    Args:
        name, member_id: of the replica.
        state: returns its present state.
        propose: has the group take a command, without an answer.

    Attributes:
        disk_full: so little space is left that what makes the store larger must be refused.
    """

    def __init__(
        self,
        name: str,
        member_id: int,
        disk: Disk,
        watches: Watches,
        settings: ReplicaSettings,
        *,
        state: Callable[[], Mvcc],
        propose: Callable[[Command], None],
    ) -> None:
        self._name, self._member_id = name, member_id
        self._disk, self._watches, self._settings = disk, watches, settings
        self._state, self._propose = state, propose
        self._retention = Retention(settings.retention_s, settings.retention_revisions)
        self._progress_due = 0.0
        self._disk_check_due = 0.0
        self.disk_full = False

    def tick(self, core: Raft, clock: float) -> None:
        """Does what is due at `clock` (seconds, of any epoch)."""
        if clock >= self._progress_due:
            self._progress_due = clock + PROGRESS_S - self._settings.alone_tick_s
            self._watches.report_progress()
        if clock >= self._disk_check_due:
            self._disk_check_due = clock + DISK_CHECK_S
            self.disk_full = self._disk.is_full()
            if core.leader:
                for command in self._news(core):
                    self._propose(command)

    def compact_old(self, clock: float) -> None:
        """Has changes forgotten that are old enough; for the member that leads."""
        state = self._state()
        revision = self._retention.revision_to_compact(state.revision, state.compacted, clock)
        if revision is not None:
            self._propose(Compact(revision))

    def _news(self, core: Raft) -> Iterator[Command]:
        """What the group does not know of this member, and, on the leader, what it knows of members that are gone."""
        alarms, names, members = self._state().alarms, self._state().names, core.config.members
        if self.disk_full != (self._member_id in alarms):
            yield Alarm(self._member_id, self.disk_full)
        if self._member_id in members and names.get(self._member_id) != self._name:
            yield Name(self._member_id, self._name)
        if core.is_leader:
            yield from (Alarm(member, raised=False) for member in sorted(set(alarms).difference(members)))
            yield from (Name(member, "") for member in sorted(set(names).difference(members)))
