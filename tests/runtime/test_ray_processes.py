"""How this host's Ray is ended: by its marker, and until nothing of it is held."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest

from steersman.runtime.ray_processes import MARKER, RayHost

_LISTENER = """
import socket, sys, time
held = bytearray(200_000_000)
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
async def test_the_ports_of_an_ended_actor_are_free_at_once(tmp_path: Path) -> None:
    host = RayHost(
        name="one", head=True, ip="127.0.0.1", port=1, address="127.0.0.1:1", token="t", data_dir=tmp_path,
        object_store_memory_bytes=0,
    )  # fmt: skip
    program = tmp_path / "ray" / "raylet"
    program.parent.mkdir()
    program.symlink_to(sys.executable)
    child = await asyncio.create_subprocess_exec(
        str(program), "-c", _LISTENER,
        stdout=asyncio.subprocess.PIPE, env={**os.environ, MARKER: host.marker},
    )  # fmt: skip
    assert child.stdout is not None
    port = int(await child.stdout.readline())
    assert child.pid in host.pids()
    await host.end_leftovers()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
    assert await child.wait() == -9
