"""What a cluster on Ray costs while nothing happens: CPU and memory of every one of its processes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.bench import clusters
from tests.bench.figures import Figure, cpu_s, memory_mib

from steersman.actors import bringup
from steersman.runtime.ray_processes import FORK_SERVER

#: after the start has died down, for so long
SETTLE_S, WATCH_S = 5.0, 15.0


def _processes(running: clusters.Running) -> dict[int, str]:
    """Pid to name: actors as `steer status` calls them, Ray's own programs by their file, the keeper."""
    names = {row["pid"]: row["name"] for row in running.status()["actors"]}
    site = bringup.read_site(running.data_dir)
    if keeper := bringup.keeper_pid(site):
        names[keeper] = "keeper"
    seen: Counter[str] = Counter()
    for pid in sorted(bringup.ray_host(site).pids()):
        if pid not in names:
            program = _program(pid)
            seen[program] += 1
            names[pid] = f"ray/{program}" + (f"-{seen[program]}" if seen[program] > 1 else "")
    return names


def _program(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "gone"
    for part, name in (("ray.scripts.scripts", "start"), (FORK_SERVER, "forkserver")):
        if part in " ".join(words):
            return name
    scripts = [word for word in words if word.endswith(".py")]
    if words[0].startswith("ray::"):
        return "idle-worker"
    return Path((scripts or words)[0]).stem


def run() -> Iterator[Figure]:
    with clusters.up() as running:
        time.sleep(SETTLE_S)
        names = _processes(running)
        cpu, began = {pid: cpu_s(pid) for pid in names}, time.monotonic()
        time.sleep(WATCH_S)
        took = time.monotonic() - began
        total: Counter[str] = Counter()
        for pid, name in sorted(names.items(), key=lambda row: row[1]):
            resident, proportional = memory_mib(pid)
            row = {
                "cpu": (100 * (cpu_s(pid) - cpu[pid]) / took, "%"),
                "rss": (resident, "MiB"),
                "pss": (proportional, "MiB"),
            }
            for what, (value, unit) in row.items():
                total[what] += value  # type: ignore[assignment]
                yield Figure(f"idle.{name}.{what}", value, unit)
        yield Figure("idle.all.processes", len(names), "")
        yield Figure("idle.all.cpu", total["cpu"], "%")
        yield Figure("idle.all.pss", total["pss"], "MiB")
