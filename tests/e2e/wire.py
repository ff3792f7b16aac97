"""A wire that is slow and lossy: frames between two bridges, each carried late or never, without help of the kernel."""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path

TUN = Path("/dev/net/tun")
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_FRAME_BYTES_MAX = 65536
#: on their way at once; a real one drops what it cannot hold, too
_FRAMES_MAX = 10_000
#: how soon the wire notices that it is to end
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """What befalls each frame, in each direction.

    Args:
        delay_s, jitter_s: it is held for `delay_s`, give or take up to `jitter_s`, and may so overtake another.
        lost: share of frames that never arrive, 0 to 1.
    """

    delay_s: float
    jitter_s: float
    lost: float


class Wire:
    """While it is entered there are two network devices, and a thread carries frames from each to the other."""

    def __init__(self, devices: tuple[str, str], weather: Weather) -> None:
        self._devices, self._weather, self._rng = devices, weather, random.Random(0)
        self._taps: list[int] = []
        #: (due, number, where to, frame), the next one first
        self._held: list[tuple[float, int, int, bytes]] = []
        self._numbers = itertools.count()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wire")

    def __enter__(self) -> Wire:
        for device in self._devices:
            tap = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
            self._taps.append(tap)
            fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _IFF_TAP | _IFF_NO_PI))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        for tap in self._taps:
            os.close(tap)

    def _run(self) -> None:
        one, other = self._taps
        towards = {one: other, other: one}
        while not self._ending.is_set():
            wait_s = min(_LOOK_S, max(0.0, self._held[0][0] - time.monotonic())) if self._held else _LOOK_S
            for tap in select.select(self._taps, [], [], wait_s)[0]:
                self._take(tap, towards[tap])
            while self._held and self._held[0][0] <= time.monotonic():
                _, _, to, frame = heapq.heappop(self._held)
                with contextlib.suppress(OSError):  # a device that is not up yet takes nothing
                    os.write(to, frame)

    def _take(self, tap: int, to: int) -> None:
        weather = self._weather
        with contextlib.suppress(OSError):
            while frame := os.read(tap, _FRAME_BYTES_MAX):
                if len(self._held) < _FRAMES_MAX and self._rng.random() >= weather.lost:
                    due = time.monotonic() + self._rng.uniform(-1, 1) * weather.jitter_s + weather.delay_s
                    heapq.heappush(self._held, (due, next(self._numbers), to, frame))
