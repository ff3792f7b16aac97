"""Plays many stories of the store's group on all cores, or one of them in full.

python -m tests.sim.store --seeds 100000 --start 5000
python -m tests.sim.store --seed 17
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.sim.story import STORY_S, Story, play

#: seeds given to a worker at once
BATCH = 25


def outcome(seed: int, story_s: float = STORY_S) -> str | None:
    """Returns what went wrong under a seed; None when nothing did."""
    try:
        play(seed, story_s)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def failures(seeds: Iterable[int], story_s: float = STORY_S) -> Iterator[tuple[int, str]]:
    """Yields each seed that fails, as soon as it is known, with what went wrong."""
    seeds = list(seeds)
    with ProcessPoolExecutor(os.cpu_count(), initializer=logging.disable) as pool:
        outcomes = pool.map(partial(outcome, story_s=story_s), seeds, chunksize=BATCH)
        for seed, what in zip(seeds, outcomes, strict=True):
            if what is not None:
                yield seed, what


def fingerprint(story: Story) -> str:
    """Of everything that happened in a story, to the microsecond."""
    clients = story.clients
    rows = (story.told, clients.operations, clients.watches, clients.leases, sorted(clients.past.items()))
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--story-s", type=float, default=STORY_S, help="virtual seconds in which things break")
    parser.add_argument("--seed", type=int, help="play this one alone, and tell what happened")
    args = parser.parse_args()
    if args.seed is not None:
        return _tell(args.seed, args.story_s)
    begin, failed = time.time(), 0
    for seed, what in failures(range(args.start, args.start + args.seeds), args.story_s):
        failed += 1
        print(f"python -m tests.sim.store --seed {seed}  # {what[:300]}", flush=True)
    print(f"{args.seeds} seeds from {args.start}: {failed} failed, {time.time() - begin:.0f} s")
    return 1 if failed else 0


def _tell(seed: int, story_s: float) -> int:
    try:
        story = play(seed, story_s)
    except Exception as error:
        print(error, *getattr(error, "__notes__", ()), sep="\n")
        return 1
    print(*story.told, f"{len(story.clients.operations)} operations, fingerprint {fingerprint(story)}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
