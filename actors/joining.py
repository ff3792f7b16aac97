"""The keeper of a machine that has joined: runs Ray's worker there and has the head launch the machine's actors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from steersman.actors import bringup, invitation
from steersman.actors.bringup import BringUpFailed
from steersman.actors.invitation import InvalidInvitation, Invitation, Token
from steersman.actors.parts import over_tls
from steersman.actors.site import Site
from steersman.actors.watchman import Watchman
from steersman.cluster.meta.errors import ApiError

_READY_S_MAX = 90.0
_LOOK_S = 2.0
_ANNOUNCE_S_MAX = 20.0
#: of the API server, when a withdrawal is not answered: the head may be gone for good
_WITHDRAW_S_MAX = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinOptions:
    """What `steer join` was told of this machine; empty strings choose by themselves."""

    server: str
    token: str
    data_dir: str = ""
    address: str = ""
    node_name: str = ""
    runtime: str = "auto"


async def prepare(options: JoinOptions) -> tuple[Site, Invitation]:
    """Fetches the cluster's configuration and secrets, and prepares the data directory.

    Raises:
        BringUpFailed: the token, the server or this machine will not do.
    """
    try:
        invited = await invitation.accept(options.server, Token.parse(options.token))
    except InvalidInvitation as error:
        raise BringUpFailed(str(error)) from error
    node = invited.config.node.model_copy(update={"name": options.node_name, "runtime": options.runtime})
    update = {"data_dir": options.data_dir, "node": node, "host": options.address or "127.0.0.1"}
    site = bringup.prepare_joining(invited.config.model_copy(update=update), invited.head, invited.head.address)
    invitation.save(invited, site)
    return site, invited


class JoinedKeeper:
    """Keeps one machine that is not the head."""

    def __init__(self, site: Site, invited: Invitation, tell: Callable[..., None], stopping: asyncio.Event) -> None:
        self._site, self._incarnation, self._tell = site, invited.incarnation, tell
        self._stopping = stopping
        self._ray = bringup.ray_host(site)
        self._actors = bringup.actors_here(site)
        self._watchman = Watchman(site)
        self._client = over_tls(site, "component")
        self._process: asyncio.subprocess.Process | None = None

    async def bring_up(self) -> None:
        """Returns when this machine's actors are healthy.

        Raises:
            BringUpFailed: they did not become so, or the head did not answer.
        """
        self._tell("step", name="ray", detail="joining Ray")
        self._process = await self._ray.start(self._site.logs / "ray.log")
        try:
            async with asyncio.timeout(_ANNOUNCE_S_MAX):
                await invitation.announce(self._client, self._site.here)
        except (ApiError, TimeoutError) as error:
            raise BringUpFailed(f"the head does not take this machine: {error}") from error
        await self._wait_until_ready()

    async def _wait_until_ready(self) -> None:
        end = asyncio.get_running_loop().time() + _READY_S_MAX
        told: set[str] = set()
        while len(told) < len(self._actors):
            replies = await self._watchman.statuses(self._actors, deadline_s=1.0)
            for spec in self._actors:
                reply = replies[spec.name]
                if reply is not None and reply.healthy and spec.name not in told:
                    told.add(spec.name)
                    done, of = len(told), len(self._actors)
                    self._tell("actor", name=spec.name, addresses=list(reply.addresses), done=done, of=of)
            if self._process is not None and self._process.returncode is not None:
                raise BringUpFailed("Ray ended while joining", self._site.logs / "ray.log")
            if self._stopping.is_set() or asyncio.get_running_loop().time() > end:
                missing = ", ".join(spec.name for spec in self._actors if spec.name not in told)
                raise BringUpFailed(f"not ready: {missing}", self._site.logs / "keeper.log")
            await asyncio.sleep(0.1)

    async def keep(self) -> None:
        """Sees that Ray runs here until told to stop; anew when it ended, or when the head's Ray began anew."""
        while not self._stopping.is_set():
            with contextlib.suppress(ApiError):
                invited = await invitation.read(self._client)
                ended = self._process is None or self._process.returncode is not None
                if invited.incarnation != self._incarnation or ended:
                    bringup.note_state(self._site, "recovering")
                    invitation.save(invited, self._site)
                    self._ray = bringup.ray_host(self._site)
                    self._process = await self._ray.start(self._site.logs / "ray.log")
                    self._incarnation = invited.incarnation
                    await invitation.announce(self._client, self._site.here)
            replies = await self._watchman.statuses(self._actors)
            bringup.note_state(self._site, "ready" if all(replies.values()) else "recovering")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._stopping.wait()
        await self._watchman.close()
        await self._client.close()


async def leave(site: Site) -> None:
    """Has the cluster forget this machine, whose agent runs no more; without an answer it has to find out by itself."""
    client = over_tls(site, "component")
    try:
        async with asyncio.timeout(_WITHDRAW_S_MAX):
            await invitation.withdraw(client, site.here)
    except (ApiError, TimeoutError):
        return
    finally:
        await client.close()
