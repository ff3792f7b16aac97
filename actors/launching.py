"""Has Ray make actors and end them, through `launch.py` in a process of its own: who speaks to Ray may hang with it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable

from steersman.actors.site import Site, encode
from steersman.cluster.topology import ActorSpec
from steersman.runtime.ray_processes import RayHost, ray_ip

_LAUNCH_S_MAX = 60.0


async def launch(ray: RayHost, site: Site, actors: Iterable[ActorSpec], replace: Iterable[str] = ()) -> str:
    """Has every missing actor made, and those named in `replace` ended before; returns why it failed, or nothing."""
    plan = {
        "address": ray.address,
        "namespace": f"steersman-{site.config.name}",
        "foreign": ray.foreign,
        "replace": list(replace),
        "actors": {
            spec.name: {"payload": encode(spec, site), "ip": ray_ip(site.host(spec.host).address)} for spec in actors
        },
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "steersman.actors.launch",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=ray.environment(),
        cwd=str(site.data_dir),
    )
    try:
        async with asyncio.timeout(_LAUNCH_S_MAX):
            _, said = await process.communicate(json.dumps(plan).encode())
    except TimeoutError:
        return f"Ray did not answer within {_LAUNCH_S_MAX:.0f} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    with (site.logs / "launch.log").open("ab") as log:
        log.write(said)
    lines = said.decode(errors="replace").strip().splitlines()
    return (lines[-1] if lines else f"exit code {process.returncode}") if process.returncode else ""


async def answers(address: str) -> bool:
    """Whether anybody listens at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(5):
            _, writer = await asyncio.open_connection(host, int(port))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
