"""The files that pods see."""

# ruff: noqa: ASYNC230, ASYNC240 (tests may block)

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from steersman.cluster.node.values import RuntimeFailure
from steersman.runtime import mounts, volumes
from steersman.runtime.simulated_volumes import SimulatedVolumes
from steersman.runtime.volumes import MachineVolumes

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not volumes.may_mount(), reason="mounting needs root")


@pytest.fixture
def made(tmp_path: Path):
    found = MachineVolumes(tmp_path / "volumes", mounting=volumes.may_mount())
    yield found
    mounts.remove_tree(tmp_path / "volumes")


@pytest.fixture(params=["machine", "simulated"])
def either(request: pytest.FixtureRequest, made: MachineVolumes):
    return made if request.param == "machine" else SimulatedVolumes()


async def test_a_pods_own_file_can_be_read_back_from_its_end(either) -> None:
    await either.pod_file("u1", "main/termination-log", b"0123456789", 0o666)
    assert await either.read_pod_file("u1", "main/termination-log", 4) == b"6789"
    assert await either.read_pod_file("u1", "main/none", 4) == b""
    assert await either.pods() == ["u1"]
    await either.teardown("u1")
    await either.teardown("u1")
    assert await either.pods() == []


async def test_a_sub_path_may_not_point_outside(either) -> None:
    base = await either.empty_dir("u1", "data", in_memory=False, size_bytes_max=0, gid=None)
    assert (await either.sub_path("u1", base, "a/b")).endswith("/a/b")
    for path in ("../x", "/etc", "a/../../x"):
        with pytest.raises(RuntimeFailure):
            await either.sub_path("u1", base, path)


async def test_an_empty_directory_keeps_its_contents_over_restarts(made: MachineVolumes, tmp_path: Path) -> None:
    path = Path(await made.empty_dir("u1", "data", in_memory=False, size_bytes_max=0, gid=None))
    (path / "file").write_text("x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o777
    again = MachineVolumes(tmp_path / "volumes", mounting=volumes.may_mount())
    assert await again.empty_dir("u1", "data", in_memory=False, size_bytes_max=0, gid=None) == str(path)
    assert (path / "file").read_text() == "x"


@needs_root
async def test_memory_volumes_are_bounded_and_vanish_with_the_pod(made: MachineVolumes) -> None:
    path = await made.empty_dir("u1", "ram", in_memory=True, size_bytes_max=1 << 20, gid=2000)
    assert mounts.is_mount(path)
    assert (os.stat(path).st_gid, stat.S_IMODE(os.stat(path).st_mode)) == (2000, 0o2777)
    with pytest.raises(OSError), open(f"{path}/big", "wb") as file:
        file.write(bytes(2 << 20))
    again = await made.empty_dir("u1", "ram", in_memory=True, size_bytes_max=1 << 20, gid=2000)
    assert len(mounts.mount_points(again)) == 1
    await made.teardown("u1")
    assert not os.path.exists(path)
    assert mounts.mount_points(path) == []


async def test_a_payload_changes_all_at_once(made: MachineVolumes) -> None:
    first = {"one": (b"1", 0o644), "sub/two": (b"2", 0o600)}
    path = Path(await made.payload("u1", "conf", first, in_memory=True, gid=None))
    assert os.readlink(path / "one") == "..data/one"
    assert (path / "sub" / "two").read_bytes() == b"2"
    held = os.open(path / "..data", os.O_RDONLY)
    before = os.readlink(path / "..data")
    await made.payload("u1", "conf", {"one": (b"1b", 0o644), "three": (b"3", 0o644)}, in_memory=True, gid=None)
    assert os.readlink(path / "..data") != before
    assert sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("..")) == ["one", "three"]
    assert (path / "one").read_bytes() == b"1b"
    os.close(held)


async def test_an_unchanged_payload_is_left_alone(made: MachineVolumes) -> None:
    files = {"one": (b"1", 0o644)}
    path = Path(await made.payload("u1", "conf", files, in_memory=False, gid=None))
    before = os.readlink(path / "..data")
    await made.payload("u1", "conf", files, in_memory=False, gid=None)
    assert os.readlink(path / "..data") == before
    empty = Path(await made.payload("u1", "empty", {}, in_memory=False, gid=None))
    assert (empty / "..data").is_dir()


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", "..data/x", "a/../b"])
async def test_a_payload_stays_in_its_directory(made: MachineVolumes, name: str) -> None:
    with pytest.raises(RuntimeFailure):
        await made.payload("u1", "conf", {name: (b"1", 0o644)}, in_memory=False, gid=None)


@pytest.mark.skipif(not ROOT, reason="changing groups needs root")
async def test_a_pods_group_may_read_its_secrets(made: MachineVolumes) -> None:
    path = await made.payload("u1", "secret", {"key": (b"x", 0o400)}, in_memory=True, gid=2000)
    found = os.stat(f"{path}/key")
    assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (2000, 0o440)


async def test_a_sub_path_follows_links_only_inside(made: MachineVolumes) -> None:
    path = await made.payload("u1", "conf", {"key": (b"x", 0o644)}, in_memory=False, gid=None)
    assert Path(await made.sub_path("u1", path, "key")).read_bytes() == b"x"
    data = await made.empty_dir("u1", "data", in_memory=False, size_bytes_max=0, gid=None)
    os.symlink("/etc", f"{data}/evil")
    os.symlink("../../..", f"{data}/up")
    for name in ("evil/passwd", "up/x"):
        with pytest.raises(RuntimeFailure, match="leads out"):
            await made.sub_path("u1", data, name)


async def test_a_link_in_place_of_a_termination_message_is_not_followed(made: MachineVolumes) -> None:
    path = await made.pod_file("u1", "main", b"", 0o666)
    os.unlink(path)
    os.symlink("/etc/passwd", path)
    assert await made.read_pod_file("u1", "main", 4096) == b""


@pytest.mark.parametrize(
    ("kind", "there", "fits"),
    [
        ("", "directory", True),
        ("", "nothing", True),
        ("Directory", "directory", True),
        ("Directory", "file", False),
        ("Directory", "nothing", False),
        ("DirectoryOrCreate", "nothing", True),
        ("File", "file", True),
        ("File", "directory", False),
        ("FileOrCreate", "nothing", True),
        ("Socket", "file", False),
    ],
)
async def test_a_host_path_is_of_its_type(
    made: MachineVolumes, tmp_path: Path, kind: str, there: str, fits: bool
) -> None:
    path = tmp_path / "thing"
    if there == "directory":
        path.mkdir()
    elif there == "file":
        path.touch()
    if fits:
        assert await made.host_path(str(path), kind) == str(path)
        assert path.is_file() == (there == "file" or kind.startswith("File"))
    else:
        with pytest.raises(RuntimeFailure, match="type check failed"):
            await made.host_path(str(path), kind)


@pytest.mark.parametrize("uid", ["..", "a/b", "", "."])
async def test_an_odd_uid_is_refused(made: MachineVolumes, uid: str) -> None:
    with pytest.raises(RuntimeFailure):
        await made.teardown(uid)
    with pytest.raises(RuntimeFailure):
        await made.pod_file(uid, "x", b"", 0o600)
