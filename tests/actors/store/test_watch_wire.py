"""What the Watch service does besides delivering: parts large answers, and says how far it is while nothing happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from steersman.actors.store import upkeep
from steersman.cluster.store.values import Put, Txn
from steersman.pb import etcd_pb2, etcd_pb2_grpc

MIB = 1 << 20


@asynccontextmanager
async def watching(address: str, **create: Any) -> AsyncIterator[Any]:
    """A stream with one watch, which has been made."""
    async with grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        call = etcd_pb2_grpc.WatchStub(channel).Watch()
        await call.write(etcd_pb2.WatchRequest(create_request=etcd_pb2.WatchCreateRequest(**create)))
        assert (await call.read()).created
        yield call
        call.cancel()


@pytest.mark.parametrize(("fragment", "parts"), [(True, [True, True, False]), (False, [False])])
async def test_a_large_revision_is_parted_for_who_asks_for_it(served: Any, fragment: bool, parts: list[bool]) -> None:
    async with served(1) as group, watching(group.peers[1], key=b"/", range_end=b"0", fragment=fragment) as watch:
        puts = tuple(Put(key=b"/%d" % number, value=b"x" * MIB) for number in range(3))
        await group.replicas[1].txn(Txn(success=puts))
        responses = [await asyncio.wait_for(watch.read(), 10) for _ in parts]
        assert [response.fragment for response in responses] == parts
        events = [event for response in responses for event in response.events]
        assert [(event.kv.key, event.kv.mod_revision) for event in events] == [(b"/0", 2), (b"/1", 2), (b"/2", 2)]


async def test_an_idle_watch_says_how_far_it_is_if_it_was_asked_to(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "PROGRESS_S", 0.2)
    async with served(1) as group, watching(group.peers[1], key=b"/quiet", progress_notify=True) as watch:
        result = await group.replicas[1].txn(Txn(success=(Put(key=b"/elsewhere", value=b""),)))
        async with asyncio.timeout(10):
            while (progress := await watch.read()).header.revision < result.revision:
                assert not progress.events and not progress.canceled
        assert not progress.events
