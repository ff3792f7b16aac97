"""What a pod costs on each runtime: time to start and stop one, pods a second, and the memory of its keeper.

Run as `python tests/bench/runtime.py [--pods N]`; prints a table and, with `--json FILE`, writes the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from steersman.cluster.node.values import ContainerSpec, RuntimeFailure, SandboxSpec
from steersman.runtime.detect import detect

CIDR = "10.199.0.0/22"


async def start_pod(runtime: Any, number: int, image: str) -> tuple[str, str]:
    name = f"pod-{number}"
    sandbox = await runtime.run_sandbox(SandboxSpec(pod_uid=name, name=name, namespace="bench", hostname=name))
    spec = ContainerSpec(
        pod_uid=name, pod_name=name, namespace="bench", name="main", image=image, command=("sleep", "3600")
    )
    container = await runtime.create_container(sandbox.id, spec)
    await runtime.start_container(container)
    return sandbox.id, container


def memory_kib(pid: int) -> int:
    """Returns the proportional share of memory of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


async def timed(work: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = await work
    return (time.perf_counter() - started) * 1000, result


async def measure(name: str, pods: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="steersman-bench-") as directory:
        runtime = detect(name, Path(directory) / "runtime", now=time.time, rng=random.Random(1)).runtime
        info = await runtime.start()
        await runtime.set_pod_cidr(CIDR)
        try:
            image = await runtime.image("localhost/web:v1")
            assert image is not None
            starts, made = [], []
            for number in range(pods):
                took, pod = await timed(start_pod(runtime, number, image.id))
                starts.append(took)
                made.append(pod)
            execs = [(await timed(runtime.exec_sync(made[0][1], ("true",), 10)))[0] for _ in range(10)]
            relist = [(await timed(runtime.containers()))[0] for _ in range(10)]
            stats = [(await timed(runtime.stats()))[0] for _ in range(5)]
            ledger = getattr(runtime, "_ledger", None)
            keepers = [memory_kib(record.monitor) for record in ledger.containers.values()] if ledger else [0]
            stops = [(await timed(runtime.remove_sandbox(sandbox)))[0] for sandbox, _ in made]
            burst, more = await timed(
                asyncio.gather(*(start_pod(runtime, pods + number, image.id) for number in range(pods)))
            )
            await asyncio.gather(*(runtime.remove_sandbox(sandbox) for sandbox, _ in more))
        finally:
            await runtime.purge()
            await runtime.stop()
    return {
        "runtime": name,
        "version": info.version,
        "start_ms": round(statistics.median(starts), 1),
        "remove_ms": round(statistics.median(stops), 1),
        "exec_ms": round(statistics.median(execs), 1),
        "relist_ms": round(statistics.median(relist), 2),
        "stats_ms": round(statistics.median(stats), 2),
        "burst_pods_per_s": round(pods / burst * 1000, 1),
        "keeper_kib": round(statistics.median(keepers)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=20)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--runtimes", nargs="*", default=["simulated", "process", "crun", "runc"])
    arguments = parser.parse_args()
    rows = []
    for name in arguments.runtimes:
        try:
            rows.append(asyncio.run(measure(name, arguments.pods)))
        except RuntimeFailure as error:
            print(f"{name}: {error.message}")
    if rows:
        print("  ".join(f"{key:>16}" for key in rows[0]))
    for row in rows:
        print("  ".join(f"{value!s:>16}" for value in row.values()))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
