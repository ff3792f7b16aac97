"""Chance as a parameter: what a decision may ask of the generator that it is given."""

from __future__ import annotations

from typing import Protocol


class Chance(Protocol):
    """A seeded generator; `random.Random` is one."""

    def randrange(self, stop: int, /) -> int:
        """Returns a whole number from 0 up to, but not including, `stop`."""
        ...
