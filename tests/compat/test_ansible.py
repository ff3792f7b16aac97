"""The collection kubernetes.core of Ansible against a cluster with real containers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import LiveCluster, missing_parts

pytestmark = pytest.mark.root
PLAYBOOKS = Path(__file__).with_name("ansible")
#: the collections come with the big package; the rest of that is not needed
CORE, BUNDLE = "ansible-core~=2.17.0", "ansible~=10.7.0"
COLLECTIONS = ("ansible_collections/kubernetes/", "ansible_collections/ansible/posix/")


class Ansible:
    """Plays playbooks of this folder against a cluster."""

    def __init__(self, home: Path, cluster: LiveCluster, node: str) -> None:
        self._home = home
        self._kubeconfig = str(cluster.data_dir / "kubeconfig")
        self._facts = {
            "ansible_python_interpreter": str(home / "bin" / "python"),
            "folder": str(home),
            "node": node,
            "space": "ansible",
        }

    def play(self, name: str) -> list[str]:
        """The names of the tasks that changed something; all have to succeed."""
        environment = {
            **os.environ,
            "HOME": str(self._home),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "ANSIBLE_COLLECTIONS_PATH": str(self._home),
            "K8S_AUTH_KUBECONFIG": self._kubeconfig,
        }
        command = [self._home / "bin" / "ansible-playbook", PLAYBOOKS / name, "-e", json.dumps(self._facts)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        tasks = json.loads(done.stdout[done.stdout.index("{") :])["plays"][0]["tasks"]
        return [task["task"]["name"] for task in tasks if task["hosts"]["localhost"].get("changed")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has Ansible and the collection."""
    folder = tmp_path_factory.mktemp("ansible")
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    for words in (
        ["install", CORE, "kubernetes>=30,<36", "jsonpatch"],
        ["download", "--no-deps", "--dest", folder, BUNDLE],
    ):
        command = [python, "-m", "pip", "--quiet", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            pytest.skip(f"Ansible cannot be had: {done.stderr[-500:]}")
    with zipfile.ZipFile(next(folder.glob("ansible-*.whl"))) as wheel:
        wheel.extractall(folder, [name for name in wheel.namelist() if name.startswith(COLLECTIONS)])
    return folder


@pytest.fixture(scope="module")
def ansible(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ansible]:
    if reason := missing_parts():
        pytest.skip(reason)
    live = LiveCluster(tmp_path_factory.mktemp("cluster"), base_port=22900)
    try:
        live.steer("up", "--embedded", "--runtime", "oci", "--port", f"base={live.base_port}")
        yield Ansible(home, live, live.steer("get", "nodes", "-o", "name").strip().removeprefix("node/"))
    finally:
        live.steer("down", "--delete-data", check=False)


def test_a_playbook_makes_what_it_says_and_changes_nothing_the_second_time(ansible: Ansible) -> None:
    assert len(ansible.play("objects.yaml")) == 9
    assert ansible.play("objects.yaml") == []
    assert "two replicas" in ansible.play("actions.yaml")
