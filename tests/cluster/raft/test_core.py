"""The protocol step by step: elections, replication, reads, transfer and membership."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.raft.membership import ChangeRefused
from steersman.cluster.raft.values import (
    ChangeKind,
    ConfigChange,
    Entry,
    Message,
    MessageKind,
    Role,
    SnapshotMeta,
)

TICKS = 10


def test_a_group_of_one_leads_and_commits_by_itself(group: Any) -> None:
    g = group(1)
    g.elect(1)
    g.propose(1, "a", "b")
    assert g.data(1) == ["a", "b"]


def test_nothing_is_committed_before_it_is_durable_on_a_majority(group: Any) -> None:
    g = group(3, saves_at_once=False)
    g[1].campaign()
    for _ in range(12):
        g.deliver()
        for member in g.alive:
            g.save(member)
    assert g.leader() == 1
    g.propose(1, "a")
    g.deliver()
    assert g.data(1) == []
    g.save(g.members[2])
    g.deliver()
    assert g.data(1) == [], "the leader's own disk and one follower's answer are needed"
    g.save(g.members[1])
    g.deliver()
    assert g.data(1) == ["a"]


def test_the_leader_may_commit_before_its_own_disk_is_done(group: Any) -> None:
    g = group(3, saves_at_once=False)
    g[1].campaign()
    for _ in range(12):
        g.deliver()
        for member in g.alive:
            g.save(member)
    g.propose(1, "a")
    g.deliver()
    g.save(g.members[2])
    g.save(g.members[3])
    g.deliver()
    assert g.data(1) == ["a"]


def test_the_commit_index_reaches_followers_without_a_heartbeat(group: Any) -> None:
    g = group(3)
    g.elect(1)
    g.propose(1, "a")
    g.deliver()
    assert g.data(2) == g.data(3) == ["a"]


def test_a_follower_forwards_proposals(group: Any) -> None:
    g = group(3)
    g.elect(1)
    assert g.propose(2, "a")
    g.deliver()
    assert g.data(1) == g.data(2) == g.data(3) == ["a"]


def test_a_member_that_knows_no_leader_takes_no_proposal(group: Any) -> None:
    assert not group(3).propose(2, "a")


def test_silence_starts_an_election(group: Any) -> None:
    g = group(3)
    g.elect(1)
    g.isolate(1)
    assert g.run(2, 3) in (2, 3)


def test_a_member_that_was_cut_off_does_not_disturb_the_leader(group: Any) -> None:
    g = group(3)
    g.elect(1)
    g.isolate(3)
    g.tick(3, 20 * TICKS)
    term = g[1].term
    assert g[3].term == term, "a pre-vote binds nobody, not even the one who asks"
    g.heal()
    g.tick(3, 2 * TICKS)
    g.tick(1)
    g.deliver()
    assert g.leader() == 1 and g[1].term == term


def test_a_leader_without_majority_steps_down(group: Any) -> None:
    g = group(3)
    g.elect(1)
    g.isolate(1)
    g.tick(1, 2 * TICKS + 1)
    assert g[1].role is Role.FOLLOWER and g[1].leader == 0


def test_a_candidate_with_an_older_log_is_refused(group: Any) -> None:
    g = group(3)
    g.elect(1)
    g.isolate(3)
    g.propose(1, "a")
    g.deliver()
    g.heal()
    g.crash(1)
    g.tick(2, 2 * TICKS)
    g.wire.clear()
    g[3].campaign()
    g.deliver()
    assert g.leader() == 0


def test_a_vote_survives_a_crash(group: Any) -> None:
    g = group(3)
    g.tick(2, TICKS)
    g[1].campaign()
    g.deliver(lambda m: m.kind in (MessageKind.PRE_VOTE, MessageKind.PRE_VOTE_REPLY) or m.to == 2)
    assert g[2].vote == 1
    g.crash(2)
    g.restart(2)
    assert (g[2].term, g[2].vote) == (1, 1)


def test_a_lost_append_is_made_good(group: Any) -> None:
    g = group(3)
    g.elect(1)
    g.cut |= {(1, 3)}
    g.propose(1, "a")
    g.propose(1, "b")
    g.deliver()
    g.heal()
    g.propose(1, "c")
    g.deliver()
    assert g.data(3) == ["a", "b", "c"]


def test_the_last_lost_append_is_made_good_by_a_heartbeat(group: Any) -> None:
    g = group(3)
    g.elect(1)
    g.cut |= {(1, 3)}
    g.propose(1, "a")
    g.deliver()
    g.heal()
    g.tick(1)
    g.deliver()
    assert g.data(3) == ["a"]


def test_a_broken_connection_falls_back_to_probing(group: Any) -> None:
    g = group(2)
    g.elect(1)
    g[1].unreachable(2)
    g.propose(1, "a")
    g.propose(1, "b")
    appends = [m for m in g.wire if m.kind is MessageKind.APPEND]
    assert len(appends) == 1, "one probe at a time"
    g.deliver()
    assert g.data(2) == ["a", "b"]


def test_a_member_far_behind_gets_a_snapshot(group: Any) -> None:
    g = group(3)
    g.elect(1)
    g.isolate(3)
    for number in range(20):
        g.propose(1, f"x{number}")
    g.deliver()
    g.compact(1)
    g.heal()
    g.tick(1)
    g.deliver()
    g.propose(1, "last")
    g.deliver()
    assert g[3].snapshot_index > 0
    assert g.data(3) == g.data(1)


def test_a_snapshot_that_was_lost_is_sent_again(group: Any) -> None:
    g = group(3)
    g.elect(1)
    g.isolate(3)
    g.propose(1, "a")
    g.deliver()
    g.compact(1)
    g.heal()
    g.tick(1)
    g.deliver(lambda m: m.kind is not MessageKind.SNAPSHOT)
    assert [m.kind for m in g.wire] == [MessageKind.SNAPSHOT]
    g.lose(g.wire.pop())
    g.tick(1)
    g.deliver()
    assert g.data(3) == ["a"]


class TestReads:
    def test_a_read_is_answered_after_a_round_of_heartbeats(self, group: Any) -> None:
        g = group(3)
        g.elect(1)
        g.propose(1, "a")
        g.deliver()
        assert g.read(1, 7)
        assert g.members[1].reads == []
        g.deliver()
        assert g.members[1].reads == [(7, g[1].log.committed)]

    def test_an_old_leader_answers_no_read(self, group: Any) -> None:
        g = group(3)
        g.elect(1)
        g.isolate(1)
        g.propose(g.run(2, 3), "new")
        g.deliver()
        g.read(1, 7)
        g.deliver()
        assert g.members[1].reads == []

    def test_reads_wait_until_the_leader_knows_the_commit_index(self, group: Any) -> None:
        g = group(3)
        g.elect(1)
        g.crash(1)
        leader = g.run(2, 3, wanted=lambda m: m.kind not in (MessageKind.APPEND, MessageKind.APPEND_REPLY))
        g.read(leader, 7)
        g.deliver(lambda m: m.kind not in (MessageKind.APPEND, MessageKind.APPEND_REPLY))
        assert g.members[leader].reads == []
        g.deliver()
        assert [row[0] for row in g.members[leader].reads] == [7]

    def test_a_follower_asks_the_leader(self, group: Any) -> None:
        g = group(3)
        g.elect(1)
        g.propose(1, "a")
        g.deliver()
        g.read(2, 9)
        g.deliver()
        assert g.members[2].reads == [(9, g[1].log.committed)]

    def test_many_reads_share_a_round(self, group: Any) -> None:
        g = group(3)
        g.elect(1)
        for number in range(50):
            g[1].read_index(number, g.now)
        g.drain(g.members[1])
        assert len([m for m in g.wire if m.kind is MessageKind.HEARTBEAT]) == 2
        g.deliver()
        assert len(g.members[1].reads) == 50


class TestTransfer:
    def test_leadership_moves_at_once(self, group: Any) -> None:
        g = group(3)
        g.elect(1)
        assert g[1].transfer(2)
        assert not g.propose(1, "refused while it moves")
        g.deliver()
        assert g.leader() == 2

    def test_the_next_leader_catches_up_first(self, group: Any) -> None:
        g = group(3)
        g.elect(1)
        g.cut |= {(1, 2)}
        g.propose(1, "a")
        g.deliver()
        g.heal()
        g.tick(1)
        g[1].transfer(2)
        g.deliver()
        assert g.leader() == 2 and g.data(2) == ["a"]

    def test_it_is_given_up_after_an_election_time(self, group: Any) -> None:
        g = group(3)
        g.elect(1)
        g.crash(2)
        g[1].transfer(2)
        for _ in range(TICKS + 1):
            g.tick(1)
            g.deliver()
        assert g.leader() == 1
        assert g.propose(1, "a")


class TestMembership:
    def test_a_learner_receives_the_log_and_has_no_vote(self, group: Any) -> None:
        g = group(1)
        g.elect(1)
        g.propose(1, "a")
        self.add(g, 2, ChangeKind.ADD_LEARNER)
        assert g.data(2) == ["a"]
        g.crash(2)
        g.propose(1, "b")
        assert g.data(1) == ["a", "b"], "a learner counts for no majority"

    def test_a_learner_is_promoted(self, group: Any) -> None:
        g = group(1)
        g.elect(1)
        self.add(g, 2, ChangeKind.ADD_LEARNER)
        self.add(g, 2, ChangeKind.ADD_VOTER)
        assert g[1].config.voters == g[2].config.voters == (1, 2)
        g.crash(2)
        g.propose(1, "needs both")
        g.deliver()
        assert g.data(1) == []

    def test_one_change_at_a_time(self, group: Any) -> None:
        g = group(3)
        g.elect(1)
        assert g[1].propose_change(ConfigChange(ChangeKind.ADD_LEARNER, 4, "m4"))
        assert not g[1].propose_change(ConfigChange(ChangeKind.REMOVE, 3))

    def test_no_change_before_an_entry_of_the_own_term_is_committed(self, group: Any) -> None:
        """The bug of single-server changes (Ongaro, raft-dev, 2015)."""
        g = group(4)
        g[1].campaign()
        g.deliver(lambda m: m.kind not in (MessageKind.APPEND, MessageKind.APPEND_REPLY))
        assert g.leader() == 1
        assert not g[1].propose_change(ConfigChange(ChangeKind.REMOVE, 4))
        g.deliver()
        assert g[1].propose_change(ConfigChange(ChangeKind.REMOVE, 4))

    def test_a_removed_leader_steps_down_and_the_others_go_on(self, group: Any) -> None:
        g = group(3)
        g.elect(1)
        g[1].propose_change(ConfigChange(ChangeKind.REMOVE, 1))
        g.deliver()
        assert not g[1].is_leader
        for _ in range(4 * TICKS):
            g.tick(2)
            g.tick(3)
            g.deliver()
        assert g.leader() in (2, 3)
        g.propose(g.leader(), "a")
        g.deliver()
        assert g.data(2) == g.data(3) == ["a"]

    def test_a_removed_member_cannot_disturb_the_rest(self, group: Any) -> None:
        g = group(3)
        g.elect(1)
        g.isolate(3)
        g[1].propose_change(ConfigChange(ChangeKind.REMOVE, 3))
        g.deliver()
        g.heal()
        term = g[1].term
        for _ in range(4 * TICKS):
            g.tick(3)
            g.tick(1)
            g.deliver()
        assert g.leader() == 1 and g[1].term == term

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(ConfigChange(ChangeKind.REMOVE, 9), id="remove a stranger"),
            pytest.param(ConfigChange(ChangeKind.MOVE, 9, "m9"), id="move a stranger"),
            pytest.param(ConfigChange(ChangeKind.ADD_VOTER, 2, "m2"), id="promote a voter"),
            pytest.param(ConfigChange(ChangeKind.ADD_LEARNER, 2, "m2"), id="demote a voter"),
        ],
    )
    def test_changes_without_sense_are_refused(self, group: Any, change: ConfigChange) -> None:
        g = group(2)
        g.elect(1)
        with pytest.raises(ChangeRefused):
            g[1].propose_change(change)

    def test_a_member_moves_and_the_group_keeps_its_id(self, group: Any) -> None:
        g = group(3)
        g.elect(1)
        cluster = g[1].config.cluster
        assert g[1].propose_change(ConfigChange(ChangeKind.MOVE, 2, "elsewhere"))
        g.deliver()
        g.tick(1)
        g.deliver()
        for number in (1, 2, 3):
            config = g[number].config
            assert (config.voters, config.address(2), config.cluster) == ((1, 2, 3), "elsewhere", cluster)

    def add(self, g: Any, number: int, kind: ChangeKind) -> None:
        if number not in g.members:
            g.add(number)
        assert g[1].propose_change(ConfigChange(kind, number, f"m{number}"))
        g.deliver()
        g.tick(1)
        g.deliver()


def test_a_snapshot_is_saved_before_the_entries_that_follow_it(group: Any) -> None:
    """Handed out together, a shell that replaces its log by the snapshot would lose the entries it acknowledges."""
    g = group(3)
    g.elect(1)
    core = g[3]
    snapshot = SnapshotMeta(index=9, term=1, config=g.config)
    core.step(Message(kind=MessageKind.SNAPSHOT, sender=1, to=3, term=1, snapshot=snapshot), g.now)
    entry = Entry(10, 1, b"a")
    core.step(
        Message(kind=MessageKind.APPEND, sender=1, to=3, term=1, index=9, log_term=1, entries=(entry,)), g.now
    )  # fmt: skip
    first, second = core.ready(g.now), core.ready(g.now)
    assert (first.snapshot, first.entries, first.replies) == (snapshot, (), ())
    assert first.config == g.config, "the shell learns the members from it"
    assert second.entries == (entry,) and [m.index for m in second.replies] == [9, 10]


def test_the_own_vote_counts_only_when_it_is_durable(group: Any) -> None:
    """Or a group of one voter that forgets its term in a crash would lead twice in it."""
    g = group(1, saves_at_once=False)
    g[1].campaign()
    g.drain(g.members[1])
    assert not g[1].is_leader
    g.save(g.members[1])
    assert g[1].is_leader


def test_a_forwarded_proposal_that_arrives_twice_is_added_once(group: Any) -> None:
    g = group(3)
    g.elect(1)
    g.propose(2, "a")
    g.wire += [m for m in g.wire if m.kind is MessageKind.PROPOSE]
    g.deliver()
    g.propose(2, "b")
    g.deliver()
    assert g.data(1) == ["a", "b"]


def test_a_promise_to_a_leader_outlives_a_change_of_term(group: Any) -> None:
    """A lease relies on it: no message of a later term lets a voter forget that it has just heard of a leader."""
    g = group(3)
    g.elect(1)
    g.tick(1)
    g.deliver()
    g[2].step(Message(kind=MessageKind.PRE_VOTE_REPLY, sender=3, to=2, term=5, rejected=True), g.now)
    g[2].step(Message(kind=MessageKind.VOTE, sender=3, to=2, term=5, index=99, log_term=4), g.now)
    g.drain(g.members[2])
    assert g[2].term == 5 and g[2].vote == 0
    g.tick(2, TICKS)
    g[2].step(Message(kind=MessageKind.VOTE, sender=3, to=2, term=9, index=99, log_term=4), g.now)
    assert g[2].vote == 3
