"""The list of conformance requirements names tests that exist, and the README tells how many have one."""

from __future__ import annotations

import ast
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
REQUIREMENTS: dict[str, dict[str, str | None]] = yaml.safe_load(
    (Path(__file__).parent / "conformance.yaml").read_text()
)


def test_every_requirement_that_has_a_test_names_one_that_exists() -> None:
    found: dict[str, set[str]] = {}
    for tests in REQUIREMENTS.values():
        for test in filter(None, tests.values()):
            path, _, name = test.partition("::")
            if path not in found:
                body = ast.parse((ROOT / "tests" / path).read_text()).body
                found[path] = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
            assert name in found[path], test


def test_the_readme_tells_how_many_requirements_have_a_test() -> None:
    counts = {name: (sum(map(bool, tests.values())), len(tests)) for name, tests in REQUIREMENTS.items()}
    sentence = " and ".join(
        f"{have} of {all_} of class {name}" for name, (have, all_) in counts.items() if name in "AB"
    )
    assert sentence in " ".join((ROOT / "README.md").read_text().split())
