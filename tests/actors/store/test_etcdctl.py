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

from steersman.actors.store.filedisk import read_snapshot_file

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
                out, err = await process.communicate(stdin.encode())
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


async def test_the_group_and_its_health(etcdctl: Run, tmp_path: Path) -> None:
    members = json.loads(await etcdctl("member", "list", "-w", "json"))["members"]
    assert [member["ID"] for member in members] == [1, 2, 3]
    statuses = [row["Status"] for row in json.loads(await etcdctl("endpoint", "status", "-w", "json"))]
    leader = statuses[0]["leader"]
    assert {status["leader"] for status in statuses} == {leader} and leader in (1, 2, 3)
    assert await etcdctl("put", "/a", "1") == "OK\n"
    hashes = {row["HashKV"]["hash"] for row in json.loads(await etcdctl("endpoint", "hashkv", "-w", "json"))}
    assert len(hashes) == 1
    assert "Snapshot saved" in await etcdctl("snapshot", "save", str(tmp_path / "snapshot"), members=1)
    path = _without_digest(tmp_path / "snapshot")
    meta, state = read_snapshot_file(path, path.read_bytes())
    assert meta.index > 0 and [kv.key for kv in state.restore().live()] == [b"/a"]
    assert await etcdctl("alarm", "list") == ""
    assert "client certificates decide" in await etcdctl("user", "add", "x:y")


def _without_digest(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-32])
    return path
