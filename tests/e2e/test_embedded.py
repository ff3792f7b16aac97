"""`steer up --embedded` as real processes on loopback: no Ray, no root, no containers but plain processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import newest_kubectl, wait_for

pytestmark = pytest.mark.e2e

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: example.org/web}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: green}
"""


class Embedded:
    """A data directory, a range of ports, and the commands over them."""

    def __init__(self, data_dir: Path, base_port: int) -> None:
        self.data_dir, self.base_port = data_dir, base_port
        self.environment = {
            **os.environ,
            "KUBECONFIG": str(data_dir / "kubeconfig"),
            "STEERSMAN_NAME": f"embedded-{base_port}",
            "STEERSMAN_DATA_DIR": str(data_dir),
        }

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "steersman.cli.main", *words]
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, env=self.environment, timeout=180, check=False
        )

    def up(self, *words: str) -> subprocess.CompletedProcess[str]:
        chosen = words or ("--runtime", "none", "--simulated-nodes", "2")
        return self.run("up", "--embedded", "--port", f"base={self.base_port}", *chosen)

    def steer(self, *words: str, stdin: str = "") -> str:
        run = self.run(*words, stdin=stdin)
        assert run.returncode == 0, run.stderr + run.stdout
        return run.stdout

    def get(self, *words: str) -> Any:
        return json.loads(self.steer("get", *words, "-o", "json"))

    def ready_replicas(self) -> int:
        return int(self.get("deployment", "web").get("status", {}).get("readyReplicas", 0))

    def keeper(self) -> int:
        return int((self.data_dir / "run" / "keeper.pid").read_text())


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Embedded]:
    place = Embedded(tmp_path / "data", 31000)
    yield place
    place.run("down", "--delete-data")


def test_a_cluster_comes_up_serves_and_leaves_nothing(place):
    begun = time.monotonic()
    up = place.up()
    took_s = time.monotonic() - begun
    assert up.returncode == 0, up.stderr
    assert "is ready after" in up.stdout
    assert took_s < 15, "it takes under 2 s on an idle machine"
    place.steer("apply", "-f", "-", stdin=MANIFEST)
    wait_for("three ready pods", lambda: place.ready_replicas() == 3)

    status = json.loads(place.steer("status", "-o", "json"))
    assert [row["name"] for row in status["actors"]] == ["embedded"]
    assert status["healthy"] and status["actors"][0]["pid"] == place.keeper()
    assert status["endpoints"]["api"] == ["https://127.0.0.1:31003"]

    pid = place.keeper()
    place.steer("down")
    assert not is_running(pid)
    assert not any(listens(port) for port in (31003, 31004, 31020, 31100))
    assert (place.data_dir / "store").exists()
    place.steer("down", "--delete-data")
    assert not place.data_dir.exists()
    again = place.run("down", "--delete-data")
    assert again.returncode != 0 and "no cluster in" in again.stderr


def test_kubectl_works_on_it(place):
    kubectl = newest_kubectl()
    if kubectl is None:
        pytest.skip("needs kubectl")
    assert place.up().returncode == 0

    def run(*words: str, stdin: str = "") -> str:
        command = [kubectl, *words]
        return subprocess.run(
            command, input=stdin, env=place.environment, capture_output=True, text=True, timeout=60, check=True
        ).stdout

    assert "configmap/settings created" in run("apply", "-f", "-", stdin=MANIFEST)
    run("rollout", "status", "deployment/web", "--timeout=30s")
    assert run("get", "pods", "-l", "app=web", "--no-headers").count("Running") == 3
    assert run("logs", "deployment/web", "--tail=1") is not None


def test_everything_is_there_again_after_the_process_was_killed(place):
    assert place.up().returncode == 0
    place.steer("apply", "-f", "-", stdin=MANIFEST)
    wait_for("three ready pods", lambda: place.ready_replicas() == 3)
    uids = {row["metadata"]["uid"] for row in place.get("pods")["items"]}
    version = place.get("configmap", "settings")["metadata"]["resourceVersion"]
    pid = place.keeper()
    os.kill(pid, signal.SIGKILL)
    wait_for("the end of the process", lambda: not is_running(pid))
    assert place.run("status").returncode == 1

    assert place.up().returncode == 0
    assert place.get("configmap", "settings")["metadata"]["resourceVersion"] == version
    assert place.get("deployment", "web")["spec"]["replicas"] == 3
    wait_for("three ready pods", lambda: place.ready_replicas() == 3)
    assert {row["metadata"]["uid"] for row in place.get("pods")["items"]} & uids
    place.steer("delete", "deployment", "web")
    wait_for("no pods", lambda: not place.get("pods")["items"])


def test_a_second_up_says_that_it_runs(place):
    assert place.up().returncode == 0
    pid = place.keeper()
    again = place.up()
    assert again.returncode == 0
    assert f"runs already (keeper pid {pid}, ready)" in again.stdout
    assert place.keeper() == pid and is_running(pid)


def test_a_taken_port_is_one_clear_line(place):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 31003))
        other.listen()
        run = place.up()
    assert run.returncode == 1
    assert [line for line in run.stderr.splitlines() if line.startswith("error:")] == [
        "error: port 31003 (api) on 127.0.0.1 cannot be used: Address already in use;"
        " choose another with `--port api=NUMBER`"
    ]
    assert "Traceback" not in run.stderr


def test_a_data_directory_of_a_newer_version_is_one_clear_line(place):
    place.data_dir.mkdir()
    (place.data_dir / "VERSION").write_text("99\n")
    run = place.up()
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert line.startswith(f"error: {place.data_dir} was written by a newer Steersman (layout 99;")


def test_plain_processes_run_as_pods(place):
    up = place.up("--runtime", "process")
    assert up.returncode == 0, up.stderr
    place.steer("run", "hello", "--image=localhost/web:v1", "--restart=Never", "--", "echo", "hello")
    wait_for("a finished pod", lambda: place.get("pod", "hello").get("status", {}).get("phase") == "Succeeded")
    assert place.steer("logs", "hello") == "hello\n"
    status = json.loads(place.steer("status", "-o", "json"))
    assert any("userspace proxy" in sentence for sentence in status["actors"][0]["reduced"])
