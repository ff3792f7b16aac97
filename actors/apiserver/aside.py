"""Work that takes the interpreter for long, done beside the loop.

One thread does all of it: it leaves the loop half of the interpreter's time, and each further one would leave less.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_THREAD = ThreadPoolExecutor(1, "aside")

T = TypeVar("T")


async def aside(work: Callable[..., T], *values: object) -> T:
    """Returns what `work` gives for some values; others are served meanwhile."""
    return await asyncio.get_running_loop().run_in_executor(_THREAD, work, *values)
