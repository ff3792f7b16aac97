"""How many files and connections this process may have open."""

from __future__ import annotations

import resource


def allow(count: int) -> int:
    """Raises the limit of open descriptors to `count` as far as that is allowed; returns what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return max(soft, count)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
