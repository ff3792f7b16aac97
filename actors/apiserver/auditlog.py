"""Where audit events go: a file that is rotated, and a webhook that gets them in batches.

Neither delays a request. Each holds a bounded number of events; what does not fit is dropped, counted and told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from steersman.actors.apiserver.config import Rotation
from steersman.actors.webhook import Webhook
from steersman.cluster.meta.errors import ApiError

log = logging.getLogger(__name__)

#: events that wait for the disk or the webhook
BUFFER_MAX = 10_000
#: and their bytes: an event may hold what was sent and what was answered
BUFFER_BYTES_MAX = 64 << 20
#: how long the file may lag behind
_FLUSH_S = 0.1
#: events of one call of the webhook, and how long the first of them may wait
_BATCH_MAX = 400
_BATCH_WAIT_S = 1.0
#: calls of the webhook for one batch, and the pause before the second, which doubles
_TRIES_MAX = 5
_PAUSE_S = 0.5


#: is told how many events are lost
Lost = Callable[[int], None]


class _Buffer:
    """Events on their way; the newest is dropped when there are too many."""

    def __init__(self, name: str, lost: Lost) -> None:
        self._name = name
        self.lost = lost
        self.events: deque[bytes] = deque()
        self.arrived = asyncio.Event()
        self.dropped = 0
        self._bytes = 0

    def put(self, event: bytes) -> None:
        if len(self.events) >= BUFFER_MAX or self._bytes + len(event) > BUFFER_BYTES_MAX:
            if not self.dropped:
                log.error("audit events are lost: %s does not keep up", self._name)
            self.dropped += 1
            self.lost(1)
            return
        if self.dropped:
            log.error("%d audit events were lost: %s did not keep up", self.dropped, self._name)
            self.dropped = 0
        self.events.append(event)
        self._bytes += len(event)
        self.arrived.set()

    def take(self, count: int) -> list[bytes]:
        taken = [self.events.popleft() for _ in range(min(count, len(self.events)))]
        self._bytes -= sum(map(len, taken))
        if not self.events:
            self.arrived.clear()
        return taken


class AuditLog:
    """A file with one JSON event a line."""

    def __init__(self, path: Path, rotation: Rotation, lost: Lost) -> None:
        self._path = path
        self._rotation = rotation
        self._buffer = _Buffer(str(path), lost)
        self._flushing = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None

    def write(self, event: bytes) -> None:
        self._buffer.put(event)

    async def start(self) -> None:
        """Raises OSError when the file cannot be written."""
        self._append(b"")
        self._writer = asyncio.create_task(self._write_always())

    async def stop(self) -> None:
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        await self._flush()

    async def _write_always(self) -> None:
        while True:
            await self._buffer.arrived.wait()
            await asyncio.shield(self._flush())
            await asyncio.sleep(_FLUSH_S)

    async def _flush(self) -> None:
        async with self._flushing:
            events = self._buffer.take(BUFFER_MAX)
            if not events:
                return
            try:
                await asyncio.to_thread(self._append, b"\n".join(events) + b"\n")
            except OSError as error:
                self._buffer.lost(len(events))
                log.error("%d audit events are lost: %s: %s", len(events), self._path, error.strerror)

    def _append(self, data: bytes) -> None:
        limit = self._rotation.size_bytes_max
        with contextlib.suppress(FileNotFoundError):
            if limit and data and self._path.stat().st_size + len(data) > limit:
                self._rotate()
        with open(self._path, "ab", opener=_private) as file:
            file.write(data)

    def _rotate(self) -> None:
        """Puts the file aside under the time, and removes those that are too many or too old."""
        moment = time.time()
        stamp = time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime(moment)) + f".{int(moment % 1 * 1e6):06d}"
        self._path.rename(self._path.with_name(f"{self._path.stem}-{stamp}{self._path.suffix}"))
        # by their names: of the files of several servers none is the beginning of another's
        pattern = f"{self._path.stem}-????-??-??T??-??-??.??????{self._path.suffix}"
        aside = sorted(self._path.parent.glob(pattern), reverse=True)
        oldest = moment - self._rotation.age_days_max * 86_400
        for at, path in enumerate(aside):
            too_many = self._rotation.backups_max and at >= self._rotation.backups_max
            if too_many or (self._rotation.age_days_max and path.stat().st_mtime < oldest):
                path.unlink()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class AuditWebhook:
    """A server that gets the events, as `EventList`s."""

    def __init__(self, webhook: Webhook, lost: Lost) -> None:
        self._webhook = webhook
        self._buffer = _Buffer("the audit webhook", lost)
        self._sender: asyncio.Task[None] | None = None

    def write(self, event: bytes) -> None:
        self._buffer.put(event)

    async def start(self) -> None:
        self._sender = asyncio.create_task(self._send_always())

    async def stop(self) -> None:
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_BATCH_WAIT_S):
                while events := self._buffer.take(_BATCH_MAX):
                    await self._send(events)

    async def _send_always(self) -> None:
        while True:
            await self._buffer.arrived.wait()
            if len(self._buffer.events) < _BATCH_MAX:
                await asyncio.sleep(_BATCH_WAIT_S)
            await self._send(self._buffer.take(_BATCH_MAX))

    async def _send(self, events: list[bytes]) -> None:
        body = b'{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":[%b]}' % b",".join(events)
        why = ""
        for attempt in range(_TRIES_MAX):
            try:
                status, _ = await self._webhook.post(body)
                if status < 300:
                    return
                why = f"it answered {status}"
                if status < 500 and status != 429:
                    break
            except ApiError as error:
                why = error.message
            await asyncio.sleep(_PAUSE_S * 2**attempt)
        self._buffer.lost(len(events))
        log.error("%d audit events are lost: the webhook does not take them: %s", len(events), why)
