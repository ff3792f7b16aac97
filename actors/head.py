"""What the head's keeper knows of the machines and of the store's members, and what it does about them.

Machines tell that they are there. Members are moved one step at a time, as `cluster.placement` decides. Both are in the
data directory before anybody relies on them, so that a cluster whose store lives on other machines can start again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from steersman.actors import bringup, roster
from steersman.actors.site import Site
from steersman.actors.storegroup import GroupClient, GroupUnavailable, View
from steersman.actors.tls import client_credentials
from steersman.cluster.placement import (
    Add,
    ChangeRefused,
    MemberState,
    Promote,
    Remove,
    Step,
    StoreGroup,
    StoreMember,
    Transfer,
    free_slot,
    next_step,
    why_not_remove,
)
from steersman.cluster.topology import Host

logger = logging.getLogger(__name__)

#: a machine that has not called for so long is away; machines call every two seconds
_PRESENT_S = 7.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a machine learns from the head.

    Args:
        incarnation: changes whenever Ray on the head begins anew, and every other machine's Ray must do so too.
        ray_token: the secret shared by the cluster's Ray processes.
        hosts: all machines, the head first.
    """

    incarnation: str
    ray_token: str
    hosts: tuple[Host, ...]
    group: StoreGroup


class Head:
    """The head's knowledge, and the changes that it makes.

    Attributes:
        site: with the present machines and members.
        incarnation: of Ray on the head; empty before it has started.
        changed: set whenever `site` has become another.
    """

    def __init__(self, site: Site, clock: Callable[[], float] = time.monotonic) -> None:
        self.site = site
        self.incarnation = ""
        self.changed = asyncio.Event()
        self._clock = clock
        self._met_at: dict[str, float] = {}
        _, _, self._retiring = roster.read(site.data_dir)
        self._client = GroupClient(client_credentials(site.credentials("component")))
        #: one change of the members at a time
        self._changing = asyncio.Lock()

    async def close(self) -> None:
        await self._client.close()

    # machines

    def present(self) -> list[str]:
        """The machines that are there, the head first."""
        now = self._clock()
        return [
            host.name
            for host in self.site.hosts
            if host == self.site.here or now - self._met_at.get(host.name, -_PRESENT_S) < _PRESENT_S
        ]

    def meet(self, host: Host) -> Known:
        """Notes that a machine is there; returns what it should know.

        Raises:
            ChangeRefused: its name or its address is another machine's.
        """
        for other in self.site.hosts:
            is_other = other.address != host.address and other.name in self.present()
            if other.name == host.name and (other == self.site.here or is_other):
                raise ChangeRefused(f"the machine at {other.address} is called {host.name} too: choose another name")
            if other.name != host.name and other.address == host.address:
                raise ChangeRefused(f"the address {host.address} is that of machine {other.name}")
        self._met_at[host.name] = self._clock()
        if host not in self.site.hosts:
            head, *joined = (other for other in self.site.hosts if other.name != host.name)
            self._keep(replace(self.site, hosts=(head, *sorted([*joined, host], key=lambda row: row.name))))
        return self.known()

    def known(self) -> Known:
        token = (self.site.run / "ray.token").read_text()
        return Known(incarnation=self.incarnation, ray_token=token, hosts=self.site.hosts, group=self.site.group)

    async def leave(self, name: str) -> Known:
        """Forgets a machine, whose store members leave first.

        Raises:
            ChangeRefused: the store would stand still without it.
            GroupUnavailable: the store does not answer.
        """
        async with self._changing:
            for member in [member for member in self.site.group.members if member.host == name]:
                await self._remove(member)
        hosts = tuple(host for host in self.site.hosts if host.name != name or host == self.site.here)
        self._met_at.pop(name, None)
        self._keep(replace(self.site, hosts=hosts))
        return self.known()

    def _keep(self, site: Site) -> None:
        if site != self.site:
            self.site = site
            roster.write(site, self._retiring)
            bringup.write_site(site)
            self.changed.set()

    def _retire(self, retiring: frozenset[int]) -> None:
        if retiring != self._retiring:
            self._retiring = retiring
            roster.write(self.site, retiring)

    # members

    async def members(self) -> list[tuple[MemberState, bool]]:
        """Returns every member's state, and whether it is to go; raises GroupUnavailable."""
        _, states = await self._look()
        return [(state, state.member.id in self._retiring) for state in states]

    async def step(self) -> None:
        """Makes the next step towards the group as it should be, if there is one."""
        wanted = self.site.config.control_plane.replicas
        if len(self.site.hosts) == 1 and len(self.site.group.members) == wanted and not self._retiring:
            return
        async with self._changing:
            try:
                view, states = await self._look()
                step = next_step(states, self.present(), wanted, self._retiring)
                if step is not None:
                    logger.info("store: %s", step)
                    await self._carry_out(view, step)
            except GroupUnavailable as error:
                logger.info("store: %s", error)

    async def add(self, node: str) -> str:
        """Adds a member on a machine; raises ChangeRefused or GroupUnavailable; returns what was done."""
        async with self._changing:
            return await self._add(node)

    async def _add(self, node: str) -> str:
        if node not in self.present():
            raise ChangeRefused(f"no machine {node} is there; there are {', '.join(self.present())}")
        view, states = await self._look()
        if any(state.member.host == node for state in states):
            raise ChangeRefused(f"machine {node} has a member of the store already")
        if any(state.learner for state in states):
            raise ChangeRefused("another member is being added: wait until it has its vote")
        slot = free_slot(states)
        await self._carry_out(view, Add(node, slot))
        return f"store-{slot} is added on {node}; it gets its vote when it has caught up"

    async def remove(self, name: str) -> str:
        """Takes a member out; raises ChangeRefused or GroupUnavailable; returns what was done."""
        async with self._changing:
            member = self.site.group.named(name)
            await self._remove(member)
            return f"{member.name} of {member.host} has left the store"

    async def _remove(self, member: StoreMember) -> None:
        view, states = await self._look()
        if why := why_not_remove(states, member):
            raise ChangeRefused(why)
        if view.leader == member.id:
            others = (s for s in states if s.member != member and s.answers and not s.learner)
            to = min(others, key=lambda state: state.lag)
            await self._carry_out(view, Transfer(to.member))
            view, _ = await self._look()
        await self._carry_out(view, Remove(member))

    async def replace(self, name: str, node: str) -> str:
        """Adds a member on a machine, and lets another one go when it has its vote; raises as `add` does."""
        async with self._changing:
            member = self.site.group.named(name)
            done = await self._add(node)
            self._retire(self._retiring | {member.id})
            return f"{done}, and then {member.name} of {member.host} leaves"

    async def transfer(self, name: str) -> str:
        """Has a member lead; raises ChangeRefused or GroupUnavailable; returns what was done."""
        async with self._changing:
            member = self.site.group.named(name)
            view, _ = await self._look()
            if view.leader != member.id:
                await self._carry_out(view, Transfer(member))
            return f"{member.name} of {member.host} leads"

    async def _look(self) -> tuple[View, list[MemberState]]:
        view = await self._client.look(self.site.store_peers)
        before = {member.id: member for member in self.site.group.members}
        members = [before.get(number) or self._placed(number, address) for number, address in view.members.items()]
        members.sort(key=lambda member: member.slot)
        self._keep(replace(self.site, recorded=replace(self.site.group, members=tuple(members))))
        self._retire(self._retiring & set(view.members))
        committed = view.answers[view.leader].committed
        states = []
        for member in members:
            answer = view.answers.get(member.id)
            states.append(
                MemberState(
                    member=member,
                    address=view.members[member.id],
                    learner=member.id in view.learners,
                    leads=member.id == view.leader,
                    answers=answer is not None,
                    lag=max(0, committed - answer.applied) if answer else committed,
                    size_bytes=answer.size_bytes if answer else 0,
                )
            )
        return view, states

    def _placed(self, number: int, address: str) -> StoreMember:
        """Finds the machine of a member that another way than this was added."""
        host, _, port = address.rpartition(":")
        name = next((row.name for row in self.site.hosts if row.address == host), host)
        return StoreMember(id=number, host=name, slot=int(port) - self.site.config.ports.store)

    async def _carry_out(self, view: View, step: Step) -> None:
        leader, group = self.site.store_peers[view.leader], self.site.group
        match step:
            case Add(host=host, slot=slot):
                address = f"{self.site.host(host).address}:{self.site.config.ports.store + slot}"
                number = await self._client.add_learner(leader, address)
                added = StoreMember(id=number, host=host, slot=slot)
                self._keep(replace(self.site, recorded=replace(group, members=(*group.members, added))))
            case Promote(member=member):
                await self._client.promote(leader, member.id)
            case Remove(member=member):
                await self._client.remove(leader, member.id)
                rest = tuple(other for other in group.members if other != member)
                self._keep(replace(self.site, recorded=replace(group, members=rest)))
                self._retire(self._retiring - {member.id})
            case Transfer(to=member):
                await self._client.transfer(leader, member.id)
