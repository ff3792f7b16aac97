"""Virtual time: an event loop whose clock jumps to the next timer as soon as nothing is left to do.

A cluster on this loop opens no socket, file or thread, so the order of everything that happens follows from the
program and the seed alone, and an hour of cluster time costs only the work done in it.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any

#: where virtual clusters begin: 2026-01-01T00:00:00Z
EPOCH = 1767225600.0


class _JumpingSelector(selectors.BaseSelector):
    """Waits for nothing: a wait with a timeout moves the clock instead."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0
        self._real = selectors.DefaultSelector()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("virtual time stands still: every task waits and no timer is set")
        if timeout > 0:
            self.elapsed_s += timeout
        return []

    def close(self) -> None:
        self._real.close()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time; `now()` is its wall clock."""

    def __init__(self, epoch: float = EPOCH) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        self._epoch = epoch

    def time(self) -> float:
        return self._jumping.elapsed_s

    def now(self) -> float:
        """Seconds since the Unix epoch in the virtual cluster."""
        return self._epoch + self._jumping.elapsed_s

    def step(self, by_s: float) -> None:
        """Sets the wall clock forward, or back, as an administrator or NTP does; what is waited for comes as before."""
        self._epoch += by_s

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        raise RuntimeError("a cluster under virtual time may not use threads")
