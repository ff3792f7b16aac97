"""A disk under virtual time: files as a kernel keeps them, and what is left of them when the power goes.

Written bytes and changed names are lost at a crash until they are synced: of a file that was written any part of its
sectors may have arrived, of a directory's changes any of them. Errors are aimed by the story.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NoReturn, TypeVar

from tests.sim.faults import Fault, Faults
from tests.sim.process import PowerLoss, Process

from steersman.actors.store.files import Lane

T = TypeVar("T")

#: what a disk writes as a whole or not at all
SECTOR_BYTES = 512
#: more than any story writes
CAPACITY = 1 << 40


class File:
    """One file's bytes: as programs see them, and as they were when last synced."""

    __slots__ = ("bytes", "synced")

    def __init__(self) -> None:
        self.bytes = bytearray()
        self.synced = b""

    def crash(self, rng: random.Random, faults: Faults) -> None:
        """Leaves what was synced, and of what was written since any of the sectors."""
        seen, synced = bytes(self.bytes), self.synced
        if seen == synced:
            return
        length = rng.choice((len(synced), len(seen), rng.randint(*sorted((len(synced), len(seen))))))
        left = bytearray(seen[:length].ljust(length, b"\0"))
        left[: len(synced)] = synced[:length]
        first = len(synced) - len(synced) % SECTOR_BYTES
        torn = False
        for start in range(first, length, SECTOR_BYTES):
            if rng.random() < 0.2:
                stop = min(start + SECTOR_BYTES, length)
                left[max(start, len(synced)) : stop] = bytes(max(0, stop - max(start, len(synced))))
                torn = torn or stop < length
        faults[Fault.WRITE_TORN] += torn
        faults[Fault.WRITES_LOST] += left != seen
        self.bytes, self.synced = left, bytes(left)


class Disk:
    """The files of one machine; implements the store's `Files`.

    Attributes:
        process: the one that runs on the machine; it may die at any changing call, and then does when its
            `points_left` or the disk's own `calls_left` end (None: it does not).
        doomed: (ending, calls): the power goes so many calls after a file with this ending is made; None for no such.
        error: what the next changing call of a kind (`write` or `sync`) raises, once.
        capacity: bytes that it holds.
        troubles: errors raised and answers given that space is short, so far.
    """

    def __init__(self, rng: random.Random, faults: Faults) -> None:
        self._rng, self._faults = rng, faults
        self._names: dict[Path, File] = {}
        self._synced_names: dict[Path, File] = {}
        #: changes of names since their directory was synced, in order
        self._unsynced: list[tuple[Path, File | None]] = []
        self._open: dict[int, tuple[Path, File]] = {}
        self._next_descriptor = 3
        self.calls_left: int | None = None
        self.doomed: tuple[str, int] | None = None
        self.error: dict[str, OSError] = {}
        self.capacity = CAPACITY
        self.troubles = 0
        self.process: Process | None = None

    # what goes wrong

    def crash(self) -> None:
        """Leaves what a power cut leaves."""
        for path, file in self._unsynced:
            if self._rng.random() < 0.5:
                self._put(self._synced_names, path, file)
            else:
                self._faults[Fault.NAME_LOST] += 1
        self._unsynced.clear()
        self._open.clear()
        self._names = dict(self._synced_names)
        for file in dict.fromkeys(self._names.values()):
            file.crash(self._rng, self._faults)
        self.spare()

    def spare(self) -> None:
        """Nothing is to go wrong any more."""
        self.calls_left = self.doomed = None
        self.error.clear()
        self.capacity = CAPACITY

    def wipe(self) -> None:
        """A new disk."""
        self._names, self._synced_names = {}, {}
        self.crash()

    def fill(self, left_bytes: int) -> None:
        self.capacity = self.capacity - self._free() + left_bytes

    def rot(self, path: Path, bit: int) -> None:
        """Turns a bit of a file that nobody has open."""
        file = self._names[path]
        file.bytes[bit // 8] ^= 1 << bit % 8
        file.synced = bytes(file.bytes)
        self._faults[Fault.BIT_ROTTEN] += 1

    def _change(self, kind: Literal["write", "sync"]) -> None:
        if (process := self.process) is not None:
            if self.calls_left is not None:
                self.calls_left -= 1
                if self.calls_left < 0:
                    process.points_left = 0
            if not process.reaches("disk call"):
                raise PowerLoss
        if (error := self.error.pop(kind, None)) is not None:
            self._fail(Fault.WRITE_FAILED if kind == "write" else Fault.SYNC_FAILED, error)

    def _fail(self, fault: Fault, error: OSError) -> NoReturn:
        self._faults[fault] += 1
        self.troubles += 1
        raise error

    @staticmethod
    def _put(names: dict[Path, File], path: Path, file: File | None) -> None:
        if file is None:
            names.pop(path, None)
        else:
            names[path] = file

    def _rename_entry(self, path: Path, file: File | None) -> None:
        self._put(self._names, path, file)
        self._unsynced.append((path, file))

    # what programs call

    def make_directory(self, path: Path) -> None:
        """Directories are there."""

    def lock(self, path: Path) -> int:
        """Only one process runs on a machine at a time."""
        return self._descriptor(path, File())

    def create(self, path: Path) -> int:
        self._change("write")
        if self.doomed is not None and path.name.endswith(self.doomed[0]):
            self.calls_left, self.doomed = self.doomed[1], None
        file = File()
        self._rename_entry(path, file)
        return self._descriptor(path, file)

    def open(self, path: Path) -> int:
        return self._descriptor(path, self._find(path))

    def _descriptor(self, path: Path, file: File) -> int:
        self._next_descriptor += 1
        self._open[self._next_descriptor] = (path, file)
        return self._next_descriptor

    def write(self, descriptor: int, pieces: Sequence[bytes]) -> int:
        self._change("write")
        _, file = self._open[descriptor]
        data = b"".join(pieces)
        fitting = data[: max(0, self._free())]
        if data and not fitting:
            self._fail(Fault.DISK_FULL, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        if fitting != data:
            self._faults[Fault.WRITE_CUT_SHORT] += 1
            self.troubles += 1
        file.bytes += fitting
        return len(fitting)

    def allocate(self, path: Path, size_bytes: int) -> None:
        descriptor = self.create(path)
        self.write(descriptor, (bytes(size_bytes),))
        self.close(descriptor)

    def free_bytes(self, directory: Path) -> int:
        self.troubles += self.capacity < CAPACITY
        return self._free()

    def _free(self) -> int:
        return self.capacity - sum(len(file.bytes) for file in self._names.values())

    def sync(self, descriptor: int) -> None:
        self._change("sync")
        _, file = self._open[descriptor]
        file.synced = bytes(file.bytes)

    def close(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)

    def sync_directory(self, directory: Path) -> None:
        self._change("sync")
        kept = []
        for path, file in self._unsynced:
            if path.parent == directory:
                self._put(self._synced_names, path, file)
            else:
                kept.append((path, file))
        self._unsynced = kept

    def rename(self, source: Path, target: Path) -> None:
        self._change("write")
        file = self._find(source)
        self._rename_entry(source, None)
        self._rename_entry(target, file)

    def unlink(self, path: Path) -> None:
        self._change("write")
        self._find(path)
        self._rename_entry(path, None)

    def truncate(self, path: Path, size_bytes: int) -> None:
        self._change("write")
        del self._find(path).bytes[size_bytes:]

    def read(self, path: Path) -> bytes:
        return bytes(self._find(path).bytes)

    def size(self, path: Path) -> int:
        return len(self._find(path).bytes)

    def exists(self, path: Path) -> bool:
        return path in self._names

    def names(self, directory: Path) -> list[str]:
        return sorted(path.name for path in self._names if path.parent == directory)

    def _find(self, path: Path) -> File:
        file = self._names.get(path)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return file


class Lanes:
    """Work that blocks, as steps of a process that take the time of its disk; implements the store's `Workers`."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def run(self, lane: Lane, work: Callable[[], T]) -> asyncio.Future[T]:
        return self._process.run_in_executor(lane, work)

    async def close(self) -> None:
        """Nothing to let go."""
