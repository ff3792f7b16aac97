"""What is killed comes back, nothing acknowledged is lost, and nobody else notices: actors on Ray under a writer."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steersman.actors.client import Client
from steersman.cluster.meta.errors import AlreadyExists, ApiError
from steersman.cluster.meta.resources import CONFIG_MAPS
from tests.e2e.conftest import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.ray]


class Cluster:
    """A cluster on Ray without containers."""

    def __init__(self, data_dir: Path, base_port: int) -> None:
        self.base_port = base_port
        self.kubeconfig = str(data_dir / "kubeconfig")
        self._environment = {
            **os.environ,
            "STEERSMAN_NAME": f"survival-{base_port}",
            "STEERSMAN_DATA_DIR": str(data_dir),
        }

    def steer(self, *words: str, check: bool = True) -> str:
        run = subprocess.run(
            [sys.executable, "-m", "steersman.cli.main", *words],
            capture_output=True,
            text=True,
            env=self._environment,
            timeout=150,
            check=False,
        )
        assert not check or run.returncode == 0, run.stderr + run.stdout
        return run.stdout

    def up(self, *words: str) -> None:
        port = f"base={self.base_port}"
        self.steer(
            "up", "--runtime", "none", "--simulated-nodes", "1", "--controllers", "packed", "--port", port, *words
        )

    def actors(self) -> dict[str, Any]:
        return {row["name"]: row for row in json.loads(self.steer("status", "-o", "json", check=False))["actors"]}

    def kill(self, actor: str) -> dict[str, Any]:
        """Kills an actor's process, waits until it is back, and returns all actors as they were before."""
        before = self.actors()
        os.kill(before[actor]["pid"], signal.SIGKILL)

        def is_back() -> bool:
            row = self.actors()[actor]
            return bool(row["healthy"]) and row["pid"] != before[actor]["pid"]

        wait_for(f"{actor} again", is_back, 60)
        return before


class Writer:
    """Creates one ConfigMap after the other in a thread of its own, and notes those that were acknowledged."""

    def __init__(self, kubeconfig: str, prefix: str) -> None:
        self.acknowledged: list[str] = []
        self.gap_s_max = 0.0
        self._kubeconfig, self._prefix = kubeconfig, prefix
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        client = Client.from_kubeconfig(self._kubeconfig)
        last, number = time.monotonic(), 0
        while not self._stop.is_set():
            name = f"{self._prefix}-{number}"
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"n": str(number)}}
            try:
                await client.create(CONFIG_MAPS, body, "default")
            except AlreadyExists:
                pass  # the first try was carried out, but its answer was lost
            except ApiError:
                await asyncio.sleep(0.02)
                continue
            self.acknowledged.append(name)
            self.gap_s_max = max(self.gap_s_max, time.monotonic() - last)
            last, number = time.monotonic(), number + 1
        await client.close()

    def __enter__(self) -> Writer:
        self._thread.start()
        self.wait_for_more()
        return self

    def wait_for_more(self) -> None:
        """Returns when the writer has got on."""
        count = len(self.acknowledged)
        wait_for("writes", lambda: len(self.acknowledged) > count + 20)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def names(cluster: Cluster) -> set[str]:
    async def ask() -> set[str]:
        client = Client.from_kubeconfig(cluster.kubeconfig)
        try:
            return {row["metadata"]["name"] for row in (await client.list(CONFIG_MAPS, "default")).items}
        finally:
            await client.close()

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("single"), 31200)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.steer("down", "--delete-data", check=False)


@pytest.mark.parametrize("actor", ["apiserver-0", "store-0", "scheduler"])
def test_a_killed_actor_comes_back_alone_and_no_acknowledged_write_is_lost(single, actor):
    with Writer(single.kubeconfig, actor) as writer:
        before = single.kill(actor)
        writer.wait_for_more()
    assert set(writer.acknowledged) <= names(single)
    after = single.actors()
    assert after[actor]["restarts"] == before[actor]["restarts"] + 1
    for name in set(before) - {actor}:
        assert (after[name]["pid"], after[name]["restarts"]) == (before[name]["pid"], before[name]["restarts"])


def test_writes_go_on_when_the_leader_of_three_is_killed(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("three"), 31500)
    try:
        cluster.up("--replicas", "3")
        (leader,) = [name for name, row in cluster.actors().items() if row["detail"] == "leads"]
        with Writer(cluster.kubeconfig, "three") as writer:
            cluster.kill(leader)
            writer.wait_for_more()
        assert writer.gap_s_max < 10, "an election takes about a second on an idle machine"
        assert set(writer.acknowledged) <= names(cluster)
        members = [row for name, row in cluster.actors().items() if name.startswith("store-")]
        assert sorted(row["detail"].split()[0] for row in members) == ["follows", "follows", "leads"]
    finally:
        cluster.steer("down", "--delete-data", check=False)
