"""Clusters of their own for the benchmarks: `steer up` in a temporary directory, and all of it gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steersman.actors.client import Client
from steersman.cluster.meta.resources import PODS, SERVICE_ACCOUNTS

#: away from the ports of a cluster started by hand
PORT_BASE = 27000
NAME = "bench"
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Running:
    """A cluster that is up. Args: ready_s: from the command's start to its end; api_ready_s: to the first /readyz."""

    data_dir: Path
    ready_s: float
    api_ready_s: float

    def status(self) -> dict[str, Any]:
        return dict(json.loads(_steer("status", self.data_dir, "-o", "json")))

    def client(self) -> Client:
        return Client.from_kubeconfig(str(self.data_dir / "kubeconfig"))


def _command(verb: str, data_dir: Path, *options: str) -> list[str]:
    own = ["--name", NAME, "--data-dir", str(data_dir)]
    return [sys.executable, "-c", "from steersman.cli.main import main; main()", verb, *own, *options]


def _steer(verb: str, data_dir: Path, *options: str) -> str:
    done = subprocess.run(_command(verb, data_dir, *options), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"steer {verb}: {done.stderr.strip()}")
    return done.stdout


@contextlib.contextmanager
def up(*options: str) -> Iterator[Running]:
    """A cluster from nothing; taken down with its data at the end."""
    with tempfile.TemporaryDirectory(prefix="steersman-bench-") as parent:
        data_dir = Path(parent) / "cluster"
        began = time.monotonic()
        command = _command("up", data_dir, "--port", f"base={PORT_BASE}", *options)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            api_ready_s = asyncio.run(_api_ready(data_dir, process)) - began
            _, said = process.communicate()
        try:
            if process.returncode:
                raise RuntimeError(f"steer up: {said.strip()}")
            yield Running(data_dir, time.monotonic() - began, api_ready_s)
        finally:
            _steer("down", data_dir, "--delete-data")


async def _api_ready(data_dir: Path, process: subprocess.Popen[str]) -> float:
    """When the API server first answers, or when the command ends."""
    while process.poll() is None:
        if (data_dir / "kubeconfig").exists():
            with contextlib.suppress(Exception):
                async with Client.from_kubeconfig(str(data_dir / "kubeconfig")) as client, asyncio.timeout(1):
                    if (await client.request("GET", "/readyz")).status == 200:
                        break
        await asyncio.sleep(POLL_S)
    return time.monotonic()


def pod(name: str, image: str = "localhost/web:v1") -> dict[str, Any]:
    container = {"name": "web", "image": image, "command": ["sleep", "3600"]}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


async def first_pod(client: Client) -> float:
    """Returns the seconds from asking for a pod (as soon as its service account exists) to seeing it run."""
    began = time.monotonic()
    async for _, account in client.watch(SERVICE_ACCOUNTS, "default"):
        if account["metadata"]["name"] == "default":
            break
    await client.create(PODS, pod("first"), "default")
    async for _, live in client.watch(PODS, "default"):
        if (live.get("status") or {}).get("phase") == "Running":
            break
    return time.monotonic() - began
