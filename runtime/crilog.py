"""Reading and bounding a container's log in the CRI's format: `TIME stdout|stderr P|F TEXT`, one entry a line.

`P` entries are parts of a line; the next `F` entry ends it. A full log becomes `log.1` and a new one begins.
Source: https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

#: a log larger than this is rotated
LOG_BYTES_MAX = 10 * 1024 * 1024
#: what is read at once: bounds the memory of a reader
_CHUNK_BYTES = 256 * 1024
#: how often a follower looks for more
_FOLLOW_PERIOD_S = 0.1

Line = tuple[float, int, bytes]


def parse(entry: bytes) -> Line | None:
    """Returns (Unix seconds, stream, text with its newline if it ends the line); None for what is no entry."""
    parts = entry.rstrip(b"\n").split(b" ", 3)
    if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr"):
        return None
    try:
        time = parse_time(parts[0].decode())
    except ValueError:
        return None
    text = parts[3] if len(parts) > 3 else b""
    return time, 1 if parts[1] == b"stdout" else 2, text + (b"" if parts[2] == b"P" else b"\n")


def parse_time(text: str) -> float:
    """Parses RFC 3339 with nanoseconds, which Python's own parser refuses."""
    head, _, rest = text.partition(".")
    if not rest:
        return datetime.fromisoformat(text).timestamp()
    digits = rest.rstrip("Z").partition("+")[0].partition("-")[0]
    zone = rest[len(digits) :] or "Z"
    return datetime.fromisoformat(head + zone.replace("Z", "+00:00")).timestamp() + float(f"0.{digits}")


def format_entry(time: float, stream: int, text: bytes, *, partial: bool) -> bytes:
    moment = datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
    return b"%s %s %s %s\n" % (moment.encode(), (b"stdout", b"stderr")[stream - 1], b"FP"[partial : partial + 1], text)


def rotated(path: Path) -> Path:
    return path.with_name(path.name + ".1")


async def lines(path: Path, *, follow: bool, is_over: Callable[[], bool]) -> AsyncIterator[Line]:
    """Yields a log's lines, oldest first; a follower goes on over rotations until `is_over` and all is read."""
    for old in (rotated(path),):
        if old.exists():
            async for line in _read_all(old):
                yield line
    reader = _Reader(path)
    try:
        while True:
            ended = is_over()
            data = await asyncio.to_thread(reader.read)
            for line in data:
                yield line
            if data:
                continue
            if not follow or ended:
                break
            await asyncio.sleep(_FOLLOW_PERIOD_S)
        for line in reader.rest():
            yield line
    finally:
        reader.close()


async def _read_all(path: Path) -> AsyncIterator[Line]:
    reader = _Reader(path)
    try:
        while data := await asyncio.to_thread(reader.read):
            for line in data:
                yield line
        for line in reader.rest():
            yield line
    finally:
        reader.close()


class _Reader:
    """Reads entries of a file that grows and may be replaced, and joins the parts of lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._buffer = b""
        #: per stream: time and text of a line that has not ended
        self._parts: dict[int, tuple[float, bytes]] = {}

    def read(self) -> list[Line]:
        """Returns the next lines; empty when there are none now."""
        while True:
            if self._fd < 0 and not self._open():
                return []
            data = os.read(self._fd, _CHUNK_BYTES)
            if data:
                if found := self._lines(data):
                    return found
                continue
            if not self._replaced():
                return []
            self.close()

    def _open(self) -> bool:
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        return True

    def _replaced(self) -> bool:
        try:
            return os.stat(self._path).st_ino != os.fstat(self._fd).st_ino
        except FileNotFoundError:
            return False

    def _lines(self, data: bytes) -> list[Line]:
        *entries, self._buffer = (self._buffer + data).split(b"\n")
        return [line for entry in entries if (line := self._joined(entry)) is not None]

    def _joined(self, entry: bytes) -> Line | None:
        found = parse(entry)
        if found is None:
            return None
        time, stream, text = found
        first, before = self._parts.pop(stream, (time, b""))
        text = before + text
        if not text.endswith(b"\n") and len(text) < _CHUNK_BYTES:
            self._parts[stream] = (first, text)
            return None
        return first, stream, text

    def rest(self) -> list[Line]:
        """Returns lines that never ended."""
        found = [(time, stream, text) for stream, (time, text) in sorted(self._parts.items()) if text]
        self._parts.clear()
        return found

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def rotate(path: Path) -> bool:
    """Renames a log that is too large; returns whether the writer has to open a new one."""
    try:
        if path.stat().st_size <= LOG_BYTES_MAX:
            return False
    except FileNotFoundError:
        return False
    os.replace(path, rotated(path))
    return True
