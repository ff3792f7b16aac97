"""Has objects converted by the webhooks of their definitions before they are shown.

What is converted stays with its entry in the cache, so that a webhook is asked once for an object at a revision,
whoever reads it. Watches are sent a change when it has been converted, in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

import orjson

from steersman.actors.apiserver.cache import Shelf
from steersman.actors.apiserver.entry import Entry, Event
from steersman.actors.apiserver.webhooks import Webhooks
from steersman.cluster.api.custom.conversion import ConversionFailed
from steersman.cluster.api.row import Kind

log = logging.getLogger(__name__)

#: objects in one call: a webhook's answer has a bound
_OBJECTS_MAX = 500
#: changes of one kind that wait for its webhook; when there are more its watches end and clients begin anew
_WAITING_MAX = 10_000


class Conversions:
    """Asks conversion webhooks on behalf of reads and watches; a Component.

    Args:
        new_uid: names a call.
    """

    def __init__(self, webhooks: Webhooks, new_uid: Callable[[], str]) -> None:
        self._webhooks = webhooks
        self._new_uid = new_uid
        self._gates: dict[Shelf, _Gate] = {}

    async def stop(self) -> None:
        for gate in self._gates.values():
            await gate.stop()

    async def prepare(self, kind: Kind, entries: Iterable[Entry]) -> None:
        """Returns when every entry can be shown in the kind's version.

        Raises:
            ConversionFailed
        """
        if kind.converter is None:
            return
        waiting = [entry for entry in entries if entry.lacks(kind)]
        for start in range(0, len(waiting), _OBJECTS_MAX):
            await self._convert(kind, waiting[start : start + _OBJECTS_MAX])

    async def _convert(self, kind: Kind, entries: Sequence[Entry]) -> None:
        assert kind.converter is not None
        objects, uid = [orjson.loads(entry.raw) for entry in entries], self._new_uid()
        call = kind.converter.call(objects, kind.api_version, uid)
        (reply,) = await self._webhooks.ask([call])
        converted = kind.converter.converted(objects, kind.api_version, uid, call, reply)
        for entry, obj in zip(entries, converted, strict=True):
            entry.keep(kind, obj)

    def watch(self, shelf: Shelf, *, converts: bool) -> None:
        """Holds the changes of a shelf back from its watches until they are converted, or does so no longer."""
        gate = self._gates.get(shelf)
        if converts and gate is None:
            self._gates[shelf] = _Gate(shelf, self)
        elif not converts and gate is not None:
            del self._gates[shelf]
            gate.open()


class _Gate:
    """The changes of one shelf on their way to its watches."""

    def __init__(self, shelf: Shelf, conversions: Conversions) -> None:
        self._shelf = shelf
        self._conversions = conversions
        self._queue: asyncio.Queue[Event] = asyncio.Queue(_WAITING_MAX)
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._ended)
        shelf.gate = self._take

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("changes are no longer converted, so that watches end", exc_info=error)
            self._shelf.gate = self._shelf.told = None
            self._shelf.close()

    def open(self) -> None:
        self._shelf.gate = self._shelf.told = None
        self._task.cancel()
        self._shelf.close()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _take(self, event: Event) -> None:
        if self._queue.full():
            self._shelf.close()
        else:
            if self._shelf.told is None:
                self._shelf.told = event.revision - 1
            self._queue.put_nowait(event)

    async def _run(self) -> None:
        while True:
            event = await self._queue.get()
            versions = [event.entry, *([event.previous] if event.previous is not None else [])]
            for audience in self._shelf.audiences():
                try:
                    await self._conversions.prepare(audience.form.kind, versions)
                except ConversionFailed as error:
                    log.warning("a watch of %s ends: %s", audience.form.kind.api_version, error)
                    audience.end()
            self._shelf.offer(event)
            self._shelf.flush()
            self._shelf.told = None if self._queue.empty() else event.revision
