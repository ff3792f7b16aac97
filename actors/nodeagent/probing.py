"""Probes one running container: a task a probe, whose answers move the state machines of `cluster.node.probes`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from steersman.actors.nodeagent.handlers import Handlers, Target
from steersman.actors.ports import monotonic
from steersman.cluster.meta.objects import Obj
from steersman.cluster.node.observed import Kill, Verdict
from steersman.cluster.node.probes import (
    ProbeKind,
    ProbeSpec,
    ProbeState,
    after,
    begin,
    is_over,
    must_kill,
    parse_probe,
)


def probes_of(container: Obj) -> dict[ProbeKind, ProbeSpec]:
    """The probes a container has."""
    found = {kind: parse_probe(container, kind) for kind in ProbeKind}
    return {kind: spec for kind, spec in found.items() if spec is not None}


class ContainerProbes:
    """The probes of one container, from its start to its end.

    Args:
        age_s: since when the container has been running.
        known: (started, ready) that an agent before this one had found out about this very container.
        on_change: called when the verdict may read differently.
        on_unhealthy: called with the text of an event for each answer that is not a success.
    """

    def __init__(
        self,
        handlers: Handlers,
        target: Target,
        specs: dict[ProbeKind, ProbeSpec],
        *,
        age_s: float,
        known: tuple[bool, bool] | None,
        rng: random.Random,
        on_change: Callable[[], None],
        on_unhealthy: Callable[[str], None],
    ) -> None:
        self._handlers = handlers
        self._target = target
        self._specs = specs
        self._started_at = monotonic() - age_s
        self._known = known
        self._rng = rng
        self._on_change = on_change
        self._on_unhealthy = on_unhealthy
        self._states: dict[ProbeKind, ProbeState] = {}
        self._started = asyncio.Event()
        self._tasks: dict[ProbeKind, asyncio.Task[None]] = {}

    def start(self) -> None:
        was_started, was_ready = self._known or (False, False)
        known = {ProbeKind.STARTUP: was_started or None, ProbeKind.READINESS: was_ready or None}
        for kind, spec in self._specs.items():
            self._states[kind] = begin(spec, self._started_at, monotonic(), known=known.get(kind))
        if self._has_started():
            self._started.set()
        for kind, spec in self._specs.items():
            self._tasks[kind] = asyncio.ensure_future(self._run(spec))

    def keep_only(self, kinds: tuple[ProbeKind, ...]) -> None:
        """Stops every other probe; what they have said stands, except that nobody is to be killed."""
        for kind, task in self._tasks.items():
            if kind not in kinds:
                task.cancel()

    def stop(self) -> None:
        self.keep_only(())

    def verdict(self) -> Verdict:
        started = self._has_started()
        readiness = self._states.get(ProbeKind.READINESS)
        kill = None
        for kind in (ProbeKind.STARTUP, ProbeKind.LIVENESS):
            spec = self._specs.get(kind)
            if spec is not None and must_kill(spec, self._states[kind]):
                name = self._target.container["name"]
                message = f"Container {name} failed {kind.value} probe, will be restarted"
                kill = Kill(message=message, grace_s=spec.grace_s)
        return Verdict(started=started, ready=started and (readiness is None or readiness.verdict), kill=kill)

    def _has_started(self) -> bool:
        startup = self._states.get(ProbeKind.STARTUP)
        return startup is None or startup.verdict

    async def _run(self, spec: ProbeSpec) -> None:
        if spec.kind is not ProbeKind.STARTUP and not self._started.is_set():
            await self._started.wait()
            self._states[spec.kind] = begin(spec, self._started_at, monotonic())
        elif self._known is not None:
            # after the agent's restart: not every probe of the node in the same moment
            await asyncio.sleep(self._rng.uniform(0, spec.period_s))
        while not is_over(spec, self._states[spec.kind]):
            delay_s = self._states[spec.kind].due_at - monotonic()
            if delay_s > 0:
                await asyncio.sleep(delay_s)
            await self._probe(spec)

    async def _probe(self, spec: ProbeSpec) -> None:
        due_at = monotonic()
        answer = await self._handlers.probe(spec.handler, self._target, spec.deadline_s)
        before = self._states[spec.kind]
        state = self._states[spec.kind] = after(spec, before, answer.success, due_at)
        if not answer.success:
            verb = "failed" if answer.success is False else "errored"
            self._on_unhealthy(f"{spec.kind.value.capitalize()} probe {verb}: {answer.output}")
        if self._has_started():
            self._started.set()
        if state.verdict != before.verdict or state.settled != before.settled:
            self._on_change()
