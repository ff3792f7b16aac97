"""The mistakes that are put into the store one by one, and what must notice each: stories by chance, or a script.

Mistakes inside the consensus core alone are put into it in `tests/cluster/raft/test_mutations.py`.
"""

from __future__ import annotations

from functools import partial

from tests.sim import scenarios, scenarios_disks, scenarios_leases
from tests.sim.mistakes import consensus, durability, leases, watches
from tests.sim.mistakes.patching import Mistake
from tests.sim.scenarios import act

from steersman.cluster.raft.leadership import LAGGING_BYTES_MAX

#: stories among which a mistake must show; most show in the first few, one that needs more than ten gets a script
STORIES_MAX = 100

NOTICED_BY_STORIES: tuple[Mistake, ...] = (
    durability.leave_a_new_name_unsynced,
    durability.leave_a_new_segment_unsynced,
    durability.leave_a_torn_tail,
    durability.take_a_snapshot_for_saved,
    durability.misplace_a_snapshot,
    durability.come_back_with_an_empty_disk,
    consensus.apply_before_it_is_committed,
    consensus.read_without_asking_the_majority,
    consensus.propose_again_what_a_new_leader_may_have,
    leases.let_followers_end_leases,
    watches.show_changes_out_of_order,
    watches.show_a_change_twice,
    watches.show_a_transaction_in_parts,
    watches.lose_a_change_when_many_come_at_once,
    watches.resume_a_watch_one_late,
    watches.resume_a_watch_one_early,
    watches.tell_of_a_revision_that_was_not_shown,
    watches.show_no_previous_value,
    watches.forget_more_of_the_past_than_was_asked,
    watches.undo_nothing_in_reads_of_the_past,
)
NOTICED_BY_SCRIPT: dict[Mistake, partial[None]] = {
    durability.acknowledge_before_the_disk_is_synced: partial(
        act, scenarios_disks.a_write_outlives_the_power_that_fails_at_its_answer
    ),
    durability.go_on_after_a_failed_sync: partial(act, scenarios_disks.a_write_outlives_a_sync_that_fails),
    durability.forget_the_log_before_the_snapshot_is_saved: partial(
        act, scenarios_disks.a_member_that_dies_while_it_takes_a_snapshot_comes_back
    ),
    consensus.add_a_proposal_that_arrives_twice_again: partial(
        act, scenarios.a_write_that_the_network_repeats_happens_once
    ),
    durability.count_entries_that_are_not_durable: partial(
        act, scenarios_disks.a_write_outlives_the_power_that_fails_at_its_answer
    ),
    durability.forget_in_a_crash_who_was_voted_for: partial(act, scenarios_disks.a_vote_outlives_a_crash),
    durability.skip_the_checksums_of_the_log: partial(act, scenarios_disks.damage_of_the_log_is_refused),
    durability.skip_the_checksums_of_snapshots: partial(act, scenarios_disks.damage_of_a_snapshot_is_refused),
    durability.remove_the_segment_in_use: partial(
        act, scenarios_disks.a_member_that_dies_while_it_makes_a_segment_forgets_nothing
    ),
    durability.take_a_part_of_a_snapshot_for_the_whole: partial(
        act, scenarios_disks.a_snapshot_that_breaks_off_is_not_installed
    ),
    watches.forget_watchers_when_the_state_is_replaced: partial(
        act, scenarios_disks.a_watch_goes_on_when_its_member_receives_a_snapshot
    ),
    consensus.read_on_a_lease_that_is_over: partial(
        act, scenarios_leases.a_deposed_leader_answers_no_read_on_its_lease, reads="lease"
    ),
    consensus.tell_the_time_by_the_wall_clock: partial(
        act, scenarios_leases.a_clock_that_was_set_back_makes_no_lease_longer, reads="lease"
    ),
    consensus.forget_entries_that_a_follower_still_needs: partial(
        act, scenarios_disks.a_member_that_lags_a_little_needs_no_snapshot, kept_bytes=LAGGING_BYTES_MAX
    ),
    leases.give_leases_no_new_time_under_a_new_leader: partial(
        act, scenarios_leases.a_lease_that_was_renewed_outlives_its_leader
    ),
    leases.answer_leases_before_all_are_known: partial(
        act, scenarios_leases.a_lease_that_a_new_leader_has_not_applied_yet_is_known
    ),
    leases.renew_leases_without_proof_of_leading: partial(
        act, scenarios_leases.a_lease_that_an_old_leader_renews_lives_on
    ),
}
