"""What the store's disk asks of the operating system, as two ports: its files, and somebody to carry out what blocks.

The real ones are here; the simulator has others that tear, lose, fail and delay.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Literal, Protocol, TypeVar

T = TypeVar("T")

#: blocking work of one lane is done in its order; the lanes go side by side
Lane = Literal["log", "snapshot"]


class Files(Protocol):
    """Files that are only ever appended to. What is not synced may be lost, torn or doubled by a crash; the same is
    true of names until their directory is synced. Everything raises OSError."""

    def make_directory(self, path: Path) -> None:
        """Makes a directory and its parents where missing."""
        ...

    def lock(self, path: Path) -> int:
        """Returns a descriptor that keeps others out until closed; raises BlockingIOError naming who holds it."""
        ...

    def create(self, path: Path) -> int:
        """Returns a descriptor of a new, empty file; one that is there is emptied."""
        ...

    def open(self, path: Path) -> int:
        """Returns a descriptor for appending to a file."""
        ...

    def write(self, descriptor: int, pieces: Sequence[bytes]) -> int:
        """Appends; returns how many bytes fitted."""
        ...

    def sync(self, descriptor: int) -> None:
        """Makes a file's content and size durable; after an error nothing is known of either."""
        ...

    def close(self, descriptor: int) -> None: ...
    def allocate(self, path: Path, size_bytes: int) -> None:
        """Makes a file of zeros that takes up its space for certain."""
        ...

    def read(self, path: Path) -> bytes: ...
    def size(self, path: Path) -> int: ...
    def exists(self, path: Path) -> bool: ...
    def names(self, directory: Path) -> list[str]:
        """Returns the names in a directory, in order."""
        ...

    def rename(self, source: Path, target: Path) -> None: ...
    def unlink(self, path: Path) -> None: ...
    def truncate(self, path: Path, size_bytes: int) -> None: ...
    def sync_directory(self, path: Path) -> None:
        """Makes created, renamed and removed names durable."""
        ...

    def free_bytes(self, directory: Path) -> int: ...


class Workers(Protocol):
    """Carries out what blocks, away from the event loop."""

    def run(self, lane: Lane, work: Callable[[], T]) -> asyncio.Future[T]: ...
    async def close(self) -> None:
        """Returns when everything given is done."""
        ...


class OsFiles:
    """The operating system's."""

    def make_directory(self, path: Path) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def lock(self, path: Path) -> int:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise BlockingIOError(f"process {holder}") from None
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            pass  # it only helps people; a full disk must not keep the store from serving reads
        return descriptor

    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def open(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def write(self, descriptor: int, pieces: Sequence[bytes]) -> int:
        return os.writev(descriptor, pieces)

    def sync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def allocate(self, path: Path, size_bytes: int) -> None:
        descriptor = self.create(path)
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)
        finally:
            os.close(descriptor)

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def size(self, path: Path) -> int:
        return path.stat().st_size

    def exists(self, path: Path) -> bool:
        return path.exists()

    def names(self, directory: Path) -> list[str]:
        return sorted(os.listdir(directory))

    def rename(self, source: Path, target: Path) -> None:
        source.rename(target)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def truncate(self, path: Path, size_bytes: int) -> None:
        os.truncate(path, size_bytes)

    def sync_directory(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def free_bytes(self, directory: Path) -> int:
        space = os.statvfs(directory)
        return space.f_bavail * space.f_frsize


class Threads:
    """A thread a lane, begun with its first work.

    An executor of the standard library would do, at twice the cost of a hand-over: each write of the log pays for one.
    """

    def __init__(self) -> None:
        self._lanes: dict[Lane, SimpleQueue[_Work | None]] = {}

    def run(self, lane: Lane, work: Callable[[], T]) -> asyncio.Future[T]:
        queue = self._lanes.get(lane)
        if queue is None:
            queue = self._lanes[lane] = SimpleQueue()
            Thread(target=_carry_out, args=(queue,), name=f"store-{lane}", daemon=True).start()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        queue.put((work, future))
        return future

    async def close(self) -> None:
        ends = [self.run(lane, lambda: None) for lane in self._lanes]
        lanes, self._lanes = list(self._lanes.values()), {}
        for queue in lanes:
            queue.put(None)
        await asyncio.gather(*ends)


_Work = tuple[Callable[[], Any], "asyncio.Future[Any]"]


def _carry_out(queue: SimpleQueue[_Work | None]) -> None:
    """The body of a lane's thread."""
    while (taken := queue.get()) is not None:
        work, future = taken
        result: Any = None
        failure: BaseException | None = None
        try:
            result = work()
        except BaseException as error:  # whatever it is, it belongs to who waits
            failure = error
        loop = future.get_loop()
        if loop.is_closed():
            return
        loop.call_soon_threadsafe(_settle, future, result, failure)
        del taken, work, future, result, failure  # a thread that waits holds nothing


def _settle(future: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if future.done():
        return  # nobody waits any more
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)


def write_durably(files: Files, path: Path, pieces: Iterable[bytes]) -> None:
    """Writes a file so that after a crash it is there as a whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    descriptor = files.create(temporary)
    try:
        for piece in pieces:
            write_whole(files, descriptor, (piece,), temporary)
        files.sync(descriptor)
    except OSError:
        files.unlink(temporary)
        raise
    finally:
        files.close(descriptor)
    files.rename(temporary, path)
    files.sync_directory(path.parent)


def write_whole(files: Files, descriptor: int, pieces: Sequence[bytes], path: Path) -> int:
    """Appends all of the pieces; returns how many bytes they are.

    Raises:
        OSError: ENOSPC too when only a part of them fitted.
    """
    wanted = sum(map(len, pieces))
    if files.write(descriptor, pieces) != wanted:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    return wanted
