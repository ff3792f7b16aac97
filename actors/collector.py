"""How often Python looks for reference cycles.

Decoded objects are trees, and looking through all of them again and again costs more than decoding them: with Python's
own thresholds, bringing up 1,000 pods takes five times as long.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

_THRESHOLDS = (100_000, 50, 1000)


def relax() -> None:
    """Has this process look for cycles rarely, for as long as it lives."""
    gc.set_threshold(*_THRESHOLDS)


@contextlib.contextmanager
def relaxed() -> Iterator[None]:
    """Has this process look for cycles rarely within the block."""
    before = gc.get_threshold()
    relax()
    try:
        yield
    finally:
        gc.set_threshold(*before)
