"""Counters and distributions of what an API server asks of others and writes down, by the names of kube-apiserver.

Source: k8s.io/apiserver/pkg/audit/metrics.go, .../authorization/metrics, .../server/options/encryptionconfig/metrics,
.../authentication/request/x509
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: of those distributions that are of other lengths than those of calls, in seconds: from half an hour to a year
_BOUNDS: dict[str, tuple[float, ...]] = {
    "apiserver_client_certificate_expiration_seconds": (
        0, 1800, 3600, 7200, 21600, 43200, 86400, 172800, 345600, 604800, 2592000, 7776000, 15552000, 31104000,
    ),
}  # fmt: skip
_HELP = {
    "apiserver_audit_event_total": "Counter of audit events generated and sent to the audit backend.",
    "apiserver_audit_level_total": "Counter of policy levels for audit events (1 per request).",
    "apiserver_audit_error_total": (
        "Counter of audit events that failed to be audited properly. "
        "Plugin identifies the plugin affected by the error."
    ),
    "apiserver_authorization_webhook_evaluations_total": "Round-trips to authorization webhooks.",
    "apiserver_authorization_webhook_evaluations_fail_open_total": (
        "NoOpinion results due to webhook timeout or error."
    ),
    "apiserver_authorization_webhook_duration_seconds": "Request latency in seconds.",
    "apiserver_client_certificate_expiration_seconds": (
        "Distribution of the remaining lifetime on the certificate used to authenticate a request."
    ),
    "apiserver_envelope_encryption_kms_operations_latency_seconds": (
        "KMS operation duration with gRPC error code status total."
    ),
}


class Series:
    """What is counted beside requests; labels are few and chosen by whoever counts, never by a client."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}
        self._buckets: dict[str, dict[str, list[int]]] = {}
        self._sums: Counter[tuple[str, str]] = Counter()

    def count(self, metric: str, number: int = 1, /, **labels: str) -> None:
        """Something has happened."""
        self._counts.setdefault(metric, Counter())[text_of(labels)] += number

    def observe(self, metric: str, seconds: float, /, **labels: str) -> None:
        """Something has taken so long, or will."""
        text, bounds_s = text_of(labels), _BOUNDS.get(metric, BOUNDS_S)
        buckets = self._buckets.setdefault(metric, {}).setdefault(text, [0] * (len(bounds_s) + 1))
        buckets[bisect_left(bounds_s, seconds)] += 1
        self._sums[metric, text] += seconds  # type: ignore[assignment]

    def lines(self) -> Iterator[str]:
        """Lines of the page that a scraper reads."""
        for name, counts in self._counts.items():
            yield from head(name, _HELP[name], "counter")
            for text, count in counts.items():
                yield f"{name}{{{text}}} {count}" if text else f"{name} {count}"
        for name, rows in self._buckets.items():
            yield from head(name, _HELP[name], "histogram")
            for text, buckets in rows.items():
                yield from histogram(name, text, _BOUNDS.get(name, BOUNDS_S), buckets, self._sums[name, text])


def head(name: str, help_text: str, kind: str) -> tuple[str, str]:
    """The lines before those of a metric."""
    return f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"


def histogram(name: str, text: str, bounds_s: Sequence[float], buckets: Sequence[int], sum_s: float) -> Iterator[str]:
    """The lines of one distribution; `buckets` has one more than there are bounds."""
    total, braces = 0, f"{{{text}}}" if text else ""
    for bound, count in zip((*(f"{bound:.8g}" for bound in bounds_s), "+Inf"), buckets, strict=True):
        total += count
        yield f'{name}_bucket{{{text}{"," if text else ""}le="{bound}"}} {total}'
    yield f"{name}_sum{braces} {sum_s:.6f}"
    yield f"{name}_count{braces} {total}"


def text_of(labels: dict[str, str]) -> str:
    """Labels as they stand in braces."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
