"""Plays many stories of the store's group side by side, and tells what went wrong and what was done to the group."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from tests.sim.deaths import Death, ShortStory
from tests.sim.faults import Faults
from tests.sim.process import Place
from tests.sim.story import STORY_S, Story, live

from steersman.actors.clocks import VirtualTimeLoop

T = TypeVar("T")

#: stories given to a worker at once
BATCH = 25


@dataclass(slots=True)
class Played:
    """What came of some stories.

    Args:
        failed: what went wrong, by the command that plays that story again.
        faults: how often each sort of trouble occurred in all of them.
        died_at: (file, line) of each `await` in which a process died.
    """

    stories: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    died_at: set[Place] = field(default_factory=set)

    @property
    def report(self) -> str:
        """One line for each story that failed."""
        return "\n".join(f"{again}  # {what}" for again, what in self.failed.items())

    def add(self, other: Played) -> None:
        self.stories += other.stories
        self.failed |= other.failed
        self.faults.update(other.faults)
        self.died_at |= other.died_at

    def play(self, story: Story, again: str) -> None:
        """Lives a story; `again` is the command that plays it alone."""
        self.stories += 1
        try:
            live(story)
        except Exception as error:
            self.failed[again] = f"{type(error).__name__}: {error}"
        self.faults.update(story.group.faults)
        self.died_at |= story.group.died_at


def play(seed: int, story_s: float = STORY_S) -> Story:
    """Lives one story to its end.

    Raises:
        Broken: a promise was broken; a note tells what had happened.
    """
    story = Story(VirtualTimeLoop(), seed, story_s)
    live(story)
    return story


def outcome(seed: int) -> str | None:
    """Returns what went wrong under a seed; None when nothing did."""
    return next(iter(play_seeds(range(seed, seed + 1)).failed.values()), None)


def play_seeds(seeds: Iterable[int], story_s: float = STORY_S) -> Played:
    played = Played()
    for seed in seeds:
        length = "" if story_s == STORY_S else f" --story-s {story_s}"
        played.play(Story(VirtualTimeLoop(), seed, story_s), f"python -m tests.sim --seed {seed}{length}")
    return played


def play_deaths(deaths: Iterable[Death]) -> Played:
    played = Played()
    for death in deaths:
        played.play(ShortStory(death), f"python -m tests.sim {death.options}")
    return played


def spread(
    play_some: Callable[[Sequence[T]], Played], stories: Sequence[T], jobs: int | None = None
) -> Iterator[Played]:
    """Yields what came of each batch of stories, in order, as soon as it is known.

    Args:
        jobs: processes; as many as there are processors where not given.
    """
    jobs = jobs or os.cpu_count() or 1
    batches = (stories[start : start + BATCH] for start in itertools.count(0, BATCH))
    under_way: deque[Future[Played]] = deque()
    with ProcessPoolExecutor(jobs, initializer=logging.disable) as pool:
        for batch in itertools.takewhile(len, batches):
            under_way.append(pool.submit(play_some, batch))
            if len(under_way) > 2 * jobs:
                yield under_way.popleft().result()
        for future in under_way:
            yield future.result()


def fingerprint(story: Story) -> str:
    """Of everything that happened in a story, to the microsecond."""
    clients = story.clients
    rows = (story.told, clients.operations, clients.watches, clients.leases, sorted(clients.past.items()))
    return hashlib.sha256(repr(rows).encode()).hexdigest()
