"""Unpacking image layers into directories that an overlay mount can stack.

Whiteouts become what overlayfs understands: a 0/0 character device hides a name, an attribute makes a directory opaque.
No entry can leave the directory: links met on the way are resolved as if it were the root.
Source: https://github.com/opencontainers/image-spec/blob/main/layer.md,
https://docs.kernel.org/filesystems/overlayfs.html
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib
import os
import stat
import tarfile
from pathlib import Path
from typing import IO, Protocol, cast

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_LINKS_MAX = 40
_GZIP_MAGIC, _ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class LayerError(Exception):
    """The layer cannot be unpacked: it is damaged, dishonest or in a form unknown here."""


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class HashingReader:
    """Passes bytes through and keeps their SHA-256 and count."""

    def __init__(self, source: Readable, head: bytes = b"") -> None:
        self._source = source
        self._head = head
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        if self._head:
            data = self._head if size < 0 else self._head[:size]
            self._head = self._head[len(data) :]
            if size < 0:
                data += self._source.read()
        else:
            data = self._source.read(size)
        self._hash.update(data)
        self.size_bytes += len(data)
        return data

    def drain(self) -> None:
        """Reads to the end, so that the hash covers what comes after the archive's own end."""
        while self.read(1 << 16):
            pass

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def decompressed(source: Readable) -> Readable:
    """Returns a reader of the plain bytes of a gzip, zstd or plain stream. Raises LayerError for an unknown form."""
    head = _exactly(source, 4)
    joined = _Joined(head, source)
    if head.startswith(_GZIP_MAGIC):
        return cast(Readable, gzip.GzipFile(fileobj=cast(IO[bytes], joined)))
    if head == _ZSTD_MAGIC:
        try:
            zstandard = importlib.import_module("zstandard")
        except ImportError:
            raise LayerError("the layer is compressed with zstd, which needs the Python package zstandard") from None
        found: Readable = zstandard.ZstdDecompressor().stream_reader(joined)
        return found
    return joined


def _exactly(source: Readable, size: int) -> bytes:
    found = b""
    while len(found) < size and (data := source.read(size - len(found))):
        found += data
    return found


class _Joined:
    """Bytes already read, followed by the rest."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int = -1, /) -> bytes:
        if not self._head:
            return self._rest.read(size)
        if size < 0:
            data, self._head = self._head + self._rest.read(), b""
            return data
        data, self._head = self._head[:size], self._head[size:]
        return data


def unpack(source: Readable, target: Path) -> str:
    """Unpacks a (compressed) layer into an empty directory; returns the digest of the plain archive.

    Blocks: call it in a thread. Raises LayerError; the directory is then half filled.
    """
    try:
        plain = HashingReader(decompressed(source))
        times: list[tuple[str, float]] = []
        with tarfile.open(fileobj=plain, mode="r|", errorlevel=2) as archive:  # type: ignore[call-overload]
            for member in archive:
                _place(archive, member, target, times)
        plain.drain()
    except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
        raise LayerError(f"the layer is damaged: {error}") from error
    for path, modified in reversed(times):
        os.utime(path, (modified, modified))
    return plain.digest


def _place(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, times: list[tuple[str, float]]) -> None:
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise LayerError(f"the layer names {member.name!r}")
    if not parts:
        os.chmod(target, member.mode)
        return
    parent = inside(target, parts[:-1])
    os.makedirs(parent, exist_ok=True)
    name = parts[-1]
    path = os.path.join(parent, name)
    if name == _OPAQUE:
        os.setxattr(parent, "trusted.overlay.opaque", b"y")
    elif name.startswith(_WHITEOUT):
        hidden = os.path.join(parent, name.removeprefix(_WHITEOUT))
        _clear(hidden)
        os.mknod(hidden, stat.S_IFCHR, 0)
    else:
        _clear(path, keep_directory=member.isdir())
        _make(archive, member, path, target)
        _dress(member, path, times)


def _clear(path: str, *, keep_directory: bool = False) -> None:
    """Makes way for an entry that comes a second time in the same layer."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        os.unlink(path)
    elif not keep_directory:
        os.rmdir(path)


def _make(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str, target: Path) -> None:
    if member.isdir():
        os.makedirs(path, exist_ok=True)
    elif member.issym():
        os.symlink(member.linkname, path)
    elif member.islnk():
        parts = [part for part in member.linkname.split("/") if part not in ("", ".")]
        if not parts or ".." in parts:
            raise LayerError(f"the layer links {member.name!r} to {member.linkname!r}")
        os.link(os.path.join(inside(target, parts[:-1]), parts[-1]), path, follow_symlinks=False)
    elif member.ischr() or member.isblk():
        kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        os.mknod(path, kind | member.mode, os.makedev(member.devmajor, member.devminor))
    elif member.isfifo():
        os.mkfifo(path, member.mode)
    else:
        source = archive.extractfile(member)
        with open(path, "wb") as file:
            if source is not None:
                _copy(source, file)


def _copy(source: IO[bytes], file: IO[bytes]) -> None:
    while data := source.read(1 << 18):
        file.write(data)


def _dress(member: tarfile.TarInfo, path: str, times: list[tuple[str, float]]) -> None:
    """Gives an entry its owner, mode, attributes and time; a directory's time is set after its contents are there."""
    if member.islnk():
        return
    os.lchown(path, member.uid, member.gid)
    if member.issym():
        return
    os.chmod(path, member.mode)
    for key, value in member.pax_headers.items():
        if key.startswith("SCHILY.xattr."):
            # a file system without such attributes loses them, as with every other tool
            with contextlib.suppress(OSError):
                os.setxattr(path, key.removeprefix("SCHILY.xattr."), value.encode("utf-8", "surrogateescape"))
    if member.isdir():
        times.append((path, member.mtime))
    else:
        os.utime(path, (member.mtime, member.mtime))


def inside(root: Path, parts: list[str]) -> str:
    """Returns the path of `parts` below `root`, links resolved as if `root` were `/`. Raises LayerError for a loop."""
    base = str(root)
    todo, done, links = list(reversed(parts)), [], 0  # type: list[str], list[str], int
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = done[:-1]
            continue
        path = os.path.join(base, *done, part)
        try:
            link = os.readlink(path)
        except OSError:
            done.append(part)
            continue
        links += 1
        if links > _LINKS_MAX:
            raise LayerError(f"too many links on the way to {'/'.join(parts)!r}")
        if link.startswith("/"):
            done = []
        todo.extend(reversed(link.split("/")))
    return os.path.join(base, *done)
