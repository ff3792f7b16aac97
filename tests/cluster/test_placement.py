"""Where the store's members go: step by step over machines that join, leave and die."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from steersman.cluster.placement import (
    Add,
    ChangeRefused,
    MemberState,
    Promote,
    Remove,
    StoreGroup,
    StoreMember,
    Transfer,
    founding_group,
    next_step,
    why_not_leave,
    why_not_remove,
)

LEADS, LEARNER, SILENT, BEHIND = "leads", "learner", "silent", "behind"


def states(*rows: str) -> list[MemberState]:
    """Returns members from rows as `a leads`: host, then what is special; ids count from 1."""
    made = []
    for slot, row in enumerate(rows):
        host, *words = row.split()
        made.append(
            MemberState(
                member=StoreMember(id=slot + 1, host=host, slot=slot),
                address="",
                learner=LEARNER in words,
                leads=LEADS in words,
                answers=SILENT not in words,
                lag=5000 if BEHIND in words or SILENT in words else 0,
            )
        )
    return made


CASES = {
    "a group on one machine stays": (["a leads", "a", "a"], "a", 3, None),
    "a group of one stays when others join": (["a leads"], "a b c", 1, None),
    "the second machine gets a learner": (["a leads", "a", "a"], "a b", 3, Add("b", 3)),
    "a learner that lags is waited for": (["a leads", "a", "a", "b learner behind"], "a b", 3, None),
    "a learner that is there gets its vote": (["a leads", "a", "a", "b learner"], "a b", 3, Promote),
    "a learner of a machine that went is given up": (["a leads", "a", "a", "b learner silent"], "a", 3, Remove),
    "then one of the crowd leaves": (["a leads", "a", "a", "b"], "a b", 3, 3),
    "but not the leader": (["a", "a", "a leads", "b"], "a b", 3, 2),
    "unless it is silent": (["a leads", "a silent", "a", "b"], "a b", 3, 2),
    "a spread group stays": (["a", "b leads", "c"], "a b c d", 3, None),
    "a member whose machine is away stays": (["a", "b leads", "c silent"], "a b d", 3, None),
    "nothing is done without a leader": (["a", "b silent", "b silent"], "a c", 3, None),
    "nobody leaves while too few answer": (["a leads", "a", "b silent", "c silent"], "a", 3, None),
    "a group that is too small grows where nobody is": (["a leads", "b"], "a b c", 3, Add("c", 2)),
    "or else where fewest are": (["a leads"], "a", 3, Add("a", 1)),
    "one more than wanted on machines of their own stays": (["a leads", "b", "c", "d"], "a b c d", 3, None),
}


@pytest.mark.parametrize("rows, present, wanted, expected", CASES.values(), ids=CASES)
def test_the_next_step(rows, present, wanted, expected):
    step = next_step(states(*rows), present.split(), wanted)
    if isinstance(expected, int):
        assert isinstance(step, Remove) and step.member.id == expected
    elif isinstance(expected, type):
        assert isinstance(step, expected) and step.member.id == len(rows)
    else:
        assert step == expected


def test_a_member_that_is_replaced_leaves_after_the_new_one_has_its_vote_and_leads_no_more():
    there = ["a", "b", "c"]
    assert next_step(states("a leads", "b", "c"), [*there, "d"], 3, {1}) == Add("d", 3)
    four = states("a leads", "b", "c", "d")
    assert isinstance(next_step(four, [*there, "d"], 3, {1}), Transfer)
    follower = states("a", "b leads", "c", "d")
    assert next_step(follower, [*there, "d"], 3, {1}) == Remove(follower[0].member)


def test_a_removal_that_would_stop_the_store_is_refused():
    group = states("a leads", "b", "c silent")
    assert "1 of the 2 other voters" in why_not_remove(group, group[1].member)
    assert not why_not_remove(group, group[2].member)
    assert "0 of the 0" in why_not_remove(states("a leads"), states("a leads")[0].member)


LEAVES = {
    "one of three that answer": (["a leads", "b", "c"], "b", ""),
    "the only one": (["a", "b leads"], "a", ""),
    "one while another is silent": (["a leads", "b", "c silent"], "b", "1 of the 2 other voters"),
    "the silent one itself": (["a leads", "b", "c silent"], "c", ""),
    "two with the last of three": (["a", "b leads", "b"], "b", ""),
    "all": (["b leads", "b", "b"], "b", "0 of the 0 other voters"),
    "two while another is silent": (["a", "b leads", "b", "c silent"], "b", "1 of the 2 other voters"),
    "a learner": (["a leads", "b silent", "c learner"], "c", ""),
    "none, whoever is silent": (["a silent", "b silent"], "c", ""),
}


@pytest.mark.parametrize("rows, host, why", LEAVES.values(), ids=LEAVES)
def test_a_machine_leaves_when_the_others_carry_the_store_without_it(rows, host, why):
    answer = why_not_leave(states(*rows), host)
    assert why in answer and bool(why) == bool(answer)


def test_members_are_called_by_name_or_by_id():
    group = StoreGroup(members=(StoreMember(id=0xAB, host="a", slot=7),), founders=1)
    assert group.named("store-7") == group.named("ab")
    with pytest.raises(ChangeRefused, match="it has store-7"):
        group.named("store-0")


@pytest.mark.parametrize("seed", range(50))
def test_whatever_machines_come_and_go_the_group_spreads_and_a_majority_always_answers(seed):
    rng = random.Random(seed)
    wanted, hosts = rng.choice([1, 3, 5]), ["h0"]
    number, away = wanted, set()
    group = dict.fromkeys(founding_group(wanted, "h0").members, False)
    leader = next(iter(group))
    for _ in range(120):
        if rng.random() < 0.1 and len(hosts) < 7:
            hosts.append(f"h{len(hosts)}")
        if rng.random() < 0.1:
            away = set(rng.sample(hosts[1:], min(len(hosts) - 1, rng.randrange(2))))
        seen = [
            MemberState(
                member=member, address="", learner=learner, leads=member == leader, answers=member.host not in away,
                lag=rng.choice([0, 5000]) if learner else 0,
            )
            for member, learner in group.items()
        ]  # fmt: skip
        voters = [state for state in seen if not state.learner]
        if sum(state.answers for state in voters) <= len(voters) // 2:
            away = set()
            continue
        if leader.host in away:
            leader = next(state.member for state in voters if state.answers)
            continue
        match next_step(seen, [host for host in hosts if host not in away], wanted):
            case Add(host, slot):
                number += 1
                group[StoreMember(id=number, host=host, slot=slot)] = True
            case Promote(member):
                group[member] = False
            case Remove(member):
                assert member != leader
                del group[member]
            case Transfer(member):
                leader = member
        assert len({member.slot for member in group}) == len(group) <= wanted + 1
        votes = [member for member, learner in group.items() if not learner]
        assert wanted <= len(votes) <= wanted + 1
    for _ in range(40):
        step = next_step(
            [replace(state, answers=True) for state in _seen(group, leader)], hosts, wanted
        )  # fmt: skip
        match step:
            case Add(host, slot):
                number += 1
                group[StoreMember(id=number, host=host, slot=slot)] = False
            case Promote(member):
                group[member] = False
            case Remove(member):
                del group[member]
            case Transfer(member):
                leader = member
            case None:
                break
    held = Counter(member.host for member in group)
    assert len(group) == wanted
    assert max(held.values()) == 1 or len(held) == len(hosts), "no machine is empty while another is crowded"


def _seen(group: dict[StoreMember, bool], leader: StoreMember) -> list[MemberState]:
    return [
        MemberState(member=member, address="", learner=learner, leads=member == leader)
        for member, learner in group.items()
    ]
