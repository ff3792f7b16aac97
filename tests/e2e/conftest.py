"""A real cluster on Ray with real containers, driven by the newest kubectl of the machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


def newest_kubectl() -> str | None:
    """The newest kubectl on the PATH or beside one that is there."""
    found = shutil.which("kubectl")
    if found is None:
        return None
    folder = Path(found).resolve().parent
    versions = {
        tuple(int(part) for part in match[1].split(".")): path
        for path in folder.glob("kubectl.*")
        if (match := re.fullmatch(r"kubectl\.(\d+\.\d+)", path.name))
    }
    return str(versions[max(versions)]) if versions else found


class LiveCluster:
    """A cluster brought up by `steer up` in a directory of its own, and the commands that drive it."""

    def __init__(self, directory: Path, base_port: int) -> None:
        self.name = f"e2e-{os.getpid()}"
        self.data_dir = directory / "data"
        self.base_port = base_port
        self.environment = {
            **os.environ,
            "KUBECONFIG": str(self.data_dir / "kubeconfig"),
            "STEERSMAN_NAME": self.name,
            "STEERSMAN_DATA_DIR": str(self.data_dir),
        }
        self.binary = newest_kubectl() or "kubectl"

    def steer(self, *words: str, check: bool = True, deadline_s: float = 180, stdin: str = "") -> str:
        command = [sys.executable, "-m", "steersman.cli.main", *words]
        return self._run(command, check, deadline_s, stdin, umask=0o077)  # as hardened machines have it

    def kubectl(self, *words: str, check: bool = True, deadline_s: float = 120, stdin: str = "") -> str:
        return self._run([self.binary, *words], check, deadline_s, stdin)

    def _run(self, command: list[str], check: bool, deadline_s: float, stdin: str, umask: int = -1) -> str:
        run = subprocess.run(
            command, input=stdin, capture_output=True, text=True, env=self.environment, timeout=deadline_s, check=False,
            umask=umask,
        )  # fmt: skip
        if check and run.returncode != 0:
            raise AssertionError(f"{' '.join(command)} ended with {run.returncode}:\n{run.stdout}{run.stderr}")
        return run.stdout if check else run.stdout + run.stderr

    def up(self) -> str:
        return self.steer("up", "--port", f"base={self.base_port}", "--runtime", "oci")

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def pods(self, selector: str, namespace: str = "shop") -> list[Any]:
        return list(self.get("pods", "-n", namespace, "-l", selector)["items"])

    def status(self) -> Any:
        return json.loads(self.steer("status", "-o", "json", check=False))


def wait_for(what: str, check: Callable[[], Any], deadline_s: float = 60.0) -> Any:
    """Returns the first true result of `check`; fails by naming what never came and the last result."""
    end = time.monotonic() + deadline_s
    while True:
        result = check()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come within {deadline_s:.0f} s (last: {result!r})")
        time.sleep(0.1)


def missing_parts() -> str:
    """Why real containers cannot run here; empty when they can."""
    if os.geteuid() != 0:
        return "needs root for containers and network namespaces"
    if not (shutil.which("crun") or shutil.which("runc")) or not shutil.which("conmon"):
        return "needs crun or runc, and conmon"
    if newest_kubectl() is None:
        return "needs kubectl"
    return "" if shutil.which("nft") else "needs nftables"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    if reason := missing_parts():
        pytest.skip(reason)
    cluster = LiveCluster(tmp_path_factory.mktemp("e2e"), base_port=21000)
    cluster.up()
    try:
        yield cluster
    finally:
        cluster.steer("down", "--delete-data", check=False)
