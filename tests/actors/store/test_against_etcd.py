"""The real etcd beside the store: the same requests, by chance, must get the same answers, field by field.

`SEED=n` runs one script alone.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from tests.actors.store.realetcd import needs_etcd, real_etcd
from tests.actors.store.scripts import Script, essence

from steersman.pb import etcd_pb2, etcd_pb2_grpc

pytestmark = needs_etcd

#: seconds for events that both servers owe
EVENTS_DEADLINE_S = 60.0
SEEDS = [int(os.environ["SEED"])] if "SEED" in os.environ else [1, 2]


class Server:
    """One server's stubs, and one stream of watches on it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        kv, lease = etcd_pb2_grpc.KVStub(channel), etcd_pb2_grpc.LeaseStub(channel)
        self._methods = {
            **{name: getattr(kv, name) for name in ("Range", "Put", "DeleteRange", "Txn", "Compact")},
            **{name: getattr(lease, name) for name in ("LeaseGrant", "LeaseRevoke", "LeaseTimeToLive", "LeaseLeases")},
        }
        self.maintenance = etcd_pb2_grpc.MaintenanceStub(channel)
        self.watch = etcd_pb2_grpc.WatchStub(channel).Watch()
        #: responses that are no events, and the events of each watch
        self.said: list[dict[str, Any]] = []
        self.events: dict[int, list[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())

    async def call(self, method: str, request: Any) -> dict[str, Any]:
        try:
            return essence(await self._methods[method](request, timeout=60))
        except grpc.aio.AioRpcError as error:
            return {"code": error.code().name, "words": error.details()}

    async def _read(self) -> None:
        async for response in self.watch:
            if response.events:
                rows = self.events.setdefault(response.watch_id, [])
                rows += [essence(event) for event in response.events]
            else:
                self.said.append(essence(response))

    async def ask(self, **request: Any) -> dict[str, Any]:
        """Sends a request on the stream of watches and returns the answer that is no event."""
        seen = len(self.said)
        await self.watch.write(etcd_pb2.WatchRequest(**request))
        async with asyncio.timeout(EVENTS_DEADLINE_S):
            while len(self.said) == seen:  # noqa: ASYNC110  (a stream's answers have no event to wait for)
                await asyncio.sleep(0.002)
        return self.said[-1]

    async def close(self) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)


async def same_events(etcd: Server, ours: Server, probe: int, revision: int) -> None:
    """Waits until both have delivered the same.

    Every watch made so far has read its past when a later one, `probe`, has been told of `revision`.
    """
    create = etcd_pb2.WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=revision, watch_id=probe)
    await asyncio.gather(etcd.ask(create_request=create), ours.ask(create_request=create))
    try:
        async with asyncio.timeout(EVENTS_DEADLINE_S):
            while probe not in etcd.events or etcd.events != ours.events:  # noqa: ASYNC110  (streams have no event)
                await asyncio.sleep(0.005)
    except TimeoutError:
        for watch in sorted({*etcd.events, *ours.events}):
            assert ours.events.get(watch) == etcd.events.get(watch), f"watch {watch}: ours is on the left"


@pytest.fixture
async def pair(served: Any, tmp_path: Path) -> AsyncIterator[tuple[Server, Server]]:
    """(etcd, ours), both empty."""
    async with served(1) as group, real_etcd(tmp_path) as address:
        channels = [grpc.aio.insecure_channel(each) for each in (address, group.peers[1])]
        async with channels[0], channels[1]:
            await asyncio.wait_for(channels[0].channel_ready(), 20)
            servers = Server(channels[0]), Server(channels[1])
            yield servers
            for server in servers:
                await server.close()


ODD_REQUESTS = [
    ("LeaseGrant", etcd_pb2.LeaseGrantRequest(TTL=0, ID=77)),
    ("LeaseGrant", etcd_pb2.LeaseGrantRequest(TTL=-5, ID=78)),
    ("LeaseGrant", etcd_pb2.LeaseGrantRequest(TTL=9, ID=-78)),
    ("LeaseRevoke", etcd_pb2.LeaseRevokeRequest()),
    ("LeaseTimeToLive", etcd_pb2.LeaseTimeToLiveRequest()),
    ("Compact", etcd_pb2.CompactionRequest(revision=-1)),
    ("Txn", etcd_pb2.TxnRequest(success=[etcd_pb2.RequestOp()])),
    ("Txn", etcd_pb2.TxnRequest(compare=[etcd_pb2.Compare(key=b"a", target=etcd_pb2.Compare.VALUE, version=4)])),
    (
        "Txn",
        etcd_pb2.TxnRequest(success=[etcd_pb2.RequestOp(request_range=etcd_pb2.RangeRequest(key=b"a", revision=-3))]),
    ),
    ("Range", etcd_pb2.RangeRequest(key=b"a", range_end=b"\0", revision=-5)),
]


async def test_odd_requests_get_the_words_of_etcd(pair: tuple[Server, Server]) -> None:
    etcd, ours = pair
    for server in pair:
        for value in (b"0", b"1", b"2", b"3", b"4"):
            await server.call("Put", etcd_pb2.PutRequest(key=b"a", value=value))
        await server.call("Compact", etcd_pb2.CompactionRequest(revision=4))
    for method, request in ODD_REQUESTS:
        assert await ours.call(method, request) == await etcd.call(method, request), f"{method}\n{request}"


async def test_watches_are_made_refused_and_cancelled_as_in_etcd(pair: tuple[Server, Server]) -> None:
    create, cancel = etcd_pb2.WatchCreateRequest, etcd_pb2.WatchCancelRequest
    requests: list[dict[str, Any]] = [
        {"create_request": create(key=b"a", watch_id=7)},
        {"create_request": create(key=b"b", watch_id=7)},
        {"create_request": create(key=b"b")},
        {"create_request": create(key=b"b", range_end=b"a")},
        {"create_request": create(key=b"b", range_end=b"b")},
        {"create_request": create()},
        {"create_request": create(range_end=b"\0")},
        {"create_request": create(key=b"zz", start_revision=100)},
        {"create_request": create(key=b"zz", watch_id=-5)},
        {"cancel_request": cancel(watch_id=7)},
        {"create_request": create(key=b"a", watch_id=7)},
        {"progress_request": etcd_pb2.WatchProgressRequest()},
    ]
    for server in pair:
        for value in (b"0", b"1", b"2", b"3", b"4"):
            await server.call("Put", etcd_pb2.PutRequest(key=b"a", value=value))
        await server.call("Compact", etcd_pb2.CompactionRequest(revision=4))
        for request in requests:
            await server.ask(**request)
        # of a watch in the compacted past comes first that it was made, then that it was cancelled
        await server.ask(create_request=create(key=b"a", start_revision=2))
        async with asyncio.timeout(EVENTS_DEADLINE_S):
            while len(server.said) < len(requests) + 2:  # noqa: ASYNC110  (a stream's answers have no event)
                await asyncio.sleep(0.002)
    etcd, ours = pair
    assert ours.said == etcd.said
    assert ours.said[-1]["compact_revision"] == 4


@pytest.mark.parametrize("seed", SEEDS)
async def test_random_scripts_get_the_answers_of_etcd(pair: tuple[Server, Server], seed: int) -> None:
    etcd, ours = pair
    script = Script(seed)
    compacted = 1
    watches = 0
    for step, (method, request) in enumerate(script.requests(600)):
        if method == "Compact":
            # a watch that still reads the past must not lose it
            await same_events(etcd, ours, 1000 + step, script.revision)
        expected, found = await asyncio.gather(etcd.call(method, request), ours.call(method, request))
        assert found == expected, (
            f"seed {seed}, step {step}, revision {script.revision}: {method}\n{request}\n{expected}\n{found}"
        )
        script.revision = max(script.revision, expected.get("header", {}).get("revision", 0))
        if method == "Compact" and "header" in expected:
            compacted = request.revision  # type: ignore[attr-defined]
        if step % 20 == 0:
            watches += 1
            create = script.watch(watches if watches % 2 else 0, compacted)
            expected, found = await asyncio.gather(etcd.ask(create_request=create), ours.ask(create_request=create))
            assert found == expected, f"seed {seed}, step {step}: watch\n{create}"
    await same_events(etcd, ours, 1000 + 600, script.revision)
