"""One operating-system process under virtual time: an event loop of its own on the world's loop.

It can die between any two steps and, within one, before each letter that it sends and each change of its disk: what
lies between those nobody outside can tell apart. It can be frozen and go on later, and its clock may run faster or
slower than the world's or stand still meanwhile. What runs in a thread of the real process runs here as a step of its
own after the time that a disk takes.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import random
import types
from asyncio.events import _set_running_loop
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context
from typing import Any, Literal, TypeVar

from tests.sim.faults import Fault, Faults

from steersman.actors.clocks import VirtualTimeLoop

T = TypeVar("T")

#: where a process may die: in place of a step, or in the middle of one
Point = Literal["step", "letter", "disk call"]
_DEATHS: dict[Point, Fault] = {
    "step": Fault.DEATH_AT_A_STEP, "letter": Fault.DEATH_AT_A_LETTER, "disk call": Fault.DEATH_AT_A_DISK_CALL,
}  # fmt: skip
#: what rounding may make of a moment
CLOCK_RESOLUTION_S = 1e-6
#: the longest time that work in a thread takes in peace
THREAD_S = 0.002
#: clocks that run apart by more are worth counting
DRIFT_SEEN = 0.02


#: file and line
Place = tuple[str, int]


class PowerLoss(BaseException):
    """The process died in the middle of a step: nothing of what follows happens."""


class Process(asyncio.AbstractEventLoop):
    """A process; its components are to be made and started by `spawn`.

    Args:
        rate: seconds of its clock in a second of the world.
        on_death: called once, when it has died.

    Attributes:
        thread_s: the longest time that work in a thread takes.
        points: how often it could have died so far.
        points_left: points until it dies; None for never.
        died_at: (file, line) of each `await` in which one of its coroutines was when it died.
        wall_offset_s: by how much its wall clock has jumped.
    """

    def __init__(
        self,
        world: VirtualTimeLoop,
        rng: random.Random,
        faults: Faults,
        *,
        rate: float,
        on_death: Callable[[Process], None],
    ) -> None:
        self.world, self.rate, self.alive = world, rate, True
        self.wall_offset_s = 0.0
        self.thread_s = THREAD_S
        self.points = 0
        self.points_left: int | None = None
        self.died_at: set[Place] = set()
        self.bugs: list[BaseException] = []
        self._rng, self._faults, self._on_death = rng, faults, on_death
        #: when it was frozen, and whether its clock stands still; None while it runs
        self._frozen: tuple[float, bool] | None = None
        #: seconds of the world for which its clock has stood still
        self._stood_still_s = 0.0
        self._held: list[asyncio.Handle] = []
        self._lanes_free_at: dict[Any, float] = {}
        #: kept, so that nothing of a dead process is finalized at a moment that depends on memory
        self._tasks: list[asyncio.Task[Any]] = []
        self._calls: list[asyncio.Future[Any]] = []
        faults[Fault.CLOCK_DRIFT] += abs(rate - 1) >= DRIFT_SEEN

    def now(self) -> float:
        """Its wall clock, which may jump."""
        return self.world.now() + self.wall_offset_s

    def jump(self, offset_s: float) -> None:
        """Sets its wall clock forward or back."""
        self._faults[Fault.WALL_CLOCK_FORWARD if offset_s > 0 else Fault.WALL_CLOCK_BACK] += 1
        self.wall_offset_s += offset_s

    # life and death

    def die(self) -> None:
        if self.alive:
            self.alive = False
            self._on_death(self)
            for task in self._tasks:
                coroutine: Any = task.get_coro()
                if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                    coroutine.close()  # nobody will ever begin it
                elif not task.done():
                    self.died_at.update(_places(coroutine))
            for future in self._calls:
                if not future.done():
                    future.set_exception(ConnectionResetError("the process died"))

    def reaches(self, point: Point) -> bool:
        """Notes that it could die here; returns whether it lives on."""
        self.points += 1
        if self.points_left is not None:
            self.points_left -= 1
            if self.points_left < 0:
                self._faults[_DEATHS[point]] += 1
                self.die()
        return self.alive

    def freeze(self, *, clock: bool = False) -> None:
        """Lets it stand still until `thaw`; with `clock` its own time does so as well."""
        if self._frozen is None:
            self._faults[Fault.PAUSE if clock else Fault.FREEZE] += 1
            self._frozen = (self.world.time(), clock)

    def thaw(self) -> None:
        if self._frozen is None:
            return
        (since, clock), self._frozen = self._frozen, None
        if clock:
            self._stood_still_s += self.world.time() - since
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
        if self._frozen is not None:
            self._held.append(handle)
            return
        if isinstance(handle, asyncio.TimerHandle) and self._is_early(handle):
            self._set(handle)
            return
        if not self.reaches("step"):
            return
        _set_running_loop(self)
        try:
            handle._run()
        finally:
            _set_running_loop(self.world)

    # what asyncio asks of a loop

    def time(self) -> float:
        return (self.world.time() - self._stood_still_s) * self.rate

    def _set(self, handle: asyncio.TimerHandle) -> None:
        self.world.call_at(handle.when() / self.rate + self._stood_still_s, self._run, handle)

    def _is_early(self, handle: asyncio.TimerHandle) -> bool:
        """Whether its clock has stood still since the timer was set."""
        return handle.when() - self.time() > CLOCK_RESOLUTION_S

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
        self._set(handle)
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
        takes_s = self._rng.uniform(0.00005, self.thread_s)
        self._faults[Fault.DISK_SLOW] += takes_s > 10 * THREAD_S
        free_at += takes_s
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


def _places(coroutine: Any) -> Iterator[Place]:
    """Where a coroutine is, and each one that it waits for."""
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is not None:
            yield frame.f_code.co_filename, frame.f_lineno
        if isinstance(coroutine, types.CoroutineType):
            coroutine = coroutine.cr_await
        elif isinstance(coroutine, types.AsyncGeneratorType):
            coroutine = coroutine.ag_await
        else:  # the next step of an asynchronous generator hides it
            coroutine = next((each for each in gc.get_referents(coroutine) if inspect.isasyncgen(each)), None)
