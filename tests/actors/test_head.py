"""What the head's keeper takes from machines that call, and what it still knows after it has died."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import grpc
import pytest
from tests.actors.store.conftest import free_ports

from steersman.actors import bringup, joining, roster, takedown
from steersman.actors.head import Head
from steersman.actors.rpc.keeper import HeadAway, HeadClient, serve_keeper
from steersman.actors.site import Site
from steersman.cluster.config import ClusterConfig
from steersman.cluster.placement import ChangeRefused, StoreGroup, StoreMember
from steersman.cluster.topology import Host
from steersman.pb import keeper_pb2, keeper_pb2_grpc

BLUE = Host(name="blue", address="10.0.0.2", data_dir="/blue")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make_site(directory: Path) -> Site:
    config = ClusterConfig(data_dir=str(directory))
    ports = config.ports.resolved().model_copy(update={"status": free_ports(1)[0] - 59})
    (directory / "run").mkdir(parents=True, exist_ok=True)
    (directory / "run" / "ray.token").write_text("secret")
    here = Host(name="head", address="127.0.0.1", data_dir=str(directory))
    site = Site(config.model_copy(update={"ports": ports}), (here,), here)
    bringup.issue_certificates(site)
    return site


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def head(tmp_path: Path, clock: Clock) -> AsyncIterator[Head]:
    made = Head(make_site(tmp_path), clock)
    yield made
    await made.close()


async def test_a_machine_that_calls_is_known_at_once_and_after_the_keepers_death(head):
    known = head.meet(BLUE)
    assert known.hosts == (head.site.here, BLUE) and known.ray_token == "secret"
    assert head.changed.is_set()
    hosts, group, retiring = roster.read(head.site.data_dir)
    assert (hosts, group, retiring) == (known.hosts, head.site.group, frozenset())
    head.changed.clear()
    head.meet(BLUE)
    assert not head.changed.is_set(), "nothing is new"


async def test_a_machine_is_there_as_long_as_it_calls(head, clock):
    head.meet(BLUE)
    assert head.present() == ["head", "blue"]
    clock.now += 10
    assert head.present() == ["head"]
    assert BLUE in head.site.hosts, "but it may come back"


@pytest.mark.parametrize(
    "other, why",
    [
        (Host(name="head", address="10.0.0.9", data_dir=""), "is called head too"),
        (Host(name="green", address="10.0.0.2", data_dir=""), "is that of machine blue"),
        (Host(name="blue", address="10.0.0.3", data_dir=""), "is called blue too"),
    ],
)
async def test_a_machine_that_is_taken_for_another_is_refused(head, other, why):
    head.meet(BLUE)
    with pytest.raises(ChangeRefused, match=why):
        head.meet(other)


async def test_a_machine_that_is_away_may_return_with_another_address(head, clock):
    head.meet(BLUE)
    clock.now += 10
    moved = replace(BLUE, address="10.0.0.3")
    assert head.meet(moved).hosts == (head.site.here, moved)


async def test_a_machine_without_store_members_leaves_though_the_store_does_not_answer(head):
    head.meet(BLUE)
    await head.leave("blue")
    assert roster.read(head.site.data_dir)[0] == (head.site.here,)


def joined(head: Head, directory: Path, holder: str) -> Site:
    """A machine that has joined a head, as its own disk says; the store's one member is on `holder`."""
    blue = replace(BLUE, data_dir=str(directory))
    group = StoreGroup(members=(StoreMember(id=1, host=holder, slot=0),), founders=1)
    made = replace(head.site, hosts=(head.site.here, blue), here=blue, recorded=group)
    shutil.copytree(head.site.pki, made.pki)
    made.run.mkdir()
    bringup.write_site(made)
    return made


def touch(*_: object, **__: object) -> NoReturn:
    pytest.fail("something was done")


@pytest.mark.parametrize("delete_data", [True, False])
async def test_a_machine_that_the_store_cannot_do_without_is_not_taken_down(head, tmp_path, monkeypatch, delete_data):
    """An API server may serve on while nobody answers for the store."""

    async def answers(_: Site) -> bool:
        return True

    monkeypatch.setattr(joining, "api_answers", answers)
    site = joined(head, tmp_path / "blue", "blue")
    with pytest.raises(bringup.BringUpFailed, match=r"cannot do without this machine \(--force .*: nobody knows"):
        await takedown.take_down(site.data_dir, touch, delete_data=delete_data, force=False)
    assert bringup.read_site(site.data_dir) == site


@pytest.mark.parametrize(("holder", "delete_data"), [("blue", False), ("head", False), ("head", True)])
async def test_a_machine_goes_down_when_the_head_is_down_unless_the_stores_data_went_with_it(
    head, tmp_path, holder, delete_data
):
    site = joined(head, tmp_path / "blue", holder)
    stays = await takedown.take_down(site.data_dir, lambda *_, **__: None, delete_data=delete_data, force=False)
    assert stays.startswith("the head's keeper at 127.0.0.1:")
    assert not site.run.exists() and site.data_dir.exists() != delete_data


async def test_data_of_the_store_is_not_deleted_while_nobody_answers_for_it(head, tmp_path):
    site = joined(head, tmp_path / "blue", "blue")
    with pytest.raises(bringup.BringUpFailed, match="nobody knows"):
        await takedown.take_down(site.data_dir, touch, delete_data=True, force=False)


async def test_only_components_may_call_the_keeper(head):
    server = await serve_keeper(head)
    client = HeadClient(head.site)
    try:
        assert (await client.meet(BLUE)).group == head.site.group
        with pytest.raises(HeadAway, match="called head too") as refusal:
            await client.meet(Host(name="head", address="10.0.0.9", data_dir=""))
        assert refusal.value.refuses
        with pytest.raises(HeadAway, match="no machine green is there"):
            await client.change(keeper_pb2.ChangeRequest(add_on="green"))
        with pytest.raises(HeadAway, match="the store has no member store-9"):
            await client.change(keeper_pb2.ChangeRequest(remove="store-9"))
        admin = head.site.credentials("admin")
        files = (admin.ca.read_bytes(), admin.key.read_bytes(), admin.cert.read_bytes())
        address = f"127.0.0.1:{head.site.config.ports.status + 59}"
        async with grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(*files)) as channel:
            with pytest.raises(grpc.aio.AioRpcError, match="this certificate may not do this"):
                await keeper_pb2_grpc.KeeperStub(channel).Meet(keeper_pb2.Host(name="blue"))
    finally:
        await client.close()
        await server.stop(0)
