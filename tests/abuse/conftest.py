"""One server for all abuse, and what has to hold while and after it is abused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from tests.abuse.victim import Victim
from tests.abuse.wire import DEADLINE_S, wires

MAPS = "/api/v1/namespaces/default/configmaps"
#: what a well-behaved client's write and read may take together, on a machine that is busy with the abuse itself
SERVED_S = 20.0
#: descriptors, tasks and threads that may come and go by themselves
SLACK = 8

_ROWS: list[str] = []
Abuse = Callable[..., AbstractAsyncContextManager[None]]


@pytest.fixture(scope="session")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    found = Victim.start(tmp_path_factory.mktemp("victim"))
    try:
        asyncio.run(_furnish(found))
        yield found
    finally:
        found.stop()


async def _furnish(victim: Victim) -> None:
    binding = {
        "metadata": {"name": "devs"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "devs"}],
    }
    pod = {"metadata": {"name": "pod"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}}
    bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    async with wires(victim.port, victim.tls("admin")) as (admin,):
        for target, body in (
            (bindings, binding),
            ("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}}),
            ("/api/v1/namespaces/default/pods", pod),
        ):
            status, _, answer = await admin.call("POST", target, body)
            assert status == 201, answer
        running = {"status": {"phase": "Running"}}
        target = "/api/v1/namespaces/default/pods/pod/status"
        status, _, answer = await admin.call("PATCH", target, running, content_type="application/merge-patch+json")
        assert status == 200, answer


async def _behave(victim: Victim, served: list[float]) -> None:
    """A client that writes, reads what it wrote, and removes it, until it is cancelled."""
    loop = asyncio.get_running_loop()
    number = 0
    async with wires(victim.port, victim.tls("jane")) as (jane,):
        while True:
            number, began = number + 1, loop.time()
            name, data = f"good-{began}-{number}", {"n": str(number)}
            async with asyncio.timeout(SERVED_S):
                status, _, made = await jane.call("POST", MAPS, {"metadata": {"name": name}, "data": data})
                assert status == 201, made
                status, _, found = await jane.call("GET", f"{MAPS}/{name}")
                assert (status, found["data"]) == (200, data)
                status, _, _ = await jane.call("DELETE", f"{MAPS}/{name}")
                assert status == 200
            served.append(loop.time() - began)
            await asyncio.sleep(0.02)


async def _calmed(victim: Victim, before: dict[str, int]) -> None:
    """Returns when nothing is open or held that was not before."""
    now: dict[str, int] = {}
    loop = asyncio.get_running_loop()
    end = loop.time() + DEADLINE_S
    while loop.time() < end:
        now = await victim.counts()
        if all(
            now[name] <= before[name] + (SLACK if name in ("tasks", "descriptors", "threads") else 0) for name in now
        ):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(
        f"left behind: { ({name: (before[name], now[name]) for name in now if now[name] > before[name]}) }"
    )


@pytest.fixture
def abuse(victim: Victim, request: pytest.FixtureRequest) -> Abuse:
    """`async with abuse(growth_mib=...)`: others are served meanwhile, memory is bounded, nothing is left behind."""

    @asynccontextmanager
    async def run(growth_mib: int, server: Victim = victim, rounds: int = 3) -> AsyncIterator[None]:
        before, memory = await server.counts(), server.memory_mib()
        server.forget_peak()
        served: list[float] = []
        behaving = asyncio.create_task(_behave(server, served))
        try:
            yield
            async with asyncio.timeout(SERVED_S * rounds):
                while len(served) < rounds and not behaving.done():
                    await asyncio.wait({behaving}, timeout=0.05)
        finally:
            behaving.cancel()
            (outcome,) = await asyncio.gather(behaving, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError), outcome
        await _calmed(server, before)
        peak, after = server.peak_mib(), server.memory_mib()
        _ROWS.append(f"{request.node.name:72} {memory:5} {peak:5} {after:5}  {len(served):5} {max(served) * 1000:8.0f}")
        assert peak - memory <= growth_mib, f"grew by {peak - memory} MiB"
        assert "Traceback" not in server.said(), server.said()[-3000:]

    return run


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _ROWS:
        terminalreporter.section("memory of the abused server, MiB, and a well-behaved client meanwhile")
        terminalreporter.write_line(f"{'':72} {'before':>5} {'peak':>4} {'after':>5} {'served':>6} {'worst ms':>8}")
        for row in _ROWS:
            terminalreporter.write_line(row)
