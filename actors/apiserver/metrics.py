"""Counts of what an API server did, in Prometheus' text format, by the names and labels that kube-apiserver has.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ and
k8s.io/apiserver/pkg/endpoints/metrics/metrics.go
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from steersman.actors.apiserver.series import Series, head, histogram, text_of
from steersman.cluster.auth.attributes import Attributes

_BOUNDS_S = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
)  # fmt: skip
#: distinct label sets counted; requests beyond are counted under `other`, so that no client can grow the table
_SERIES_MAX = 5000
_VERBS = {"create": "POST", "update": "PUT"}
_CONNECTS = frozenset({"attach", "exec", "portforward", "proxy"})

#: verb, dry run, group, version, resource, subresource, scope
Labels = tuple[str, str, str, str, str, str, str]
_OTHER: Labels = ("other", "", "", "", "", "", "")

_NAMES = ("verb", "dry_run", "group", "version", "resource", "subresource", "scope")
_DURATION, _OBJECTIVE = "apiserver_request_duration_seconds", "apiserver_request_sli_duration_seconds"
_HELP = {
    "apiserver_request_total": "Counter of apiserver requests.",
    _DURATION: "Response latency distribution in seconds.",
    _OBJECTIVE: "Response latency distribution in seconds.",
    "apiserver_current_inflight_requests": "Requests being answered, by request kind.",
    "apiserver_longrunning_requests": "Watches being held.",
    "apiserver_watch_cache_resource_version": "Revision the watch cache has reached.",
    "authentication_attempts": "Counter of authenticated attempts.",
    "authorization_attempts_total": "Counter of authorization attempts broken down by result.",
}


#: stands for what is not there: names that anybody thinks up are not counted each for itself
UNKNOWN = Attributes("")


def labels_of(about: Attributes, verb: str, dry_run: bool) -> Labels:
    """What tells a request from others. Args: verb: as it is counted, `apply` for such a patch."""
    resource = about.resource
    if not resource:
        return verb, "", "", "", "", "", ""
    below = about.subresource
    if below in _CONNECTS:
        verb = "connect"
    scope = "resource" if about.name or verb == "create" else "namespace" if about.namespace else "cluster"
    return verb, "All" if dry_run else "", about.group, about.version, resource, below, scope


class Metrics:
    """What is counted; not a Component, one per API server."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[Labels, int]] = Counter()
        self._buckets: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}
        #: being answered, by whether they change something
        self.in_flight = {False: 0, True: 0}
        #: requests by what came of it when they were asked who they are, and whether they may
        self.allowed = self.forbidden = self.unknown = 0
        #: what is counted beside requests
        self.series = Series()

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
        texts = {labels: _text(labels) for labels in self._buckets}
        name = "apiserver_request_total"
        lines = [*_head(name, "counter")]
        for (labels, code), count in self._requests.items():
            lines.append(f'{name}{{{texts[labels]},code="{code}"}} {count}')
        for name in (_DURATION, _OBJECTIVE):
            lines += _head(name, "histogram")
            for labels, buckets in self._buckets.items():
                if name == _DURATION or not labels[1]:
                    text = texts[labels] if name == _DURATION else _text(labels, "dry_run")
                    lines += histogram(name, text, _BOUNDS_S, buckets, self._sums[labels])
        rows: tuple[tuple[str, str, dict[str, int]], ...] = (
            ("apiserver_current_inflight_requests", "gauge", {
                'request_kind="mutating"': self.in_flight[True], 'request_kind="readOnly"': self.in_flight[False],
            }),
            ("apiserver_longrunning_requests", "gauge", {'component="apiserver",verb="WATCH"': watches}),
            ("apiserver_watch_cache_resource_version", "gauge", {"": revision}),
            ("authentication_attempts", "counter", {
                'result="success"': self.allowed + self.forbidden, 'result="failure"': self.unknown,
            }),
            ("authorization_attempts_total", "counter", {
                'result="allowed"': self.allowed, 'result="no-opinion"': self.forbidden,
            }),
        )  # fmt: skip
        for name, kind, values in rows:
            lines += _head(name, kind)
            lines += [f"{name}{{{text}}} {value}" if text else f"{name} {value}" for text, value in values.items()]
        return ("\n".join([*lines, *self.series.lines(), *more]) + "\n").encode()


def _head(name: str, kind: str) -> tuple[str, str]:
    return head(name, _HELP[name], kind)


def _text(labels: Labels, without: str = "") -> str:
    verb, *others = labels
    values = (_VERBS.get(verb) or verb.upper(), *others)
    rows = {name: value for name, value in zip(_NAMES, values, strict=True) if name != without}
    return text_of({"component": "apiserver", **rows})
