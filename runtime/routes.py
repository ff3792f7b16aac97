"""Routes to the pods of other nodes, and the local range that a userspace proxy listens on.

Routes made here carry a protocol number of their own, so that only they are ever removed.
Source: ip-route(8)
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

#: marks our routes (`ip route show proto 83`)
PROTOCOL = 83
_LOCAL_TABLE = 255


class Routes:
    """Keeps the routes of one cluster. Every method raises OSError where routes may not be touched.

    Args:
        pod_cidr: only routes to ranges within it are this cluster's.
    """

    def __init__(self, pod_cidr: str) -> None:
        self._pod_cidr = ipaddress.IPv4Network(pod_cidr)
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="steersman-routes")
        self._ipr: Any = None

    async def _in_worker(self, work: Callable[..., Any], *args: Any) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, work, *args)
        except NetlinkError as error:
            raise OSError(error.code, str(error.args[-1])) from error

    async def start(self) -> None:
        await self._in_worker(self._open)

    def _open(self) -> None:
        self._ipr = IPRoute()

    async def stop(self) -> None:
        if self._ipr is not None:
            await self._in_worker(self._ipr.close)
            self._ipr = None
        self._worker.shutdown(wait=False)

    async def set(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """Makes exactly these routes (range to gateway) ours; returns the refused ones with the reason."""
        return dict(await self._in_worker(self._set, wanted))

    def _set(self, wanted: Mapping[str, str]) -> dict[str, str]:
        refused = {}
        present = self._present()
        for cidr, gateway in wanted.items():
            if present.get(cidr) != gateway:
                try:
                    self._ipr.route("replace", dst=cidr, gateway=gateway, proto=PROTOCOL)
                except NetlinkError as error:
                    refused[cidr] = f"{gateway} is not on a network of this host ({error.args[-1]})"
        for cidr in present:
            if cidr not in wanted:
                self._delete(dst=cidr, proto=PROTOCOL)
        return refused

    def _present(self) -> dict[str, str]:
        found = {}
        for route in self._ipr.get_routes(family=2, proto=PROTOCOL):
            dst, gateway = route.get_attr("RTA_DST"), route.get_attr("RTA_GATEWAY")
            if not dst or not gateway or route["proto"] != PROTOCOL:
                continue
            network = ipaddress.IPv4Network((dst, route["dst_len"]))
            if network.subnet_of(self._pod_cidr):
                found[str(network)] = str(gateway)
        return found

    async def lead_to_self(self, cidr: str) -> None:
        """Makes every address of a range this machine's own, so that it can be listened on."""
        await self._in_worker(self._lead_to_self, cidr)

    def _lead_to_self(self, cidr: str) -> None:
        self._ipr.route("replace", dst=cidr, oif=1, type="local", table=_LOCAL_TABLE, scope=254, proto=PROTOCOL)

    async def ensure_way(self, cidr: str, source: str) -> bool:
        """Gives a range a way out of this host where it has none: without one no rule ever sees its packets.

        Returns whether a route was made.
        """
        return bool(await self._in_worker(self._ensure_way, cidr, source))

    def _ensure_way(self, cidr: str, source: str) -> bool:
        probe = str(ipaddress.IPv4Network(cidr)[1])
        try:
            self._ipr.route("get", dst=probe)
        except NetlinkError as error:
            if error.code not in (errno.ENETUNREACH, errno.EHOSTUNREACH):
                raise
            extra = {"prefsrc": source} if source and not source.startswith("127.") else {}
            self._ipr.route("replace", dst=cidr, oif=1, proto=PROTOCOL, **extra)
            return True
        return False

    async def purge(self, *service_cidrs: str) -> None:
        """Removes every route made here for this cluster."""
        await self._in_worker(self._set, {})
        for cidr in service_cidrs:
            await self._in_worker(self._purge_range, cidr)

    def _purge_range(self, cidr: str) -> None:
        self._delete(dst=cidr, oif=1, proto=PROTOCOL)
        self._delete(dst=cidr, oif=1, type="local", table=_LOCAL_TABLE, scope=254, proto=PROTOCOL)

    def _delete(self, **route: Any) -> None:
        try:
            self._ipr.route("del", **route)
        except NetlinkError as error:
            if error.code not in (errno.ESRCH, errno.ENODEV):
                raise
