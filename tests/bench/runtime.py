"""What a pod costs on each runtime: time to start and stop one, pods a second, and the memory of its keeper."""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.figures import Figure, median, memory_mib

from steersman.cluster.node.values import ContainerSpec, RuntimeFailure, SandboxSpec
from steersman.runtime.detect import detect

CIDR = "10.199.0.0/22"
RUNTIMES, PODS = ("simulated", "process", "crun", "runc"), 20


async def start_pod(runtime: Any, number: int, image: str) -> tuple[str, str]:
    name = f"pod-{number}"
    sandbox = await runtime.run_sandbox(SandboxSpec(pod_uid=name, name=name, namespace="bench", hostname=name))
    spec = ContainerSpec(
        pod_uid=name, pod_name=name, namespace="bench", name="main", image=image, command=("sleep", "3600")
    )
    container = await runtime.create_container(sandbox.id, spec)
    await runtime.start_container(container)
    return sandbox.id, container


async def timed(work: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = await work
    return (time.perf_counter() - started) * 1000, result


async def measure(name: str, pods: int) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="steersman-bench-") as directory:
        runtime = detect(name, Path(directory) / "runtime", now=time.time, rng=random.Random(1)).runtime
        await runtime.start()
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
            keepers = [memory_mib(record.monitor)[1] for record in ledger.containers.values()] if ledger else []
            stops = [(await timed(runtime.remove_sandbox(sandbox)))[0] for sandbox, _ in made]
            burst, more = await timed(
                asyncio.gather(*(start_pod(runtime, pods + number, image.id) for number in range(pods)))
            )
            await asyncio.gather(*(runtime.remove_sandbox(sandbox) for sandbox, _ in more))
        finally:
            await runtime.purge()
            await runtime.stop()
    rows = {"start": starts, "remove": stops, "exec": execs, "relist": relist, "stats": stats}
    found = [median(f"runtime.{name}.{case}", values, "ms") for case, values in rows.items()]
    found.append(Figure(f"runtime.{name}.burst", pods / burst * 1000, "pods/s"))
    if keepers:
        found.append(median(f"runtime.{name}.keeper_pss", keepers, "MiB"))
    return found


def run() -> Iterator[Figure]:
    for name in RUNTIMES:
        try:
            yield from asyncio.run(measure(name, PODS))
        except RuntimeFailure as error:
            print(f"runtime: {name}: {error.message}", file=sys.stderr)
