"""How long to wait before trying again: containers that crash, images that cannot be pulled, starts that fail.

A back-off is a value; whoever tries again keeps the value that `next_backoff` returned.

Source: k8s.io/client-go/util/flowcontrol/backoff.go, as the kubelet uses it
"""

from __future__ import annotations

from dataclasses import dataclass, replace

INITIAL_S = 10.0
MAX_S = 300.0
#: running (or not failing) that long forgets the past
RESET_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Args: delay_s: to wait after a failure; since: when it was last raised, by the clock of the one who keeps it."""

    delay_s: float
    since: float

    def moved(self, by_s: float) -> Backoff:
        """The same on a clock that shows `by_s` more."""
        return Backoff(delay_s=self.delay_s, since=self.since + by_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An attempt that failed, and when the next may be made.

    Args:
        reason: as in a waiting state, `ErrImagePull`, `CreateContainerConfigError`, ...
        at: when it failed; retry_at: when to try again.
        backoff: the delay behind `retry_at`, raised by the next failure.
    """

    reason: str
    message: str
    at: float
    retry_at: float
    backoff: Backoff

    def moved(self, by_s: float) -> Failure:
        """The same on a clock that shows `by_s` more."""
        return replace(self, at=self.at + by_s, retry_at=self.retry_at + by_s, backoff=self.backoff.moved(by_s))


def next_backoff(
    old: Backoff | None, event_at: float, now: float, *, initial_s: float = INITIAL_S, max_s: float = MAX_S
) -> Backoff:
    """Returns the back-off after one more failure, which happened at `event_at`: 10 s, doubling to 300 s."""
    if old is None or event_at - old.since > RESET_S:
        return Backoff(delay_s=initial_s, since=now)
    return Backoff(delay_s=min(old.delay_s * 2, max_s), since=now)


def ready_at(backoff: Backoff | None, failed_at: float) -> float:
    """Returns the moment from which a container that ended at `failed_at` may start again."""
    if backoff is None or failed_at - backoff.since > RESET_S:
        return failed_at
    return failed_at + backoff.delay_s


def failed(
    old: Failure | None,
    reason: str,
    message: str,
    now: float,
    *,
    initial_s: float = INITIAL_S,
    max_s: float = MAX_S,
) -> Failure:
    """Returns the record of an attempt that failed now, `old` being the one before it."""
    backoff = next_backoff(old.backoff if old else None, now, now, initial_s=initial_s, max_s=max_s)
    return Failure(reason=reason, message=message, at=now, retry_at=now + backoff.delay_s, backoff=backoff)
