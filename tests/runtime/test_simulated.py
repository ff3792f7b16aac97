"""How simulated containers are steered, under virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from steersman.actors.clocks import VirtualTimeLoop
from steersman.cluster.node.values import ContainerSpec, ContainerState, RuntimeFailure, SandboxSpec
from steersman.runtime.simulated import SimulatedRuntime


def virtually(work: Callable[[VirtualTimeLoop, SimulatedRuntime], Coroutine[Any, Any, None]], **options: Any) -> None:
    loop = VirtualTimeLoop()
    runtime = SimulatedRuntime(now=loop.now, rng=random.Random(7), **options)

    async def body() -> None:
        await runtime.start()
        await runtime.set_pod_cidr("10.0.0.0/24")
        await work(loop, runtime)
        await runtime.purge()
        await runtime.stop()

    try:
        loop.run_until_complete(body())
    finally:
        loop.close()


async def run(runtime: SimulatedRuntime, **simulation: str) -> str:
    sandbox = await runtime.run_sandbox(SandboxSpec(pod_uid="u", name="p", namespace="n", hostname="p"))
    image = await runtime.pull("app:v1", ())
    spec = ContainerSpec(
        pod_uid="u",
        pod_name="p",
        namespace="n",
        name="c",
        image=image.id,
        simulation=tuple((key.replace("_", "-"), value) for key, value in simulation.items()),
    )
    container = await runtime.create_container(sandbox.id, spec)
    await runtime.start_container(container)
    return container


def test_an_hour_passes_at_once() -> None:
    async def work(loop: VirtualTimeLoop, runtime: SimulatedRuntime) -> None:
        changes = runtime.changes()
        await run(runtime, exit_after_s="3600", exit_code="3")
        assert await anext(changes) == "u"
        (status,) = await runtime.containers()
        assert (status.exit_code, status.finished_at - status.started_at) == (3, 3600)

    virtually(work)


def test_readiness_memory_and_cpu_are_as_told() -> None:
    async def work(loop: VirtualTimeLoop, runtime: SimulatedRuntime) -> None:
        container = await run(runtime, ready_after_s="10", cpu="250m", memory="64Mi", oom_after_s="100")
        (sandbox,) = await runtime.sandboxes()
        assert (await runtime.exec_sync(container, ("true",), 1)).exit_code == 1
        with pytest.raises(RuntimeFailure):
            await runtime.connect(sandbox.id, 80)
        await asyncio.sleep(20)
        assert (await runtime.exec_sync(container, ("true",), 1)).exit_code == 0
        (stats,) = await runtime.stats()
        assert (stats.cpu_usage_ns, stats.memory_working_set_bytes) == (5_000_000_000, 64 << 20)
        await asyncio.sleep(100)
        (status,) = await runtime.containers()
        assert (status.state, status.reason) == (ContainerState.EXITED, "OOMKilled")

    virtually(work)


def test_starting_takes_its_time_and_missing_images_are_missed() -> None:
    async def work(loop: VirtualTimeLoop, runtime: SimulatedRuntime) -> None:
        before = loop.time()
        await run(runtime)
        assert loop.time() - before == 5
        with pytest.raises(RuntimeFailure, match="not found") as caught:
            await runtime.pull("lost:v1", ())
        assert caught.value.reason == "ErrImagePull"

    virtually(work, start_delay_s=2, pull_delay_s=3, missing_images=("lost:v1",))


def test_the_same_seed_gives_the_same_ids() -> None:
    seen: list[list[str]] = []

    async def work(loop: VirtualTimeLoop, runtime: SimulatedRuntime) -> None:
        seen.append([await run(runtime), (await runtime.sandboxes())[0].id])

    virtually(work)
    virtually(work)
    assert seen[0] == seen[1]


def test_a_stop_takes_as_long_as_told_but_no_longer_than_the_grace() -> None:
    async def work(loop: VirtualTimeLoop, runtime: SimulatedRuntime) -> None:
        gentle, stubborn = await run(runtime, stop_after_s="5"), await run(runtime, stop_after_s="500")
        await asyncio.gather(runtime.stop_container(gentle, 30), runtime.stop_container(stubborn, 30))
        codes = {status.id: (status.exit_code, status.finished_at) for status in await runtime.containers()}
        assert codes == {gentle: (143, loop.now() - 25), stubborn: (137, loop.now())}

    virtually(work)
