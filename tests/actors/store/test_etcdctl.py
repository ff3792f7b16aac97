"""The real etcdctl against a group of three, over TLS: what is about members. All commands: test_etcdctl_commands."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests.actors.pki import free_ports

pytestmark = pytest.mark.skipif(
    shutil.which("etcdctl") is None, reason="etcdctl (Debian's etcd-client) is not installed"
)

Run = Callable[..., Awaitable[str]]


@pytest.fixture
async def etcdctl(served: Any, pki: Any) -> AsyncIterator[Run]:
    """Runs etcdctl against three members; returns its stdout, or its stderr when it fails."""
    async with served(3, pki) as group:
        client = await group.client()
        await client.lease_revoke(await client.lease_grant(60))
        environment = os.environ | {
            "ETCDCTL_API": "3",
            "ETCDCTL_CACERT": str(pki.directory / "ca.crt"),
            "ETCDCTL_CERT": str(pki.directory / "store.crt"),
            "ETCDCTL_KEY": str(pki.directory / "store.key"),
        }

        async def run(*arguments: str) -> str:
            endpoints = "--endpoints=" + ",".join(group.peers.values())
            process = await asyncio.create_subprocess_exec(
                "etcdctl", endpoints, *arguments, env=environment,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            async with asyncio.timeout(20):
                out, err = await process.communicate()
            return out.decode() if process.returncode == 0 else err.decode()

        yield run


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
    assert f"{member}, unstarted, , {url}, , true" in await etcdctl("member", "list")
    assert "in sync with leader" in await etcdctl("member", "promote", member)
    moved = f"https://127.0.0.1:{free_ports(1)[0]}"
    assert "updated" in await etcdctl("member", "update", member, f"--peer-urls={moved}")
    assert moved in await etcdctl("member", "list")
    assert "removed" in await etcdctl("member", "remove", member)
    assert "member not found" in await etcdctl("member", "remove", member)
    assert "Peer URLs already exists" in await etcdctl(
        "member", "add", "again", "--peer-urls=" + (await etcdctl("member", "list")).split(", ")[3]
    )
