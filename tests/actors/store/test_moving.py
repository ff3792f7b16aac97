"""From this store to a real etcd and back: snapshots that either takes, the other begins with."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from tests.actors.store.realetcd import etcdctl, needs_etcd, real_etcd
from tests.actors.store.scripts import LEASES, Script, essence

from steersman.actors.store.backup import REVISION_STEP, read_backup, restore
from steersman.actors.store.filedisk import FileDisk
from steersman.actors.store.replica import Replica
from steersman.cluster.store.values import Range
from steersman.pb import etcd_pb2, etcd_pb2_grpc

pytestmark = needs_etcd

ALL = {"key": b"\0", "range_end": b"\0"}


@asynccontextmanager
async def channel_to(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address) as channel:
        await asyncio.wait_for(channel.channel_ready(), 20)
        yield channel


async def play(channel: grpc.aio.Channel, seed: int) -> int:
    """Has a script of random requests carried out, some of which are refused; returns the newest revision."""
    kv, lease, script = etcd_pb2_grpc.KVStub(channel), etcd_pb2_grpc.LeaseStub(channel), Script(seed)
    for method, request in script.requests(400):
        stub = lease if method.startswith("Lease") else kv
        try:
            response = await getattr(stub, method)(request, timeout=10)
        except grpc.aio.AioRpcError:
            continue
        if not method.startswith("Lease"):
            script.revision = max(script.revision, response.header.revision)
    await kv.Put(etcd_pb2.PutRequest(key=b"large", value=bytes(1_000_000)))
    return script.revision + 1


async def seen(channel: grpc.aio.Channel, revision: int) -> dict[str, Any]:
    """What a client sees of a server: every key, the past that is left, and the leases."""
    kv, lease = etcd_pb2_grpc.KVStub(channel), etcd_pb2_grpc.LeaseStub(channel)
    found: dict[str, Any] = {"now": essence(await kv.Range(etcd_pb2.RangeRequest(**ALL)))}
    for past in range(max(1, revision - 10), revision):
        try:
            found[f"at {past}"] = essence(await kv.Range(etcd_pb2.RangeRequest(**ALL, revision=past)))
        except grpc.aio.AioRpcError as error:
            found[f"at {past}"] = error.details()
    for each in LEASES:
        answer = essence(await lease.LeaseTimeToLive(etcd_pb2.LeaseTimeToLiveRequest(ID=each, keys=True)))
        found[f"lease {each}"] = {field: answer.get(field) for field in ("grantedTTL", "keys")}
    return found


async def events_since(channel: grpc.aio.Channel, revision: int) -> list[dict[str, Any]]:
    """Every event from a revision on, up to the newest one of all keys, with the previous values."""
    newest = (await etcd_pb2_grpc.KVStub(channel).Range(etcd_pb2.RangeRequest(key=b"x"))).header.revision
    create = etcd_pb2.WatchCreateRequest(**ALL, start_revision=revision, prev_kv=True)
    call = etcd_pb2_grpc.WatchStub(channel).Watch()
    await call.write(etcd_pb2.WatchRequest(create_request=create))
    found: list[Any] = []
    async with asyncio.timeout(20):
        while not found or found[-1].kv.mod_revision < newest:
            found += (await call.read()).events
    call.cancel()
    return [essence(event) for event in found]


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_real_etcd_goes_on_with_a_snapshot_of_this_store(
    served: Callable[..., Any], tmp_path: Path, seed: int
) -> None:
    file = tmp_path / "ours.snapshot"
    async with served(3) as group, channel_to(group.peers[1]) as channel:
        revision = await play(channel, seed)
        await etcdctl("--endpoints", group.peers[1], "snapshot", "save", str(file))
        ours = await seen(channel, revision)
        since = next(past for past in range(revision - 10, revision) if not isinstance(ours[f"at {past}"], str))
        watched = await events_since(channel, since + 1)
    status = json.loads(await etcdctl("snapshot", "status", str(file), "-w", "json"))
    assert status["revision"] == revision and status["totalSize"] == file.stat().st_size - 32
    await etcdctl("snapshot", "restore", str(file), "--data-dir", str(tmp_path / "etcd"))
    async with real_etcd(tmp_path) as address, channel_to(address) as channel:
        assert await seen(channel, revision) == ours
        assert await events_since(channel, since + 1) == watched
        # it writes into the pages, cuts them and throws them away
        stub = etcd_pb2_grpc.KVStub(channel)
        for number in range(200):
            await stub.Put(etcd_pb2.PutRequest(key=b"new-%d" % (number % 50), value=bytes(random.randrange(9000))))
        await etcdctl("--endpoints", address, "compact", str(revision + 150), "--physical")
        await etcdctl("--endpoints", address, "defrag")
        await etcdctl("--endpoints", address, "snapshot", "save", str(tmp_path / "theirs.snapshot"))
        assert (await stub.Range(etcd_pb2.RangeRequest(key=b"large"))).kvs[0].value == bytes(1_000_000)
    await etcdctl("snapshot", "status", str(tmp_path / "theirs.snapshot"))
    assert read_backup(tmp_path / "theirs.snapshot").revision == revision + 200


@pytest.mark.parametrize("seed", [3, 4])
async def test_this_store_goes_on_with_a_snapshot_of_a_real_etcd(tmp_path: Path, seed: int) -> None:
    file = tmp_path / "theirs.snapshot"
    async with real_etcd(tmp_path) as address, channel_to(address) as channel:
        revision = await play(channel, seed)
        stub = etcd_pb2_grpc.KVStub(channel)
        theirs = (await stub.Range(etcd_pb2.RangeRequest(**ALL))).kvs
        leases = (await etcd_pb2_grpc.LeaseStub(channel).LeaseLeases(etcd_pb2.LeaseLeasesRequest())).leases
        await etcdctl("--endpoints", address, "snapshot", "save", str(file))
    backup = read_backup(file)
    assert (backup.revision, backup.keys) == (revision, len(theirs))
    await restore(backup, {1: ("store-0", "", tmp_path / "1")}, force=False)
    replica = Replica(
        name="s", member_id=1, peers={}, disk=FileDisk(tmp_path / "1"), transport=None, rng=random.Random()
    )
    await replica.start()
    try:
        found = await replica.range(Range(key=b"\0", range_end=b"\0"))
        assert found.revision == revision + REVISION_STEP
        fields = ("key", "value", "create_revision", "mod_revision", "version", "lease")
        for ours, other in zip(found.kvs, theirs, strict=True):
            assert [getattr(ours, field) for field in fields] == [getattr(other, field) for field in fields]
        assert set(await replica.leases()) == {lease.ID for lease in leases}
    finally:
        await replica.stop()
