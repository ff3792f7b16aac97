"""Tells users what happened to an object, as `v1.Event`s: repeats are counted, floods are cut.

Never in the way: `event` queues and returns, a task of its own sends, and an event that cannot be sent is lost.
Source: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import OrderedDict
from dataclasses import dataclass

from steersman.actors.client import Client
from steersman.actors.ports import Now, monotonic
from steersman.cluster.meta.errors import ApiError, NotFound
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import EVENTS
from steersman.cluster.meta.times import format_time

#: events waiting to be sent; more are dropped
PENDING_MAX = 1000
#: events remembered, to count their repeats
REMEMBERED_MAX = 4096
#: events an object may have at once, and seconds until it may have one more
BURST = 25
REFILL_S = 300.0
#: length of a message
MESSAGE_CHARS_MAX = 1024
#: of chance in an event's name: two recorders may tell of one object in the same microsecond
SERIAL_BITS = 12
_DEFAULT_NAMESPACE = "default"


@dataclass(slots=True)
class _Known:
    """One distinct event."""

    obj: Obj
    sent: bool = False


@dataclass(slots=True)
class _Bucket:
    tokens: float
    refilled_at: float


class EventRecorder:
    """Records events of one component.

    Args:
        component: as `deployment-controller`, `kubelet`.
        host: the node, for components that belong to one; else empty.
    """

    def __init__(self, client: Client, component: str, host: str, now: Now, rng: random.Random) -> None:
        self._client = client
        self._component = component
        self._host = host
        self._now = now
        self._rng = rng
        self._known: OrderedDict[tuple[str, ...], _Known] = OrderedDict()
        self._pending: OrderedDict[tuple[str, ...], None] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self._last_us = 0
        #: events that were not sent: floods, a full queue, or a server that refused them
        self.dropped = 0

    def event(self, obj: Obj, type_: str, reason: str, message: str, *, field_path: str = "") -> None:
        """Records that something happened to `obj`; must be called on the event loop.

        Args:
            obj: with `apiVersion`, `kind` and metadata.
            type_: `Normal` or `Warning`.
            reason: one word, as `ScalingReplicaSet`.
            field_path: the part of the object that is meant, as `spec.containers{web}`.
        """
        message = message[:MESSAGE_CHARS_MAX]
        meta = obj["metadata"]
        identity = (obj["kind"], meta.get("namespace", ""), meta["name"], meta.get("uid", ""), field_path)
        known_key = (*identity, type_, reason, message)
        known = self._known.get(known_key)
        crowded = len(self._pending) >= PENDING_MAX and known_key not in self._pending
        if crowded or not self._allowed("/".join(identity[:4])):
            self.dropped += 1
            return
        stamp = format_time(self._now())
        if known is None:
            known = _Known(self._new_event(obj, field_path, type_, reason, message, stamp))
            self._known[known_key] = known
            if len(self._known) > REMEMBERED_MAX:
                forgotten, _ = self._known.popitem(last=False)
                self._pending.pop(forgotten, None)
        else:
            known.obj["count"] += 1
            known.obj["lastTimestamp"] = stamp
            self._known.move_to_end(known_key)
        self._pending[known_key] = None
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._send_all(), name=f"events {self._component}")

    def _allowed(self, identity: str) -> bool:
        now = monotonic()
        bucket = self._buckets.setdefault(identity, _Bucket(BURST, now))
        self._buckets.move_to_end(identity)
        if len(self._buckets) > REMEMBERED_MAX:
            self._buckets.popitem(last=False)
        bucket.tokens = min(BURST, bucket.tokens + (now - bucket.refilled_at) / REFILL_S)
        bucket.refilled_at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _serial(self) -> int:
        """A number by which events sort as they happened: microseconds, and bits that tell recorders apart."""
        self._last_us = max(self._last_us + 1, int(self._now() * 1e6))
        return self._last_us << SERIAL_BITS | self._rng.getrandbits(SERIAL_BITS)

    def _new_event(self, obj: Obj, field_path: str, type_: str, reason: str, message: str, stamp: str) -> Obj:
        meta = obj["metadata"]
        involved = {
            "kind": obj["kind"],
            "namespace": meta.get("namespace"),
            "name": meta["name"],
            "uid": meta.get("uid"),
            "apiVersion": obj.get("apiVersion"),
            "resourceVersion": meta.get("resourceVersion"),
            "fieldPath": field_path,
        }
        source = {"component": self._component}
        if self._host:
            source["host"] = self._host
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{meta['name'][:236]}.{self._serial():016x}",
                "namespace": meta.get("namespace") or _DEFAULT_NAMESPACE,
            },
            "involvedObject": {name: value for name, value in involved.items() if value},
            "reason": reason,
            "message": message,
            "source": source,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
            "type": type_,
            "eventTime": None,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }

    async def _send_all(self) -> None:
        while self._pending:
            known_key, _ = self._pending.popitem(last=False)
            known = self._known[known_key]
            try:
                await self._send(known)
            except (ApiError, OSError):
                self.dropped += 1

    async def _send(self, known: _Known) -> None:
        obj = dict(known.obj)
        meta = obj["metadata"]
        if known.sent:
            patch = {"count": obj["count"], "lastTimestamp": obj["lastTimestamp"]}
            try:
                await self._client.patch(EVENTS, meta["name"], patch, meta["namespace"])
            except NotFound:  # its time to live is over
                known.sent = False
            else:
                return
        await self._client.create(EVENTS, obj)
        known.sent = True

    async def stop(self) -> None:
        """Sends what is pending, for at most two seconds."""
        if self._task is None:
            return
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(2):
                await self._task
