"""Three replicas over real gRPC with TLS: election, failover, catching up, forwarding, and the client that follows."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from tests.actors.pki import Pki, free_ports

from steersman.actors.rpc.store import AddressInUse, serve_store
from steersman.actors.store.client import StoreClient
from steersman.actors.store.requests import Proposals
from steersman.actors.tls import client_context
from steersman.cluster.raft import leadership
from steersman.cluster.store.values import (
    Compacted,
    Compare,
    CompareTarget,
    InvalidRequest,
    LeaseNotFound,
    Put,
    Range,
    Txn,
    Unavailable,
)
from steersman.pb import etcd_pb2, etcd_pb2_grpc, raft_pb2_grpc, store_pb2, store_pb2_grpc
from steersman.runtime.credentials import Credentials
from steersman.runtime.pki import Authority, Identity

ALL = Range(key=b"\0", range_end=b"\0")


def put(key: str, value: str = "", lease: int = 0) -> Txn:
    return Txn(success=(Put(key=key.encode(), value=value.encode(), lease=lease),))


async def test_a_group_elects_replicates_and_survives_its_leader(served: Any, pki: Any, wait_until: Any) -> None:
    async with served(3, pki) as group:
        client = await group.client()
        await client.txn(put("/a", "1"))
        old = group.leader()
        watch = client.watch(b"/", b"0", 0)
        reached = (await anext(watch)).revision
        lost_at = asyncio.get_running_loop().time()
        await group.stop(old)
        while True:
            try:
                await client.txn(put("/b", "2"))
                break
            except Unavailable:  # it was under way when the leader went: nobody knows its outcome
                assert asyncio.get_running_loop().time() - lost_at < 10
        outage_s = asyncio.get_running_loop().time() - lost_at
        assert outage_s < 5, "the write waited for the new leader"
        assert group.leader() not in (0, old)
        found = await client.range(ALL)
        assert [(kv.key, kv.value) for kv in found.kvs] == [(b"/a", b"1"), (b"/b", b"2")]
        batch = await anext(watch)
        while not batch.events:
            batch = await anext(watch)
        assert [event.kv.key for event in batch.events] == [b"/b"] and batch.revision > reached
        await watch.aclose()
        returned = await group.start(old)
        await wait_until(lambda: returned.revision == group.replicas[group.leader()].revision)
        local = await returned.range(Range(key=b"\0", range_end=b"\0", serializable=True))
        assert local.kvs == found.kvs


async def _shown(address: str, files: Credentials) -> int:
    """The serial number of the certificate that a member shows in a handshake."""
    host, port = address.rsplit(":", 1)
    _, writer = await asyncio.open_connection(host, int(port), ssl=client_context(files))
    writer.close()
    return int(writer.get_extra_info("ssl_object").getpeercert()["serialNumber"], 16)


async def test_the_members_of_a_store_take_renewed_certificates(served: Any, tmp_path: Path, wait_until: Any) -> None:
    identity = Identity(file="store", common_name="store", hosts=("127.0.0.1", "localhost"))
    short = Authority(tmp_path, life=datetime.timedelta(minutes=1))
    short.ensure()
    files = short.issue(identity)
    async with served(3, Pki(tmp_path)) as group:
        client = await group.client()
        await client.txn(put("/a", "1"))
        watch = client.watch(b"/", b"0", 0)
        await anext(watch)
        (old,) = {await _shown(address, files) for address in group.peers.values()}
        Authority(tmp_path).issue(identity)
        (new,) = {await _shown(address, files) for address in group.peers.values()}
        assert old != new == x509.load_pem_x509_certificate(files.cert.read_bytes()).serial_number
        away = next(member for member in group.replicas if member != group.leader())
        await group.stop(away)
        await client.txn(put("/b", "2"))
        returned = await group.start(away)  # its peers shake hands with it anew
        await wait_until(lambda: returned.revision == group.replicas[group.leader()].revision)
        found = await returned.range(Range(key=b"\0", range_end=b"\0", serializable=True))
        assert [kv.key for kv in found.kvs] == [b"/a", b"/b"]
        batch = await anext(watch)
        while not batch.events:
            batch = await anext(watch)
        assert [event.kv.key for event in batch.events] == [b"/b"]
        await watch.aclose()


async def test_a_member_that_missed_more_than_the_log_holds_gets_a_snapshot(
    served: Any, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leadership, "LAGGING_BYTES_MAX", 1000)
    async with served(3, snapshot_entries=50, kept_entries=10) as group:
        client = await group.client()
        await client.txn(put("/first"))
        late = next(n for n in group.replicas if n != group.leader())
        await group.stop(late)
        for round_ in range(4):
            await asyncio.gather(*(client.txn(put(f"/{round_}/{n}", "x" * 100)) for n in range(60)))
        others = list(group.replicas.values())
        await wait_until(lambda: all(other.snapshot_index > 10 for other in others))
        replica = await group.start(late, snapshot_entries=50, kept_entries=10)
        leader = group.replicas[group.leader()]
        await wait_until(lambda: replica.revision == leader.revision)
        assert replica.status().keys == leader.status().keys == 241
        assert replica.snapshot_index > 10, "it was not brought here by the log alone"


async def test_on_a_lease_the_leader_answers_reads_at_once_while_it_lasts(served: Any, wait_until: Any) -> None:
    async with served(3, reads="lease") as group:
        client = await group.client()
        await client.txn(put("/a", "1"))
        leader = group.leader()
        replica = group.replicas[leader]
        await wait_until(lambda: replica.begin_read() is None)
        for member in set(group.peers) - {leader}:
            await group.stop(member)
        await wait_until(lambda: replica.begin_read() is not None)
        with pytest.raises(Unavailable):
            await replica.range(ALL)


async def test_followers_take_reads_writes_and_leases_too(served: Any, wait_until: Any) -> None:
    async with served(3) as group:
        await wait_until(group.leader)
        follower = next(replica for n, replica in group.replicas.items() if n != group.leader())
        await follower.wait_ready()
        lease = await follower.lease_grant(30)
        result = await follower.txn(put("/a", "1", lease))
        assert (await follower.range(Range(key=b"/a"))).kvs[0].mod_revision == result.revision
        assert await follower.lease_keep_alive(lease) == 30
        left_s, granted_s, keys = await follower.lease_remaining(lease)
        assert (granted_s, keys) == (30, [b"/a"]) and 25 <= left_s <= 30
        await follower.lease_revoke(lease)
        assert (await follower.range(ALL)).count == 0
        with pytest.raises(LeaseNotFound):
            await follower.lease_keep_alive(lease)


async def test_a_write_that_the_leader_did_not_take_from_a_follower_is_asked_again(
    served: Any, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[int] = []
    plain = Proposals.refused

    def note(self: Proposals, forwards: Sequence[int]) -> None:
        refused.extend(forwards)
        plain(self, forwards)

    monkeypatch.setattr(Proposals, "refused", note)
    monkeypatch.setattr(leadership, "UNCOMMITTED_BYTES_MAX", 1000)
    async with served(3) as group:
        await wait_until(group.leader)
        leader = group.replicas[group.leader()]
        follower = next(replica for replica in group.replicas.values() if replica is not leader)
        await follower.wait_ready()
        under_way: list[asyncio.Task[Any]] = []

        async def write_more() -> bool:
            under_way.append(asyncio.create_task(leader.txn(put(f"/{len(under_way)}", "x" * 600))))
            await asyncio.sleep(0)
            under_way.append(asyncio.create_task(follower.txn(put(f"/{len(under_way)}", "x" * 600))))
            await asyncio.sleep(0.001)
            return bool(refused)

        async with asyncio.timeout(15):
            while not await write_more():
                pass
            await asyncio.gather(*under_way)
        assert (await leader.range(ALL)).count == len(under_way)


async def test_leadership_can_be_handed_over(served: Any, wait_until: Any) -> None:
    async with served(3) as group:
        client = await group.client()
        await client.txn(put("/a"))
        old = group.leader()
        to = next(n for n in group.replicas if n != old)
        await group.replicas[old].transfer_leadership(to)
        await wait_until(lambda: group.leader() == to)
        assert (await client.txn(put("/b"))).revision == 3


async def test_a_minority_acknowledges_nothing(served: Any, wait_until: Any) -> None:
    async with served(3, request_timeout_s=1.0) as group:
        await wait_until(group.leader)
        leader = group.replicas[group.leader()]
        for member in [n for n in group.replicas if n != group.leader()]:
            await group.stop(member)
        with pytest.raises(Unavailable):
            await leader.txn(put("/a"))
        with pytest.raises(Unavailable):
            await leader.range(ALL)
        assert (await leader.range(Range(key=b"/a", serializable=True))).count == 0


async def test_refusals_reach_the_client_as_what_they_are(served: Any) -> None:
    async with served(1) as group:
        client = await group.client()
        with pytest.raises(InvalidRequest):
            await client.txn(put(""))
        with pytest.raises(LeaseNotFound):
            await client.txn(put("/a", lease=5))
        with pytest.raises(LeaseNotFound):
            await client.lease_keep_alive(5)
        for number in range(5):
            await client.txn(put("/a", str(number)))
        await client.compact(4)
        with pytest.raises(Compacted) as caught:
            await client.range(Range(key=b"/a", revision=2))
        assert caught.value.revision == 4
        with pytest.raises(Compacted):
            await anext(client.watch(b"/", b"0", 2))
        lost = await client.txn(Txn(compare=(Compare(key=b"/a", target=CompareTarget.MOD, operand=1),)))
        assert not lost.succeeded


async def test_bytes_that_are_no_request_break_nothing(served: Any) -> None:
    async with served(1) as group:
        client = await group.client()
        await client.txn(put("/a"))
        async with grpc.aio.insecure_channel(group.peers[1]) as channel:
            call = store_pb2_grpc.SessionStub(channel).Open()
            assert (await call.read()).leader == "self"
            kinds = (store_pb2.Call.SUBMIT, store_pb2.Call.RANGE, store_pb2.Call.WATCH, 99)
            calls = [store_pb2.Call(id=n, kind=kind, body=b"\xc1junk") for n, kind in enumerate(kinds, start=1)]
            await call.write(store_pb2.Calls(calls=calls))
            statuses: dict[int, int] = {}
            while len(statuses) < len(kinds):
                statuses |= {reply.id: reply.status for reply in (await call.read()).replies}
            assert set(statuses.values()) == {store_pb2.Reply.INVALID_REQUEST}
            call.cancel()
        assert (await client.range(ALL)).count == 1


async def test_only_the_named_certificates_may_use_the_store(served: Any, pki: Any) -> None:
    async with served(1, pki) as group:
        stranger = store_pb2_grpc.SessionStub(
            grpc.aio.secure_channel(group.peers[1], pki.named("stranger").grpc_client())
        ).Open()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stranger.read()
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_a_port_that_is_taken_is_named(served: Any) -> None:
    async with served(1) as group:
        with pytest.raises(AddressInUse, match=f"cannot listen on {group.peers[1]}: the port is in use"):
            await serve_store(group.replicas[1], group.peers[1], None)


async def test_a_client_without_store_gives_up_in_time() -> None:
    client = StoreClient(["127.0.0.1:1"], timeout_s=0.5)
    await client.start()
    with pytest.raises(Unavailable, match=r"no leader of the store at 127\.0\.0\.1:1"):
        await client.range(ALL)
    await client.stop()


async def test_members_move_one_by_one_until_none_of_the_founders_is_left(served: Any, wait_until: Any) -> None:
    """A newcomer knows the founders alone; those that lead by then find it, and tell it where they are."""
    async with served(3) as group:
        client = await group.client()
        for number in range(20):
            await client.txn(put(f"/{number}"))

        async def replace(old: int) -> None:
            new = await _add_learner(group)
            replica, leader = await group.start(new), group.replicas[group.leader()]
            await wait_until(lambda: replica.revision == leader.revision)
            await _cluster(group).MemberPromote(etcd_pb2.MemberPromoteRequest(ID=new))
            if group.leader() == old:
                await leader.transfer_leadership(new)
                await wait_until(lambda: group.leader() == new)
            await _cluster(group).MemberRemove(etcd_pb2.MemberRemoveRequest(ID=old))
            await group.stop(old)

        for founder in list(group.peers):
            await replace(founder)
        first, *_ = group.replicas
        await replace(first)
        await client.txn(put("/after"))
        listed = await _cluster(group).MemberList(etcd_pb2.MemberListRequest(linearizable=True))
        assert {row.ID for row in listed.members} == set(group.added) - {first}
        late = next(n for n in group.replicas if n != group.leader())
        await group.stop(late)
        await client.txn(put("/while-away"))
        returned = await group.start(late)
        await wait_until(lambda: returned.revision == group.replicas[group.leader()].revision)


async def test_changes_that_make_no_sense_or_do_harm_are_refused_in_the_words_of_etcd(
    served: Any, wait_until: Any
) -> None:
    async with served(3) as group:
        await (await group.client()).txn(put("/a"))
        follower = _cluster(group, group.leader() % 3 + 1)
        learner = await _add_learner(group)
        add, taken = etcd_pb2.MemberAddRequest, [f"https://{group.peers[1]}"]
        for call, words in (
            (follower.MemberAdd(add(peerURLs=taken)), "Peer URLs already exists"),
            (follower.MemberAdd(add(peerURLs=["https://127.0.0.1:1"], isLearner=True)), "too many learner members"),
            (follower.MemberAdd(add(peerURLs=["nonsense"])), "given member URLs are invalid"),
            (follower.MemberRemove(etcd_pb2.MemberRemoveRequest(ID=99)), "member not found"),
            (follower.MemberPromote(etcd_pb2.MemberPromoteRequest(ID=99)), "member not found"),
            (follower.MemberPromote(etcd_pb2.MemberPromoteRequest(ID=1)), "can only promote a learner member"),
            (follower.MemberPromote(etcd_pb2.MemberPromoteRequest(ID=learner)), "which is in sync with leader"),
            (follower.MemberUpdate(etcd_pb2.MemberUpdateRequest(ID=1, peerURLs=[])), "given member URLs are invalid"),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match=words):
                await call
        gone, other = (n for n in (1, 2, 3) if n != group.leader())
        await group.stop(gone)
        # its silence has been noticed when the leader was heard for longer than it has patience
        leader = group.replicas[group.leader()]
        await wait_until(lambda: not leader._changes._answers(gone))
        with pytest.raises(grpc.aio.AioRpcError, match="not enough started members"):
            await _cluster(group).MemberRemove(etcd_pb2.MemberRemoveRequest(ID=other))
        await _cluster(group).MemberRemove(etcd_pb2.MemberRemoveRequest(ID=gone))


async def test_a_group_goes_on_without_the_leader_that_was_removed_through_a_follower(
    served: Any, wait_until: Any
) -> None:
    async with served(3) as group:
        client = await group.client()
        await client.txn(put("/a"))
        leader = group.leader()
        follower = leader % 3 + 1
        removed = await _cluster(group, follower).MemberRemove(etcd_pb2.MemberRemoveRequest(ID=leader))
        assert {row.ID for row in removed.members} == {1, 2, 3} - {leader}
        replica = group.replicas[leader]
        await asyncio.wait_for(replica.failed.wait(), 15)
        assert f"store member s{leader} was removed from the group" in replica.failure
        await group.stop(leader)
        await client.range(ALL)
        await client.txn(put("/b"))
        again = await group.start(leader)
        await asyncio.wait_for(again.failed.wait(), 15)
        assert "was removed" in (again.failure or ""), "it stays stopped"


async def test_a_member_removed_while_it_was_away_stops_when_it_returns(served: Any) -> None:
    async with served(3) as group:
        client = await group.client()
        await client.txn(put("/a"))
        away = group.leader() % 3 + 1
        await group.stop(away)
        await _cluster(group).MemberRemove(etcd_pb2.MemberRemoveRequest(ID=away))
        returned = await group.start(away)
        await asyncio.wait_for(returned.failed.wait(), 15)
        assert "was removed" in (returned.failure or "")
        await client.txn(put("/b"))


async def test_every_member_knows_the_names_and_addresses_of_all(served: Any, wait_until: Any) -> None:
    async with served(3) as group:
        await (await group.client()).txn(put("/a"))
        moved = group.leader() % 3 + 1
        await wait_until(lambda: all(len(r.status().names) == 3 for r in group.replicas.values()))
        update = etcd_pb2.MemberUpdateRequest(ID=moved, peerURLs=[f"http://{group.peers[moved]}/"])
        await _cluster(group, moved).MemberUpdate(update)
        expected = [(n, f"s{n}", [f"https://{address}"], [f"https://{address}"]) for n, address in group.peers.items()]
        for member in group.peers:
            listed = (await _cluster(group, member).MemberList(etcd_pb2.MemberListRequest())).members
            assert [(row.ID, row.name, list(row.peerURLs), list(row.clientURLs)) for row in listed] == expected


async def test_members_of_another_group_are_refused(served: Any) -> None:
    async with served(1) as group, served(1) as other:
        (ours, theirs) = (next(iter(each.replicas.values())).cluster for each in (group, other))
        assert ours and theirs and ours != theirs
        channel = grpc.aio.insecure_channel(group.peers[1])
        for method in ("Deliver", "Install"):
            call = getattr(raft_pb2_grpc.PeerStub(channel), method)(metadata=(("steersman-cluster", f"{theirs:x}"),))
            with pytest.raises(grpc.aio.AioRpcError, match=f"belongs to the group {ours:x}, not to {theirs:x}"):
                await call
        await channel.close()


def _cluster(group: Any, member: int = 0) -> etcd_pb2_grpc.ClusterStub:
    """The service at a member; at the one that leads if none is named."""
    address = (group.peers | group.added)[member or group.leader()]
    return etcd_pb2_grpc.ClusterStub(grpc.aio.insecure_channel(address))


async def _add_learner(group: Any) -> int:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    request = etcd_pb2.MemberAddRequest(peerURLs=[f"https://{address}"], isLearner=True)
    number = (await _cluster(group).MemberAdd(request)).member.ID
    group.added[number] = address
    return int(number)


async def test_a_long_answer_and_a_long_event_come_in_pieces_and_arrive_whole(served: Any) -> None:
    async with served(1) as group:
        client = await group.client()
        watch = client.watch(b"/big/", b"/big0", 0)
        await anext(watch)
        for number in range(3):
            operations = tuple(Put(key=b"/big/%d%d" % (number, n), value=bytes([n]) * 700_000) for n in range(4))
            await client.txn(Txn(success=operations))
        found, small = await asyncio.gather(
            client.range(Range(key=b"/big/", range_end=b"/big0")), client.range(Range(key=b"/none"))
        )
        assert [kv.value[:1] * 700_000 for kv in found.kvs] == [kv.value for kv in found.kvs]
        assert found.count == 12 and not small.count
        seen: list[Any] = []
        while len(seen) < 12:
            seen += (await anext(watch)).events
        assert [event.kv for event in seen] == list(found.kvs)
        await watch.aclose()
