"""Servers and clients that come and go."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from grpc import StatusCode
from tests.actors.pki import free_address

from steersman.actors.rpc.h2 import frames, heads
from steersman.actors.rpc.h2.client import Channel, _ClientLink
from steersman.actors.rpc.h2.exchange import Exchange
from steersman.actors.rpc.h2.limits import Limits
from steersman.actors.rpc.h2.outgoing import CallFailed, PulledCall
from steersman.actors.rpc.h2.server import Server
from steersman.pb import etcd_pb2_grpc

ECHO = "/test.Echo/Echo"


class Echo(Exchange):
    """Answers each message by itself."""

    __slots__ = ()

    def received(self, data: bytes) -> None:
        self.send(data)

    def ended(self) -> None:
        self.finish()


async def echo_server(address: str, **options: Any) -> Server:
    server = Server(None, **options)
    server.add_exchange(ECHO, Echo)
    await server.start(address)
    return server


async def test_a_channel_connects_again_when_its_server_came_back() -> None:
    address = free_address()
    channel = Channel(address, None)
    with pytest.raises(CallFailed) as caught:
        await channel.open(ECHO, PulledCall)
    assert caught.value.code is StatusCode.UNAVAILABLE
    for _ in range(2):
        server = await echo_server(address)
        call = await channel.open(ECHO, PulledCall)
        call.send(b"x")
        assert await call.read() == b"x"
        await server.stop(0)
        with pytest.raises(CallFailed) as caught:
            await call.read()
        assert caught.value.code is StatusCode.UNAVAILABLE
    await channel.close()


async def test_a_server_that_stops_lets_calls_end_within_its_grace() -> None:
    server = await echo_server(address := free_address())
    channel = Channel(address, None)
    call = await channel.open(ECHO, PulledCall)
    call.send(b"x")
    assert await call.read() == b"x"
    stopping = asyncio.create_task(server.stop(10))
    await asyncio.sleep(0.02)
    call.send(b"y")
    assert await call.read() == b"y"
    call.end()
    assert await call.read() is None
    await asyncio.wait_for(stopping, 2)
    await channel.close()


async def test_calls_made_at_once_share_a_connection() -> None:
    server = await echo_server(address := free_address())
    channel = Channel(address, None)
    calls = await asyncio.gather(*(channel.open(ECHO, PulledCall) for _ in range(50)))
    for call in calls:
        call.send(b"x")
        call.end()
    assert [await call.read() for call in calls] == [b"x"] * 50
    assert len(server._links) == 1
    await channel.close()
    await server.stop(0)


async def test_a_silent_peer_is_pinged_and_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steersman.actors.rpc.h2.client.SILENCE_S", 0.1)
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            heard.extend(data)
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    channel = Channel(f"{host}:{port}", None)
    call = await channel.open(ECHO, PulledCall)
    with pytest.raises(CallFailed) as caught:
        await asyncio.wait_for(call.read(), 10)
    assert "silent" in caught.value.words
    assert frames.frame(frames.PING, 0, 0, bytes(8)) in heard
    await channel.close()
    server.close()


async def test_a_silent_peer_that_answers_pings_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steersman.actors.rpc.h2.client.SILENCE_S", 0.02)
    server = await echo_server(address := free_address())
    channel = Channel(address, None)
    call = await channel.open(ECHO, PulledCall)
    await asyncio.sleep(0.3)
    call.send(b"x")
    assert await call.read() == b"x"
    await channel.close()
    await server.stop(0)


async def test_what_is_written_in_one_turn_leaves_in_one_write() -> None:
    server = await echo_server(address := free_address())
    channel = Channel(address, None)
    call = await channel.open(ECHO, PulledCall)
    writes: list[bytes] = []
    transport = call._link._transport
    await asyncio.sleep(0.02)

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(transport, name)

        def write(self, data: bytes) -> None:
            writes.append(data)
            transport.write(data)

    call._link._transport = Counting()
    for _ in range(100):
        call.send(b"x")
    for _ in range(100):
        await call.read()
    assert len(writes) == 1
    await channel.close()
    await server.stop(0)


async def test_a_call_ends_when_its_time_is_over() -> None:
    server = await echo_server(address := free_address())
    channel = Channel(address, None)
    call = await channel.open(ECHO, PulledCall, (("grpc-timeout", "50m"),))
    with pytest.raises(CallFailed) as caught:
        await asyncio.wait_for(call.read(), 10)
    assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
    await channel.close()
    await server.stop(0)


async def test_a_message_above_the_bound_is_refused_and_the_connection_goes_on() -> None:
    server = await echo_server(address := free_address(), limits=Limits(message_bytes=1000))
    channel = Channel(address, None)
    call = await channel.open(ECHO, PulledCall)
    call.send(bytes(1001))
    with pytest.raises(CallFailed) as caught:
        await call.read()
    assert caught.value.code is StatusCode.RESOURCE_EXHAUSTED
    call = await channel.open(ECHO, PulledCall)
    call.send(bytes(1000))
    assert await call.read() == bytes(1000)
    await channel.close()
    await server.stop(0)


async def test_connections_and_calls_beyond_the_bounds_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steersman.actors.rpc.h2.server.CONNECTIONS_MAX", 1)
    server = await echo_server(address := free_address(), limits=Limits(streams=1))
    channels = [Channel(address, None) for _ in range(2)]
    kept = await channels[0].open(ECHO, PulledCall)
    kept.send(b"x")
    assert await kept.read() == b"x"
    with pytest.raises(CallFailed) as caught:
        await channels[0].open(ECHO, PulledCall)
    assert caught.value.code is StatusCode.RESOURCE_EXHAUSTED
    turned = await channels[1].open(ECHO, PulledCall)
    with pytest.raises(CallFailed) as caught:
        await turned.read()
    assert caught.value.code is StatusCode.UNAVAILABLE
    kept.send(b"y")
    assert await kept.read() == b"y"
    for channel in channels:
        await channel.close()
    await server.stop(0)


async def test_a_client_that_takes_no_answers_gets_no_new_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steersman.actors.rpc.h2.server.UNSENT_BYTES_MAX", 1 << 20)
    server = await echo_server(address := free_address())
    loop = asyncio.get_running_loop()
    host, port = address.split(":")
    _, mute = await loop.create_connection(_ClientLink, host, int(port))
    block = heads.request(ECHO, address, scheme="http", metadata=())
    mute.data_received(frames.settings({}))
    stream = mute.h2.open(block)
    call = PulledCall(mute, stream)
    mute.h2.hold(stream)
    for _ in range(100):
        call.send(bytes(100_000))
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        while not any(each.h2.outlet.queued_bytes > 1 << 20 for each in server._links):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    refused = PulledCall(mute, mute.h2.open(block))
    mute.flush_soon()
    with pytest.raises(CallFailed) as caught:
        await asyncio.wait_for(refused.read(), 10)
    assert caught.value.code is StatusCode.RESOURCE_EXHAUSTED
    mute.close("done")
    await server.stop(0)


async def test_a_connection_that_speaks_no_http2_is_closed() -> None:
    server = await echo_server(address := free_address())
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 10)
    assert b"this is not HTTP/2" in answer
    writer.close()
    await server.stop(0)


async def test_calls_cancelled_as_soon_as_they_are_made_leave_nothing_behind(recwarn: pytest.WarningsRecorder) -> None:
    server = Server(None)
    etcd_pb2_grpc.add_KVServicer_to_server(etcd_pb2_grpc.KVServicer(), server)
    await server.start(address := free_address())
    channel = Channel(address, None)
    for _ in range(20):
        call = await channel.open("/etcdserverpb.KV/Put", PulledCall)
        call.send(b"")
        call.end()
        call.cancel()
    answered = await channel.open("/etcdserverpb.KV/Nothing", PulledCall)
    with pytest.raises(CallFailed):
        await answered.read()
    (link,) = server._links
    assert not link.h2.streams
    await channel.close()
    await server.stop(0)
    gc.collect()
    assert not [warning for warning in recwarn if "never awaited" in str(warning.message)]


async def test_a_failure_while_answers_are_gathered_ends_the_connection() -> None:
    class Failing(Echo):
        __slots__ = ()

        def received(self, data: bytes) -> None:
            self.write_soon(self.fail)

        def fail(self) -> None:
            raise ValueError("oops")

    server = Server(None)
    server.add_exchange(ECHO, Failing)
    await server.start(address := free_address())
    channel = Channel(address, None)
    call = await channel.open(ECHO, PulledCall)
    call.send(b"x")
    with pytest.raises(CallFailed) as caught:
        await asyncio.wait_for(call.read(), 10)
    assert caught.value.code is StatusCode.UNAVAILABLE
    assert not server._links
    await channel.close()
    await server.stop(0)


async def test_a_connection_that_is_lost_as_it_is_made_leaves_no_call_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    server = await echo_server(address := free_address())
    made = _ClientLink.connection_made

    def lost(link: _ClientLink, transport: Any) -> None:
        made(link, transport)
        link.abort("gone")

    monkeypatch.setattr(_ClientLink, "connection_made", lost)
    channel = Channel(address, None)
    with pytest.raises(CallFailed) as caught:
        call = await channel.open(ECHO, PulledCall)
        await asyncio.wait_for(call.read(), 5)
    assert caught.value.code is StatusCode.UNAVAILABLE
    await channel.close()
    await server.stop(0)
