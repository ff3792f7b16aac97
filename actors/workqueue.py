"""A queue of keys: each waits once, is worked on by one worker at a time, and comes back later after a failure.

Source: the contract of client-go's workqueue (https://pkg.go.dev/k8s.io/client-go/util/workqueue).
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict

BACKOFF_START_S = 0.02
BACKOFF_MAX_S = 60.0


class WorkQueue:
    """Keys to work on.

    Args:
        interval_s: least time between two turns of a key.
        rng: chance for the jitter of retries.
    """

    def __init__(self, interval_s: float, rng: random.Random) -> None:
        self._interval_s = interval_s
        self._rng = rng
        self._ready: OrderedDict[str, None] = OrderedDict()
        self._active: set[str] = set()
        self._again: set[str] = set()
        self._timers: dict[str, tuple[float, asyncio.TimerHandle]] = {}
        self._failures: dict[str, int] = {}
        self._last_turn: dict[str, float] = {}
        self._waiter: asyncio.Event = asyncio.Event()

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def idle(self) -> bool:
        """Whether nothing waits or is worked on now; timers may run."""
        return not self._ready and not self._active

    def add(self, key: str) -> None:
        """Puts a key in line, once however often it is added; one that is being worked on comes again afterwards."""
        if key in self._ready:
            return
        if key in self._active:
            self._again.add(key)
            return
        if self._interval_s:
            wait_s = self._last_turn.get(key, float("-inf")) + self._interval_s - self._time()
            if wait_s > 0:
                self.add_after(key, wait_s)
                return
        self._push(key)

    def _push(self, key: str) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer[1].cancel()
        self._ready[key] = None
        self._waiter.set()

    def add_after(self, key: str, delay_s: float) -> None:
        """Puts a key in line after a delay; of several delays the soonest counts."""
        due = self._time() + delay_s
        timer = self._timers.get(key)
        if timer is not None:
            if timer[0] <= due:
                return
            timer[1].cancel()
        handle = asyncio.get_running_loop().call_later(delay_s, self._due, key)
        self._timers[key] = (due, handle)

    def _due(self, key: str) -> None:
        self._timers.pop(key, None)
        if key in self._active:
            self._again.add(key)
        elif key not in self._ready:
            self._ready[key] = None
            self._waiter.set()

    async def take(self) -> str:
        """Waits for a key and returns it; `done` must follow."""
        while not self._ready:
            self._waiter.clear()
            await self._waiter.wait()
        key, _ = self._ready.popitem(last=False)
        self._active.add(key)
        if self._interval_s:
            self._last_turn[key] = self._time()
        return key

    def done(self, key: str, *, failed: bool = False) -> None:
        """Ends a key's turn; a failed one comes again after a growing delay."""
        self._active.discard(key)
        again = key in self._again
        self._again.discard(key)
        if failed:
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
            delay_s = min(BACKOFF_MAX_S, BACKOFF_START_S * 2 ** min(failures, 20)) * self._rng.uniform(0.8, 1.2)
            self.add_after(key, delay_s)
            return
        self._failures.pop(key, None)
        if again:
            self.add(key)
        elif self._interval_s and key not in self._timers and len(self._last_turn) > 10_000:
            self._last_turn.pop(key)

    def close(self) -> None:
        """Cancels what would come later."""
        for _, handle in self._timers.values():
            handle.cancel()
        self._timers.clear()

    @staticmethod
    def _time() -> float:
        return asyncio.get_running_loop().time()
