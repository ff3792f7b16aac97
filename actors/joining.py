"""The keeper of a machine that has joined: runs Ray's worker there and has the head launch the machine's actors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from steersman.actors import bringup, invitation, roster
from steersman.actors.bringup import BringUpFailed
from steersman.actors.head import Known
from steersman.actors.invitation import InvalidInvitation, Invitation, Token
from steersman.actors.parts import over_tls
from steersman.actors.renewing import renew_always
from steersman.actors.rpc.keeper import HeadAway, HeadClient
from steersman.actors.site import Site
from steersman.actors.watchman import Watchman
from steersman.cluster import placement
from steersman.cluster.meta.errors import ApiError, Conflict, NotFound
from steersman.cluster.meta.resources import NODES, PODS
from steersman.cluster.placement import MemberState, StoreMember

_READY_S_MAX = 90.0
_LOOK_S = 2.0
#: of the head's keeper, which may be starting as well
_MEET_S_MAX, _MEET_AGAIN_S = 20.0, 0.2
#: of the API server, whose machine may be gone for good
_API_S_MAX = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinOptions:
    """What `steer join` was told of this machine; empty strings choose by themselves."""

    server: str
    token: str
    data_dir: str = ""
    address: str = ""
    node_name: str = ""
    runtime: str = "auto"


async def prepare(options: JoinOptions) -> Site:
    """Fetches the cluster's configuration and secrets, and prepares the data directory.

    Raises:
        BringUpFailed: the token, the server or this machine will not do.
    """
    try:
        token = Token.parse(options.token)
        invited = await _invited(options, token)
    except InvalidInvitation as error:
        raise BringUpFailed(str(error)) from error
    node = invited.config.node.model_copy(update={"name": options.node_name, "runtime": options.runtime})
    update = {"data_dir": options.data_dir, "node": node, "host": options.address or "127.0.0.1"}
    site = bringup.prepare_joining(invited.config.model_copy(update=update), invited.head, invited.head.address)
    invitation.save(invited, site)
    return site


async def _invited(options: JoinOptions, token: Token) -> Invitation:
    """Asks the API server; a machine that was here before may be needed for the API server to answer at all.

    Raises:
        InvalidInvitation: neither the API server nor this machine's own files will do.
    """
    try:
        return await invitation.accept(options.server, token)
    except InvalidInvitation:
        kept = invitation.saved(Path(options.data_dir), token)
        if kept is None:
            raise
        return kept


class JoinedKeeper:
    """Keeps one machine that is not the head."""

    def __init__(self, site: Site, tell: Callable[..., None], stopping: asyncio.Event) -> None:
        self._site, self._tell, self._stopping = site, tell, stopping
        self._head = HeadClient(site)
        self._watchman = Watchman(site)
        self._incarnation = ""
        self._process: asyncio.subprocess.Process | None = None

    async def bring_up(self) -> None:
        """Returns when this machine's actors are healthy.

        Raises:
            BringUpFailed: they did not become so, or the head did not answer.
        """
        self._tell("step", name="head", detail="asking the head")
        known = await self._meet_first()
        self._tell("step", name="ray", detail="joining Ray")
        await self._start_ray(known)
        meeting = asyncio.create_task(self._meet_on())
        try:
            await self._wait_until_ready()
        finally:
            meeting.cancel()

    async def _meet_first(self) -> Known:
        """Waits until the head answers and has started Ray."""
        end, why = asyncio.get_running_loop().time() + _MEET_S_MAX, "it has not started Ray"
        while asyncio.get_running_loop().time() < end:
            try:
                known = await self._head.meet(self._site.here)
                if known.incarnation:
                    return known
            except HeadAway as error:
                why = str(error)
                if error.refuses:
                    break
            await asyncio.sleep(_MEET_AGAIN_S)
        raise BringUpFailed(f"the head does not take this machine: {why}")

    async def _start_ray(self, known: Known) -> None:
        self._take_over(known)
        token = self._site.run / "ray.token"
        token.touch(0o600)
        token.write_text(known.ray_token)
        self._process = await bringup.ray_host(self._site).start(self._site.logs / "ray.log")
        self._incarnation = known.incarnation

    def _take_over(self, known: Known) -> None:
        """Keeps the machines and members that the head knows, for commands and for the next start."""
        site = replace(self._site, hosts=known.hosts, recorded=known.group)
        if site != self._site:
            roster.write(site)
            bringup.write_site(site)
            self._site = site

    async def _meet_on(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            with contextlib.suppress(HeadAway):
                self._take_over(await self._head.meet(self._site.here))

    async def _wait_until_ready(self) -> None:
        """Waits for what every machine runs; a store member that is to come here takes the time it takes."""
        actors = [spec for spec in bringup.actors_here(self._site) if spec.role != "store"]
        end = asyncio.get_running_loop().time() + _READY_S_MAX
        told: set[str] = set()
        while len(told) < len(actors):
            replies = await self._watchman.statuses(actors, deadline_s=1.0)
            for spec in actors:
                reply = replies[spec.name]
                if reply is not None and reply.healthy and spec.name not in told:
                    told.add(spec.name)
                    done, of = len(told), len(actors)
                    self._tell("actor", name=spec.name, addresses=list(reply.addresses), done=done, of=of)
            if self._process is not None and self._process.returncode is not None:
                raise BringUpFailed("Ray ended while joining", self._site.logs / "ray.log")
            if self._stopping.is_set() or asyncio.get_running_loop().time() > end:
                missing = ", ".join(spec.name for spec in actors if spec.name not in told)
                raise BringUpFailed(f"not ready: {missing}", self._site.logs / "keeper.log")
            await asyncio.sleep(0.1)

    async def keep(self) -> None:
        """Sees that Ray runs here until told to stop; anew when it ended, or when the head's Ray began anew."""
        renewing = asyncio.create_task(renew_always(lambda: self._site))
        while not self._stopping.is_set():
            # a disk that has failed takes no notes; whoever keeps data on it says so
            with contextlib.suppress(HeadAway, OSError):
                await self._look()
            replies = await self._watchman.statuses(bringup.actors_here(self._site))
            with contextlib.suppress(OSError):
                bringup.note_state(self._site, "ready" if all(replies.values()) else "recovering")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._stopping.wait()
        renewing.cancel()
        await self._watchman.close()
        await self._head.close()

    async def _look(self) -> None:
        known = await self._head.meet(self._site.here)
        ended = self._process is None or self._process.returncode is not None
        if known.incarnation and (known.incarnation != self._incarnation or ended):
            bringup.note_state(self._site, "recovering")
            await self._start_ray(known)
        self._take_over(known)


async def why_not_leave(site: Site) -> str:
    """Returns why the store cannot do without this machine, empty when it can; raises HeadAway when nobody says."""
    head = HeadClient(site)
    try:
        rows = await head.members()
    finally:
        await head.close()
    states = [
        MemberState(
            member=StoreMember(id=row.member.id, host=row.member.host, slot=row.member.slot),
            address=row.address,
            learner=row.learner,
            answers=row.answers,
        )
        for row in rows
    ]
    return placement.why_not_leave(states, site.here.name)


async def api_answers(site: Site) -> bool:
    """Whether there is an API server, which uses the store, though the head's keeper may be away."""
    client = over_tls(site, "component")
    try:
        async with asyncio.timeout(_API_S_MAX):
            await client.request("GET", "/version")
    except (ApiError, TimeoutError):
        return False
    finally:
        await client.close()
    return True


async def leave(site: Site) -> str:
    """Has the head forget this machine, whose store members leave first; returns why not, empty when it has."""
    head = HeadClient(site)
    try:
        await head.leave(site.here)
    except HeadAway as error:
        return str(error)
    finally:
        await head.close()
    return ""


async def give_up(site: Site) -> None:
    """Takes back a join that failed; a machine that holds a member of the store stays known, and may try again."""
    _, group, _ = roster.read(site.data_dir)
    if group is None or all(member.host != site.here.name for member in group.members):
        await leave(site)
        await withdraw(site)


async def withdraw(site: Site) -> None:
    """Removes this machine's Node, whose agent runs no more; without an answer the cluster finds out by itself."""
    client = over_tls(site, "component")
    try:
        async with asyncio.timeout(_API_S_MAX):
            await client.delete(NODES, site.here.name, None)
    except (ApiError, TimeoutError):
        return
    finally:
        await client.close()


async def release(site: Site) -> None:
    """Deletes the pods of a machine that has withdrawn, whose containers are gone, so that others replace them at once.

    Without an answer the collector of pods does it, 40 s after the Node has gone.
    """
    client = over_tls(site, "component")
    try:
        async with asyncio.timeout(_API_S_MAX):
            pods = await client.list(PODS, field_selector=f"spec.nodeName={site.here.name}")
            for pod in pods.items:
                meta = pod["metadata"]
                with contextlib.suppress(NotFound, Conflict):
                    await client.delete(PODS, meta["name"], meta["namespace"], grace_s=0, uid=meta["uid"])
    except (ApiError, TimeoutError):
        return
    finally:
        await client.close()
