"""Consensus cores under chance: lost, late, doubled and reordered messages, slow disks, crashes, partitions, changes.

The invariants of the paper's figure 3 are checked after every step (see `Group.check` and `Group.apply`); at the end
everybody is healthy again and must agree. A failure names its seed: `SEED=n` runs that one alone.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from steersman.cluster.raft.membership import ChangeRefused
from steersman.cluster.raft.values import ChangeKind, ConfigChange

_SPEC = importlib.util.spec_from_file_location(
    "raft_group", Path(__file__).parents[1] / "cluster" / "raft" / "conftest.py"
)
assert _SPEC is not None and _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
Group: Any = _MODULE.Group

SEEDS = range(int(os.environ.get("SIM_SEEDS", "60")))
STEPS = 600


@pytest.mark.parametrize("seed", [int(os.environ["SEED"])] if "SEED" in os.environ else SEEDS)
def test_chance_breaks_no_promise(seed: int) -> None:
    group = Group(3 + 2 * (seed % 2), seed=seed, saves_at_once=False)
    for step in range(STEPS):
        _step(group, step)
    _heal(group)
    longest = max(len(member.applied) for member in group.alive)
    assert longest == len(group.committed) > 0
    for member in group.alive:
        if member.number in group[group.leader()].config.members:
            assert [(e.term, e.data) for e in member.applied] == [group.committed[i + 1] for i in range(longest)]


def _step(group: Any, step: int) -> None:
    rng = group.rng
    roll = rng.random()
    alive = [member.number for member in group.alive]
    if group.wire and roll < 0.45:
        message = group.wire.pop(rng.randrange(min(len(group.wire), 8)))
        if rng.random() < 0.05:
            group.wire.append(message)
        if rng.random() > 0.05:
            group.arrive(message)
    elif alive and roll < 0.65:
        group.tick(rng.choice(alive))
    elif alive and roll < 0.8:
        group.save(group.members[rng.choice(alive)], 1 + rng.randrange(3))
        _drain(group)
    elif alive and roll < 0.92:
        group.propose(rng.choice(alive), f"v{step}")
    elif alive and roll < 0.93:
        group.crash(rng.choice(alive))
    elif roll < 0.95:
        for member in group.members.values():
            if member.core is None:
                member.start()
    elif roll < 0.96:
        group.isolate(rng.choice(list(group.members)))
    elif roll < 0.97:
        group.heal()
    elif alive and roll < 0.985:
        _change(group, rng.choice(alive))
    elif alive:
        _compact(group, rng.choice(alive))
    group.wire = group.wire[-200:]


def _drain(group: Any) -> None:
    for member in group.alive:
        group.drain(member)


def _change(group: Any, number: int) -> None:
    core, rng = group[number], group.rng
    target = rng.choice(list(group.members))
    kind = rng.choice([ChangeKind.REMOVE, ChangeKind.ADD_LEARNER, ChangeKind.ADD_VOTER])
    if kind is ChangeKind.REMOVE and len(core.config.voters) <= 3:
        core.transfer(target)
    elif core.is_leader:
        try:
            core.propose_change(ConfigChange(kind, target, f"m{target}"))
        except ChangeRefused:
            core.transfer(target)
    group.drain(group.members[number])


def _compact(group: Any, number: int) -> None:
    member = group.members[number]
    if not member.unsaved and group[number].log.applied > group[number].snapshot_index:
        group.compact(number)


def _heal(group: Any) -> None:
    group.heal()
    group.saves_at_once = True
    for member in group.members.values():
        if member.core is None:
            member.start()
        group.save(member)
    for _ in range(400):
        for member in group.alive:
            group.tick(member.number)
            if member.core.is_leader:
                for other in group.members:
                    member.core.snapshot_failed(other)
        group.deliver()
        leader = group.leader()
        if leader and group[leader].log.committed == group[leader].log.last:
            config = group[leader].config
            if all(group[n].log.applied == group[leader].log.last for n in config.members):
                return
    raise AssertionError("the group does not recover")
