"""The runtimes under test: one that simulates everywhere, the real ones where the machine allows."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from steersman.cluster.node.values import ContainerSpec, ContainerState, ContainerStatus, SandboxSpec, SandboxStatus
from steersman.runtime import detect
from steersman.runtime.cri import CriRuntime
from steersman.runtime.oci import OciRuntime
from steersman.runtime.oci_host import OciHost
from steersman.runtime.process import ProcessRuntime
from steersman.runtime.protocol import Runtime
from steersman.runtime.simulated import SimulatedRuntime

#: how long a test waits for something to happen before it fails
DEADLINE_S = 20.0


@dataclass
class Subject:
    """A runtime, what it is called, and shorthands to use it."""

    name: str
    runtime: Runtime
    root: Path
    cidr: str
    containerd: Containerd | None = None
    running: list[Runtime] = field(default_factory=list)

    async def sandbox(self, name: str = "pod", **fields: object) -> SandboxStatus:
        spec = SandboxSpec(pod_uid=f"uid-{name}", name=name, namespace="default", hostname=name, **fields)  # type: ignore[arg-type]
        return await self.runtime.run_sandbox(spec)

    async def spec(self, sandbox: SandboxStatus, script: str = "", **fields: object) -> ContainerSpec:
        """A container of the built-in image running a shell script, or with none its own web server."""
        image = await self.runtime.image("localhost/web:v1")
        assert image is not None
        values: dict[str, object] = {
            "pod_uid": sandbox.pod_uid,
            "pod_name": sandbox.name,
            "namespace": sandbox.namespace,
            "name": "main",
            "image": image.id,
        }
        if script:
            values["command"] = ("sh", "-c", script)
        return ContainerSpec(**(values | fields))  # type: ignore[arg-type]

    async def run(self, sandbox: SandboxStatus, script: str = "", **fields: object) -> str:
        container = await self.runtime.create_container(sandbox.id, await self.spec(sandbox, script, **fields))
        await self.runtime.start_container(container)
        return container

    async def status(self, container_id: str) -> ContainerStatus:
        return next(found for found in await self.runtime.containers() if found.id == container_id)

    async def exited(self, container_id: str) -> ContainerStatus:
        async with asyncio.timeout(DEADLINE_S):
            while (status := await self.status(container_id)).state is not ContainerState.EXITED:  # noqa: ASYNC110 (a list is polled)
                await asyncio.sleep(0.01)
        return status

    async def settled(self, container_id: str) -> None:
        """Waits for the first line a container prints: then its shell has set its traps."""
        async with asyncio.timeout(DEADLINE_S):
            async for _ in self.runtime.log_lines(container_id, follow=True):
                return

    def another(self, root: Path | None = None) -> Runtime:
        """A runtime of the same sort over another directory."""
        return make(self.name, root or self.root.with_name("another"), self.containerd)

    def leftovers(self) -> list[str]:
        """Processes, mounts, links and cgroups that belong to the runtime's directory."""
        found = [f"process {pid}" for pid in pids_naming(str(self.root))]
        found += [
            f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.root) in line
        ]
        if self.name == "oci":
            tag = OciHost(self.root, engine=None, now=time.time).tag
            found += [f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob(f"*/steersman-{tag}")]
            found += [f"link {path.name}" for path in Path("/sys/class/net").glob(f"st{tag}*")]
            found += [line for line in Path("/proc/net/route").read_text().splitlines() if f"st{tag}" in line]
        if self.containerd is not None:
            tag = hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:8]
            found += [f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob(f"*/steersman-{tag}")]
            found += [f"network {path}" for path in self.containerd.networks.glob(f"*{tag}*")]
            found += [f"shim {pid}" for pid in self.containerd.shims()]
        return found

    async def again(self) -> Runtime:
        """What a restarted agent would hold: a new runtime over the same directory."""
        if self.name == "simulated":
            return self.runtime
        await self.runtime.stop()
        self.runtime = make(self.name, self.root, self.containerd)
        await self.runtime.start()
        await self.runtime.set_pod_cidr(self.cidr)
        return self.runtime


@dataclass
class Containerd:
    """A containerd of the tests' own, with nothing but its name in common with the machine's."""

    directory: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.directory / "containerd.sock"

    @property
    def networks(self) -> Path:
        return self.directory / "net.d"

    def start(self) -> None:
        self.networks.mkdir(exist_ok=True)
        config = self.directory / "config.toml"
        config.write_text(CONTAINERD.format(directory=self.directory))
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(["containerd", "--config", str(config)], stdout=log, stderr=log)
        end = time.monotonic() + DEADLINE_S
        while "containerd successfully booted" not in (self.directory / "log").read_text():
            assert self.process.poll() is None and time.monotonic() < end, (self.directory / "log").read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(DEADLINE_S)

    def shims(self) -> list[int]:
        """The processes that hold containers."""
        assert self.process is not None
        return [pid for pid in pids_naming(str(self.socket)) if pid != self.process.pid]


CONTAINERD = """\
version = 2
root = "{directory}/root"
state = "{directory}/state"
oom_score = 0
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{directory}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:v1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{directory}/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


@pytest.fixture(scope="session")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    if reason := why_not("cri", tmp_path_factory.getbasetemp()):
        pytest.skip(reason)
    found = Containerd(tmp_path_factory.mktemp("containerd"))
    found.start()
    try:
        yield found
    finally:
        found.stop()


def make(name: str, root: Path, containerd: Containerd | None = None) -> Runtime:
    if name == "simulated":
        return SimulatedRuntime(now=time.time, rng=random.Random(1))
    if name == "process":
        return ProcessRuntime(root, now=time.time)
    if name == "oci":
        return OciRuntime(root, now=time.time)
    if name == "cri" and containerd is not None:
        return CriRuntime(f"unix://{containerd.socket}", root, now=time.time)
    raise ValueError(name)


def pids_naming(text: str) -> list[int]:
    """Processes whose command line contains a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def why_not(name: str, root: Path) -> str:
    """Why a runtime cannot be tested here; empty when it can."""
    if name == "oci" and (reason := detect.why_not_oci(root)):
        return f"the oci runtime cannot work here: {reason}"
    if name == "cri":
        if os.geteuid() != 0:
            return "containerd needs root"
        missing = [tool for tool in ("containerd", "ctr", "runc") if shutil.which(tool) is None]
        missing += [] if Path("/usr/lib/cni/ptp").exists() else ["containernetworking-plugins"]
        if missing:
            return f"not installed: {', '.join(missing)}"
    return ""


@pytest.fixture(params=["simulated", "process", "oci", "cri"])
def subject_name(request: pytest.FixtureRequest) -> str:
    """Tests of one runtime alone override this."""
    return str(request.param)


@pytest.fixture
async def subject(subject_name: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    name = subject_name
    if reason := why_not(name, tmp_path):
        pytest.skip(reason)
    daemon: Containerd | None = request.getfixturevalue("containerd") if name == "cri" else None
    found = Subject(name, make(name, tmp_path / "runtime", daemon), tmp_path / "runtime", "198.19.7.0/24", daemon)
    await found.runtime.start()
    await found.runtime.set_pod_cidr(found.cidr)
    try:
        yield found
    finally:
        await found.runtime.purge()
        await found.runtime.stop()
        assert found.leftovers() == []
