"""The wheel carries exactly the tree: every room under one import name, and nothing at top level but `steersman`."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {name: name for name in ("cluster", "actors", "runtime", "cli", "deploy")} | {"proto/gen": "pb"}
SHIPPED = {".py", ".pyi", ".json", ".yaml", ".yml", ".service", ".tsv", ".txt", ".typed"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    copy = tmp_path_factory.mktemp("tree") / "steersman"
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(copy)], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(out), str(copy)], check=True, timeout=300
    )
    return copy, next(out.glob("*.whl"))


def _tree(copy: Path) -> set[str]:
    names = {
        f"steersman/{path.relative_to(copy / 'src' / 'steersman')}"
        for path in (copy / "src" / "steersman").glob("*")
        if path.is_file() and path.suffix in SHIPPED
    }
    for folder, name in ROOMS.items():
        for path in (copy / folder).rglob("*"):
            if path.is_file() and path.suffix in SHIPPED and "__pycache__" not in path.parts:
                names.add(f"steersman/{name}/{path.relative_to(copy / folder)}")
    return names


def test_the_wheel_equals_the_tree(wheel):
    copy, path = wheel
    inside = {name for name in zipfile.ZipFile(path).namelist() if ".dist-info/" not in name}
    shipped = {name for name in inside if Path(name).suffix in SHIPPED}
    assert shipped == _tree(copy)


def test_the_wheel_has_one_top_level_name(wheel):
    _, path = wheel
    tops = {name.split("/")[0] for name in zipfile.ZipFile(path).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"steersman"}


def test_an_installed_wheel_gives_a_working_steer(wheel, tmp_path):
    _, path = wheel
    venv.create(tmp_path / "env", with_pip=False, system_site_packages=False)
    site = next((tmp_path / "env" / "lib").glob("python*")) / "site-packages"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(site)
    libraries = Path(pytest.__file__).parents[1]
    (site / "libraries.pth").write_text(f"{libraries}\n")
    run = subprocess.run(
        [tmp_path / "env" / "bin" / "python", "-c", "from steersman.cli.main import main; main()", "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert "apply" in run.stdout and "rollout" in run.stdout
