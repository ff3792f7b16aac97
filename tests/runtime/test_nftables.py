"""Batches of nftables commands in a network namespace of the test's own: by the library and by the program."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from steersman.runtime.nftables import Nftables, NftablesError, unavailable
from steersman.runtime.routes import Routes

pytestmark = pytest.mark.root
_CLONE_NEWNET = 0x40000000


def in_own_network(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Runs a coroutine function in a thread with a network namespace that ends with it."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    box: dict[str, Any] = {}

    def body() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
                box["skip"] = "no network namespace can be made here"
                return
            box["skip"] = asyncio.run(unavailable())
            if not box["skip"]:
                box["result"] = asyncio.run(work())
        except BaseException as error:
            box["error"] = error

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if "error" in box:
        raise box["error"]
    if box["skip"]:
        pytest.skip(box["skip"])
    return box["result"]


@pytest.mark.parametrize("program", [False, True], ids=["library", "program"])
def test_a_batch_holds_as_a_whole_or_not_at_all(program: bool) -> None:
    if program and shutil.which("nft") is None:
        pytest.skip("the program nft is not here")

    async def main() -> None:
        nft = Nftables(program=program)
        await nft.start()
        await nft.apply(["add table ip one", "add chain ip one c"])
        with pytest.raises(NftablesError, match="syntax error"):
            await nft.apply(["add table ip two", "nonsense"])
        with pytest.raises(NftablesError, match="No such file"):
            await nft.apply(["add table ip three", "delete chain ip one gone"])
        assert await nft.listing("tables") == "table ip one\n"
        await nft.remove_table("one")
        await nft.remove_table("never-there")
        assert await nft.listing("tables") == ""
        await nft.stop()

    in_own_network(main)


def test_routes_are_made_changed_and_removed_and_those_of_others_left_alone() -> None:
    from pyroute2 import IPRoute

    async def main() -> None:
        def prepare() -> None:
            with IPRoute() as ipr:
                ipr.link("set", index=1, state="up")
                ipr.link("add", ifname="wire", kind="veth", peer={"ifname": "end"})
                for name in ("end", "wire"):
                    index = ipr.link_lookup(ifname=name)[0]
                    ipr.link("set", index=index, state="up")
                ipr.addr("add", index=index, address="192.168.9.1", prefixlen=24)
                ipr.route("add", dst="10.244.9.0/24", gateway="192.168.9.9")

        def shown() -> dict[str, str]:
            with IPRoute() as ipr:
                rows = ipr.get_routes(family=2, table=254)
                return {
                    f"{row.get_attr('RTA_DST')}/{row['dst_len']}": row.get_attr("RTA_GATEWAY")
                    for row in list(rows)
                    if row.get_attr("RTA_GATEWAY")
                }

        await asyncio.to_thread(prepare)
        routes = Routes("10.244.0.0/16")
        await routes.start()
        refused = await routes.set({"10.244.1.0/24": "192.168.9.2", "10.244.2.0/24": "172.16.0.1"})
        assert list(refused) == ["10.244.2.0/24"]
        assert await asyncio.to_thread(shown) == {"10.244.9.0/24": "192.168.9.9", "10.244.1.0/24": "192.168.9.2"}
        await routes.set({"10.244.1.0/24": "192.168.9.3"})
        assert (await asyncio.to_thread(shown))["10.244.1.0/24"] == "192.168.9.3"
        assert await routes.ensure_way("10.96.0.0/16", "192.168.9.1")
        assert not await routes.ensure_way("10.96.0.0/16", "192.168.9.1")
        await routes.purge("10.96.0.0/16")
        assert await asyncio.to_thread(shown) == {"10.244.9.0/24": "192.168.9.9"}
        assert await routes.ensure_way("10.96.0.0/16", "")
        await routes.stop()

    in_own_network(main)
