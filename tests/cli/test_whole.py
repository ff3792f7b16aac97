"""The command line on a whole cluster: controllers, scheduler and simulated nodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from steersman import testing
from steersman.cli.main import cli

WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: web, image: "web:1", ports: [{containerPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[..., Result]]:
    with testing.cluster(nodes=2) as cluster:
        runner = CliRunner()

        def invoke(*words: str, stdin: str = "") -> Result:
            return runner.invoke(cli, ["--kubeconfig", str(cluster.kubeconfig), *words], input=stdin)

        yield invoke


@pytest.fixture
def steer(run: Callable[..., Result]) -> Callable[..., str]:
    def invoke(*words: str, **more: Any) -> str:
        done = run(*words, **more)
        assert done.exit_code == 0, f"steer {' '.join(words)}: {done.output} {done.exception!r}"
        return done.stdout

    return invoke


def test_the_life_of_a_deployment(steer: Callable[..., str], run: Callable[..., Result]) -> None:
    steer("create", "namespace", "shop")
    assert "deployment.apps/web created" in steer("apply", "-n", "shop", "-f", "-", stdin=WEB)
    assert "successfully rolled out" in steer("rollout", "status", "deploy/web", "-n", "shop", "--timeout=60s")
    pods = steer("get", "pods", "-n", "shop", "--no-headers").splitlines()
    assert len(pods) == 3 and all(row.split()[1:3] == ["1/1", "Running"] for row in pods)
    assert steer("apply", "-n", "shop", "-f", "-", stdin=WEB).splitlines() == [
        "deployment.apps/web unchanged",
        "service/web unchanged",
    ]
    steer("set", "image", "deploy/web", "web=web:2", "-n", "shop")
    steer("rollout", "status", "deploy/web", "-n", "shop", "--timeout=60s")
    images = steer("get", "pods", "-n", "shop", "-o", "jsonpath={.items[*].spec.containers[0].image}").split()
    assert set(images) == {"web:2"}
    history = steer("rollout", "history", "deploy/web", "-n", "shop")
    assert [line.split()[0] for line in history.splitlines()[2:4]] == ["1", "2"]
    steer("rollout", "undo", "deploy/web", "-n", "shop")
    steer("rollout", "status", "deploy/web", "-n", "shop", "--timeout=60s")
    assert steer("get", "deploy", "web", "-n", "shop", "-o", "jsonpath={..image}") == "web:1"
    steer("scale", "deploy/web", "--replicas=1", "-n", "shop", "--timeout=60s")
    assert "NewReplicaSet:" in steer("describe", "deploy", "web", "-n", "shop")
    assert "ScalingReplicaSet" in steer("events", "-n", "shop")
    assert "web-" in steer("get", "all", "-n", "shop")
    assert steer("delete", "namespace", "shop", "--timeout=60s") == 'namespace "shop" deleted\n'
    assert run("get", "pods", "-n", "shop").stderr == "No resources found in shop namespace.\n"


def test_a_node_is_drained_and_its_pods_go_elsewhere(steer: Callable[..., str]) -> None:
    steer("create", "deployment", "far", "--image=i", "--replicas=4")
    steer("rollout", "status", "deploy/far", "--timeout=60s")
    node = steer("get", "nodes", "-o", "name").split()[0].removeprefix("node/")
    steer("drain", node, "--ignore-daemonsets", "--grace-period=0", "--timeout=60s")

    def places() -> list[str]:
        return steer("get", "pods", "-l", "app=far", "-o", "jsonpath={.items[*].spec.nodeName}").split()

    # the Deployment's status may not yet tell of the pods that have just gone: its pods themselves do
    end = time.monotonic() + 30
    while len(places()) < 4 and time.monotonic() < end:
        time.sleep(0.05)
    assert len(places()) == 4 and node not in places()
    steer("rollout", "status", "deploy/far", "--timeout=60s")
    assert "uncordoned" in steer("uncordon", node)
    steer("delete", "deploy", "far", "--cascade=foreground", "--timeout=60s")


def test_a_job_is_waited_for(steer: Callable[..., str]) -> None:
    manifest = """\
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  template:
    metadata: {annotations: {simulated.steersman/exit-after-s: "0.1"}}
    spec:
      restartPolicy: Never
      containers: [{name: c, image: i}]
"""
    steer("apply", "-f", "-", stdin=manifest)
    assert "condition met" in steer("wait", "job/once", "--for=condition=Complete", "--timeout=60s")
    assert steer("get", "job", "once", "--no-headers").split()[1:3] == ["Complete", "1/1"]
