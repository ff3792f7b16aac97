"""Every command of kubectl, in each version that the machine has, against what it prints with Kubernetes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat import transcripts
from tests.e2e.conftest import LiveCluster, missing_parts

pytestmark = pytest.mark.root
TRANSCRIPTS = sorted(Path(__file__).with_name("kubectl").glob("*.txt"))
SCENES = {f"{path.stem}/{scene.slug}": scene for path in TRANSCRIPTS for scene in transcripts.read(path)}


def kubectls() -> dict[tuple[int, int], Path]:
    """The kubectl on the PATH and those that lie beside it, by version."""
    found = shutil.which("kubectl")
    if found is None:
        return {}
    names = {
        (int(match[1]), int(match[2])): path
        for path in Path(found).resolve().parent.glob("kubectl.*")
        if (match := re.fullmatch(r"kubectl\.(\d+)\.(\d+)", path.name))
    }
    if not names:
        text = subprocess.run([found, "version", "--client"], capture_output=True, text=True, check=True).stdout
        if match := re.search(r"v(\d+)\.(\d+)", text):
            names[int(match[1]), int(match[2])] = Path(found)
    return names


#: commands that no transcript has yet; `tests/e2e` uses port-forward; the API that `top` asks for is not served here
NOT_PLAYED = {"attach", "drain", "port-forward", "top node", "top pod"}
KUBECTLS = kubectls()
PLAYED = [
    pytest.param(version, name, id=f"{version[0]}.{version[1]}-{name}")
    for version in sorted(KUBECTLS, reverse=True)
    for name, scene in SCENES.items()
    if version >= scene.since and (version in (max(KUBECTLS), min(KUBECTLS)) or scene.in_every_version)
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """One node with real containers, in one process."""
    if reason := missing_parts():
        pytest.skip(reason)
    live = LiveCluster(tmp_path_factory.mktemp("kubectl"), base_port=22000)
    try:
        live.steer("up", "--embedded", "--runtime", "oci", "--port", f"base={live.base_port}")
        yield live
    finally:
        live.steer("down", "--delete-data", check=False)


@pytest.mark.skipif(not KUBECTLS, reason="needs kubectl")
@pytest.mark.parametrize(("version", "name"), PLAYED)
def test_a_command_prints_what_it_prints_with_kubernetes(
    cluster: LiveCluster, tmp_path: Path, version: tuple[int, int], name: str
) -> None:
    scene = SCENES[name]
    namespace = f"{scene.slug}-{version[0]}-{version[1]}"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "kubectl").symlink_to(KUBECTLS[version])
    shutil.copy(cluster.data_dir / "kubeconfig", tmp_path / "kubeconfig")
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "HOME": str(tmp_path),
        "KUBECACHEDIR": str(cluster.data_dir.parent / f"cache-{version[1]}"),
        "NS": namespace,
    }
    made = """kubectl create namespace $NS && kubectl config set-context --current --namespace=$NS &&
              until kubectl get serviceaccount default; do sleep 0.05; done"""
    subprocess.run(["sh", "-c", made], env=environment, check=True, capture_output=True, timeout=30)
    try:
        transcripts.play(scene, tmp_path, environment)
    finally:
        gone = ["delete", "namespace", namespace, "--wait=false"]
        subprocess.run([KUBECTLS[version], *gone], env=environment, check=False, capture_output=True)


def commands(kubectl: Path, *path: str) -> Iterator[tuple[str, ...]]:
    """All commands without subcommands of their own, as kubectl's help lists them."""
    text = subprocess.run([kubectl, *path, "--help"], capture_output=True, text=True, check=True).stdout
    names: list[str] = []
    for block in re.split(r"\n\n", text):
        head, _, rest = block.partition("\n")
        if re.fullmatch(r"(?:[A-Z].*)?Commands.*:", head):
            names += re.findall(r"^  ([a-z-]+) ", rest, re.MULTILINE)
    if not names:
        yield path
    for name in names:
        yield from commands(kubectl, *path, name)


@pytest.mark.skipif(not KUBECTLS, reason="needs kubectl")
def test_no_other_command_of_kubectl_is_missed() -> None:
    lines = [step.command for scene in SCENES.values() for step in scene.steps]
    typed = {tuple(words.split()) for line in lines for words in re.findall(r"\bkubectl ([a-z -]+)", line)}
    played = {path[: depth + 1] for path in typed for depth in range(len(path))}
    missed = {" ".join(path) for path in commands(KUBECTLS[max(KUBECTLS)]) if path not in played}
    assert missed == NOT_PLAYED


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        (("pod/web created",), "pod/web created\n", True),
        (("pod/web created",), "pod/web configured\n", False),
        (("NAME  AGE", "web  {age}"), "NAME   AGE\nweb    12s\n", True),
        (("web  {age}",), "web   <unknown>\n", False),
        (("a", "...", "z"), "a\nb\nc\nz\n", True),
        (("a", "...", "z"), "a\nb\nc\n", False),
        (("{re:a|b}", "x{*}z"), "b\nxyz\n", True),
        ((), "something\n", False),
    ],
)
def test_a_transcript_tells_what_differs(expected: tuple[str, ...], printed: str, same: bool) -> None:
    assert transcripts.matches(expected, printed) is same
