"""Probes as state machines: when the next one is due, and what its answer means.

Knows no sockets: whoever probes reports success, failure, or that the probe could not be made.

Source: https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
and k8s.io/kubernetes/pkg/kubelet/prober/worker.go
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any


class ProbeKind(StrEnum):
    STARTUP = "startup"
    LIVENESS = "liveness"
    READINESS = "readiness"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSpec:
    """The timing of one probe, with Kubernetes' defaults filled in."""

    kind: ProbeKind
    handler: Mapping[str, Any]
    initial_delay_s: float = 0.0
    period_s: float = 10.0
    deadline_s: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3
    grace_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeState:
    """Where one probe of one container stands.

    Args:
        verdict: the settled answer.
        streak: equal answers in a row, `last` being that answer.
        due_at: when to probe next, by the clock that `begin` and `after` are given.
        settled: whether the verdict came from probing rather than from the beginning.
    """

    verdict: bool
    due_at: float
    last: bool | None = None
    streak: int = 0
    settled: bool = False


def parse_probe(container: Mapping[str, Any], kind: ProbeKind) -> ProbeSpec | None:
    """Returns the container's probe of a kind, or None when it has none."""
    probe = container.get(f"{kind.value}Probe")
    if not probe:
        return None
    grace = probe.get("terminationGracePeriodSeconds")
    return ProbeSpec(
        kind=kind,
        handler=probe,
        initial_delay_s=float(probe.get("initialDelaySeconds") or 0),
        period_s=float(probe.get("periodSeconds") or 10),
        deadline_s=float(probe.get("timeoutSeconds") or 1),
        success_threshold=int(probe.get("successThreshold") or 1),
        failure_threshold=int(probe.get("failureThreshold") or 3),
        grace_s=None if grace is None else float(grace),
    )


def begin(spec: ProbeSpec, started_at: float, now: float, *, known: bool | None = None) -> ProbeState:
    """Returns the state of a container that started at `started_at`, by the clock of `now`.

    Args:
        known: the verdict a former agent left in the pod's status; kept until probing says otherwise.
    """
    verdict = spec.kind is ProbeKind.LIVENESS if known is None else known
    return ProbeState(verdict=verdict, due_at=max(now, started_at + spec.initial_delay_s), settled=bool(known))


def after(spec: ProbeSpec, state: ProbeState, success: bool | None, now: float) -> ProbeState:
    """Returns the state after an answer; the verdict turns when the threshold of equal answers is reached.

    Args:
        success: None when the probe could not be made: such an answer is thrown away.
    """
    if success is None:
        return replace(state, due_at=now + spec.period_s)
    streak = state.streak + 1 if state.last is success else 1
    threshold = spec.success_threshold if success else spec.failure_threshold
    turned = streak >= threshold
    return replace(
        state,
        last=success,
        streak=min(streak, threshold),
        due_at=now + spec.period_s,
        verdict=success if turned else state.verdict,
        settled=state.settled or turned,
    )


def must_kill(spec: ProbeSpec, state: ProbeState) -> bool:
    """Whether the container has to be stopped for this probe's sake."""
    return spec.kind is not ProbeKind.READINESS and state.settled and not state.verdict


def is_over(spec: ProbeSpec, state: ProbeState) -> bool:
    """Whether this container needs no further probe of this kind: it has started up, or is to be killed."""
    return must_kill(spec, state) or (spec.kind is ProbeKind.STARTUP and state.verdict)
