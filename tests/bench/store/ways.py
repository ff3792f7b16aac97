"""Two ways to ask a store, with the same methods: unary calls as etcdctl makes them, and our client's stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import grpc
import grpc.aio

from steersman.actors.store.client import StoreClient
from steersman.cluster.store.rules import prefix_end
from steersman.cluster.store.values import Put, Range, Txn
from steersman.pb import etcd_pb2, etcd_pb2_grpc

_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Way(Protocol):
    async def put(self, key: bytes, value: bytes) -> None: ...
    async def put_all(self, rows: Sequence[tuple[bytes, bytes]]) -> None: ...
    async def get(self, key: bytes, *, serializable: bool) -> int:
        """Returns how many keys were found."""
        ...

    async def list(self, prefix: bytes) -> int: ...
    def watch(self, prefix: bytes) -> AsyncIterator[int]:
        """Yields the number of events of each message; 0 for the first, when the watch stands."""
        ...

    async def close(self) -> None: ...


class Unary:
    """Calls the member at the first address."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._channel = grpc.aio.insecure_channel(addresses[0], options=_OPTIONS)
        self._kv = etcd_pb2_grpc.KVStub(self._channel)

    async def put(self, key: bytes, value: bytes) -> None:
        await self._kv.Put(etcd_pb2.PutRequest(key=key, value=value))

    async def put_all(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        operations = [etcd_pb2.RequestOp(request_put=etcd_pb2.PutRequest(key=key, value=value)) for key, value in rows]
        await self._kv.Txn(etcd_pb2.TxnRequest(success=operations))

    async def get(self, key: bytes, *, serializable: bool) -> int:
        return len((await self._kv.Range(etcd_pb2.RangeRequest(key=key, serializable=serializable))).kvs)

    async def list(self, prefix: bytes) -> int:
        return len((await self._kv.Range(etcd_pb2.RangeRequest(key=prefix, range_end=prefix_end(prefix)))).kvs)

    async def watch(self, prefix: bytes) -> AsyncIterator[int]:
        call = etcd_pb2_grpc.WatchStub(self._channel).Watch()
        create = etcd_pb2.WatchCreateRequest(key=prefix, range_end=prefix_end(prefix))
        await call.write(etcd_pb2.WatchRequest(create_request=create))
        try:
            async for response in call:
                yield len(response.events)
        finally:
            call.cancel()

    async def close(self) -> None:
        await self._channel.close()


class Stream:
    """Uses our client, which finds the leader by itself."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._client = StoreClient(addresses, timeout_s=60)

    async def open(self) -> Stream:
        await self._client.start()
        return self

    async def put(self, key: bytes, value: bytes) -> None:
        await self._client.txn(Txn(success=(Put(key=key, value=value),)))

    async def put_all(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        await self._client.txn(Txn(success=tuple(Put(key=key, value=value) for key, value in rows)))

    async def get(self, key: bytes, *, serializable: bool) -> int:
        return len((await self._client.range(Range(key=key, serializable=serializable))).kvs)

    async def list(self, prefix: bytes) -> int:
        return len((await self._client.range(Range(key=prefix, range_end=prefix_end(prefix)))).kvs)

    async def watch(self, prefix: bytes) -> AsyncIterator[int]:
        async for batch in self._client.watch(prefix, prefix_end(prefix), 0):
            yield len(batch.events)

    async def close(self) -> None:
        await self._client.stop()
