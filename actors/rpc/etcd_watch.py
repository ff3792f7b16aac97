"""etcd's Watch service over a replica: many watches on one stream, each with its id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from steersman.actors.rpc import etcd_values as wire
from steersman.actors.rpc.etcd_answers import guard, header_of
from steersman.actors.rpc.h2.calls import StreamingCall as Context
from steersman.actors.store.replica import Replica
from steersman.cluster.store.values import Compacted, StoreError, WatchBatch
from steersman.pb import etcd_pb2, etcd_pb2_grpc, mvcc_pb2

#: event bytes of one watch response when the watcher asked for fragments
FRAGMENT_BYTES_MAX = 1 << 20
#: watches of one stream
WATCHES_MAX = 10_000


#: etcd's words for watches that cannot be made
DUPLICATE_ID = "mvcc: duplicate watch ID provided on the WatchStream"
EMPTY_RANGE = "mvcc: watcher range is empty"
TOO_MANY = "etcdserver: too many watches on this stream"


class WatchServicer(etcd_pb2_grpc.WatchServicer):
    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def Watch(self, requests: AsyncIterator[etcd_pb2.WatchRequest], context: Context) -> None:
        stream = _WatchStream(self._replica, context.write)
        try:
            await guard(context, stream.read(requests))
        finally:
            stream.close()


class _WatchStream:
    """The watches of one client stream.

    Args:
        write: sends a response; waits while the client does not take what was sent before.
    """

    def __init__(self, replica: Replica, write: Callable[[etcd_pb2.WatchResponse], Awaitable[None]]) -> None:
        self._replica, self._write = replica, write
        self._watches: dict[int, asyncio.Task[None]] = {}
        #: each watch to the revision up to which its events have been queued
        self._reached: dict[int, int] = {}
        self._next_id = 0

    async def read(self, requests: AsyncIterator[etcd_pb2.WatchRequest]) -> None:
        async for request in requests:
            match request.WhichOneof("request_union"):
                case "create_request":
                    await self._create(request.create_request)
                case "cancel_request":
                    await self._cancel(request.cancel_request.watch_id)
                case "progress_request":
                    revision = min(self._reached.values(), default=self._replica.revision)
                    await self._respond(-1, revision=revision)
        await asyncio.gather(*self._watches.values(), return_exceptions=True)

    def close(self) -> None:
        for task in self._watches.values():
            task.cancel()

    async def _respond(
        self, watch_id: int, *, revision: int = 0, created: bool = False, canceled: bool = False, reason: str = ""
    ) -> None:
        response = etcd_pb2.WatchResponse(
            header=header_of(self._replica, revision),
            watch_id=watch_id,
            created=created,
            canceled=canceled,
            cancel_reason=reason,
        )
        await self._write(response)

    async def _create(self, request: etcd_pb2.WatchCreateRequest) -> None:
        refusal = self._refusal(request)
        if refusal:
            await self._respond(-1, created=True, canceled=True, reason=refusal)
            return
        batches = self._replica.watch(request.key or b"\0", request.range_end, request.start_revision)
        watch_id = request.watch_id or self._free_id()
        self._reached[watch_id] = (request.start_revision or self._replica.revision + 1) - 1
        await self._respond(watch_id, created=True)
        self._watches[watch_id] = asyncio.create_task(self._deliver(watch_id, request, batches))

    def _refusal(self, request: etcd_pb2.WatchCreateRequest) -> str:
        end = request.range_end
        if end not in (b"", b"\0") and end <= request.key:
            return EMPTY_RANGE
        if request.watch_id and request.watch_id in self._watches:
            return DUPLICATE_ID
        return TOO_MANY if len(self._watches) >= WATCHES_MAX else ""

    def _free_id(self) -> int:
        while self._next_id in self._watches:
            self._next_id += 1
        self._next_id += 1
        return self._next_id - 1

    async def _cancel(self, watch_id: int) -> None:
        task = self._watches.pop(watch_id, None)
        self._reached.pop(watch_id, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._respond(watch_id, canceled=True)

    async def _deliver(
        self, watch_id: int, request: etcd_pb2.WatchCreateRequest, batches: AsyncIterator[WatchBatch]
    ) -> None:
        try:
            async for batch in batches:
                await self._hand_over(watch_id, request, batch)
        except Compacted as error:
            # as in etcd: the compacted revision says it all, and there is none that was reached
            header = header_of(self._replica)
            header.revision = 0
            response = etcd_pb2.WatchResponse(
                header=header, watch_id=watch_id, canceled=True, compact_revision=error.revision
            )
            await self._write(response)
        except StoreError as error:
            await self._end(watch_id, error)
        self._reached.pop(watch_id, None)
        self._watches.pop(watch_id, None)

    async def _end(self, watch_id: int, error: StoreError) -> None:
        """Tells the client that the store ended, without asking the store for a header."""
        reason = wire.status_of(error)[1]
        await self._write(etcd_pb2.WatchResponse(watch_id=watch_id, canceled=True, cancel_reason=reason))

    async def _hand_over(self, watch_id: int, request: etcd_pb2.WatchCreateRequest, batch: WatchBatch) -> None:
        no_put = etcd_pb2.WatchCreateRequest.NOPUT in request.filters
        no_delete = etcd_pb2.WatchCreateRequest.NODELETE in request.filters
        events = [
            wire.event_message(event, prev_kv=request.prev_kv)
            for event in batch.events
            if not (no_delete if event.deleted else no_put)
        ]
        if not events:
            if request.progress_notify and not batch.events:
                await self._respond(watch_id, revision=batch.revision)
            self._reached[watch_id] = batch.revision
            return
        header = header_of(self._replica, batch.revision)
        pieces = _fragments(events) if request.fragment else [events]
        for position, piece in enumerate(pieces):
            await self._write(
                etcd_pb2.WatchResponse(
                    header=header, watch_id=watch_id, events=piece, fragment=position < len(pieces) - 1
                )
            )
        self._reached[watch_id] = batch.revision


def _fragments(events: list[mvcc_pb2.Event]) -> list[list[mvcc_pb2.Event]]:
    pieces: list[list[mvcc_pb2.Event]] = [[]]
    size_bytes = 0
    for event in events:
        event_bytes = event.ByteSize()
        if size_bytes + event_bytes > FRAGMENT_BYTES_MAX and pieces[-1]:
            pieces.append([])
            size_bytes = 0
        pieces[-1].append(event)
        size_bytes += event_bytes
    return pieces
