from __future__ import annotations

import os
from pathlib import Path

import pytest

from steersman.cli.options import Settings, kubeconfig_path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("KUBECONFIG", "STEERSMAN_NAME", "STEERSMAN_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def local(home: Path, name: str = "default", *, pid: int = os.getpid()) -> str:
    (home / ".steersman" / name / "run").mkdir(parents=True)
    (home / ".steersman" / name / "run" / "keeper.pid").write_text(f"{pid}\n")
    path = home / ".steersman" / name / "kubeconfig"
    path.write_text("")
    return str(path)


def test_nothing_is_left_to_kubectls_search(home: Path) -> None:
    assert kubeconfig_path(Settings()) is None


def test_a_running_local_cluster_comes_before_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/elsewhere")
    assert kubeconfig_path(Settings()) is None
    local(home)
    assert kubeconfig_path(Settings()) == str(home / ".steersman/default/kubeconfig")


def test_a_local_cluster_that_is_down_comes_last(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = local(home, pid=2**22 + 1)
    assert kubeconfig_path(Settings()) == path
    monkeypatch.setenv("KUBECONFIG", "/elsewhere")
    assert kubeconfig_path(Settings()) is None


def test_what_is_named_comes_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local(home)
    assert kubeconfig_path(Settings(kubeconfig="/given", cluster_name="lab")) == "/given"
    assert kubeconfig_path(Settings(cluster_name="lab")) == str(home / ".steersman/lab/kubeconfig")
    monkeypatch.setenv("STEERSMAN_DATA_DIR", "/data")
    assert kubeconfig_path(Settings()) == "/data/kubeconfig"
    assert kubeconfig_path(Settings(cluster_name="lab")) == str(home / ".steersman/lab/kubeconfig")
    monkeypatch.delenv("STEERSMAN_DATA_DIR")
    monkeypatch.setenv("STEERSMAN_NAME", "other")
    assert kubeconfig_path(Settings()) == str(home / ".steersman/other/kubeconfig")
