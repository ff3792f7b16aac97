"""Rules of the house that no linter contract can say."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMPURE = {"asyncio", "ray", "grpc", "socket", "os", "logging", "random", "time", "threading", "uuid", "subprocess"}
IMPURE |= {"secrets", "tempfile", "pathlib", "selectors", "shutil", "concurrent", "multiprocessing", "signal"}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def _files(room: str) -> list[Path]:
    return sorted(path for path in (ROOT / room).rglob("*.py") if "gen" not in path.parts)


@pytest.mark.parametrize("path", _files("cluster"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_decision_imports_nothing_that_acts(path):
    assert not _imports(path) & IMPURE


def test_only_the_launcher_imports_ray():
    users = [
        str(path.relative_to(ROOT))
        for room in ("cluster", "actors", "runtime", "cli", "src")
        for path in _files(room)
        if "ray" in _imports(path)
    ]
    assert users == ["actors/launch.py"]


def test_the_links_lead_to_the_rooms():
    links = {path.name: path.resolve() for path in (ROOT / "src" / "steersman").iterdir() if path.is_symlink()}
    assert links == {
        **{name: ROOT / name for name in ("cluster", "actors", "runtime", "cli", "deploy")},
        "pb": ROOT / "proto" / "gen",
    }
