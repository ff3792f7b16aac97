"""Taking a machine down: its keeper, actors, Ray and containers; where it has joined, its store members leave first."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from steersman.actors import bringup, joining
from steersman.actors.bringup import BringUpFailed
from steersman.actors.parts import over_tls, proxy_of
from steersman.actors.rpc.keeper import HeadAway
from steersman.actors.site import Site
from steersman.actors.watchman import Watchman
from steersman.cluster.topology import ActorSpec
from steersman.runtime.mounts import unmount_below

#: those that others lean on stop last
_ORDER = ("scheduler", "controllers", "simulated-nodes", "node", "dns", "proxy", "apiserver", "store")


async def take_down(data_dir: Path, tell: Callable[..., None], *, delete_data: bool, force: bool) -> str:
    """Stops keeper, actors, Ray and containers, and removes mounts, namespaces, rules and, if wanted, the state.

    Args:
        delete_data: removes the state as well, also that of a cluster that was stopped before.
        force: takes a machine down that the store cannot do without.

    Returns: why a machine that has joined stays known to the cluster; empty where it does not.

    Raises:
        BringUpFailed: there is no cluster, the store cannot do without this machine, or its keeper does not end.
    """
    if delete_data and _is_stopped(data_dir):
        _delete(data_dir, tell)
        return ""
    site = bringup.read_site(data_dir)
    joined = site.here != site.hosts[0]
    stays = ""
    if joined and not force:
        stays = await _why_stay(site, delete_data=delete_data)
    tell("step", name="keeper", detail="stopping the keeper")
    await _end_keeper(site)
    if joined and not stays:
        tell("step", name="leave", detail="leaving the cluster")
        stays = await joining.leave(site)
    if not site.config.embedded:
        tell("step", name="actors", detail="stopping the actors")
        if not site.config.ray.address:  # which makes those anew that stop by themselves
            await _stop_actors(site, bringup.actors_here(site) if joined else bringup.actors_of(site))
            tell("step", name="ray", detail="stopping Ray")
        await bringup.end_processes(site)
    if joined and not stays:
        await joining.withdraw(site)
    tell("step", name="containers", detail="removing containers, networks and rules")
    await _purge_node(site)
    if joined and not stays:
        await joining.release(site)
    shutil.rmtree(site.run, ignore_errors=True)
    if delete_data:
        _delete(data_dir, tell)
    return stays


async def _why_stay(site: Site, *, delete_data: bool) -> str:
    """Returns why a machine that goes down cannot leave the cluster; empty when it can.

    While the head is down nothing uses the store, so that a member may stop as well, if it keeps its data.

    Raises:
        BringUpFailed: the store cannot do without this machine, as far as anybody knows.
    """
    try:
        why = await joining.why_not_leave(site)
    except HeadAway as error:
        holds = any(member.host == site.here.name for member in site.group.members)
        if not holds or not (delete_data or await joining.api_answers(site)):
            return str(error)
        why = f"nobody knows whether it can: {error}"
    if why:
        raise BringUpFailed(f"the store cannot do without this machine (--force takes it down all the same): {why}")
    return ""


async def _stop_actors(site: Site, actors: Sequence[ActorSpec]) -> None:
    watchman = Watchman(site)
    for role in _ORDER:
        group = [spec for spec in actors if spec.role == role]
        await asyncio.gather(*(watchman.stop(spec, 5.0) for spec in group))
    await watchman.close()


def _is_stopped(data_dir: Path) -> bool:
    """Whether a cluster was here and `down` has ended it: its data is left, and nothing that runs."""
    return (data_dir / "VERSION").exists() and not (data_dir / "run").exists()


def _delete(data_dir: Path, tell: Callable[..., None]) -> None:
    tell("step", name="data", detail=f"deleting {data_dir}")
    shutil.rmtree(data_dir, ignore_errors=True)


async def _purge_node(site: Site) -> None:
    """Removes every container, mount, namespace and rule that the node's runtime and proxy made on this machine."""
    if site.here.runtime == "none" or not site.node_dir.exists():
        return
    # a whole node agent, which nobody who brings a cluster up waits for
    from steersman.actors.thisnode import choose_runtime

    choice = choose_runtime(site, now=time.time, rng=random.Random())
    await choice.runtime.start()
    await choice.runtime.purge()
    await choice.runtime.stop()
    for uid in await choice.volumes.pods():
        await choice.volumes.teardown(uid)
    unmount_below(site.node_dir)
    if site.here.runtime in ("oci", "cri", "process"):
        proxy = proxy_of(site, over_tls(site, "proxy"), now=time.time, rng=random.Random())
        # who may not touch rules and routes has made none
        with contextlib.suppress(PermissionError):
            await proxy.purge()


async def _end_keeper(site: Site) -> None:
    held = bringup.lock(site)
    if held is not None:
        held.close()
        return
    pid = bringup.keeper_pid(site)
    for number, deadline_s in ((signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        end = asyncio.get_running_loop().time() + deadline_s
        while asyncio.get_running_loop().time() < end:
            if not _is_alive(pid):
                return
            await asyncio.sleep(0.02)
    raise BringUpFailed(f"the keeper (pid {pid}) does not end")


def _is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but has not been waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
