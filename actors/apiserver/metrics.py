"""Counts of what an API server did, in Prometheus' text format.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
#: distinct label sets counted; requests beyond are counted under `other`, so that no client can grow the table
_SERIES_MAX = 5000

#: verb, group, version, resource, subresource
Labels = tuple[str, str, str, str, str]
_OTHER: Labels = ("other", "", "", "", "")


class Metrics:
    """What is counted; not a Component, one per API server."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[Labels, int]] = Counter()
        self._buckets: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}
        self.in_flight = 0

    def observe(self, labels: Labels, code: int, duration_s: float) -> None:
        """Counts one answered request."""
        buckets = self._buckets.get(labels)
        if buckets is None:
            if len(self._buckets) >= _SERIES_MAX:
                labels = _OTHER
            buckets = self._buckets.setdefault(labels, [0] * (len(_BOUNDS_S) + 1))
            self._sums.setdefault(labels, 0.0)
        self._requests[labels, code] += 1
        buckets[bisect_left(_BOUNDS_S, duration_s)] += 1
        self._sums[labels] += duration_s

    def render(self, revision: int, watches: int, more: Sequence[str] = ()) -> bytes:
        """The page that a scraper reads; `revision` is the watch cache's, `watches` are open, `more` lines follow."""
        lines = [
            "# HELP apiserver_request_total Counter of apiserver requests.",
            "# TYPE apiserver_request_total counter",
        ]
        for (labels, code), count in self._requests.items():
            lines.append(f'apiserver_request_total{{{_text(labels)},code="{code}"}} {count}')
        name = "apiserver_request_duration_seconds"
        lines += [f"# HELP {name} Response latency distribution in seconds.", f"# TYPE {name} histogram"]
        for labels, buckets in self._buckets.items():
            text, total = _text(labels), 0
            for bound, count in zip((*_BOUNDS_S, "+Inf"), buckets, strict=True):
                total += count
                lines.append(f'{name}_bucket{{{text},le="{bound}"}} {total}')
            lines.append(f"{name}_sum{{{text}}} {self._sums[labels]:.6f}")
            lines.append(f"{name}_count{{{text}}} {total}")
        gauges = (
            ("apiserver_current_inflight_requests", "Requests being answered.", self.in_flight),
            ("apiserver_longrunning_requests", "Watches being held.", watches),
            ("apiserver_watch_cache_resource_version", "Revision the watch cache has reached.", revision),
        )
        for gauge, help_text, value in gauges:
            lines += [f"# HELP {gauge} {help_text}", f"# TYPE {gauge} gauge", f"{gauge} {value}"]
        return ("\n".join([*lines, *more]) + "\n").encode()


def _text(labels: Labels) -> str:
    verb, group, version, resource, subresource = (value.replace("\\", "").replace('"', "") for value in labels)
    return (
        f'verb="{verb.upper()}",group="{group}",version="{version}",resource="{resource}",subresource="{subresource}"'
    )
