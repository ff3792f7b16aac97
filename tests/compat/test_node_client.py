"""@kubernetes/client-node, the official client for JavaScript, against a cluster with real containers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import LiveCluster, missing_parts

pytestmark = pytest.mark.root
FOLDER = Path(__file__).with_name("node")
STEPS = re.findall(r"^    async (\w+)\(\) {$", (FOLDER / "steps.mjs").read_text(), re.MULTILINE)
#: 2.x wants a newer Node than Debian has
PACKAGE = "@kubernetes/client-node@~1.4.0"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The steps, beside the client."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("needs node and npm")
    folder = tmp_path_factory.mktemp("node")
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), PACKAGE]
    done = subprocess.run(install, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        pytest.skip(f"{PACKAGE} cannot be had: {done.stderr[-300:]}")
    for path in FOLDER.iterdir():
        shutil.copy(path, folder)
    return folder / "steps.mjs"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """One node with real containers, in one process."""
    if reason := missing_parts():
        pytest.skip(reason)
    live = LiveCluster(tmp_path_factory.mktemp("cluster"), base_port=22700)
    try:
        live.steer("up", "--embedded", "--runtime", "oci", "--port", f"base={live.base_port}")
        yield live
    finally:
        live.steer("down", "--delete-data", check=False)


@pytest.fixture(scope="module")
def played(program: Path, cluster: LiveCluster) -> dict[str, str]:
    """What went wrong in each step; nothing where it went well."""
    environment = {**cluster.environment, "KUBECONFIG": str(cluster.data_dir / "kubeconfig")}
    done = subprocess.run(
        ["node", str(program)], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["name"]: line["error"] for line in lines}


@pytest.mark.parametrize("step", STEPS)
def test_the_client_for_javascript_does_what_it_does_with_kubernetes(played: dict[str, str], step: str) -> None:
    assert played[step] == ""
