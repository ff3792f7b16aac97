"""Consensus cores under chance: no promise is broken after any step, and a healed group agrees.

A failure names its seed: `SEED=n` runs that one alone, `SIM_SEEDS=n` the first n.
"""

from __future__ import annotations

import os

import pytest
from tests.cluster.raft.chance import Story

SEEDS = int(os.environ.get("SIM_SEEDS", "400"))
#: seeds in one test, so that a failing one is found quickly and the list of tests stays readable
BATCH = 25


def batches() -> list[range]:
    if "SEED" in os.environ:
        seed = int(os.environ["SEED"])
        return [range(seed, seed + 1)]
    return [range(first, min(first + BATCH, SEEDS)) for first in range(0, SEEDS, BATCH)]


@pytest.mark.parametrize("seeds", batches(), ids=lambda seeds: f"seeds {seeds.start} to {seeds.stop - 1}")
def test_chance_breaks_no_promise(seeds: range) -> None:
    stories = [Story(seed) for seed in seeds]
    for seed, story in zip(seeds, stories, strict=True):
        try:
            story.run()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error} (SEED={seed} runs it alone)") from error
    if len(stories) == BATCH:
        witnesses = [story.group.witness for story in stories]
        reads = sum(len(member.reads) for story in stories for member in story.group.members.values())
        assert sum(len(witness.committed) for witness in witnesses) > 25 * BATCH, "too quiet to prove anything"
        assert reads > 25 * BATCH and sum(len(witness.configs) - 1 for witness in witnesses) > BATCH / 3


def test_a_seed_replays_exactly() -> None:
    first, second = Story(11), Story(11)
    first.run()
    second.run()
    assert first.group.witness.entries and vars(first.group.witness) == vars(second.group.witness)
