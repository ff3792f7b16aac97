"""A cluster on a Ray that somebody else started: its actors come and go, and Ray stays as it was."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import LiveCluster, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.ray]

PORT = 31990
WORDS = ("up", "--runtime", "none", "--simulated-nodes", "1", "--controllers", "packed", "--port", "base=31900")
START = "import sys; from ray.scripts.scripts import main; sys.exit(main())"


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def ray(tmp_path: Path) -> Iterator[str]:
    """The address of a Ray with settings of its own."""
    folder = f"/tmp/foreign-{os.getpid()}"
    command = [
        sys.executable, "-c", START, "start", "--head", "--block", f"--port={PORT}", "--node-ip-address=127.0.0.1",
        "--include-dashboard=false", f"--temp-dir={folder}", "--ray-client-server-port=31991",
    ]  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    with (
        (tmp_path / "ray.log").open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True) as process,
    ):
        try:
            wait_for("Ray", lambda: "Ray runtime started" in (tmp_path / "ray.log").read_text(), 60)
            yield f"127.0.0.1:{PORT}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    wait_for("the end of Ray", lambda: not listens(PORT), 10)
    shutil.rmtree(folder, ignore_errors=True)


def test_a_cluster_lives_in_a_ray_of_somebody_else_and_leaves_it_as_it_was(tmp_path: Path, ray: str) -> None:
    cluster = LiveCluster(tmp_path, 31900)
    try:
        cluster.steer(*WORDS, "--ray-address", ray)
        assert "ok" in cluster.steer("status")
        wait_for("its node", lambda: "Ready" in cluster.steer("get", "nodes", check=False), 30)
    finally:
        cluster.steer("down", "--delete-data", check=False)
    assert listens(PORT) and not listens(31903)


def test_an_address_without_ray_is_told_at_once(tmp_path: Path) -> None:
    said = LiveCluster(tmp_path, 31900).steer(*WORDS, "--ray-address", "127.0.0.1:9", check=False, deadline_s=30)
    assert "no Ray answers at 127.0.0.1:9" in said
