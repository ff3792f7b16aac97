"""A session on the wire, where a client is slow or asks nonsense."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from grpc import StatusCode

from steersman.actors.rpc.h2.client import Channel
from steersman.actors.rpc.h2.outgoing import CallFailed, PulledCall
from steersman.actors.rpc.session import UNSENT_BYTES_MAX, _enveloped
from steersman.cluster.store import codec
from steersman.cluster.store.values import Put, Range, Txn
from steersman.pb import store_pb2

OPEN = "/steersman.store.v1.Session/Open"


@pytest.mark.parametrize("size", [0, 1, 127, 128, 20_000, 3_000_000])
def test_an_answer_reads_as_protobuf_would_have_written_it(size: int) -> None:
    head = store_pb2.Reply(id=7, number=300, more=True)
    data = b"".join(_enveloped(head, b"x" * size))
    head.body = b"x" * size
    assert store_pb2.Replies.FromString(data) == store_pb2.Replies(replies=[head])


async def test_a_client_that_does_not_read_stops_its_session_and_gets_all_in_the_end(served: Any) -> None:
    async with served(1) as group:
        value = b"v" * 1_000_000
        await group.replicas[1].txn(Txn(success=(Put(key=b"k", value=value),)))
        channel = Channel(group.peers[1], None)
        call = await channel.open(OPEN, PulledCall)
        wanted = codec.encode(Range(key=b"k", serializable=True))
        count = 60
        call.send(
            store_pb2.Calls(
                calls=[store_pb2.Call(id=n, kind=store_pb2.Call.RANGE, body=wanted) for n in range(1, count + 1)]
            ).SerializeToString()
        )
        await asyncio.sleep(0.3)
        (link,) = group._servers[1]._links
        (stream,) = link.h2.streams.values()
        session = stream.owner
        assert session.waiting_bytes + session._unsent_bytes < 2 * UNSENT_BYTES_MAX
        assert session._queue
        seen: list[int] = []
        while len(seen) < count:
            data = await asyncio.wait_for(call.read(), 10)
            assert data is not None
            seen += [reply.id for reply in store_pb2.Replies.FromString(data).replies if not reply.more]
        assert seen == list(range(1, count + 1))
        call.end()
        assert await asyncio.wait_for(call.read(), 10) is None
        await channel.close()


async def test_nonsense_ends_the_session_and_a_wrong_call_only_itself(served: Any) -> None:
    async with served(1) as group:
        channel = Channel(group.peers[1], None)
        call = await channel.open(OPEN, PulledCall)
        await call.read()
        rows = [(1, 99, b""), (2, store_pb2.Call.SUBMIT, b"nonsense"), (3, store_pb2.Call.RANGE, b"nonsense")]
        calls = [store_pb2.Call(id=number, kind=kind, body=body) for number, kind, body in rows]  # type: ignore[arg-type]
        call.send(store_pb2.Calls(calls=calls).SerializeToString())
        data = await call.read()
        assert data is not None
        replies = store_pb2.Replies.FromString(data).replies
        assert [(reply.id, reply.status) for reply in replies] == [
            (n, store_pb2.Reply.INVALID_REQUEST) for n in (1, 2, 3)
        ]
        call.send(b"\xff\xff\xff")
        with pytest.raises(CallFailed) as caught:
            await call.read()
        assert caught.value.code is StatusCode.INTERNAL
        await channel.close()
