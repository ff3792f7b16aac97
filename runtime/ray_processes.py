"""Ray's own processes on one machine: started with the settings Steersman needs, found again, ended by pid.

Nothing here imports Ray: a keeper must work while Ray is broken. Container shims are never touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

#: names the cluster in the environment of every Ray process and actor
MARKER = "STEERSMAN_RAY"
#: the module that forks Ray's workers, and the function that `ray start` calls before it starts anything
FORK_SERVER = "steersman.actors.forkserver"
_START_HOOK = "steersman.actors.launch.trim"

#: why each: niceness and oom score are inherited by containers; the memory monitor kills actors for the containers'
#: memory; task events grow the control store without bound; logs rotate only when told; dead hosts are noticed in 3 s
_SETTINGS = {
    "RAY_worker_niceness": "0",
    "RAY_worker_oom_score_adjustment": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_ROTATION_MAX_BYTES": "10000000",
    "RAY_ROTATION_BACKUP_COUNT": "2",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "86400",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_START_HOOK": _START_HOOK,
    # a program that forks must have no threads
    "OPENBLAS_NUM_THREADS": "1",
    "RAY_DEDUP_LOGS": "0",
    "RAY_record_ref_creation_sites": "0",
}


def ray_ip(address: str) -> str:
    """The address by which Ray knows a host, in its resource `node:ADDRESS` too.

    Ray takes 127.0.0.1 for a mistake and replaces it by whatever address the machine has at the moment.
    """
    return "127.0.0.2" if address == "127.0.0.1" and sys.platform == "linux" else address


@dataclass(frozen=True, slots=True, kw_only=True)
class RayHost:
    """How Ray runs on this machine.

    Args:
        name: of the host.
        ip: the host's address in the cluster.
        head: whether the global control store runs here, listening on `port`.
        address: `host:port` of the global control store.
        token: the secret shared by all of the cluster's Ray processes.
        foreign: whether somebody else runs Ray, with settings of their own.
    """

    name: str
    head: bool
    ip: str
    port: int
    address: str
    token: str
    data_dir: Path
    object_store_memory_bytes: int
    foreign: bool = False

    @property
    def marker(self) -> str:
        return hashlib.sha256(f"{self.data_dir}\n{self.name}".encode()).hexdigest()[:8]

    @property
    def temp_dir(self) -> Path:
        """Ray's directory: short, since sockets in it may have paths of at most 107 bytes."""
        return Path("/tmp") / f"steersman-{self.marker}"

    def environment(self) -> dict[str, str]:
        """The environment of Ray's processes and of whoever connects to them."""
        if self.foreign:
            return dict(os.environ)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        return {**kept, **_SETTINGS, "RAY_AUTH_TOKEN": self.token, MARKER: self.marker}

    def command(self) -> list[str]:
        options = {
            "--node-ip-address": ray_ip(self.ip),
            "--object-store-memory": str(self.object_store_memory_bytes),
            "--include-log-monitor": "false",
            "--min-worker-port": "0",
            "--max-worker-port": "0",
        }
        if self.head:
            options |= {
                "--port": str(self.port),
                "--temp-dir": str(self.temp_dir),
                "--include-dashboard": "false",
            }
        else:
            options |= {"--address": self.address}
        words = [f"{key}={value}" for key, value in options.items()]
        start = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
        head = ["--head"] if self.head else []
        return [sys.executable, "-c", start, "start", *head, *words, "--disable-usage-stats", "--block"]

    async def start(self, log: Path) -> asyncio.subprocess.Process:
        """Ends what an earlier run left, and starts Ray; the process lives as long as Ray is whole.

        Beside it starts the server that forks Ray's workers; without it they start by themselves, only slower.
        """
        await self.end_leftovers()
        shutil.rmtree(self.temp_dir, ignore_errors=True)
        if sys.platform == "linux":
            await self._run([sys.executable, "-m", FORK_SERVER], log.with_name("forks.log"))
        return await self._run(self.command(), log)

    async def _run(self, command: list[str], log: Path) -> asyncio.subprocess.Process:
        with log.open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment(),
                cwd=str(self.data_dir),
                start_new_session=True,
            )

    def pids(self) -> list[int]:
        """The pids of this host's Ray processes and actors; container shims are not among them.

        Actors overwrite their environment with their title, but they are children of the fork server; and on the head,
        whose directory it is, their output goes to a file of Ray's directory even when their parent is gone.
        """
        needle = f"{MARKER}={self.marker}".encode()
        all_of_ray = [pid for pid in _all_pids() if _is_ray(_command_line(pid))]
        found = {pid for pid in all_of_ray if needle in _environment(pid) or _writes_below(pid, self.temp_dir)}
        return [pid for pid in all_of_ray if pid in found or _parent(pid) in found]

    async def end_leftovers(self) -> bool:
        """Kills every Ray process of this host: nothing in Ray is worth a graceful end, which takes up to 30 s.

        A killed process loses its name before it gives back its ports, so that each is waited for by its pid.

        Returns:
            Whether there was any.
        """
        end = asyncio.get_running_loop().time() + 5.0
        killed: set[int] = set()
        while asyncio.get_running_loop().time() < end:
            pids = self.pids()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed.update(pids)
            if not pids and not any(_is_running(pid) for pid in killed):
                break
            await asyncio.sleep(0.02)
        return bool(killed)

    async def remove(self) -> None:
        """Ends Ray on this machine and removes its files."""
        await self.end_leftovers()
        shutil.rmtree(self.temp_dir, ignore_errors=True)


def _all_pids() -> Iterable[int]:
    own = os.getpid()
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != own]


def _is_running(pid: int) -> bool:
    """Whether a process still holds what it had; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _is_ray(command_line: bytes) -> bool:
    """Whether it is one of Ray's: a renamed worker, a program of its package or of what stands in for it."""
    names = (b"/ray/", b"ray.scripts.scripts", b"steersman/actors/worker.py", FORK_SERVER.encode())
    return command_line.startswith(b"ray::") or any(name in command_line for name in names)


def _writes_below(pid: int, directory: Path) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/fd/1").startswith(f"{directory}/")
    except OSError:
        return False
