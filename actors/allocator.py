"""How much freed memory a process keeps for what comes next.

A list of a few hundred objects is a few long strings, which live for a millisecond. glibc gives their pages back to the
kernel each time, and faulting them in again costs three times as much as everything else that is done with them.
"""

from __future__ import annotations

import ctypes

#: freed memory at the end of the heap that is kept, and the size from which an allocation gets pages of its own
KEPT_BYTES, OWN_PAGES_BYTES = 32 << 20, 8 << 20
#: parameters of mallopt(3)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed() -> None:
    """Has this process keep what it frees, up to a bound, for as long as it lives; nothing where libc is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, OWN_PAGES_BYTES)
