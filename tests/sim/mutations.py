"""Mistakes that a store can hold: each breaks the code in one known way, so that it is seen whether the tests notice.

Mistakes inside the consensus core alone are put into it in `tests/cluster/raft/test_mutations.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.sim.disk import Disk
from tests.sim.group import Machine
from tests.sim.scenarios import (
    a_lease_that_a_new_leader_has_not_applied_yet_is_known,
    a_lease_that_an_old_leader_renews_lives_on,
    act,
)

from steersman.actors.store import filedisk
from steersman.actors.store.filedisk import FileDisk
from steersman.actors.store.leasekeeping import LeaseKeeper
from steersman.actors.store.replica import Replica
from steersman.actors.store.saving import Saver
from steersman.actors.store.snapshots import Snapshots
from steersman.actors.store.transport import LeaseAsk
from steersman.actors.store.wal import Wal
from steersman.actors.store.watches import Watches
from steersman.cluster.raft.core import Raft
from steersman.cluster.raft.forwards import Forwards
from steersman.cluster.raft.log import Log
from steersman.cluster.store.commands import LeaseRevoke
from steersman.cluster.store.mvcc import Mvcc

Patch = pytest.MonkeyPatch
Mistake = Callable[[Patch], None]


def _around(patch: Patch, owner: Any, name: str, change: Callable[..., Any]) -> None:
    """Replaces a function by `change(original, *args)`."""
    original = getattr(owner, name)
    patch.setattr(owner, name, lambda *args, **kwargs: change(original, *args, **kwargs))


def acknowledge_before_the_disk_is_synced(patch: Patch) -> None:
    def save(original: Any, saver: Saver, group: Any) -> None:
        original(saver, group)

    _around(patch, Saver, "_save", save)


def go_on_after_a_failed_sync(patch: Patch) -> None:
    def written(original: Any, saver: Saver, future: Any) -> None:
        done = future.get_loop().create_future()
        done.set_result(None)
        original(saver, done)

    _around(patch, Saver, "_written", written)


def count_entries_that_are_not_durable(patch: Patch) -> None:
    patch.setattr(Log, "durable", property(lambda log: log.last, lambda *_: None), raising=False)


def apply_before_it_is_committed(patch: Patch) -> None:
    def to_apply(_original: Any, log: Log, _entries_max: int) -> Any:
        found = tuple(log._entries[log.applied - log._before :])
        log.applied = log.last
        return found

    _around(patch, Log, "to_apply", to_apply)


def read_without_asking_the_majority(patch: Patch) -> None:
    patch.setattr(Replica, "begin_read", lambda replica: replica._check_alive() and None)


def add_a_proposal_that_arrives_twice_again(patch: Patch) -> None:
    patch.setattr(Forwards, "take", lambda *_: True)


def leave_a_new_name_unsynced(patch: Patch) -> None:
    """The directory is not synced after the rename of a snapshot."""

    def write(original: Any, files: Disk, path: Any, pieces: Any) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(files, "sync_directory", lambda _: None)
            original(files, path, pieces)

    _around(patch, filedisk, "write_durably", write)


def leave_a_new_segment_unsynced(patch: Patch) -> None:
    """The log's directory is not synced after a segment was made."""

    def begin(original: Any, wal: Wal, number: int) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(wal._files, "sync_directory", lambda _: None)
            original(wal, number)

    _around(patch, Wal, "_begin", begin)


def leave_a_torn_tail(patch: Patch) -> None:
    patch.setattr(Disk, "truncate", lambda *_: None)


def take_a_snapshot_for_saved(patch: Patch) -> None:
    """A snapshot of the leader is accepted, and acknowledged, without being saved."""

    def save(original: Any, saver: Saver, group: Any) -> Any:
        return None if group[0].snapshot is not None else original(saver, group)

    _around(patch, Saver, "_save", save)


def forget_the_log_before_the_snapshot_is_saved(patch: Patch) -> None:
    async def write(_original: Any, disk: FileDisk, meta: Any, state: Any) -> None:
        await disk._workers.run("log", lambda: disk._wal.forget(meta.index))
        await disk._workers.run("snapshot", lambda: disk._write_snapshot(meta, state))

    _around(patch, FileDisk, "_write_beside", write)


def misplace_a_snapshot(patch: Patch) -> None:
    """A snapshot says that it holds one entry less than it does: the entry is applied again."""

    def place(original: Any, snapshots: Snapshots, core: Raft) -> Any:
        meta = original(snapshots, core)
        index = max(meta.index - 1, core.log.start - 1)
        return msgspec.structs.replace(meta, index=index, term=core.log.term(index))

    _around(patch, Snapshots, "place", place)


def resume_a_watch_one_late(patch: Patch) -> None:
    def watch(original: Any, watches: Watches, key: bytes, end: bytes, start: int) -> Any:
        return original(watches, key, end, start + 1 if start else 0)

    _around(patch, Watches, "watch", watch)


def forget_watchers_when_the_state_is_replaced(patch: Patch) -> None:
    patch.setattr(Watches, "state_replaced", lambda _: None)


def let_followers_end_leases(patch: Patch) -> None:
    """Every member keeps the time of the leases that it has applied, and ends them."""
    patch.setattr(LeaseKeeper, "follow", lambda _: None)

    def notice(original: Any, replica: Replica, core: Raft) -> None:
        original(replica, core)
        if not replica._leases.leads and core.leader:
            replica._leases.lead(replica._state)

    def expire(_original: Any, replica: Replica, _core: Raft) -> None:
        for lease in replica._leases.expired():
            replica._supervise(replica._submit_quietly(LeaseRevoke(lease)), f"lease-{lease}")

    _around(patch, Replica, "_notice_role", notice)
    _around(patch, Replica, "_expire_leases", expire)

    def tick(original: Any, replica: Replica, core: Raft) -> None:
        original(replica, core)
        replica._expire_leases(core)

    _around(patch, Replica, "_on_tick", tick)


def renew_leases_without_proof_of_leading(patch: Patch) -> None:
    async def ask(original: Any, replica: Replica, lease: int, *, renew: bool) -> Any:
        left_ms = replica._leases.left_ms(lease, renew=renew)
        return left_ms if left_ms > 0 else await original(replica, lease, renew=renew)

    def answer(_original: Any, replica: Replica, ask: LeaseAsk) -> None:
        replica._leases.answer(ask, replica._leases.left_ms(ask.lease, renew=ask.renew))

    _around(patch, Replica, "_ask_lease", ask)
    _around(patch, Replica, "_answer_ask", answer)


def answer_leases_before_all_are_known(patch: Patch) -> None:
    def notice(original: Any, replica: Replica, core: Raft) -> None:
        original(replica, core)
        if core.is_leader and not replica._leases.leads:
            replica._leases.lead(replica._state)

    _around(patch, Replica, "_notice_role", notice)


def come_back_with_an_empty_disk(patch: Patch) -> None:
    """A member that lost its disk starts as if it had never voted or acknowledged anything."""

    def died(original: Any, machine: Machine, process: Any) -> None:
        original(machine, process)
        machine.disk.wipe()

    _around(patch, Machine, "_died", died)


def undo_nothing_in_reads_of_the_past(patch: Patch) -> None:
    def past(_original: Any, state: Mvcc, *_request: Any) -> Any:
        return list(state._live.values()), 0

    _around(patch, Mvcc, "_range_past", past)


#: mistakes that stories must notice
NOTICED_BY_STORIES: tuple[Mistake, ...] = (
    acknowledge_before_the_disk_is_synced,
    go_on_after_a_failed_sync,
    count_entries_that_are_not_durable,
    apply_before_it_is_committed,
    read_without_asking_the_majority,
    add_a_proposal_that_arrives_twice_again,
    leave_a_new_name_unsynced,
    leave_a_new_segment_unsynced,
    leave_a_torn_tail,
    take_a_snapshot_for_saved,
    forget_the_log_before_the_snapshot_is_saved,
    misplace_a_snapshot,
    resume_a_watch_one_late,
    forget_watchers_when_the_state_is_replaced,
    let_followers_end_leases,
    come_back_with_an_empty_disk,
    undo_nothing_in_reads_of_the_past,
)
#: mistakes that a scenario by script must notice, and that scenario
NOTICED_BY_SCENARIOS: dict[Mistake, Callable[[], None]] = {
    answer_leases_before_all_are_known: lambda: act(a_lease_that_a_new_leader_has_not_applied_yet_is_known),
    renew_leases_without_proof_of_leading: lambda: act(a_lease_that_an_old_leader_renews_lives_on),
}
