"""EventRateLimit: nobody drowns the cluster in events.

Source: plugin/pkg/admission/eventratelimit and k8s.io/client-go/util/flowcontrol
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from steersman.cluster.meta.errors import TooManyRequests

if TYPE_CHECKING:
    from steersman.cluster.api.admission.attempt import Attempt
    from steersman.cluster.api.context import WriteContext

_OBJECT = ("kind", "namespace", "name", "uid", "apiVersion")


class EventLimit:
    """A bucket of tokens for each key, the keys used last kept.

    Args:
        per_s: tokens that a bucket gains a second; burst: that it holds; keys_max: buckets.
    """

    def __init__(self, sort: str, per_s: int, burst: int, keys_max: int) -> None:
        self.sort = sort
        self._per_s = per_s
        self._burst = burst
        self._keys_max = keys_max
        #: by key the tokens and when they were counted, the one used last at the end
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def accepts(self, key: str, now: float) -> bool:
        """Takes a token, if there is one."""
        tokens, counted = self._buckets.pop(key, (float(self._burst), now))
        tokens = min(float(self._burst), tokens + max(0.0, now - counted) * self._per_s)
        accepted = tokens >= 1
        self._buckets[key] = tokens - accepted, max(now, counted)
        if len(self._buckets) > self._keys_max:
            self._buckets.popitem(last=False)
        return accepted


def _source_and_object(attempt: Attempt, _ctx: WriteContext) -> str:
    event = attempt.obj or {}
    source, about = event.get("source") or {}, event.get("involvedObject") or {}
    return "".join(
        (source.get("component") or "", source.get("host") or "", *(about.get(key) or "" for key in _OBJECT))
    )


#: what shares a bucket, by the sort of a limit
KEYS: Mapping[str, Callable[[Attempt, WriteContext], str]] = {
    "Server": lambda _attempt, _ctx: "",
    "Namespace": lambda attempt, _ctx: attempt.namespace,
    "User": lambda _attempt, ctx: ctx.user,
    "SourceAndObject": _source_and_object,
}


def validate(attempt: Attempt, ctx: WriteContext) -> None:
    """Refuses an event for which a limit has no token left; every limit is charged.

    Raises:
        TooManyRequests
    """
    refused = ""
    for limit in ctx.settings.admission.events:
        key = KEYS[limit.sort](attempt, ctx)
        if not limit.accepts(key, ctx.now):
            refused = f"limit reached on type {limit.sort} for key {key}"
    if refused:
        raise TooManyRequests(refused)
