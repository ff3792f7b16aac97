"""One operating-system process under virtual time: an event loop of its own on the world's loop.

It can die between any two steps, be frozen and go on later, and its clock may run faster or slower than the world's.
What runs in a thread of the real process runs here as a step of its own after the time that a disk takes.
"""

from __future__ import annotations

import asyncio
import random
from asyncio.events import _set_running_loop
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

from steersman.actors.clocks import VirtualTimeLoop

T = TypeVar("T")


class PowerLoss(BaseException):
    """The process died in the middle of a step: nothing of what follows happens."""


class Process(asyncio.AbstractEventLoop):
    """A process; its components are to be made and started by `spawn`.

    Args:
        rate: seconds of its clock in a second of the world.
        on_death: called once, when it has died.

    Attributes:
        thread_s: the longest time that work in a thread takes.
    """

    def __init__(
        self, world: VirtualTimeLoop, rng: random.Random, *, rate: float, on_death: Callable[[Process], None]
    ) -> None:
        self.world, self.rate, self.alive = world, rate, True
        self.wall_offset_s = 0.0
        self.thread_s = 0.002
        self.steps_left: int | None = None
        self.bugs: list[BaseException] = []
        self._rng, self._on_death = rng, on_death
        self._frozen = False
        self._held: list[asyncio.Handle] = []
        self._lanes_free_at: dict[Any, float] = {}
        #: kept, so that nothing of a dead process is finalized at a moment that depends on memory
        self._tasks: list[asyncio.Task[Any]] = []
        self._calls: list[asyncio.Future[Any]] = []

    def now(self) -> float:
        """Its wall clock, which may jump."""
        return self.world.now() + self.wall_offset_s

    # life and death

    def die(self) -> None:
        if self.alive:
            self.alive = False
            self._on_death(self)
            for future in self._calls:
                if not future.done():
                    future.set_exception(ConnectionResetError("the process died"))

    def freeze(self) -> None:
        self._frozen = True

    def thaw(self) -> None:
        self._frozen = False
        held, self._held = self._held, []
        for handle in held:
            self.world.call_soon(self._run, handle)

    def spawn(self, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Future[T]:
        """Runs a coroutine in this process; the future is the world's. ConnectionResetError: the process died."""
        future: asyncio.Future[T] = self.world.create_future()
        self._calls.append(future)
        if not self.alive:
            future.set_exception(ConnectionResetError("the process is dead"))
        self.call_soon(self._begin, work, future)
        return future

    def _begin(self, work: Callable[[], Coroutine[Any, Any, T]], future: asyncio.Future[T]) -> None:
        task = self.create_task(work())
        task.add_done_callback(lambda _: self._answer(task, future))

    def _answer(self, task: asyncio.Task[T], future: asyncio.Future[T]) -> None:
        if future.done() or not self.alive:
            return
        if (error := task.exception()) is not None:
            future.set_exception(error)
        else:
            future.set_result(task.result())

    def _run(self, handle: asyncio.Handle) -> None:
        if not self.alive or handle.cancelled():
            return
        if self._frozen:
            self._held.append(handle)
            return
        if self.steps_left is not None:
            if self.steps_left == 0:
                self.die()
                return
            self.steps_left -= 1
        _set_running_loop(self)
        try:
            handle._run()
        finally:
            _set_running_loop(self.world)

    # what asyncio asks of a loop

    def time(self) -> float:
        return self.world.time() * self.rate

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self.world.call_soon(self._run, handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.world.call_at(when / self.rate, self._run, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled handle is skipped when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Work of one executor keeps its order and takes its time."""
        future: asyncio.Future[T] = self.create_future()
        free_at = max(self._lanes_free_at.get(executor, 0.0), self.time())
        free_at += self._rng.uniform(0.00005, self.thread_s)
        self._lanes_free_at[executor] = free_at
        self.call_at(free_at, self._work, future, func, args)
        return future

    def _work(self, future: asyncio.Future[T], func: Callable[..., T], args: tuple[Any, ...]) -> None:
        try:
            result = func(*args)
        except PowerLoss:
            return
        except Exception as error:
            if not future.done():
                future.set_exception(error)
            return
        if not future.done():
            future.set_result(result)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if self.alive and error is not None and not isinstance(error, OSError):  # disks may fail
            self.bugs.append(error)

    default_exception_handler = call_exception_handler
