"""What tells about the server, and the command line about itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from steersman.cli.main import SECTIONS, cli
from steersman.cli.output import aligned, painted
from steersman.cli.waiting import DURATION

if TYPE_CHECKING:
    from tests.cli.conftest import Steer


def commands(group: click.Group, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    context = click.Context(group)
    for name in group.list_commands(context):
        if not prefix and name in SECTIONS["Cluster"]:
            continue
        command = group.get_command(context, name)
        assert command is not None
        found.append((*prefix, name))
        if isinstance(command, click.Group):
            found += commands(command, (*prefix, name))
    return found


@pytest.mark.parametrize("words", commands(cli), ids=" ".join)
def test_every_command_explains_itself_with_examples(steer: Steer, words: tuple[str, ...]) -> None:
    text = steer(*words, "--help")
    assert "Examples:" in text and f"steer {words[0]}" in text.partition("Examples:")[2]


def test_the_list_of_commands_is_complete(steer: Steer) -> None:
    text = steer("--help")
    for section, entries in SECTIONS.items():
        assert f"{section}:" in text
        assert all(f"  {name} " in text for name in entries)


def test_starting_is_light() -> None:
    heavy = ("ray", "grpc", "numpy", "pydantic", "rich", "cryptography", "kubernetes_validate", "asyncio", "yaml")
    program = f"""
import sys
from pathlib import Path
from steersman.cli.main import cli
try:
    cli(["--help"])
except SystemExit:
    pass
print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.stderr.strip() == "[]"
    program = f"""
import sys
from pathlib import Path
import steersman.cli.get, steersman.cli.apply, steersman.actors.client
print([m for m in {heavy[:6]!r} if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "[]", "the way to the server loads nothing heavy"


def test_explain(steer: Steer) -> None:
    text = steer("explain", "deployment.spec.strategy")
    assert "KIND:       Deployment" in text and "FIELD: strategy <DeploymentStrategy>" in text
    assert "rollingUpdate" in text and "<RollingUpdateDeployment>" in text
    assert "-required-" in steer("explain", "deploy.spec")
    tree = steer("explain", "pod.spec.containers", "--recursive")
    assert "livenessProbe" in tree and "httpHeaders" in tree
    assert "KIND:       Deployment" in steer("explain", "deployments.apps")
    error = steer.fails("explain", "pod.spec.nope")
    assert 'field "nope" does not exist' in error and "containers" in error


def test_kinds_and_versions_are_listed(steer: Steer) -> None:
    rows = [line.split() for line in steer("api-resources", "--api-group=apps").splitlines()]
    assert rows[0] == ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"]
    assert ["deployments", "deploy", "apps/v1", "true", "Deployment"] in rows
    names = steer("api-resources", "--namespaced=false", "-o", "name").split()
    assert "nodes" in names and "pods" not in names
    assert "apps/v1" in steer("api-versions").split()


def test_who_may_what(steer: Steer) -> None:
    assert steer("auth", "can-i", "create", "deployments") == "yes\n"
    assert steer("auth", "can-i", "get", "pods/log", "-q") == ""
    assert steer("auth", "can-i", "*", "*") == "yes\n"
    assert steer("auth", "can-i", "get", "/healthz") == "yes\n"
    assert "*.*" in steer("auth", "can-i", "--list")
    steer.fails("auth", "can-i", "get", "secrets", "--as", "jane")
    assert steer("auth", "can-i", "get", "secrets", "--as", "jane", "--as-group", "system:masters") == "yes\n"
    assert "selfsubjectreviews" in steer("auth", "can-i", "--list", "--as", "jane")
    assert steer("auth", "whoami").splitlines()[1].split() == ["Username", "admin"]


def test_versions(steer: Steer) -> None:
    assert "Server Version: v1." in steer("version")
    both = json.loads(steer("version", "-o", "json"))
    assert both["clientVersion"]["gitVersion"].startswith("v") and both["serverVersion"]["minor"]
    assert "Server" not in steer("version", "--client", "--kubeconfig", "/nope")


@pytest.mark.parametrize("shell,word", [("bash", "complete"), ("zsh", "#compdef steer"), ("fish", "complete")])
def test_completion_scripts(steer: Steer, shell: str, word: str) -> None:
    assert word in steer("completion", shell)


def complete(steer: Steer, words: str) -> list[str]:
    """What bash is offered after the words."""
    env = {"KUBECONFIG": str(steer.kubeconfig), "HOME": str(steer.directory), "_STEER_COMPLETE": "bash_complete"}
    env |= {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    program = str(Path(sys.executable).parent / "steer")
    done = subprocess.run([program], capture_output=True, text=True, timeout=30, env=env)
    assert not done.stderr
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_shells_are_offered_commands_kinds_and_names(steer: Steer) -> None:
    steer("create", "cm", "settings")
    assert complete(steer, "steer po") == ["port-forward"]
    assert complete(steer, "steer get config") == ["configmaps"]
    assert complete(steer, "steer get cm sett") == ["settings"]
    assert complete(steer, "steer get cm/") == ["cm/settings"]
    assert complete(steer, "steer get nokind x") == []
    assert complete(steer, "steer nope x") == []
    assert complete(steer, "steer rollout res") == ["restart", "resume"]


def test_durations() -> None:
    cases = {"30s": 30, "5m": 300, "1h30m": 5400, "250ms": 0.25, "1.5m": 90, "7": 7, "-1s": -1}
    for text, seconds in cases.items():
        assert DURATION.convert(text, None, None) == seconds
    for text in ("", "soon", "5x", "m5"):
        with pytest.raises(click.BadParameter):
            DURATION.convert(text, None, None)


def test_tables_are_aligned_and_cut_to_fit() -> None:
    rows = [["NAME", "MESSAGE"], ["a", "x" * 100], ["bb", "y"]]
    assert aligned(rows)[2] == "bb     y"
    cut = aligned(rows, fit=40)
    assert all(len(line) <= 40 for line in cut) and cut[1].endswith("…")
    assert aligned([["a", "b"]], widths=[5, 0]) == ["a       b"]


def test_pipes_get_no_colour() -> None:
    assert painted("web   Running") == "web   Running"
