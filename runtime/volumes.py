"""The files that pods see, on a real machine.

    pods/UID/empty-dir/NAME       directories, or tmpfs for the memory medium
    pods/UID/payload/NAME         configMaps, secrets, projections: `..data` leads to the contents of one moment
    pods/UID/files/PATH           a file of the pod's own

Every directory is found again by its path, so a new agent goes on where the old one stopped.
Source: https://github.com/kubernetes/kubernetes/blob/master/pkg/volume/util/atomic_writer.go
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from steersman.cluster.node.values import RuntimeFailure
from steersman.runtime import mounts, syscalls

_T = TypeVar("_T")

_DATA = "..data"
_NAME = re.compile(r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
_LINKS_MAX = 40


class MachineVolumes:
    """Implements `protocol.Volumes` below a directory.

    Args:
        root: the directory; made at first use.
        mounting: whether this process may mount: without, memory volumes are plain directories.
    """

    def __init__(self, root: Path, *, mounting: bool) -> None:
        self._root = root
        self._mounting = mounting

    async def _do(self, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            raise RuntimeFailure("FailedMount", f"{error.strerror or error}: {error.filename or self._root}") from error

    def _pod(self, pod_uid: str, kind: str, name: str) -> Path:
        for part in (pod_uid, name):
            if not _NAME.match(part):
                raise RuntimeFailure("FailedMount", f"{part!r} is no name of a pod or volume")
        if not self._root.exists():
            self._root.mkdir(parents=True, mode=0o711)
        if self._mounting and not mounts.is_mount(self._root):
            # what containers mount for others must travel: the directory has to pass mounts on
            mounts.make_shared_mount(self._root)
        return self._root / pod_uid / kind / name

    async def empty_dir(
        self, pod_uid: str, volume: str, *, in_memory: bool, size_bytes_max: int, gid: int | None
    ) -> str:
        def work() -> str:
            path = self._pod(pod_uid, "empty-dir", volume)
            if not path.exists():
                path.mkdir(parents=True)
            if in_memory and self._mounting and not mounts.is_mount(path):
                mounts.tmpfs(str(path), size_bytes=size_bytes_max, mode=0o777)
            os.chmod(path, 0o777 if gid is None else 0o2777)
            _give(path, gid)
            return str(path)

        return await self._do(work)

    async def payload(
        self, pod_uid: str, volume: str, files: dict[str, tuple[bytes, int]], *, in_memory: bool, gid: int | None
    ) -> str:
        def work() -> str:
            path = self._pod(pod_uid, "payload", volume)
            path.mkdir(parents=True, exist_ok=True)
            if in_memory and self._mounting and not mounts.is_mount(path):
                mounts.tmpfs(str(path))
            write_payload(path, files, gid)
            return str(path)

        return await self._do(work)

    async def host_path(self, path: str, kind: str) -> str:
        def work() -> str:
            check_host_path(path, kind)
            return path

        return await self._do(work)

    async def sub_path(self, pod_uid: str, volume_path: str, sub_path: str) -> str:
        return await self._do(lambda: resolve_sub_path(volume_path, sub_path))

    async def pod_file(self, pod_uid: str, path: str, data: bytes, mode: int) -> str:
        def work() -> str:
            target = self._file(pod_uid, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            target.chmod(mode)
            return str(target)

        return await self._do(work)

    def _file(self, pod_uid: str, path: str) -> Path:
        parts = path.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise RuntimeFailure("FailedMount", f"{path!r} is no path inside a pod's directory")
        return self._pod(pod_uid, "files", parts[0]).joinpath(*parts[1:])

    async def read_pod_file(self, pod_uid: str, path: str, size_bytes_max: int) -> bytes:
        def work() -> bytes:
            try:
                # a container may have put a link here: it must not lead the agent elsewhere
                fd = os.open(self._file(pod_uid, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError:
                return b""
            with open(fd, "rb") as file:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    return b""
                file.seek(max(0, os.fstat(fd).st_size - size_bytes_max))
                return file.read(size_bytes_max)

        return await self._do(work)

    async def pods(self) -> list[str]:
        def work() -> list[str]:
            return sorted(path.name for path in self._root.iterdir()) if self._root.exists() else []

        return await self._do(work)

    async def teardown(self, pod_uid: str) -> None:
        if not _NAME.match(pod_uid):
            raise RuntimeFailure("FailedMount", f"{pod_uid!r} is no uid of a pod")
        await self._do(lambda: mounts.remove_tree(self._root / pod_uid))

    async def purge(self) -> None:
        """Removes every pod's files and this directory's own mount."""
        await self._do(lambda: mounts.remove_tree(self._root))


def _give(path: Path, gid: int | None) -> None:
    if gid is not None:
        os.chown(path, -1, gid)


def write_payload(path: Path, files: dict[str, tuple[bytes, int]], gid: int | None) -> None:
    """Shows files in a directory, all changing at once: each name is a link through `..data` to one moment's copy.

    Blocks. Raises OSError, and RuntimeFailure for a path that leaves the directory.
    """
    for name in files:
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts) or parts[0].startswith(".."):
            raise RuntimeFailure("FailedMount", f"{name!r} is no path inside a volume")
    if _is_shown(path, files):
        return
    before = os.readlink(path / _DATA) if os.path.islink(path / _DATA) else ""
    moment = path / f"..{secrets.token_hex(8)}"
    moment.mkdir(mode=0o755)
    for name, (data, mode) in files.items():
        target = moment / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        # a pod's group may read what only its owner could
        target.chmod(mode if gid is None else mode | ((mode & 0o400) >> 3))
        _give(target, gid)
    new_link = path / f"{_DATA}_tmp"
    new_link.unlink(missing_ok=True)
    new_link.symlink_to(moment.name)
    os.replace(new_link, path / _DATA)
    _show_names(path, {name.split("/")[0] for name in files})
    if before:
        shutil.rmtree(path / before, ignore_errors=True)


def _show_names(path: Path, wanted: set[str]) -> None:
    """Makes the links that users see, and removes those of files that are gone."""
    for name in sorted(wanted):
        if not os.path.lexists(path / name):
            (path / name).symlink_to(f"{_DATA}/{name}")
    for entry in list(path.iterdir()):
        if not entry.name.startswith("..") and entry.name not in wanted:
            entry.unlink()


def _is_shown(path: Path, files: dict[str, tuple[bytes, int]]) -> bool:
    """Whether exactly these contents stand there already."""
    data = path / _DATA
    if not data.is_dir():
        return False
    found = {str(p.relative_to(data)): p for p in data.rglob("*") if p.is_file()}
    if found.keys() != files.keys():
        return False
    return all(found[name].read_bytes() == contents for name, (contents, _) in files.items())


def check_host_path(path: str, kind: str) -> None:
    """Checks or makes a hostPath of a type. Raises RuntimeFailure("FailedMount") when it is something else."""
    checks: dict[str, tuple[Callable[[int], bool], str]] = {
        "Directory": (stat.S_ISDIR, "directory"),
        "File": (stat.S_ISREG, "file"),
        "Socket": (stat.S_ISSOCK, "socket"),
        "CharDevice": (stat.S_ISCHR, "character device"),
        "BlockDevice": (stat.S_ISBLK, "block device"),
    }
    if not path.startswith("/") or ".." in path.split("/"):
        raise RuntimeFailure("FailedMount", f"hostPath {path!r} must be absolute and without '..'")
    exists = os.path.exists(path)
    if not exists and kind in ("", "DirectoryOrCreate"):
        os.makedirs(path, 0o755, exist_ok=True)
    elif not exists and kind == "FileOrCreate":
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    if not kind:
        return
    is_kind, words = checks[kind.removesuffix("OrCreate")]
    if not exists and not kind.endswith("OrCreate"):
        raise RuntimeFailure("FailedMount", f"hostPath type check failed: {path} does not exist")
    if not is_kind(os.stat(path).st_mode):
        raise RuntimeFailure("FailedMount", f"hostPath type check failed: {path} is not a {words}")


def resolve_sub_path(volume_path: str, sub_path: str) -> str:
    """Returns the path of something inside a volume, made as a directory if missing, never outside.

    Links on the way are followed by hand, as long as they stay inside; the answer contains none. Blocks.
    Raises RuntimeFailure("FailedMount").
    """
    todo = list(reversed(sub_path.split("/")))
    if sub_path.startswith("/") or ".." in todo:
        raise RuntimeFailure("FailedMount", f"subPath {sub_path!r} must be relative and must not contain '..'")
    root = os.path.realpath(volume_path)
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not done:
                raise RuntimeFailure("FailedMount", f"subPath {sub_path!r} leads out of its volume")
            done.pop()
            continue
        path = os.path.join(root, *done, part)
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            os.mkdir(path, 0o755)
            _copy_owner(os.path.dirname(path), path)
            mode = stat.S_IFDIR
        if not stat.S_ISLNK(mode):
            done.append(part)
            continue
        links += 1
        target = os.readlink(path)
        if target.startswith("/") or links > _LINKS_MAX:
            raise RuntimeFailure("FailedMount", f"subPath {sub_path!r} leads out of its volume")
        todo.extend(reversed(target.split("/")))
    return os.path.join(root, *done)


def _copy_owner(parent: str, path: str) -> None:
    found = os.stat(parent)
    os.chown(path, found.st_uid, found.st_gid)
    os.chmod(path, stat.S_IMODE(found.st_mode))


def may_mount() -> bool:
    """Whether this process has the right to mount."""
    return os.geteuid() == 0 and syscalls.has_capability(syscalls.CAP_SYS_ADMIN)
