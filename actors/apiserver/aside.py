"""Work that takes the interpreter for long, done beside the loop; others are served meanwhile.

One thread does all of it, in the order in which it comes: it leaves the loop half of the interpreter's time, and each
further one would leave less. What is done there may read what never changes (objects, schemas, entries of the cache);
whatever the loop changes while it runs it asks the loop for (`at_home`). How much waits for its turn is bounded by the
requests that are let in, and by the bytes of them that the HTTP server holds.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from steersman.actors.clocks import VirtualTimeLoop

#: how long the thread keeps the interpreter when the loop wants it: a small request wants it about ten times, and
#: Python's own 5 ms would each time be more than all the work for it
_SWITCH_S = 0.0005
_THREAD = ThreadPoolExecutor(1, "aside", initializer=partial(sys.setswitchinterval, _SWITCH_S))

T = TypeVar("T")


class _Errand:
    """One piece of work in the thread.

    Args:
        loop: that waits for it, and is asked.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        #: in which the work is done; what it asks is answered in a copy
        self._context = copy_context()
        self._question: Future[Any] | None = None
        self._is_left = False

    def run(self, work: Callable[..., T], values: tuple[object, ...]) -> T:
        _here.errand = self
        try:
            return self._context.run(work, *values)
        finally:
            _here.errand = None

    def ask(self, function: Callable[..., T], values: tuple[object, ...]) -> T:
        question = self._question = Future[T]()
        if self._is_left:
            question.cancel()
        else:
            self._loop.call_soon_threadsafe(self._answer, question, function, values)
        return question.result()

    @staticmethod
    def _answer(question: Future[T], function: Callable[..., T], values: tuple[object, ...]) -> None:
        if question.set_running_or_notify_cancel():
            try:
                question.set_result(function(*values))
            except Exception as error:  # it is the asker's
                question.set_exception(error)

    def leave(self) -> None:
        """Nobody waits for it any more, and nobody answers."""
        self._is_left = True
        if self._question is not None:
            self._question.cancel()


class _Here(threading.local):
    errand: _Errand | None = None


#: what the running thread does
_here = _Here()


async def aside(work: Callable[..., T], *values: object) -> T:
    """Returns what `work` gives for some values, or raises what it raises; others are served meanwhile.

    Under virtual time, where there is one thread, they wait.
    """
    loop = asyncio.get_running_loop()
    if isinstance(loop, VirtualTimeLoop):
        return work(*values)
    errand = _Errand(loop)
    try:
        return await loop.run_in_executor(_THREAD, errand.run, work, values)
    except asyncio.CancelledError:
        errand.leave()
        raise


def at_home(function: Callable[..., T], *values: object) -> T:
    """Returns what a function of the loop's own state gives: called here, or by the loop when this is done aside."""
    errand = _here.errand
    return function(*values) if errand is None else errand.ask(function, values)
