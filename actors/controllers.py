"""The one host of all controllers: it watches, queues keys, asks the controller's pure functions and carries out plans.

It knows no kind. What a controller decides is in `cluster.control`; this file only says when it is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Sequence
from typing import Any

from steersman.actors.client import Client
from steersman.actors.execution import Executor, NotLeading
from steersman.actors.leases import Leadership
from steersman.actors.ports import Now
from steersman.actors.recorder import EventRecorder
from steersman.actors.views import LiveView
from steersman.actors.workqueue import WorkQueue
from steersman.cluster.api.components import CONTROLLER_MANAGER
from steersman.cluster.control import CONTROLLERS
from steersman.cluster.control.plan import Plan
from steersman.cluster.control.spec import ControllerSpec, ControlSettings, Watch
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import Resource

_log = logging.getLogger(__name__)
#: how long to wait for kinds that cannot be listed before a controller of everything begins
PATIENCE_S = 30.0


class ControllerHost:
    """Component: runs the named controllers.

    Args:
        names: of `steersman.cluster.control.CONTROLLERS`.
        identity: names this process among candidates for leadership; no two incarnations may share one.
        leader_election: whether to act only while holding a Lease in kube-system.

    Raises:
        KeyError: there is no controller of that name.
    """

    def __init__(
        self,
        client: Client,
        names: Sequence[str],
        *,
        now: Now,
        rng: random.Random,
        identity: str = "",
        leader_election: bool = False,
        settings: ControlSettings | None = None,
    ) -> None:
        specs = [CONTROLLERS[name] for name in names]
        self._view = LiveView(
            client,
            settings or ControlSettings(),
            self._on_change,
            everything=any(spec.keys_of_any for spec in specs),
            discovers=any(spec.discovers for spec in specs),
        )
        self._leadership: Leadership | None = None
        if leader_election:
            lease = f"{names[0]}-controller" if len(names) == 1 else f"{names[0]}-and-more-controllers"
            self._leadership = Leadership(client, lease, identity, CONTROLLER_MANAGER, now, rng)
        self._leading = asyncio.Event() if self._leadership is None else self._leadership.leading
        if self._leadership is None:
            self._leading.set()
        executor = Executor(client, self._view, self._may_act)
        self._runners = [_Runner(spec, client, self._view, executor, self._leading, now, rng) for spec in specs]
        self._watching: dict[Resource, list[tuple[_Runner, Watch]]] = {}
        for runner in self._runners:
            for watch in runner.spec.watches:
                self._view.want(watch.resource, watch.indexes, timed=watch.timed)
                self._watching.setdefault(watch.resource, []).append((runner, watch))
        self._graphs = [runner for runner in self._runners if runner.spec.keys_of_any]

    def _may_act(self) -> bool:
        return self._leadership is None or self._leadership.valid

    def _on_change(self, resource: Resource, before: Obj | None, after: Obj | None) -> None:
        for runner, watch in self._watching.get(resource, ()):
            for obj in (before, after):
                if obj is not None:
                    for key in watch.keys(obj, self._view):
                        runner.queue.add(key)
        for runner in self._graphs:
            if runner.spec.keys_of_any is not None:
                for key in runner.spec.keys_of_any(resource, before, after, self._view):
                    runner.queue.add(key)

    async def start(self) -> None:
        """Begins to watch and, as soon as it leads and has seen everything it needs, to act."""
        await self._view.start()
        if self._leadership is not None:
            await self._leadership.start()
        for runner in self._runners:
            runner.start()

    async def stop(self) -> None:
        for runner in self._runners:
            await runner.stop()
        if self._leadership is not None:
            await self._leadership.stop()
        await self._view.stop()

    @property
    def leading(self) -> bool:
        return self._leading.is_set()

    @property
    def bugs(self) -> list[str]:
        """Errors that no rule foresaw, with their controller and key; empty in a sound program."""
        return [bug for runner in self._runners for bug in runner.bugs]

    @property
    def troubles(self) -> list[str]:
        """What keeps this host from seeing the cluster, in words."""
        return self._view.troubles

    @property
    def idle(self) -> bool:
        """Whether no key waits or is worked on; timers may run."""
        return all(runner.queue.idle for runner in self._runners)

    async def ready(self) -> None:
        """Waits until every controller acts."""
        for runner in self._runners:
            await runner.acting.wait()


class _Runner:
    """One controller: its queue and workers."""

    def __init__(
        self,
        spec: ControllerSpec,
        client: Client,
        view: LiveView,
        executor: Executor,
        leading: asyncio.Event,
        now: Now,
        rng: random.Random,
    ) -> None:
        self.spec = spec
        self.queue = WorkQueue(spec.interval_s, rng)
        self.bugs: list[str] = []
        self.acting = asyncio.Event()
        self._view = view
        self._executor = executor
        self._leading = leading
        self._now = now
        self._recorder = EventRecorder(client, f"{spec.name}-controller", "", now, rng)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._begin(), name=f"{self.spec.name} controller")]

    async def _begin(self) -> None:
        await self._view.discovered.wait()
        await self._view.synced([watch.resource for watch in self.spec.watches])
        if self.spec.keys_of_any:
            await self._view.synced_all(PATIENCE_S)
        await self._leading.wait()
        self.acting.set()
        for key in self.spec.at_start:
            self.queue.add(key)
        for number in range(self.spec.workers):
            self._tasks.append(asyncio.create_task(self._work(), name=f"{self.spec.name} worker {number}"))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()
        self.queue.close()
        await self._recorder.stop()

    async def _work(self) -> None:
        while True:
            await self._leading.wait()
            key = await self.queue.take()
            failed = True
            try:
                failed = await self._turn(key)
            except NotLeading:
                _log.warning("%s controller: the lease was lost while %s was in work", self.spec.name, key)
            except Exception as bug:  # one poisoned object must not stop the controller for all others
                _log.exception("%s controller: %s cannot be reconciled", self.spec.name, key)
                self.bugs = [*self.bugs[-99:], f"{self.spec.name} {key}: {type(bug).__name__}: {bug}"]
            finally:
                self.queue.done(key, failed=failed)

    async def _turn(self, key: str) -> bool:
        """Reconciles a key once; returns whether it must come again after a growing delay."""
        observed: Any = self.spec.observe(self._view, key)
        if observed is None:
            return False
        plan = self.spec.reconcile(observed, self._now())
        outcome = await self._executor.carry_out(plan)
        if outcome.refusal is not None and self.spec.refused is not None:
            answer = self.spec.refused(observed, outcome.refusal, self._now())
            await self._executor.carry_out(answer)
            self._tell(answer)
        if outcome.again:
            return True
        self._tell(plan)
        if plan.requeue_after_s is not None:
            self.queue.add_after(key, plan.requeue_after_s)
        return False

    def _tell(self, plan: Plan) -> None:
        for event in plan.events:
            self._recorder.event(event.obj, event.type, event.reason, event.message)
