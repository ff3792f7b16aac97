"""Calls between this gRPC and the official one, each way, with and without TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc import StatusCode
from tests.actors.pki import Pki, free_address

from steersman.actors.rpc.h2.client import Channel
from steersman.actors.rpc.h2.outgoing import CallFailed, PulledCall
from steersman.actors.rpc.h2.server import Server
from steersman.pb import etcd_pb2, etcd_pb2_grpc, raft_pb2, raft_pb2_grpc, store_pb2, store_pb2_grpc

LARGE = 3 << 20
PUT, SNAPSHOT = "/etcdserverpb.KV/Put", "/etcdserverpb.Maintenance/Snapshot"
OPEN, INSTALL = "/steersman.store.v1.Session/Open", "/steersman.raft.v1.Peer/Install"


class Kv(etcd_pb2_grpc.KVServicer):
    def __init__(self) -> None:
        self.cancelled = asyncio.Event()

    async def Put(self, request: etcd_pb2.PutRequest, context: Any) -> etcd_pb2.PutResponse:
        match request.key:
            case b"refuse":
                await context.abort(StatusCode.NOT_FOUND, "50 % ü", (("k", "v"), ("b-bin", b"\xff\0")))
            case b"fail":
                raise ValueError("oops")
            case b"hang":
                try:
                    await asyncio.sleep(60)
                finally:
                    self.cancelled.set()
        told = dict(context.invocation_metadata())
        header = etcd_pb2.ResponseHeader(revision=len(request.value), member_id=int(told.get("k", 0)))
        return etcd_pb2.PutResponse(header=header)


class Maintenance(etcd_pb2_grpc.MaintenanceServicer):
    async def Snapshot(self, request: Any, context: Any) -> AsyncIterator[etcd_pb2.SnapshotResponse]:
        for number in range(20):
            yield etcd_pb2.SnapshotResponse(remaining_bytes=number, blob=bytes(300_000))
        await context.abort(StatusCode.DATA_LOSS, "that was all")


class Session(store_pb2_grpc.SessionServicer):
    async def Open(self, requests: Any, context: Any) -> None:
        async for calls in requests:
            await context.write(store_pb2.Replies(replies=[store_pb2.Reply(id=call.id) for call in calls.calls]))


class Peer(raft_pb2_grpc.PeerServicer):
    async def Install(self, requests: Any, context: Any) -> raft_pb2.Installed:
        total = sum([len(block.data) async for block in requests])
        await context.abort(StatusCode.OUT_OF_RANGE, str(total))
        raise AssertionError


def register(server: Any) -> Kv:
    kv = Kv()
    etcd_pb2_grpc.add_KVServicer_to_server(kv, server)
    etcd_pb2_grpc.add_MaintenanceServicer_to_server(Maintenance(), server)
    store_pb2_grpc.add_SessionServicer_to_server(Session(), server)
    raft_pb2_grpc.add_PeerServicer_to_server(Peer(), server)
    return kv


@asynccontextmanager
async def official_server(pki: Pki | None) -> AsyncIterator[tuple[str, Kv]]:
    server, address = grpc.aio.server(), free_address()
    kv = register(server)
    if pki is None:
        server.add_insecure_port(address)
    else:
        server.add_secure_port(address, pki.grpc_server())
    await server.start()
    yield address, kv
    await server.stop(0)


@asynccontextmanager
async def own_server(pki: Pki | None, **options: Any) -> AsyncIterator[tuple[str, Kv]]:
    server, address = Server(pki.server() if pki else None, **options), free_address()
    kv = register(server)
    server.leave_out({"/etcdserverpb.Auth/": "there are no users"})
    await server.start(address)
    yield address, kv
    await server.stop(0)


class Official:
    """What the tests ask of a client, through grpc.aio."""

    def __init__(self, address: str, pki: Pki | None) -> None:
        self._channel = (
            grpc.aio.secure_channel(address, pki.grpc_client()) if pki else grpc.aio.insecure_channel(address)
        )

    async def unary(self, path: str, request: Any, answer: Any, **options: Any) -> Any:
        method = self._channel.unary_unary(path, type(request).SerializeToString, answer.FromString)
        return await method(request, **options)

    async def stream(self, path: str, requests: Any, answer: Any) -> AsyncIterator[Any]:
        async def given() -> AsyncIterator[Any]:
            for request in requests:
                yield request

        method = self._channel.stream_stream(path, lambda m: m.SerializeToString(), answer.FromString)
        async for message in method(given()):
            yield message

    async def close(self) -> None:
        await self._channel.close()


class Own:
    """The same through our client."""

    def __init__(self, address: str, pki: Pki | None) -> None:
        self._channel = Channel(address, pki.client() if pki else None)

    async def unary(self, path: str, request: Any, answer: Any, *, metadata: Any = (), timeout: float = 60) -> Any:
        async with asyncio.timeout(timeout):
            call = await self._channel.open(path, PulledCall, metadata)
            await call.write(request.SerializeToString())
            call.end()
            try:
                data = await call.read()
                assert data is not None
                assert await call.read() is None
            finally:
                call.cancel()
            return answer.FromString(data)

    async def stream(self, path: str, requests: Any, answer: Any) -> AsyncIterator[Any]:
        call = await self._channel.open(path, PulledCall)

        async def give() -> None:
            for request in requests:
                await call.write(request.SerializeToString())
            call.end()

        giving = asyncio.create_task(give())
        async for data in call:
            yield answer.FromString(data)
        await giving

    async def close(self) -> None:
        await self._channel.close()


PAIRS = {
    "official to ours": (Official, own_server),
    "ours to official": (Own, official_server),
    "ours to ours": (Own, own_server),
}


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return PAIRS[request.param]


@pytest.fixture(params=["plain", "tls"])
def maybe_pki(request: pytest.FixtureRequest, pki: Pki) -> Pki | None:
    return pki if request.param == "tls" else None


def outcome(error: BaseException) -> tuple[StatusCode, str, dict[str, Any]]:
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code(), error.details() or "", dict(error.trailing_metadata() or ())
    assert isinstance(error, CallFailed)
    return error.code, error.words, dict(error.metadata)


async def test_calls_of_all_four_kinds(pair: tuple[Any, Any], maybe_pki: Pki | None) -> None:
    client_kind, serves = pair
    async with serves(maybe_pki) as (address, _):
        client = client_kind(address, maybe_pki)
        put = etcd_pb2.PutRequest(key=b"k", value=bytes(LARGE))
        answer = await client.unary(PUT, put, etcd_pb2.PutResponse, metadata=(("k", "7"),))
        assert (answer.header.revision, answer.header.member_id) == (LARGE, 7)
        calls = [store_pb2.Calls(calls=[store_pb2.Call(id=number, body=bytes(10_000))]) for number in range(300)]
        got = [message.replies[0].id async for message in client.stream(OPEN, calls, store_pb2.Replies)]
        assert got == list(range(300))
        blocks = [raft_pb2.Block(data=bytes(500_000)) for _ in range(10)]
        with pytest.raises((grpc.aio.AioRpcError, CallFailed)) as caught:
            _ = [message async for message in client.stream(INSTALL, blocks, raft_pb2.Installed)]
        assert outcome(caught.value)[:2] == (StatusCode.OUT_OF_RANGE, "5000000")
        seen: list[int] = []
        with pytest.raises((grpc.aio.AioRpcError, CallFailed)) as caught:
            async for message in client.stream(SNAPSHOT, [etcd_pb2.SnapshotRequest()], etcd_pb2.SnapshotResponse):
                seen.append(message.remaining_bytes)
        assert (seen, outcome(caught.value)[:2]) == (list(range(20)), (StatusCode.DATA_LOSS, "that was all"))
        await client.close()


async def test_refusals_arrive_with_words_and_metadata(pair: tuple[Any, Any]) -> None:
    client_kind, serves = pair
    async with serves(None) as (address, _):
        client = client_kind(address, None)
        with pytest.raises((grpc.aio.AioRpcError, CallFailed)) as caught:
            await client.unary(PUT, etcd_pb2.PutRequest(key=b"refuse"), etcd_pb2.PutResponse)
        assert outcome(caught.value) == (StatusCode.NOT_FOUND, "50 % ü", {"k": "v", "b-bin": b"\xff\0"})
        with pytest.raises((grpc.aio.AioRpcError, CallFailed)) as caught:
            await client.unary(PUT, etcd_pb2.PutRequest(key=b"fail"), etcd_pb2.PutResponse)
        code, words, _ = outcome(caught.value)
        assert (code, "oops" in words) == (StatusCode.UNKNOWN, True)
        with pytest.raises((grpc.aio.AioRpcError, CallFailed)) as caught:
            await client.unary("/etcdserverpb.KV/Nothing", etcd_pb2.PutRequest(), etcd_pb2.PutResponse)
        assert outcome(caught.value)[0] is StatusCode.UNIMPLEMENTED
        await client.close()


async def test_a_caller_that_gives_up_ends_the_work(pair: tuple[Any, Any]) -> None:
    client_kind, serves = pair
    async with serves(None) as (address, kv):
        client = client_kind(address, None)
        with pytest.raises((grpc.aio.AioRpcError, TimeoutError)):
            await client.unary(PUT, etcd_pb2.PutRequest(key=b"hang"), etcd_pb2.PutResponse, timeout=0.1)
        await asyncio.wait_for(kv.cancelled.wait(), 10)
        kv.cancelled.clear()
        asking = asyncio.create_task(client.unary(PUT, etcd_pb2.PutRequest(key=b"hang"), etcd_pb2.PutResponse))
        await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.wait_for(kv.cancelled.wait(), 10)
        await client.close()


async def test_what_is_left_out_is_named() -> None:
    async with own_server(None) as (address, _):
        client = Official(address, None)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.unary("/etcdserverpb.Auth/UserAdd", etcd_pb2.PutRequest(), etcd_pb2.PutResponse)
        assert outcome(caught.value)[:2] == (StatusCode.UNIMPLEMENTED, "there are no users")
        await client.close()


async def test_a_certificate_of_another_name_may_not_call(pki: Pki) -> None:
    async with own_server(pki, names=("store",)) as (address, _):
        for client in (Own(address, pki.named("stranger")), Official(address, pki.named("stranger"))):
            with pytest.raises((grpc.aio.AioRpcError, CallFailed)) as caught:
                await client.unary(PUT, etcd_pb2.PutRequest(), etcd_pb2.PutResponse)
            assert outcome(caught.value)[:2] == (StatusCode.PERMISSION_DENIED, "this certificate may not do this")
            await client.close()


async def test_a_caller_without_a_certificate_is_not_heard(pki: Pki) -> None:
    async with own_server(pki) as (address, _):
        context = ssl.create_default_context(cafile=pki.directory / "ca.crt")
        channel = Channel(address, context)
        with pytest.raises(CallFailed) as caught:
            call = await channel.open(PUT, PulledCall)
            await call.read()
        assert caught.value.code is StatusCode.UNAVAILABLE
        await channel.close()


async def test_a_slow_reader_stops_the_writer_and_nobody_else() -> None:
    written = 0

    class Endless(etcd_pb2_grpc.MaintenanceServicer):
        async def Snapshot(self, request: Any, context: Any) -> AsyncIterator[etcd_pb2.SnapshotResponse]:
            nonlocal written
            while True:
                written += 1
                yield etcd_pb2.SnapshotResponse(blob=bytes(1 << 20))

    server, address = Server(None), free_address()
    register(server)
    etcd_pb2_grpc.add_MaintenanceServicer_to_server(Endless(), server)
    await server.start(address)
    channel = Channel(address, None)
    slow = await channel.open(SNAPSHOT, PulledCall)
    slow.send(b"")
    slow.end()
    await _settled(lambda: written)
    assert 0 < written < 16
    client = Own(address, None)
    client._channel, idle = channel, client._channel
    answer = await client.unary(PUT, etcd_pb2.PutRequest(key=b"k", value=b"12"), etcd_pb2.PutResponse)
    assert answer.header.revision == 2
    before = written
    for _ in range(20):
        await slow.read()
    assert written > before
    slow.cancel()
    await idle.close()
    await channel.close()
    await server.stop(0)


async def _settled(count: Callable[[], int]) -> None:
    """Waits until a number no longer changes for a while."""
    seen = -1
    async with asyncio.timeout(10):
        while seen != (seen := count()) or not seen:  # noqa: ASYNC110  (what ends is seen by nothing happening)
            await asyncio.sleep(0.2)
