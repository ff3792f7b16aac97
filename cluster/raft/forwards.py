"""Tells a forwarded proposal that the network delivered twice from a new one, so that no command is added twice.

A leader remembers what it has taken in its term; a repetition that comes in a later term is refused by its term.
"""

from __future__ import annotations

#: numbers remembered of one life of a sender; what comes later than that many others is refused
WINDOW = 4096
#: lives (starts of the process) remembered of one sender in one term
LIVES_MAX = 64


class _Window:
    def __init__(self) -> None:
        self._newest = 0
        self._seen: set[int] = set()

    def take(self, number: int) -> bool:
        if number in self._seen or number <= self._newest - WINDOW:
            return False
        self._seen.add(number)
        self._newest = max(self._newest, number)
        if len(self._seen) > 2 * WINDOW:
            self._seen = {kept for kept in self._seen if kept > self._newest - WINDOW}
        return True


class Forwards:
    """What one leader was given by each member."""

    def __init__(self) -> None:
        self._lives: dict[int, dict[int, _Window]] = {}

    def take(self, sender: int, life: int, number: int) -> bool:
        """Whether this proposal is new.

        Args:
            life: drawn by chance when the sender started.
            number: counts the sender's proposals in that life.
        """
        lives = self._lives.setdefault(sender, {})
        if life not in lives:
            if len(lives) >= LIVES_MAX:
                return False
            lives[life] = _Window()
        return lives[life].take(number)
