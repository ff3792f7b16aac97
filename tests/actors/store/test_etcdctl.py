"""The real etcdctl against the store, over TLS."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.actors.pki import free_ports

from steersman.actors.store.backup import read_backup
from steersman.cluster.store.values import Range

pytestmark = pytest.mark.skipif(
    shutil.which("etcdctl") is None, reason="etcdctl (Debian's etcd-client) is not installed"
)

Run = Callable[..., Awaitable[str]]


@pytest.fixture
async def etcdctl(served: Any, pki: Any) -> AsyncIterator[Run]:
    """Runs etcdctl against three members; returns its stdout, or its stderr when it fails.

    With `until` it is killed as soon as it has shown that.
    """
    async with served(3, pki) as group:
        client = await group.client()
        await client.lease_revoke(await client.lease_grant(60))
        environment = os.environ | {
            "ETCDCTL_API": "3",
            "ETCDCTL_CACERT": str(pki.directory / "ca.crt"),
            "ETCDCTL_CERT": str(pki.directory / "store.crt"),
            "ETCDCTL_KEY": str(pki.directory / "store.key"),
        }

        async def run(*arguments: str, stdin: str = "", until: str = "", members: int = 3) -> str:
            endpoints = "--endpoints=" + ",".join(list(group.peers.values())[:members])
            process = await asyncio.create_subprocess_exec(
                "etcdctl", endpoints, *arguments, env=environment, stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            async with asyncio.timeout(20):
                if until:
                    assert process.stdout is not None
                    shown = await process.stdout.readuntil(until.encode())
                    process.kill()
                    await process.wait()
                    return shown.decode()
                try:
                    out, err = await process.communicate(stdin.encode())
                except asyncio.CancelledError:
                    process.kill()
                    await process.wait()
                    raise
            return out.decode() if process.returncode == 0 else err.decode()

        yield run


async def test_keys_and_transactions(etcdctl: Run) -> None:
    assert await etcdctl("put", "/a", "1") == "OK\n"
    assert await etcdctl("put", "/a", "2", "--prev-kv") == "OK\n/a\n1\n"
    await etcdctl("put", "/b", "3")
    assert await etcdctl("get", "--prefix", "/") == "/a\n2\n/b\n3\n"
    assert await etcdctl("get", "--prefix", "/", "--order=DESCEND", "--limit=1", "--print-value-only") == "3\n"
    assert await etcdctl("get", "/a", "--rev=2") == "/a\n1\n"
    assert (await etcdctl("txn", "-i", stdin='val("/a") = "2"\n\nput /a 9\n\nput /a no\n\n')).split()[-2:] == [
        "SUCCESS",
        "OK",
    ]
    assert await etcdctl("get", "/a", "--print-value-only") == "9\n"
    assert await etcdctl("put", "/a", "--ignore-value", "--prev-kv") == "OK\n/a\n9\n"
    assert await etcdctl("del", "--prefix", "/") == "2\n"
    assert "compacted revision 4" in await etcdctl("compaction", "4")
    assert "required revision has been compacted" in await etcdctl("get", "/a", "--rev=2")
    assert "key is not provided" in await etcdctl("put", "", "x")


async def test_leases(etcdctl: Run) -> None:
    lease = (await etcdctl("lease", "grant", "100")).split()[1]
    await etcdctl("put", "/l", "1", f"--lease={lease}")
    assert "attached keys([/l])" in await etcdctl("lease", "timetolive", lease, "--keys")
    assert lease in await etcdctl("lease", "list")
    assert "TTL(100)" in await etcdctl("lease", "keep-alive", "--once", lease)
    assert "revoked" in await etcdctl("lease", "revoke", lease)
    assert await etcdctl("get", "/l") == ""
    assert "already expired" in await etcdctl("lease", "timetolive", lease)


async def test_a_watch_begins_in_the_past(etcdctl: Run) -> None:
    for command in (("put", "/w", "1"), ("put", "/w", "2"), ("del", "/w")):
        await etcdctl(*command)
    out = await etcdctl("watch", "/w", "--rev=2", "--prev-kv", until="DELETE\n/w\n2\n/w\n\n")
    assert out.split() == ["PUT", "/w", "1", "PUT", "/w", "1", "/w", "2", "DELETE", "/w", "2", "/w"]


async def test_the_group_and_its_health(etcdctl: Run) -> None:
    members = json.loads(await etcdctl("member", "list", "-w", "json"))["members"]
    assert [member["ID"] for member in members] == [1, 2, 3]
    statuses = [row["Status"] for row in json.loads(await etcdctl("endpoint", "status", "-w", "json", "--cluster"))]
    leader = statuses[0]["leader"]
    assert {status["leader"] for status in statuses} == {leader} and leader in (1, 2, 3)
    assert len({status["header"]["cluster_id"] for status in statuses}) == 1
    assert await etcdctl("put", "/a", "1") == "OK\n"
    hashes = {row["HashKV"]["hash"] for row in json.loads(await etcdctl("endpoint", "hashkv", "-w", "json"))}
    assert len(hashes) == 1
    healths = json.loads(await etcdctl("endpoint", "health", "--cluster", "-w", "json"))
    assert [row["health"] for row in healths] == [True] * 3
    assert (await etcdctl("defrag", "--cluster")).count("Finished defragmenting") == 3
    assert await etcdctl("alarm", "list") == "" and await etcdctl("alarm", "disarm") == ""


async def test_leadership_moves(etcdctl: Run) -> None:
    async def leader() -> int:
        rows = json.loads(await etcdctl("endpoint", "status", "-w", "json"))
        return int(rows[0]["Status"]["leader"])

    old = await leader()
    new = old % 3 + 1
    assert "transferred" in await etcdctl("move-leader", f"{new:x}")
    assert await leader() == new
    assert "bad leader transferee" in await etcdctl("move-leader", "99")


async def test_members_come_and_go(etcdctl: Run) -> None:
    url = f"https://127.0.0.1:{free_ports(1)[0]}"
    added = await etcdctl("member", "add", "s4", "--learner", f"--peer-urls={url}")
    assert "added to cluster" in added
    member = added.split()[1]
    assert f"{member}, unstarted, , {url}, {url}, true" in await etcdctl("member", "list")
    assert "in sync with leader" in await etcdctl("member", "promote", member)
    moved = f"https://127.0.0.1:{free_ports(1)[0]}"
    assert "updated" in await etcdctl("member", "update", member, f"--peer-urls={moved}")
    assert moved in await etcdctl("member", "list")
    assert "removed" in await etcdctl("member", "remove", member)
    assert "member not found" in await etcdctl("member", "remove", member)
    assert "Peer URLs already exists" in await etcdctl(
        "member", "add", "again", "--peer-urls=" + (await etcdctl("member", "list")).split(", ")[3]
    )


async def test_snapshots_are_backups(etcdctl: Run, tmp_path: Path) -> None:
    assert await etcdctl("put", "/a", "1") == "OK\n"
    assert "Snapshot saved" in await etcdctl("snapshot", "save", str(tmp_path / "snapshot"), members=1)
    assert [kv.key for kv in read_backup(tmp_path / "snapshot").state.base] == [b"/a"]


async def test_locks_elections_and_mirrors(etcdctl: Run, served: Any) -> None:
    assert (await etcdctl("lock", "here", "echo", "held")) == "held\n"
    assert (await etcdctl("elect", "chief", "me", until="me\n")).endswith("me\n")
    async with served(1) as target:
        await etcdctl("put", "/mirrored", "1")
        mirror = asyncio.create_task(etcdctl("make-mirror", "--dest-insecure-transport", target.peers[1]))
        client = await target.client()
        async with asyncio.timeout(15):
            while not (await client.range(Range(key=b"/mirrored"))).kvs:  # noqa: ASYNC110  (of another process)
                await asyncio.sleep(0.02)
        await etcdctl("put", "/mirrored", "2")
        async with asyncio.timeout(15):
            while (await client.range(Range(key=b"/mirrored"))).kvs[0].value != b"2":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        mirror.cancel()
        await asyncio.gather(mirror, return_exceptions=True)


LEFT_OUT = [
    ("user", "add", "x:y"), ("user", "list"), ("user", "get", "x"), ("user", "delete", "x"),
    ("user", "grant-role", "x", "r"), ("user", "revoke-role", "x", "r"), ("role", "add", "r"), ("role", "list"),
    ("role", "get", "r"), ("role", "delete", "r"), ("role", "grant-permission", "r", "read", "/k"),
    ("role", "revoke-permission", "r", "/k"), ("auth", "disable"), ("auth", "enable"),
]  # fmt: skip


async def test_what_is_left_out_is_refused_by_name_and_never_hangs(etcdctl: Run) -> None:
    for command, said in zip(LEFT_OUT, await asyncio.gather(*(etcdctl(*each) for each in LEFT_OUT)), strict=True):
        assert "client certificates decide who may use it" in said, command
