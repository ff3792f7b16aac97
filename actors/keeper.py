"""The keeper: one small process per machine that runs Ray there, and on the head sees that every actor lives.

It imports no Ray, so that it works while Ray is broken. `up` reports its progress as lines of JSON on stdout until
the cluster is ready, then stays; `down` ends what `up` made. Everything it knows is in the data directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steersman.actors import bringup, invitation, joining, launching, takedown
from steersman.actors.bringup import BringUpFailed
from steersman.actors.client import Client
from steersman.actors.head import Head
from steersman.actors.parts import over_tls
from steersman.actors.renewing import renew_always
from steersman.actors.rpc.keeper import serve_keeper
from steersman.actors.site import Site, encode
from steersman.actors.watchman import Watchman
from steersman.cluster.config import ClusterConfig
from steersman.cluster.meta.errors import ApiError
from steersman.cluster.topology import ActorSpec

_LAUNCH_S_MAX = 60.0
_READY_S_MAX = 90.0
_LOOK_S = 2.0
#: an actor that has not answered so often in a row hangs or is gone
_MISSES_MAX = 5


class Progress:
    """Tells whoever started the keeper what happens, until told to stop; a reader that is gone does not matter."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def tell(self, event: str, **fields: Any) -> None:
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, (json.dumps({"event": event, **fields}) + "\n").encode())
        except BrokenPipeError:
            self._descriptor = None

    def finish(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Keeper:
    """Keeps the head of a cluster on Ray."""

    def __init__(self, site: Site, progress: Progress) -> None:
        self._site = site
        self._progress = progress
        self._ray = bringup.ray_host(site)
        self._head = Head(site)
        self._actors = bringup.actors_of(site)
        self._watchman = Watchman(site)
        self._client: Client | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Brings the cluster up, says so, and keeps it until SIGTERM.

        Raises:
            BringUpFailed: the cluster did not become ready; the message says which component and why.
        """
        self._stopping = _on_signals()
        server = await serve_keeper(self._head)
        await self._start_ray()
        await self._launch(())
        await self._wait_until_ready()
        if self._site.config.head:
            self._client = over_tls(self._site, "component")
            await self._invite()
        bringup.note_state(self._site, "ready")
        join = invitation.command(self._site) if self._site.config.head else ""
        self._progress.tell("ready", api=bringup.endpoints(self._site)["api"][0], join=join)
        self._progress.finish()
        await self._keep_until_told()
        await server.stop(0.2)
        await self._head.close()
        await self._watchman.close()
        if self._client is not None:
            await self._client.close()

    async def _invite(self) -> None:
        """Lets others join.

        Raises:
            BringUpFailed: the API server refused it.
        """
        assert self._client is not None
        try:
            await invitation.publish(self._client, self._site)
        except ApiError as error:
            raise BringUpFailed(f"other machines cannot join: {error}", self._site.logs / "apiserver-0.log") from error

    async def _follow_head(self) -> None:
        """Has actors made where machines have joined or members are to be, and gives up those that have no place."""
        if not self._head.changed.is_set():
            return
        self._head.changed.clear()
        before = {spec.name: spec for spec in self._actors}
        self._site = self._head.site
        actors = bringup.actors_of(self._site)
        now = {spec.name: spec for spec in actors}
        gone = [name for name, spec in before.items() if now.get(name) != spec]
        placed = [name for name, spec in now.items() if before.get(name) != spec]
        await self._watchman.close()
        self._watchman = Watchman(self._site)
        try:
            if gone:
                self._actors = tuple(spec for spec in actors if spec.name not in gone)
                await self._launch(gone)
            self._actors = actors
            if placed:
                await self._launch(())
        except BringUpFailed:
            self._actors = tuple(before.values())
            self._head.changed.set()

    def _here(self) -> list[ActorSpec]:
        """The actors of the head itself."""
        return [spec for spec in self._actors if spec.host == self._site.here.name]

    def _present(self) -> list[ActorSpec]:
        """The actors of machines that are there."""
        hosts = self._head.present()
        return [spec for spec in self._actors if spec.host in hosts]

    async def _start_ray(self) -> None:
        if self._ray.foreign:
            self._progress.tell("step", name="ray", detail=f"asking Ray at {self._ray.address} for actors")
            return
        self._progress.tell("step", name="ray", detail="starting Ray")
        self._process = await self._ray.start(self._site.logs / "ray.log")
        self._head.incarnation = f"{time.time():.3f}"

    async def _launch(self, replace: Sequence[str]) -> None:
        """Has every missing actor made; Ray may still be starting, so a first failure is tried again.

        Raises:
            BringUpFailed: Ray has ended, or does not make them.
        """
        end = asyncio.get_running_loop().time() + _LAUNCH_S_MAX
        while why := await launching.launch(self._ray, self._site, self._actors, replace):
            if self._process is not None and self._process.returncode is not None:
                raise BringUpFailed("Ray ended while starting", self._site.logs / "ray.log")
            if self._ray.foreign or asyncio.get_running_loop().time() > end:
                raise BringUpFailed(f"the actors could not be made: {why}", self._site.logs / "launch.log")
            await asyncio.sleep(0.2)

    async def _wait_until_ready(self) -> None:
        """Waits for the head's own actors; the store among them waits for as many members as it needs."""
        end = asyncio.get_running_loop().time() + _READY_S_MAX
        told: set[str] = set()
        while True:
            await self._follow_head()
            actors = self._here()
            waiting = [spec for spec in actors if spec.name not in told]
            statuses = await self._watchman.statuses(waiting, deadline_s=1.0)
            for spec in waiting:
                reply = statuses[spec.name]
                if reply is not None and reply.healthy:
                    told.add(spec.name)
                    self._progress.tell(
                        "actor", name=spec.name, addresses=list(reply.addresses), done=len(told), of=len(actors)
                    )
            if told >= {spec.name for spec in actors}:
                return
            if asyncio.get_running_loop().time() > end:
                self._fail(waiting, statuses)
            if self._stopping.is_set():
                raise BringUpFailed("told to stop", self._site.logs / "keeper.log")
            await asyncio.sleep(0.1)

    def _fail(self, waiting: list[ActorSpec], statuses: Any) -> None:
        for spec in waiting:
            reply = statuses[spec.name]
            if reply is None or not reply.healthy:
                why = reply.detail if reply is not None else bringup.last_failure(self._site, spec.name)
                raise BringUpFailed(f"{spec.name} did not become ready: {why}", self._site.logs / f"{spec.name}.log")

    async def _keep_until_told(self) -> None:
        """Keeps the cluster until told to stop, which breaks off whatever is under way: Ray can take long to answer."""
        keeping, told = asyncio.create_task(self._keep()), asyncio.create_task(self._stopping.wait())
        renewing = asyncio.create_task(renew_always(lambda: self._site))
        await asyncio.wait((keeping, told), return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        renewing.cancel()
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping

    async def _keep(self) -> None:
        """Looks after Ray and the actors; Ray gone means Ray started anew, with all its actors."""
        misses: dict[str, int] = {}
        while True:
            if self._process is not None and self._process.returncode is not None:
                bringup.note_state(self._site, "recovering")
                with contextlib.suppress(BringUpFailed):
                    await self._start_ray()
                    await self._launch(())
                    await self._wait_until_ready()
                misses = {}
            await self._head.step()
            await self._follow_head()
            actors = self._present()
            statuses = await self._watchman.statuses(actors)
            misses = {spec.name: 0 if statuses[spec.name] else misses.get(spec.name, 0) + 1 for spec in actors}
            lost = [name for name, count in misses.items() if count >= _MISSES_MAX]
            if lost:
                with contextlib.suppress(BringUpFailed):
                    await self._launch(lost)
                misses = {}
            bringup.note_state(self._site, "ready" if not any(misses.values()) else "recovering")
            await self._pause()

    async def _pause(self) -> None:
        """Until the next look: soon when something has changed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await self._head.changed.wait()


async def _up(config: ClusterConfig) -> int:
    progress = Progress(os.dup(1))
    try:
        site = bringup.prepare(config)
    except BringUpFailed as failure:
        progress.tell("failed", reason=str(failure), log=str(failure.log or ""))
        return 1
    lock = bringup.lock(site)
    if lock is None:
        progress.tell("running", pid=bringup.keeper_pid(site), state=bringup.state(site))
        return 0
    _redirect_output(site.logs / "keeper.log")
    try:
        bringup.note_state(site, "starting")
        progress.tell("step", name="prepare", detail="certificates and ports")
        await bringup.claim(site)
        await _keeper_of(site, progress)
    except BringUpFailed as failure:
        bringup.note_state(site, "failed")
        progress.tell("failed", reason=str(failure), log=str(failure.log or ""))
        if not site.config.embedded:
            await bringup.end_processes(site)
        return 1
    finally:
        lock.close()
    return 0


async def _keeper_of(site: Site, progress: Progress) -> None:
    if site.config.embedded:
        await _keep_embedded(site, progress)
    else:
        await Keeper(site, progress).run()


async def _keep_embedded(site: Site, progress: Progress) -> None:
    """Runs the whole cluster in this process until SIGTERM.

    Raises:
        BringUpFailed: it did not become ready.
    """
    progress.tell("step", name="embedded", detail="starting every component in one process")
    from steersman.actors.shell import Shell

    (spec,) = bringup.actors_of(site)
    shell, log = Shell(encode(spec, site)), site.logs / f"{spec.name}.log"
    stopping = _on_signals()
    starting = asyncio.create_task(shell.start())
    told = asyncio.create_task(stopping.wait())
    await asyncio.wait((starting, told), timeout=_READY_S_MAX, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait((starting,))
        why = "told to stop" if stopping.is_set() else f"not ready after {_READY_S_MAX:.0f} s"
        raise BringUpFailed(f"the cluster did not start: {why}", log)
    if (error := starting.exception()) is not None:
        traceback.print_exception(error)
        await shell.close()
        raise BringUpFailed(f"the cluster did not start: {error}", site.logs / "keeper.log")
    reply = shell.status()
    progress.tell("actor", name=spec.name, addresses=list(reply.addresses), done=1, of=1)
    bringup.note_state(site, "ready")
    progress.tell("ready", api=bringup.endpoints(site)["api"][0], join="")
    progress.finish()
    renewing = asyncio.create_task(renew_always(lambda: site))
    await told
    renewing.cancel()
    await shell.close()


async def _join(options: joining.JoinOptions) -> int:
    progress = Progress(os.dup(1))
    try:
        progress.tell("step", name="prepare", detail=f"asking {options.server}")
        site = await joining.prepare(options)
    except BringUpFailed as failure:
        progress.tell("failed", reason=str(failure), log=str(failure.log or ""))
        return 1
    lock = bringup.lock(site)
    if lock is None:
        progress.tell("running", pid=bringup.keeper_pid(site), state=bringup.state(site))
        return 0
    _redirect_output(site.logs / "keeper.log")
    try:
        bringup.note_state(site, "starting")
        await bringup.claim(site)
        keeper = joining.JoinedKeeper(site, progress.tell, _on_signals())
        await keeper.bring_up()
        bringup.note_state(site, "ready")
        progress.tell("ready", name=site.here.name, address=site.here.address, data_dir=str(site.data_dir))
        progress.finish()
        await keeper.keep()
    except BringUpFailed as failure:
        bringup.note_state(site, "failed")
        progress.tell("failed", reason=str(failure), log=str(failure.log or ""))
        await bringup.end_processes(site)
        await joining.give_up(site)
        return 1
    finally:
        lock.close()
    return 0


def _on_signals() -> asyncio.Event:
    """Set by SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    return stopping


def _redirect_output(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


async def _down(data_dir: Path, *, delete_data: bool, force: bool) -> int:
    progress = Progress(os.dup(1))
    try:
        stays = await takedown.take_down(data_dir, progress.tell, delete_data=delete_data, force=force)
    except BringUpFailed as failure:
        progress.tell("failed", reason=str(failure), log=str(failure.log or ""))
        return 1
    progress.tell("done", stays=stays)
    return 0


def main() -> None:
    """`up` and `join` read what they need as JSON on stdin; `down DATA_DIR [--delete-data] [--force]`."""
    command, *rest = sys.argv[1:]
    # secrets get modes of their own; the rest is for containers of every user, however strict the caller's mask is
    os.umask(0o022)
    if command == "join":
        sys.exit(asyncio.run(_join(joining.JoinOptions(**json.load(sys.stdin)))))
    if command == "up":
        config = ClusterConfig.model_validate_json(sys.stdin.read())
        sys.exit(asyncio.run(_up(config)))
    sys.exit(asyncio.run(_down(Path(rest[0]), delete_data="--delete-data" in rest, force="--force" in rest)))


if __name__ == "__main__":
    main()
