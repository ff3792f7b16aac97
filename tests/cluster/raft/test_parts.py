"""The parts of the core by themselves: leases, forwarded proposals, flow to one member, the log's bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.cluster.raft import forwards, leadership, progress
from steersman.cluster.raft.forwards import Forwards
from steersman.cluster.raft.lease import Lease, lease_s
from steersman.cluster.raft.log import ENTRY_OVERHEAD_BYTES, Log
from steersman.cluster.raft.progress import Flow, Progress, quorum_value
from steersman.cluster.raft.reads import READS_MAX, Reads
from steersman.cluster.raft.values import Entry, MessageKind, SnapshotMeta


class TestLease:
    def test_it_begins_when_the_answered_round_was_sent(self) -> None:
        lease = Lease(1.0)
        lease.sent(1, 10.0)
        lease.sent(2, 10.4)
        assert not lease.covers(10.4), "nobody has answered"
        lease.answered(1)
        assert lease.covers(10.9) and not lease.covers(11.0)
        lease.answered(2)
        assert lease.covers(11.3) and not lease.covers(11.4)

    def test_an_answer_that_comes_late_makes_it_no_longer(self) -> None:
        lease = Lease(1.0)
        lease.sent(1, 10.0)
        lease.sent(2, 10.4)
        lease.answered(2)
        lease.answered(1)
        assert lease.covers(11.3)

    def test_after_a_change_of_the_group_only_new_rounds_count(self) -> None:
        lease = Lease(1.0)
        lease.sent(1, 10.0)
        lease.answered(1)
        lease.sent(2, 10.1)
        lease.end()
        lease.answered(2)
        assert not lease.covers(10.1)
        lease.sent(3, 10.2)
        lease.answered(3)
        assert lease.covers(10.3)

    def test_given_up_it_never_comes_back(self) -> None:
        lease = Lease(1.0)
        lease.give_up()
        lease.sent(1, 10.0)
        lease.answered(1)
        assert not lease.covers(10.0)

    def test_no_length_is_no_lease(self) -> None:
        lease = Lease(0.0)
        lease.sent(1, 10.0)
        lease.answered(1)
        assert not lease.covers(10.0)

    @given(phase=st.floats(0.0, 1.0), delay_s=st.floats(0.0, 5.0), drift=st.floats(-0.04, 0.04))
    def test_it_is_over_before_a_voter_votes_again(self, phase: float, delay_s: float, drift: float) -> None:
        """Its ticks come from any phase on, its clock is off by up to 4 %, the heartbeat is on its way for a while."""
        tick_s, election_ticks, sent_at = 0.05, 10, 100.0
        lease = Lease(lease_s(tick_s, election_ticks))
        lease.sent(1, sent_at)
        lease.answered(1)
        heard_at = sent_at + delay_s
        votes_at = heard_at + (phase + election_ticks - 1) * tick_s * (1 + drift)
        assert not lease.covers(votes_at)


class TestForwards:
    def test_a_proposal_is_taken_once(self) -> None:
        taken = Forwards()
        assert [taken.take(2, 7, number) for number in (1, 2, 2, 1, 4, 3, 3)] == [
            True, True, False, False, True, True, False,
        ]  # fmt: skip

    def test_lives_and_senders_count_for_themselves(self) -> None:
        taken = Forwards()
        assert taken.take(2, 7, 1) and taken.take(2, 8, 1) and taken.take(3, 7, 1)
        assert not taken.take(2, 7, 1)

    def test_what_comes_far_too_late_is_refused(self) -> None:
        taken = Forwards()
        for number in range(10, 4 * forwards.WINDOW):
            assert taken.take(2, 7, number)
        assert not taken.take(2, 7, 3), "nobody knows any more whether it was taken"
        assert taken.take(2, 7, 4 * forwards.WINDOW)

    def test_lives_are_bounded(self) -> None:
        taken = Forwards()
        assert all(taken.take(2, life, 1) for life in range(forwards.LIVES_MAX))
        assert not taken.take(2, forwards.LIVES_MAX, 1)


class TestProgress:
    @pytest.mark.parametrize(
        ("count", "size_bytes"),
        [
            pytest.param(progress.INFLIGHT_MAX, 1, id="appends"),
            pytest.param(4, progress.INFLIGHT_BYTES_MAX // 4, id="bytes"),
        ],
    )
    def test_what_is_on_its_way_is_bounded(self, count: int, size_bytes: int) -> None:
        member = Progress(1)
        member.replicate()
        for index in range(1, count + 1):
            assert not member.is_paused
            member.sent(index, 1, size_bytes, 0)
        assert member.is_paused
        member.acknowledged(1)
        assert not member.is_paused

    def test_after_a_snapshot_it_is_probed_behind_it(self) -> None:
        member = Progress(5)
        member.install(20)
        assert member.is_paused
        member.snapshot_sent(delivered=True)
        assert (member.flow, member.next, member.is_paused) == (Flow.PROBE, 21, True)
        assert member.refused(20, 3), "it did not take it after all"
        assert member.next == 4

    def test_a_lost_snapshot_leaves_it_where_it_was(self) -> None:
        member = Progress(5)
        member.install(20)
        member.snapshot_sent(delivered=False)
        assert (member.flow, member.next, member.reaches) == (Flow.PROBE, 1, 0)

    @given(st.dictionaries(st.integers(1, 7), st.integers(0, 9), min_size=1))
    def test_a_quorum_value_is_reached_by_a_majority_and_no_higher_one_is(self, values: dict[int, int]) -> None:
        found, half = quorum_value(values, values), len(values) / 2
        assert sum(value >= found for value in values.values()) > half
        assert sum(value > found for value in values.values()) <= half


class TestLog:
    def test_a_slice_takes_what_fits_and_at_least_one(self) -> None:
        log = Log(SnapshotMeta(), [Entry(index, 1, b"x" * 100) for index in range(1, 6)], 0)
        size = 100 + ENTRY_OVERHEAD_BYTES
        assert [entry.index for entry in log.slice(2, 2 * size)[0]] == [2, 3]
        assert log.slice(5, 1) == ((Entry(5, 1, b"x" * 100),), size)

    def test_reaching_back_is_bounded_by_bytes(self) -> None:
        log = Log(SnapshotMeta(), [Entry(index, 1, b"x" * 100) for index in range(1, 6)], 5)
        log.to_apply(5)
        size = 100 + ENTRY_OVERHEAD_BYTES
        assert [log.reach_back(bytes_max) for bytes_max in (0, size, 3 * size + 1, 99 * size)] == [5, 4, 2, 0]


def test_reads_that_wait_are_bounded() -> None:
    reads = Reads()
    assert all(reads.add(1, request) for request in range(READS_MAX))
    assert not reads.add(1, READS_MAX)


def test_the_leader_keeps_entries_for_members_a_little_behind(group: Any) -> None:
    g = group(3)
    g.elect(1)
    g.isolate(3)
    for number in range(10):
        g.propose(1, f"x{number}")
    g.deliver()
    g[1].compact(8)
    g.heal()
    g.tick(1)
    g.deliver()
    assert len(g.data(3)) == 10 and g[3].snapshot_index == 0, "no snapshot was needed"


def test_it_keeps_no_more_than_so_many_bytes_for_them(group: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadership, "LAGGING_BYTES_MAX", 5 * (2 + ENTRY_OVERHEAD_BYTES))
    g = group(3)
    g.elect(1)
    g.isolate(3)
    for number in range(10):
        g.propose(1, f"x{number}")
    g.deliver()
    g[1].compact(10)
    assert g[1].log.start == g[1].log.applied - 4


def test_a_snapshot_that_grows_old_on_its_way_is_followed_by_entries(group: Any) -> None:
    """The log goes on meanwhile, and is shortened: not beyond what the receiver needs next, or it would never end."""
    g = group(3)
    g.elect(1)
    g.isolate(3)
    g.propose(1, "a", "b")
    g.deliver()
    g.compact(1)
    g.heal()
    g.tick(1)
    g.deliver(lambda m: m.kind is not MessageKind.SNAPSHOT)
    for number in range(5):
        g.propose(1, f"x{number}")
    g.deliver(lambda m: m.kind is not MessageKind.SNAPSHOT)
    g[1].compact(g[1].log.applied)
    snapshots = [m for m in g.wire if m.kind is MessageKind.SNAPSHOT]
    g.deliver()
    assert len(snapshots) == 1 and g.data(3) == g.data(1)
    assert g[3].snapshot_index == snapshots[0].snapshot.index


def test_a_full_pipeline_goes_on_when_acknowledgements_were_lost(group: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INFLIGHT_MAX", 2)
    g = group(3)
    g.elect(1)
    g.cut.add((3, 1))
    for number in range(5):
        g.propose(1, f"x{number}")
        g.deliver()
    assert g.data(3) == ["x0"], "two appends are on their way, the second tells that the first is committed"
    g.heal()
    g.tick(1)
    g.deliver()
    assert g.data(3) == g.data(1)


def test_a_member_whose_disk_hangs_is_sent_no_more_than_what_may_be_on_its_way(
    group: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "INFLIGHT_MAX", 4)
    g = group(3)
    g.elect(1)
    g.saves_at_once = False
    for number in range(20):
        g.propose(1, f"x{number}")
        for member in (1, 2):
            g.save(g.members[member])
        g.tick(1)
        g.deliver()
        for member in (1, 2):
            g.save(g.members[member])
        g.deliver()
    assert g[1].log.committed >= 20 and g[3].log.last <= 6
