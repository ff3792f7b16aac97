"""Lets requests in by priority and fairness: the FlowSchemas in the cache, `cluster/auth/flows`, and those who wait.

Every server decides for itself; the objects are the same for all.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable

from steersman.actors.apiserver.authenticator import SERVER
from steersman.actors.apiserver.cache import WatchCache
from steersman.actors.apiserver.entry import Event
from steersman.actors.apiserver.writes import Writer
from steersman.actors.ports import Now, User
from steersman.cluster.api.decode import LARGE_BYTES
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind
from steersman.cluster.auth import flows, flowschemas
from steersman.cluster.auth.attributes import Attributes
from steersman.cluster.auth.flows import Dispatcher, Flow, Ticket
from steersman.cluster.meta.errors import ApiError, TooManyRequests
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import FLOW_SCHEMAS, PRIORITY_LEVELS, Resource
from steersman.cluster.meta.times import format_time
from steersman.cluster.store.values import StoreError

log = logging.getLogger(__name__)

#: how long a request waits for a seat at most: a quarter of what a request may take
WAIT_S = 15.0
#: what a refused client waits before it tries again
RETRY_AFTER_S = 1
#: how often seats are lent anew
_LEND_S = 10.0
#: how long further changes of the objects are waited for, before each is told whether it fits the others
_SETTLE_S = 0.1
#: objects that a list reads for one seat
_OBJECTS_PER_SEAT = 100
#: bytes that a write is about for each further seat: that many take longer than a usual write
_BYTES_PER_SEAT = LARGE_BYTES
#: verbs that cost what is there as well, not only what is sent
_SOUGHT = frozenset({"list", "deletecollection", "update", "patch", "delete"})
_MANAGER = "api-priority-and-fairness-config-consumer-v1"
#: conversations are not counted: they take no time of the server while they last
_CONVERSATIONS = frozenset({"attach", "exec", "log", "portforward", "proxy"})


class Overloaded(TooManyRequests):
    """There is no room for a request. Args: flow: that it is of."""

    def __init__(self, flow: Flow) -> None:
        super().__init__("Too many requests, please try again later.", retry_after_s=RETRY_AFTER_S)
        self.flow = flow


class FlowControl:
    """Gives requests their turn; a Component."""

    def __init__(self, cache: WatchCache, registry: Registry, writer: Writer, now: Now, seats: int) -> None:
        self._cache = cache
        self._registry = registry
        self._writer = writer
        self._now = now
        self.dispatcher = Dispatcher(seats)
        self._schemas = _kind(registry, FLOW_SCHEMAS)
        self._levels = _kind(registry, PRIORITY_LEVELS)
        #: a clock that never goes back
        self._clock: Callable[[], float] = time.monotonic
        self._changed = True
        self._stirred = asyncio.Event()
        self._waiting: dict[Ticket, asyncio.Future[None]] = {}
        self._lender: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when the objects in the cache decide, and each says whether it fits the others."""
        self._clock = asyncio.get_running_loop().time
        for kind in (self._schemas, self._levels):
            self._cache.shelf(kind.prefix()).listeners.append(self._follow)
        await self._tell()
        self._lender = asyncio.create_task(self._lend_always())

    async def stop(self) -> None:
        if self._lender is not None:
            self._lender.cancel()
            await asyncio.gather(self._lender, return_exceptions=True)

    def _follow(self, _event: Event) -> None:
        self._changed = True
        self._stirred.set()

    def _objects(self, kind: Kind) -> list[Obj]:
        return [entry.obj for entry in self._cache.shelf(kind.prefix()).within()]

    def _configure(self) -> None:
        levels = flowschemas.read_levels(self._objects(self._levels), self.dispatcher.seats)
        schemas = flowschemas.read_schemas(self._objects(self._schemas), levels)
        self.dispatcher.configure(schemas, levels, self._clock())
        self._changed = False

    # ---- requests

    def enter(self, user: User, attributes: Attributes, body_bytes: int = 0) -> Ticket | None:
        """Returns the ticket of a request, to be given back; None for one that is not counted.

        A ticket that has not `started` is to be waited for.

        Args:
            body_bytes: of the request.

        Raises:
            Overloaded: there is no room.
        """
        if attributes.subresource in _CONVERSATIONS:
            return None
        if self._changed:
            self._configure()
        dispatcher = self.dispatcher
        flow = dispatcher.classify(user.name, user.groups, attributes)
        width = self._width(attributes, body_bytes)
        ticket = dispatcher.enter(flow, width, self._clock())
        if isinstance(ticket, str):
            raise Overloaded(flow)
        return ticket

    async def wait(self, ticket: Ticket) -> None:
        """Returns when the request of a ticket may run.

        Raises:
            Overloaded: its turn did not come in time.
        """
        turn = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(WAIT_S):
                await turn
        except TimeoutError:
            if ticket.started is None:
                self._wake(self.dispatcher.give_up(ticket, flows.TIMED_OUT, self._clock()))
                raise Overloaded(ticket.flow) from None
        except asyncio.CancelledError:
            if ticket.started is not None:
                self.leave(ticket)
            else:
                self._wake(self.dispatcher.give_up(ticket, flows.CANCELLED, self._clock()))
            raise
        finally:
            del self._waiting[ticket]

    def leave(self, ticket: Ticket | None) -> None:
        """The request is answered."""
        if ticket is not None:
            self._wake(self.dispatcher.leave(ticket, self._clock()))

    def _wake(self, tickets: Iterable[Ticket]) -> None:
        for ticket in tickets:
            turn = self._waiting.get(ticket)
            if turn is not None and not turn.done():
                turn.set_result(None)

    def _width(self, attributes: Attributes, body_bytes: int) -> int:
        """The seats of a request: a list costs as much as there are objects of the kind, a write what it is about."""
        verb = attributes.verb
        if verb not in _SOUGHT:
            return 1 + body_bytes // _BYTES_PER_SEAT
        kind = self._registry.kind(attributes.group, attributes.version, attributes.resource)
        if kind is None or kind.virtual:
            return 1
        shelf = self._cache.shelf(kind.prefix())
        if verb in ("list", "deletecollection"):
            return math.ceil(len(shelf.entries) / _OBJECTS_PER_SEAT) or 1
        name = attributes.name
        entry = shelf.get(f"{attributes.namespace}/{name}" if kind.resource.namespaced else name)
        return 1 + (body_bytes + (len(entry.raw) if entry is not None else 0)) // _BYTES_PER_SEAT

    # ---- upkeep

    async def _lend_always(self) -> None:
        due = self._clock() + _LEND_S
        while True:
            try:
                async with asyncio.timeout_at(due):
                    await self._stirred.wait()
                    await asyncio.sleep(_SETTLE_S)
                await self._tell()
            except TimeoutError:
                if self._changed:
                    self._configure()
                self._wake(self.dispatcher.lend(self._clock()))
                due = self._clock() + _LEND_S

    async def _tell(self) -> None:
        """Writes into every FlowSchema whether its level exists."""
        self._stirred.clear()
        levels = {entry.key for entry in self._cache.shelf(self._levels.prefix()).within()}
        now = format_time(self._now())
        operations = []
        for schema in self._objects(self._schemas):
            conditions = flowschemas.dangling(schema, levels, now)
            if conditions is None:
                continue
            status = {"conditions": conditions}
            context = self._writer.context(SERVER, _MANAGER)
            operations.append(
                self._writer.transform(
                    self._schemas, "", schema["metadata"]["name"], context, _with_status(status), "status"
                )
            )
        try:
            if operations:
                await self._writer.run_all(operations)
        except (ApiError, StoreError) as error:
            log.info("the state of flow schemas was not written: %s", error)


def _with_status(status: Obj) -> Callable[[Obj], Obj]:
    return lambda schema: {**schema, "status": status}


def _kind(registry: Registry, resource: Resource) -> Kind:
    kind = registry.kind(resource.group, resource.version, resource.plural)
    if kind is None:
        raise LookupError(f"this version of Kubernetes has no {resource}")
    return kind
