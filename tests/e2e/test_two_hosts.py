"""Two machines as two network namespaces: one joins the other, pods run on both and reach each other."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import missing_parts, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.ray, pytest.mark.root]

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: web, image: "localhost/web:v1", ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""


class Machine:
    """A network namespace with a data directory, and commands run in it."""

    def __init__(self, name: str, address: str, data_dir: Path, kubeconfig: Path) -> None:
        self.name, self.address, self.data_dir = name, address, data_dir
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "STEERSMAN_NAME": "two-hosts",
            "STEERSMAN_DATA_DIR": str(data_dir),
        }

    def steer(self, *words: str, stdin: str = "", check: bool = True) -> str:
        command = ["nsenter", f"--net=/run/netns/{self.name}", sys.executable, "-m", "steersman.cli.main", *words]
        run = subprocess.run(
            command, input=stdin, capture_output=True, text=True, env=self._environment, timeout=150, check=False
        )
        assert not check or run.returncode == 0, f"{' '.join(words)}: {run.stderr}{run.stdout}"
        return run.stdout

    def lines(self, *words: str) -> list[str]:
        return self.steer(*words).split()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Machine]]:
    if reason := missing_parts():
        pytest.skip(reason)
    if not shutil.which("nsenter") or not shutil.which("ip"):
        pytest.skip("needs ip and nsenter")
    directory = tmp_path_factory.mktemp("hosts")
    names = [f"st{os.getpid()}-{index}" for index in (1, 2)]
    pair = [
        Machine(name, f"198.18.8.{index}", directory / str(index), directory / "1" / "kubeconfig")
        for index, name in enumerate(names, start=1)
    ]
    try:
        for machine in pair:
            ip("netns", "add", machine.name)
        ip("link", "add", "wire0", "netns", names[0], "type", "veth", "peer", "name", "wire0", "netns", names[1])
        for machine in pair:
            ip("-n", machine.name, "addr", "add", f"{machine.address}/24", "dev", "wire0")
            ip("-n", machine.name, "link", "set", "wire0", "up")
            ip("-n", machine.name, "link", "set", "lo", "up")
            ip("-n", machine.name, "route", "add", "default", "dev", "wire0")
        yield pair[0], pair[1]
    finally:
        for machine in reversed(pair):
            with contextlib.suppress(AssertionError, subprocess.SubprocessError):
                machine.steer("down", "--delete-data")
            subprocess.run(["ip", "netns", "del", machine.name], check=False, capture_output=True)


def nodes(machine: Machine) -> list[str]:
    return machine.lines("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}")


def hosts_of_pods(machine: Machine) -> set[str]:
    return set(machine.lines("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.nodeName}"))


def agent_answers(head: Machine) -> bool:
    rows = json.loads(head.steer("status", "-o", "json", check=False))["actors"]
    return any(row["name"] == "node-other" and row["healthy"] for row in rows)


def test_a_second_machine_joins_with_the_line_that_the_head_prints(machines):
    head, other = machines
    options = ("--port", "base=32400", "--controllers", "packed")
    printed = head.steer("up", "--head", "--host", head.address, *options)
    line = head.steer("token").strip()
    assert line in printed
    steer, *words = line.split()
    assert steer == "steer"
    assert "This machine is node other at 198.18.8.2" in other.steer(*words, "--node-name", "other")
    assert "other" in nodes(head) and len(nodes(head)) == 2
    assert "node-other" in head.steer("status")


def test_a_wrong_token_or_server_is_refused_before_anything_is_told(machines):
    head, other = machines
    *words, token = head.steer("token").split()[1:]
    name, secret, key = token.split(".")
    with pytest.raises(AssertionError, match="does not let this machine join"):
        other.steer(*words, f"{name}.{'0' * len(secret)}.{key}", "--data-dir", str(other.data_dir / "no"))
    stranger = "AnxUalBwH55gfB-M_lAPRUOQUep0k4qyLHKVfZZJVyk5"
    with pytest.raises(AssertionError, match="not of the cluster that the token was made for"):
        other.steer(*words, f"{name}.{secret}.{stranger}", "--data-dir", str(other.data_dir / "no"))


def test_pods_on_both_machines_answer_each_other_through_a_service(machines):
    head, _ = machines
    head.steer("apply", "-f", "-", stdin=MANIFEST)
    head.steer("rollout", "status", "deployment/web", "--timeout=60s")
    assert len(hosts_of_pods(head)) == 2
    pods = head.lines("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}")
    for pod in pods:
        script = "for i in $(seq 30); do wget -q -O- http://web/; done"
        answers = head.steer("exec", pod, "--", "sh", "-c", script).splitlines()
        assert len(answers) == 30
        assert len(set(answers)) > 1, "one of 4 endpoints alone is chosen by chance in 1 of 10^17 tries"


def test_the_head_remembers_the_other_machine_over_a_restart(machines):
    head, _ = machines
    head.steer("down")
    head.steer("up", "--head", "--host", head.address, "--port", "base=32400", "--controllers", "packed")
    ready = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
    wait_for("its agent", lambda: agent_answers(head), 90)
    wait_for("its node", lambda: head.steer("get", "node", "other", "-o", ready) == "True", 60)


def test_a_machine_that_leaves_is_forgotten_and_keeps_nothing(machines):
    head, other = machines
    other.steer("down", "--delete-data")
    assert not other.data_dir.exists()
    assert "other" not in nodes(head)
    assert "other" not in hosts_of_pods(head), "nobody waits for the collector of pods"
    head.steer("rollout", "status", "deployment/web", "--timeout=60s")
    links = subprocess.run(["ip", "-n", other.name, "-br", "link"], capture_output=True, text=True, check=True).stdout
    assert {line.split("@")[0].split()[0] for line in links.splitlines()} == {"lo", "wire0"}
