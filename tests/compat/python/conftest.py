"""The clusters that real clients are tried on: one with simulated nodes, one with containers."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from steersman import testing
from tests.compat.python import images
from tests.e2e.conftest import missing_parts, newest_kubectl

_BASE_PORT = 29200
_DEADLINE_S = 120.0

#: nobody serves the images that the clients' tests ask for: what was loaded must do, also under the tag `latest`
_NEVER_PULL = """
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: never-pull}
spec:
  failurePolicy: Fail
  reinvocationPolicy: Never
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  mutations:
  - patchType: JSONPatch
    jsonPatch:
      expression: >-
        object.spec.containers.map(c, JSONPatch{op: "add", value: "IfNotPresent",
        path: "/spec/containers/" + string(object.spec.containers.indexOf(c)) + "/imagePullPolicy"})
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: never-pull}
spec: {policyName: never-pull}
---
# the clients' tests expect that something runs there
apiVersion: v1
kind: Pod
metadata: {name: coredns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec: {containers: [{name: coredns, image: gcr.io/google_containers/pause:latest, imagePullPolicy: IfNotPresent}]}
"""


@dataclass(frozen=True)
class Place:
    """A running cluster as a client sees it."""

    kubeconfig: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "KUBECTL": newest_kubectl() or "kubectl"}


@pytest.fixture(scope="session")
def simulated() -> Iterator[Place]:
    """A cluster with one simulated node."""
    with testing.cluster() as cluster:
        yield Place(cluster.kubeconfig)


@pytest.fixture(scope="package")  # no longer: its rules refuse what other rooms' tests have in the range of Services
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A cluster whose node runs containers of the images that the clients' tests ask for."""
    if reason := missing_parts():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("compat")
    environment = {
        **os.environ,
        "KUBECONFIG": str(folder / "data" / "kubeconfig"),
        "STEERSMAN_NAME": f"compat-{os.getpid()}",
        "STEERSMAN_DATA_DIR": str(folder / "data"),
    }

    def steer(*words: str, stdin: str = "", check: bool = True) -> None:
        command = [sys.executable, "-m", "steersman.cli.main", *words]
        done = subprocess.run(
            command, input=stdin, env=environment, capture_output=True, text=True, timeout=_DEADLINE_S, check=False
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr

    (folder / "images.tar").write_bytes(images.archive())
    try:
        steer("up", "--embedded", "--runtime", "oci", "--port", f"base={_BASE_PORT}")
        steer("image", "load", str(folder / "images.tar"))
        steer("apply", "-f", "-", stdin=_NEVER_PULL)
        steer("wait", "pod/coredns", "-n", "kube-system", "--for=condition=Ready")
        yield Place(folder / "data" / "kubeconfig")
    finally:
        steer("down", "--delete-data", check=False)


@pytest.fixture(scope="session")
def kopf_source(tmp_path_factory: pytest.TempPathFactory) -> Path | str:
    """Where kopf's sources are, or why there are none."""
    folder = tmp_path_factory.mktemp("kopf")
    version = importlib.metadata.version("kopf")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "kopf"]
    done = subprocess.run(
        [*command, "--dest", str(folder), f"kopf=={version}"], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode != 0:
        return f"kopf's sources cannot be had: {done.stderr[-500:]}"
    with tarfile.open(folder / f"kopf-{version}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / f"kopf-{version}"
