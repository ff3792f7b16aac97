"""A pytest plugin for the tests that kr8s ships: its kind cluster, replaced by the one of $KUBECONFIG and $KUBECTL."""

from __future__ import annotations

import gc
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client, config


class GivenCluster:
    """What the tests use of pytest-kind's KindCluster."""

    def __init__(self) -> None:
        self.kubeconfig_path = Path(os.environ["KUBECONFIG"])
        self.kubectl_path = Path(os.environ["KUBECTL"])
        config.load_kube_config(str(self.kubeconfig_path))
        self._core = client.CoreV1Api()
        self._made: set[str] = set()

    def kubectl(self, *words: str) -> str:
        match words:
            # every test makes a namespace: a process for each would cost more than the tests
            case ("create", "namespace", name):
                self._settle()
                self._free(name)
                self._core.create_namespace({"metadata": {"name": name}})
                return ""
            case ("delete", "namespace", name, "--wait=false"):
                self._core.delete_namespace(name)
                return ""
        command = [str(self.kubectl_path), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    def _settle(self) -> None:
        """Waits until the taint of a cordon that has ended is gone; kubectl would take longer to start."""
        end = time.monotonic() + 10
        while any(node.spec.taints and not node.spec.unschedulable for node in self._core.list_node().items):
            assert time.monotonic() < end, "a node keeps its taint"
            time.sleep(0.02)

    def _free(self, name: str) -> None:
        """Waits until an earlier namespace of that name is gone: names end in 16 random bits, and some come twice."""
        if name in self._made:
            end = time.monotonic() + 30
            while self._core.list_namespace(field_selector=f"metadata.name={name}").items:
                assert time.monotonic() < end, f"the namespace {name} does not go"
                time.sleep(0.02)
        self._made.add(name)


@pytest.fixture(scope="session", autouse=True)
def k8s_cluster() -> GivenCluster:
    return GivenCluster()


@pytest.fixture
def ensure_gc() -> Iterator[None]:
    gc.collect()
    yield
    gc.collect()
