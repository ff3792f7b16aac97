"""The agent over the runtimes that really run something: pods serve, are probed, told, restarted, adopted, removed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from steersman.actors.ports import ExecRequest, Frame, LogRequest
from steersman.cluster.node.config import NodeConfig
from steersman.cluster.node.values import RuntimeFailure
from steersman.runtime.builtin import find_busybox
from steersman.runtime.detect import detect

pytestmark = pytest.mark.skipif(find_busybox() is None, reason="no static busybox for the built-in image")
PODS = "/api/v1/namespaces/default/pods"
CIDR = "10.213.7.0/24"
#: how long a real machine, perhaps a busy one, may take
DEADLINE_S = 60.0


@pytest.fixture(params=["process", "oci"])
async def machine(request: Any, tmp_path: Path, new_world: Any) -> AsyncIterator[Any]:
    """A world whose runtime is real."""
    try:
        choice = detect(request.param, tmp_path / "node", now=time.time, rng=random.Random(1))
    except RuntimeFailure as failure:
        pytest.skip(failure.message)
    loop: Any = asyncio.get_running_loop()
    loop.now = time.time
    world = new_world(loop)
    world.runtime, world.volumes = choice.runtime, choice.volumes
    world.config = NodeConfig(
        name="n1",
        address="127.0.0.1",
        capacity={"cpu": "4", "memory": "8Gi", "pods": "20"},
        relist_s=2,
        refresh_s=1.0,
    )
    world.agent = world.new_agent()
    world.kind = request.param
    world.detect = lambda: detect(request.param, tmp_path / "node", now=time.time, rng=random.Random(1)).runtime
    try:
        await world.start(CIDR)
        yield world
    finally:
        await world.agent.stop()
        cleaner = world.detect()
        await cleaner.start()
        await cleaner.purge()
        await cleaner.stop()
        await world.volumes.purge()


def _main(script: str = "", **fields: Any) -> dict[str, Any]:
    command = {"command": ["sh", "-c", script]} if script else {}
    return {"name": "main", "image": "localhost/web:v1", "imagePullPolicy": "IfNotPresent", **command, **fields}


async def _until(world: Any, condition: Any) -> None:
    await world.until(condition, DEADLINE_S)


async def _run(world: Any, *command: str) -> tuple[str, int]:
    """Returns what a command prints in the pod, and its exit code."""
    request = ExecRequest(namespace="default", pod="web", container="main", command=command)
    channel = await world.agent.exec(request)
    text, code = b"", 0
    async with asyncio.timeout(DEADLINE_S):
        while (frame := await channel.receive()) is not None:
            if frame.channel == 3:
                status = orjson.loads(frame.data)
                code = int(status["details"]["causes"][0]["message"]) if status["status"] == "Failure" else 0
            else:
                text += frame.data
    return text.decode(), code


async def _get(world: Any) -> str:
    channel = await world.agent.port_forward("default", "web", 8080)
    await channel.send(Frame(0, b"GET / HTTP/1.0\r\n\r\n"))
    text = b""
    async with asyncio.timeout(DEADLINE_S):
        while (frame := await channel.receive()) is not None:
            text += frame.data
    return text.decode()


async def test_a_pod_serves_and_is_probed_over_its_network(machine: Any) -> None:
    http = {"httpGet": {"port": "http", "path": "/"}, "periodSeconds": 1}
    tcp = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    execd = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    ports = [{"name": "http", "containerPort": 8080}]
    probes = {"readinessProbe": http, "livenessProbe": tcp, "startupProbe": execd}
    machine.create_pod(containers=[_main(ports=ports, **probes)])
    await _until(machine, lambda: machine.is_ready())
    assert "200 OK" in await _get(machine)
    pieces = [piece async for piece in await machine.agent.logs(_logs())]
    assert b"web v1 serves" in b"".join(pieces)
    summary = await machine.agent.stats()
    assert [row["podRef"]["name"] for row in summary["pods"]] == ["web"]


def _logs(**options: Any) -> LogRequest:
    return LogRequest(namespace="default", pod="web", container="main", **options)


async def test_environment_files_and_exec(machine: Any) -> None:
    machine.api.put(
        "/api/v1/namespaces/default/configmaps/settings", {"metadata": {"name": "settings"}, "data": {"colour": "blue"}}
    )
    volumes = [{"name": "settings", "configMap": {"name": "settings"}}, {"name": "scratch", "emptyDir": {}}]
    mounts = [{"name": "settings", "mountPath": "/etc/settings"}, {"name": "scratch", "mountPath": "/scratch"}]
    env = [
        {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    machine.create_pod(
        volumes=volumes, containers=[_main(env=env, volumeMounts=mounts)], terminationGracePeriodSeconds=1
    )
    await _until(machine, lambda: machine.is_ready())
    ip = machine.status()["podIP"]
    assert await _run(machine, "sh", "-c", "echo $COLOUR $POD_IP") == (f"blue {ip}\n", 0)
    assert (await _run(machine, "sh", "-c", "exit 7"))[1] == 7
    if machine.kind == "oci":
        assert await _run(machine, "cat", "/etc/settings/colour") == ("blue", 0)
        assert await _run(machine, "sh", "-c", "echo x >/scratch/y && cat /scratch/y") == ("x\n", 0)
        assert (await _run(machine, "hostname"))[0] == "web\n"
        path = "/api/v1/namespaces/default/configmaps/settings"
        machine.api.put(path, {**machine.api.objects[path], "data": {"colour": "red"}})
        waiting = "until grep -q red /etc/settings/colour; do sleep 0.1; done"
        assert (await _run(machine, "sh", "-c", waiting))[1] == 0


async def test_a_job_leaves_its_last_words(machine: Any) -> None:
    script = "echo working; echo done >$TERMINATION; exit 3" if machine.kind == "process" else ""
    script = script or "echo working; echo -n 'out of paint' >/dev/termination-log; exit 3"
    main = _main(script, terminationMessagePolicy="FallbackToLogsOnError")
    machine.create_pod(containers=[main], restartPolicy="Never")
    await _until(machine, lambda: machine.status()["phase"] == "Failed")
    ended = machine.container()["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (3, "Error")
    assert ended["message"] == ("out of paint" if machine.kind == "oci" else ended["message"])
    assert b"working" in b"".join([piece async for piece in await machine.agent.logs(_logs())])


async def test_a_new_agent_adopts_the_containers(machine: Any) -> None:
    machine.create_pod(containers=[_main()], terminationGracePeriodSeconds=5)
    await _until(machine, lambda: machine.is_ready())
    before = machine.container()
    await machine.agent.stop()
    machine.runtime = machine.detect()
    machine.agent = machine.new_agent()
    await machine.agent.start()
    async with asyncio.timeout(DEADLINE_S):
        await machine.agent.serving.wait()
    await asyncio.sleep(1.0)
    assert machine.container() == before
    assert "200 OK" in await _get(machine)
    machine.api.delete_gracefully(f"{PODS}/web", 5)
    await _until(machine, lambda: not machine.exists())
    assert await machine.runtime.containers() == []
    assert await machine.runtime.sandboxes() == []
    assert await machine.volumes.pods() == []


async def test_a_killed_container_is_restarted(machine: Any) -> None:
    machine.create_pod(containers=[_main("sleep 0.3; exit 1")])
    await _until(machine, lambda: machine.container().get("restartCount", 0) >= 1)
    assert machine.container()["lastState"]["terminated"]["exitCode"] == 1


async def test_pre_stop_runs_before_the_end(machine: Any) -> None:
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo bye >/proc/1/fd/1"]}}}
    if machine.kind == "process":
        hook = {"preStop": {"sleep": {"seconds": 1}}}
    script = "trap 'exit 0' TERM; echo ready; while true; do sleep 0.1; done"
    machine.create_pod(containers=[_main(script, lifecycle=hook)], terminationGracePeriodSeconds=10)
    await _until(machine, lambda: machine.is_ready())
    lines: list[bytes] = []

    async def follow() -> None:
        async for piece in await machine.agent.logs(_logs(follow=True)):
            lines.append(piece)

    following = asyncio.ensure_future(follow())
    await _until(machine, lambda: b"ready" in b"".join(lines))
    machine.api.delete_gracefully(f"{PODS}/web", 10)
    await _until(machine, lambda: not machine.exists())
    await asyncio.wait_for(following, DEADLINE_S)
    if machine.kind == "oci":
        assert b"bye" in b"".join(lines)
