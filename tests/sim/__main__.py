"""Plays stories of the store's group, or one of them in full; each breaks what can break, and is judged in the end.

python -m tests.sim --seeds 100000 --start 5000 --jobs 2   so many stories by chance
python -m tests.sim --seed 17                              one of them, and what happens in it
python -m tests.sim --points                               one short story with a death at each point of each member
python -m tests.sim --mistakes                             what notices the mistakes that are known
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from tests.sim.deaths import Death, ShortStory, deaths_in_recovery, every_death
from tests.sim.faults import Fault
from tests.sim.mistakes.table import NOTICED_BY_SCRIPT, NOTICED_BY_STORIES, STORIES_MAX
from tests.sim.playing import Played, fingerprint, outcome, play_deaths, play_seeds, spread
from tests.sim.story import STORY_S, Story, live

from steersman.actors.clocks import VirtualTimeLoop

#: pause between two lines of progress
PROGRESS_S = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.sim", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, help="processes (default: one a processor)")
    parser.add_argument("--story-s", type=float, default=STORY_S, help="virtual seconds in which things break")
    parser.add_argument("--seed", type=int, help="play this one alone, and tell what happened")
    parser.add_argument("--points", action="store_true", help="let each member, and everybody, die at each point")
    parser.add_argument("--point", type=int, help="play the death at this point alone, and tell what happened")
    parser.add_argument("--member", type=int, default=1, help="with --point: who dies")
    parser.add_argument("--everybody", action="store_true", help="with --point: all machines lose power there")
    parser.add_argument("--again", type=int, help="with --point: dies again at that point after the next start")
    parser.add_argument("--mistakes", action="store_true", help="put each known mistake in, and tell what notices it")
    args = parser.parse_args()
    if args.mistakes:
        return _tell_mistakes()
    if args.seed is not None:
        return _tell(Story(VirtualTimeLoop(), args.seed, args.story_s))
    if args.point is not None:
        return _tell(ShortStory(Death(args.member, args.point, args.everybody, args.again)))
    if args.points:
        return _play_many(spread(play_deaths, [*every_death(), *deaths_in_recovery()], args.jobs))
    seeds = range(args.start, args.start + args.seeds)
    return _play_many(spread(partial(play_seeds, story_s=args.story_s), seeds, args.jobs))


def _play_many(batches: Iterator[Played]) -> int:
    begin = told_at = time.monotonic()
    total = Played()
    for played in batches:
        total.add(played)
        for again, what in played.failed.items():
            print(f"{again}  # {what[:300]}", flush=True)
        if time.monotonic() >= told_at + PROGRESS_S:
            told_at = time.monotonic()
            print(_progress(total, told_at - begin), file=sys.stderr, flush=True)
    for fault in Fault:
        print(f"{total.faults[fault]:12,} {fault.value}")
    print(_progress(total, time.monotonic() - begin))
    return 1 if total.failed else 0


def _progress(total: Played, elapsed_s: float) -> str:
    first = f", the first: {next(iter(total.failed))}" if total.failed else ""
    return f"{total.stories:,} stories in {elapsed_s:.0f} s, {len(total.failed)} failed{first}"


def _tell(story: Story) -> int:
    try:
        live(story)
    except Exception as error:
        print(error, *getattr(error, "__notes__", ()), sep="\n")
        return 1
    print(*story.told, f"{len(story.clients.operations)} operations, fingerprint {fingerprint(story)}", sep="\n")
    return 0


def _tell_mistakes() -> int:
    """Prints the table of the mistakes and, where stories notice one, the first seed that does."""
    missed = 0
    for mistake in NOTICED_BY_STORIES:
        with pytest.MonkeyPatch.context() as patch:
            mistake(patch)
            seed = next((seed for seed in range(STORIES_MAX) if outcome(seed)), None)
        missed += seed is None
        print(f"{mistake.__name__:50} {'nothing' if seed is None else f'seed {seed}'}", flush=True)
    for mistake, script in NOTICED_BY_SCRIPT.items():
        with pytest.MonkeyPatch.context() as patch:
            mistake(patch)
            is_noticed = _fails(script)
        missed += not is_noticed
        print(f"{mistake.__name__:50} {script.args[0].__name__ if is_noticed else 'nothing'}")
    return 1 if missed else 0


def _fails(script: Callable[[], None]) -> bool:
    try:
        script()
    except AssertionError:
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
