"""Machines as network namespaces on one bridge, and what can befall them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.e2e.wire import Weather, Wire

#: of the machines: first three bytes, others for another run of the tests at the same time; the test itself is .254.
#: It is the range for benchmarks (RFC 2544): another cluster on this machine may refuse its range of Services
SUBNET = f"198.18.{os.getpid() % 200 + 20}"
BLKIO, UNIFIED = Path("/sys/fs/cgroup/blkio"), Path("/sys/fs/cgroup")


def missing() -> str:
    """Why machines cannot be made here; empty when they can."""
    if os.geteuid() != 0:
        return "needs root for network namespaces"
    absent = [tool for tool in ("ip", "nsenter", "nft") if not shutil.which(tool)]
    return f"needs {', '.join(absent)}" if absent else ""


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


class Machine:
    """A network namespace with an address and a data directory, and commands run in it."""

    def __init__(self, number: int, directory: Path, cluster: str) -> None:
        self.netns, self.link = f"st{os.getpid()}-{number}", f"st{os.getpid()}p{number}"[-15:]
        self.address = f"{SUBNET}.{number}"
        self.data_dir = directory / str(number)
        self.bridge = ""
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(directory / "1" / "kubeconfig"),
            "STEERSMAN_NAME": cluster,
            "STEERSMAN_DATA_DIR": str(self.data_dir),
        }

    def make(self, bridge: str) -> None:
        self.bridge = bridge
        run("ip", "netns", "add", self.netns)
        run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "wire0", "netns", self.netns)
        run("ip", "link", "set", self.link, "master", bridge, "up")
        self.ip("addr", "add", f"{self.address}/24", "dev", "wire0")
        self.ip("link", "set", "wire0", "up")
        self.ip("link", "set", "lo", "up")
        self.ip("route", "add", "default", "dev", "wire0")

    def ip(self, *words: str) -> None:
        run("ip", "-n", self.netns, *words)

    def inside(self, *words: str, check: bool = True, errors: bool = False) -> str:
        """Runs a program in the machine's network; returns what it printed, its complaints too where wanted."""
        command = ["nsenter", f"--net=/run/netns/{self.netns}", *words]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment, timeout=150, check=False)
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stderr}{done.stdout}"
        return done.stdout + (done.stderr if errors else "")

    def steer(self, *words: str, check: bool = True, errors: bool = False) -> str:
        return self.inside(sys.executable, "-m", "steersman.cli.main", *words, check=check, errors=errors)

    def json(self, *words: str) -> Any:
        return json.loads(self.steer(*words, "-o", "json", check=False) or "[]")

    def pids(self) -> list[int]:
        return [int(pid) for pid in run("ip", "netns", "pids", self.netns).split()]

    def crash(self) -> None:
        """Ends everything that runs here at once, as a power cut would: keeper, Ray and actors."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @contextlib.contextmanager
    def rules(self, *rules: str) -> Iterator[None]:
        """Holds rules of nftables, each `input` or `output` and what follows, as long as it is entered."""
        script = "table ip fault {\n"
        for hook in ("input", "output"):
            mine = "\n".join(rule.removeprefix(hook) for rule in rules if rule.startswith(hook))
            script += f"chain {hook} {{ type filter hook {hook} priority 0;\n{mine}\n}}\n"
        nft = ["nsenter", f"--net=/run/netns/{self.netns}", "nft"]
        subprocess.run([*nft, "-f", "-"], input=script + "}\n", check=True, capture_output=True, text=True)
        try:
            yield
        finally:
            run(*nft, "delete", "table", "ip", "fault")

    def deaf_to(self, others: Iterable[Machine]) -> contextlib.AbstractContextManager[None]:
        """Loses what others send, while they hear this machine."""
        return self.rules(*(f"input ip saddr {other.address} drop" for other in others))

    def parted_from(self, others: Iterable[Machine]) -> contextlib.AbstractContextManager[None]:
        rows = [
            f"{way} drop" for o in others for way in (f"input ip saddr {o.address}", f"output ip daddr {o.address}")
        ]
        return self.rules(*rows)

    def lossy(self, percent: int) -> contextlib.AbstractContextManager[None]:
        """Loses so many of all packets that come in."""
        return self.rules(f"input ip saddr {SUBNET}.0/24 numgen random mod 100 < {percent} drop")

    @contextlib.contextmanager
    def behind(self, weather: Weather) -> Iterator[None]:
        """Has everything that comes and goes pass a wire; connections that are there stay."""
        yard, inner, outer = (f"{self.link}{letter}" for letter in "bio")
        run("ip", "link", "add", yard, "type", "bridge")
        try:
            # the test's own machine would answer there for its address on the other bridge
            run("ip", "link", "set", yard, "arp", "off", "up")
            with Wire((inner, outer), weather):
                run("ip", "link", "set", inner, "master", yard, "up")
                run("ip", "link", "set", outer, "master", self.bridge, "up")
                run("ip", "link", "set", self.link, "master", yard)
                try:
                    yield
                finally:
                    run("ip", "link", "set", self.link, "master", self.bridge)
        finally:
            run("ip", "link", "del", yard)

    def round_trip_s(self) -> float:
        """How long this machine takes to answer that nobody listens on a port."""
        began = time.monotonic()
        with socket.socket() as caller:
            assert caller.connect_ex((self.address, 9)) == errno.ECONNREFUSED
        return time.monotonic() - began


class FailingDisk:
    """A file system of its own at a directory, which can have an error; then the kernel lets nobody write to it.

    While it is repaired nobody can write to the directory either: what was written would be hidden afterwards.
    """

    def __init__(self, directory: Path, image: Path, size_bytes: int) -> None:
        self._directory, self._image = directory, image
        with self._image.open("w") as file:
            file.truncate(size_bytes)
        run("mkfs.ext4", "-q", str(self._image))
        self._directory.mkdir(parents=True)
        run("mount", "-t", "tmpfs", "-o", "ro", "nothing", str(self._directory))
        self._mount()

    @classmethod
    def missing(cls) -> str:
        """Why there can be none here; empty when there can."""
        absent = [tool for tool in ("mkfs.ext4", "e2fsck", "losetup") if not shutil.which(tool)]
        if absent or not Path("/dev/loop-control").exists():
            return f"needs {', '.join(absent) or 'loop devices'} for a disk that fails"
        return "" if Path("/sys/fs/ext4").exists() else "needs the kernel's ext4 for a disk that fails"

    def _mount(self) -> None:
        run("mount", "-o", "loop,errors=remount-ro", str(self._image), str(self._directory))

    def fail(self) -> None:
        device = Path(run("findmnt", "-no", "SOURCE", str(self._directory)).strip()).name
        Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("a test")

    def repair(self, deadline_s: float = 40.0) -> None:
        """Waits for a moment in which nobody has a file open."""
        end = time.monotonic() + deadline_s
        while subprocess.run(["umount", str(self._directory)], check=False, capture_output=True).returncode:
            assert time.monotonic() < end, f"{self._directory} is in use"
            time.sleep(0.05)
        subprocess.run(["e2fsck", "-fy", str(self._image)], check=False, capture_output=True)
        self._mount()

    def remove(self) -> None:
        """Whoever still has a file open keeps it alone."""
        for _ in range(2):
            subprocess.run(["umount", "--lazy", str(self._directory)], check=False, capture_output=True)


@contextlib.contextmanager
def slow_disk(directory: Path, pid: int, writes_a_second: int) -> Iterator[str]:
    """Lets the block device of a directory take few writes of a process; yields why it cannot be done, or nothing."""
    device = os.stat(directory).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    first = BLKIO.exists()
    group = (BLKIO if first else UNIFIED) / f"st{os.getpid()}"
    limit = "blkio.throttle.write_iops_device" if first else "io.max"
    words = f"{name} {writes_a_second}" if first else f"{name} wiops={writes_a_second}"
    why = ""
    former = next(
        line.split(":", 2)[2]
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        if not first or ":blkio:" in line
    )
    try:
        group.mkdir()
        (group / limit).write_text(words)
        (group / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        why = f"the kernel slows no disk down here: {error}"
    try:
        yield why
    finally:
        with contextlib.suppress(OSError):
            ((BLKIO if first else UNIFIED) / former.lstrip("/") / "cgroup.procs").write_text(str(pid))
        with contextlib.suppress(OSError):
            group.rmdir()
