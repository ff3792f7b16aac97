"""Every command of kubectl, in each version that the machine has, against what it prints with Kubernetes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from http.client import HTTPSConnection
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from steersman.actors.kubeconfig import load
from tests.compat import transcripts
from tests.e2e.conftest import LiveCluster, missing_parts, wait_for

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
NOT_PLAYED: set[str] = set()
#: scenes at a time: a command waits for the server, or a scene for a pod, while another is at work
PLAYERS = 3
#: no garbage is collected in commands that live for 50 ms, a quarter of which it takes
QUICK = {"GOGC": "off"}
KUBECTLS = kubectls()


def versions_of(name: str) -> set[tuple[int, int]]:
    """The versions that play a scene; those that one version plays go round them all."""
    scene = SCENES[name]
    able = sorted(version for version in KUBECTLS if version >= scene.since)
    if scene.which == "one" and able:
        return {able[list(SCENES).index(name) % len(able)]}
    return set(able) if scene.which == "every" else {min(KUBECTLS), max(KUBECTLS)} & set(able)


PLAYED = [
    pytest.param(version, name, id=f"{version[0]}.{version[1]}-{name}")
    for version in sorted(KUBECTLS, reverse=True)
    for name in SCENES
    if version in versions_of(name)
]


@pytest.fixture(scope="module")
def played(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[tuple[int, int], str], Future[None]]]:
    """The scenes that are asked for, played a few at a time on one node with real containers."""
    if reason := missing_parts():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("kubectl")
    live = LiveCluster(folder, base_port=22000)
    asked: list[Any] = [
        tuple(item.callspec.params[each] for each in ("version", "name"))
        for item in request.session.items
        if item.path == request.path and isinstance(item, pytest.Function) and "played" in item.fixturenames
    ]
    try:
        live.steer("up", "--embedded", "--runtime", "oci", "--port", f"base={live.base_port}")
        stage = Stage(live, folder)
        stage.prepare([namespace(*each) for each in asked])
        with ThreadPoolExecutor(PLAYERS) as players:
            yield {each: players.submit(stage.play, *each) for each in asked}
            players.shutdown(cancel_futures=True)
    finally:
        live.steer("down", "--delete-data", check=False)


def namespace(version: tuple[int, int], name: str) -> str:
    return f"{SCENES[name].slug}-{version[0]}-{version[1]}"


class Stage:
    """Plays scenes against a cluster, each in a namespace and a folder of its own."""

    def __init__(self, live: LiveCluster, folder: Path) -> None:
        self.folder = folder
        self.kubeconfig = (live.data_dir / "kubeconfig").read_text()
        access = load(str(live.data_dir / "kubeconfig"))
        self.server, self.tls = urlsplit(access.servers[0]).netloc, access.tls()
        #: no scene is played by two versions at once: some make objects that are in no namespace
        self.turns = {name: Lock() for name in SCENES}

    def prepare(self, namespaces: list[str]) -> None:
        """Makes namespaces, and waits for what Kubernetes puts into each."""
        for name in namespaces:
            self._ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        for path in ("serviceaccounts?fieldSelector=metadata.name%3Ddefault", "configmaps"):
            wait_for(f"{path} of each namespace", partial(self._all_have, path, set(namespaces)))

    def _all_have(self, path: str, namespaces: set[str]) -> bool:
        items = self._ask("GET", f"/api/v1/{path}")["items"]
        return namespaces <= {item["metadata"]["namespace"] for item in items}

    def play(self, version: tuple[int, int], name: str) -> None:
        with self.turns[name]:
            space = namespace(version, name)
            folder = self.folder / space
            (folder / "bin").mkdir(parents=True)
            (folder / "bin" / "kubectl").symlink_to(KUBECTLS[version])
            config = yaml.safe_load(self.kubeconfig)
            config["contexts"][0]["context"]["namespace"] = space
            (folder / "kubeconfig").write_text(yaml.safe_dump(config))
            environment = {
                **os.environ,
                "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
                "KUBECONFIG": str(folder / "kubeconfig"),
                "HOME": str(folder),
                "KUBECACHEDIR": str(self.folder / f"cache-{version[1]}"),
                "NS": space,
                **QUICK,
            }
            try:
                transcripts.play(SCENES[name], folder, environment)
            finally:
                self._ask("DELETE", f"/api/v1/namespaces/{space}")

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        connection = HTTPSConnection(self.server, context=self.tls, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            assert answer.status < 300, f"{method} {path}: {answer.read().decode()}"
            return json.load(answer)


@pytest.mark.skipif(not KUBECTLS, reason="needs kubectl")
@pytest.mark.parametrize(("version", "name"), PLAYED)
def test_a_command_prints_what_it_prints_with_kubernetes(
    played: dict[tuple[tuple[int, int], str], Future[None]], version: tuple[int, int], name: str
) -> None:
    played[version, name].result()


def commands(kubectl: Path, *path: str) -> Iterator[tuple[str, ...]]:
    """All commands without subcommands of their own, as kubectl's help lists them."""
    quick = {**os.environ, **QUICK}
    text = subprocess.run([kubectl, *path, "--help"], capture_output=True, text=True, check=True, env=quick).stdout
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
