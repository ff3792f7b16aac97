"""Services by rules in the kernel: the difference to what it holds goes in as one transaction."""

from __future__ import annotations

from collections.abc import Mapping

from steersman.cluster.net.rules import Frame, RuleSet, diff, frame_commands, rule_set, stale_flows
from steersman.cluster.net.services import ServicePort
from steersman.runtime.nftables import Nftables, NftablesError
from steersman.runtime.routes import Routes

#: every cluster's table begins so
_TABLES = "steersman-"
#: an empty chain: says that this cluster opened 127/8 to routed packets, and must close it when it goes
_OPENED = "opened-localnet"


class KernelPlane:
    """One nftables table per cluster, and routes to the pods of other nodes."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._nft = Nftables()
        self._routes = Routes(frame.pod_cidr)
        #: what the kernel holds; None when that is unknown
        self._held: RuleSet | None = None
        self._ports: list[ServicePort] = []
        self._opened = False

    async def start(self) -> None:
        await self._nft.start()
        self._opened = await self._nft.open_paths() or await _has_opened(self._nft, self._frame.table)
        await self._routes.start()

    async def apply(self, ports: list[ServicePort]) -> list[str]:
        wanted = rule_set(ports, self._frame)
        try:
            await self._change_to(wanted)
        except NftablesError as error:
            self._held = None
            return [f"the kernel refused the rules of the services: {error}"]
        gone = [(front, b.ip if b else "", b.port if b else 0) for front, b in stale_flows(self._ports, ports)]
        self._ports = ports
        try:
            await self._nft.forget_flows(gone)
        except OSError as error:
            return [f"UDP clients may go on speaking to endpoints that are gone: {error}"]
        return []

    async def _change_to(self, wanted: RuleSet) -> None:
        if self._held is not None:
            try:
                await self._nft.apply(diff(self._held, wanted, self._frame.table))
            except NftablesError:
                self._held = None  # somebody changed the table: make it anew below
            else:
                self._held = wanted
                return
        everything = diff(RuleSet(), wanted, self._frame.table)
        marker = [f"add chain ip {self._frame.table} {_OPENED}"] if self._opened else []
        await self._nft.apply([*frame_commands(self._frame), *marker, *everything])
        self._held = wanted

    async def route(self, wanted: Mapping[str, str], own_address: str) -> list[str]:
        try:
            await self._routes.ensure_way(self._frame.service_cidr, own_address)
            refused = await self._routes.set(wanted)
        except OSError as error:
            return [f"routes to the pods of other nodes cannot be made: {error}"]
        return [f"pods of {cidr} cannot be reached: {reason}" for cidr, reason in sorted(refused.items())]

    async def check(self) -> bool:
        if self._held is None:
            return False
        try:
            await self._nft.listing(f"chain ip {self._frame.table} lookup")
        except NftablesError:
            self._held = None
            return False
        return True

    async def stop(self) -> None:
        await self._nft.stop()
        await self._routes.stop()

    async def purge(self) -> None:
        """Removes everything of this cluster, whoever made it; needs no `start`."""
        nft, routes = Nftables(), Routes(self._frame.pod_cidr)
        await nft.start()
        await routes.start()
        try:
            if await _has_opened(nft, self._frame.table):
                await _hand_on(nft, self._frame.table)
            await nft.remove_table(self._frame.table)
            await routes.purge(self._frame.service_cidr)
        finally:
            await nft.stop()
            await routes.stop()


async def _has_opened(nft: Nftables, table: str) -> bool:
    try:
        await nft.listing(f"chain ip {table} {_OPENED}")
    except NftablesError:
        return False
    return True


async def _hand_on(nft: Nftables, table: str) -> None:
    """Closes what this cluster opened, or leaves that to another cluster of this host."""
    rows = [line.split() for line in (await nft.listing("tables")).splitlines()]
    others = sorted(row[-1] for row in rows if row[-1:] and row[-1].startswith(_TABLES) and row[-1] != table)
    # a runtime's own tables of host ports begin alike: only a proxy's has this chain
    for other in others:
        try:
            await nft.listing(f"chain ip {other} guard")
        except NftablesError:
            continue
        await nft.apply([f"add chain ip {other} {_OPENED}"])
        return
    await nft.close_localnet()
