"""Logs, exec, attach, port-forward, statistics and images: directly, and over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from steersman.actors.client import Client
from steersman.actors.nodeagent import streams
from steersman.actors.ports import Channel, ExecRequest, Frame, LogRequest, NodeStreams
from steersman.actors.rpc.node import GrpcNodeDirectory, serve_node
from steersman.actors.tls import client_credentials, server_credentials
from steersman.cluster.meta.errors import ApiError, BadRequest, NotFound, ServiceUnavailable
from steersman.runtime.pki import Authority, Identity


async def _text(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


def _logs(**options: Any) -> LogRequest:
    return LogRequest(namespace="default", pod="web", container="main", **options)


def _exec(*command: str, **options: Any) -> ExecRequest:
    return ExecRequest(namespace="default", pod="web", container="main", command=command, **options)


async def _all(channel: Channel) -> tuple[bytes, bytes, dict[str, Any]]:
    """Returns (stdout, stderr, status) of a conversation."""
    out, err, status = b"", b"", {}
    async with asyncio.timeout(20):
        while (frame := await channel.receive()) is not None:
            match frame.channel:
                case 1:
                    out += frame.data
                case 2:
                    err += frame.data
                case 3:
                    status = orjson.loads(frame.data)
    return out, err, status


def test_logs_are_shown_as_asked_for(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(annotations={"log": "one\ntwo\nthree"})
        await world.ready()
        agent = world.agent
        assert await _text(await agent.logs(_logs())) == b"one\ntwo\nthree\n"
        assert await _text(await agent.logs(_logs(tail_lines=2))) == b"two\nthree\n"
        assert await _text(await agent.logs(_logs(tail_lines=0))) == b""
        assert await _text(await agent.logs(_logs(limit_bytes=5))) == b"one\nt"
        stamped = await _text(await agent.logs(_logs(timestamps=True, tail_lines=1)))
        assert stamped.startswith(b"2026-01-01T00:00:0") and stamped.endswith(b"000Z three\n")
        await asyncio.sleep(100)
        assert await _text(await agent.logs(_logs(since_s=50))) == b""
        assert await _text(await agent.logs(_logs(since_s=5000))) == b"one\ntwo\nthree\n"

    virtually(scenario)


def test_logs_of_a_former_generation_and_refusals(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(annotations={"exit-after-s": "5"})
        await world.ready()
        with pytest.raises(BadRequest, match='previous terminated container "main" in pod "web" not found'):
            await world.agent.logs(_logs(previous=True))
        await world.until(lambda: world.container()["restartCount"] == 1)
        assert await _text(await world.agent.logs(_logs(previous=True))) == b"main started\n"
        with pytest.raises(BadRequest, match="container nobody is not valid for pod web"):
            await world.agent.logs(LogRequest(namespace="default", pod="web", container="nobody"))
        with pytest.raises(NotFound, match='pods "nobody" not found'):
            await world.agent.logs(LogRequest(namespace="default", pod="nobody", container="main"))

    virtually(scenario)


def test_logs_of_a_container_that_waits_are_refused_with_its_reason(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(containers=[{"name": "main", "image": "absent:1", "imagePullPolicy": "Never"}])
        await world.until(lambda: world.state() == "ErrImageNeverPull")
        with pytest.raises(BadRequest, match='container "main" in pod "web" is waiting to start: ErrImageNeverPull'):
            await world.agent.logs(_logs())

    virtually(scenario)


def test_following_a_log_ends_with_the_container(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(annotations={"exit-after-s": "30"}, restartPolicy="Never")
        await world.ready()
        began = world.now()
        assert await _text(await world.agent.logs(_logs(follow=True))) == b"main started\n"
        assert world.now() - began > 28

    virtually(scenario)


def test_exec_tells_output_and_exit_code(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod()
        await world.ready()
        out, _, status = await _all(await world.agent.exec(_exec("echo", "hello")))
        assert (out, status["status"]) == (b"hello\n", "Success")
        _, _, status = await _all(await world.agent.exec(_exec("sh", "-c", "exit 7")))
        assert status["reason"] == "NonZeroExitCode"
        assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]
        with pytest.raises(BadRequest):
            await world.agent.exec(_exec())

    virtually(scenario)


def test_exec_passes_stdin_and_its_end(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod()
        await world.ready()
        channel = await world.agent.exec(_exec("cat", stdin=True))
        await channel.send(Frame(0, b"some "))
        await channel.send(Frame(4, b"no size"))
        await channel.send(Frame(0, b"words"))
        await channel.send(Frame(255, b"\x00"))
        out, _, status = await _all(channel)
        assert (out, status["status"]) == (b"some words", "Success")

    virtually(scenario)


@pytest.mark.parametrize(
    ("told", "size"),
    [
        pytest.param(b'{"Width":80,"Height":24}', (80, 24), id="as kubectl says it"),
        pytest.param(b'{"width":80,"height":24}', (80, 24), id="as the client for JavaScript does"),
        pytest.param(b'{"Width":80}', None, id="half of it"),
        pytest.param(b"[80,24]", None, id="no object"),
        pytest.param(b'{"Width":0,"Height":24}', None, id="nothing"),
    ],
)
def test_a_size_of_a_terminal_is_read_as_go_reads_it(told: bytes, size: tuple[int, int] | None) -> None:
    assert streams._size(told) == size


def test_exec_in_a_container_that_does_not_run_is_refused(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(annotations={"exit-after-s": "1"}, restartPolicy="Never")
        await world.until(lambda: world.status()["phase"] == "Succeeded")
        with pytest.raises(ApiError, match="not running"):
            await world.agent.exec(_exec("echo"))

    virtually(scenario)


def test_attach_ends_with_the_container(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(annotations={"exit-after-s": "10"}, restartPolicy="Never")
        await world.ready()
        _, _, status = await _all(await world.agent.attach(_exec()))
        assert status["status"] == "Success"

    virtually(scenario)


@pytest.mark.parametrize(
    ("fields", "lasts_s"),
    [
        pytest.param({"stdin": True}, 0, id="input that stays open"),
        pytest.param({"stdin": True, "stdinOnce": True}, 10, id="input that ends with its first client"),
        pytest.param({"stdin": True, "stdinOnce": True, "tty": True}, 0, id="a terminal"),
    ],
)
def test_attach_ends_with_the_input_unless_the_container_sees_that_end(
    virtually: Any, fields: dict[str, bool], lasts_s: int
) -> None:
    async def scenario(world: Any) -> None:
        containers = [{"name": "main", "image": "example.org/main", **fields}]
        world.create_pod(annotations={"exit-after-s": "10"}, restartPolicy="Never", containers=containers)
        await world.ready()
        begin = asyncio.get_running_loop().time()
        channel = await world.agent.attach(_exec(stdin=True))
        await channel.send(Frame(255, b"\x00"))
        _, _, status = await _all(channel)
        assert status["status"] == "Success"
        assert asyncio.get_running_loop().time() - begin == pytest.approx(lasts_s, abs=2)

    virtually(scenario)


def test_port_forward_carries_bytes_both_ways(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod()
        await world.ready()
        channel = await world.agent.port_forward("default", "web", 80)
        await channel.send(Frame(0, b"GET / HTTP/1.1\r\n\r\n"))
        out, _, _ = await _all(channel)
        assert out.startswith(b"HTTP/1.1 200 OK") and out.endswith(b"web\n")

    virtually(scenario)


def test_statistics_have_rates_and_images_have_names(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(annotations={"cpu": "250m", "memory": "64Mi"})
        await world.ready()
        await world.agent.stats()
        await asyncio.sleep(10)
        row = (await world.agent.stats())["pods"][0]
        assert row["podRef"]["name"] == "web"
        assert row["containers"][0]["cpu"]["usageNanoCores"] == 250_000_000
        assert row["memory"]["workingSetBytes"] == 64 << 20

        async def archive() -> AsyncIterator[bytes]:
            yield b"tar"

        names = await world.agent.load_image(archive())
        assert names[0] in [name for image in await world.agent.list_images() for name in image["names"]]

    virtually(scenario)


# --- over gRPC, in real time


@contextlib.asynccontextmanager
async def _over_grpc(new_world: Callable[..., Any], server: Any = None, client: Any = None) -> AsyncIterator[Any]:
    loop: Any = asyncio.get_running_loop()
    loop.now = time.time
    world = new_world(loop)
    grpc_server, port = await serve_node(world.agent, "127.0.0.1:0", server)
    world.config = world.agent._host.config
    await world.start()
    node = world.api.objects["/api/v1/nodes/n1"]
    status = {
        **node["status"],
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    directory = GrpcNodeDirectory(Client(_Fixed({**node, "status": status})), client)
    try:
        world.create_pod(annotations={"log": "one\ntwo"})
        await world.ready()
        yield world, directory
    finally:
        await directory.close()
        await grpc_server.stop(None)
        await world.agent.stop()


class _Fixed:
    """An API server that knows one node."""

    def __init__(self, node: dict[str, Any]) -> None:
        self._node = node

    async def __call__(self, request: Any) -> Any:
        from steersman.actors.http.messages import Response

        found = request.target == "/api/v1/nodes/n1"
        body = self._node if found else NotFound("no such node").to_status()
        return Response(200 if found else 404, {}, orjson.dumps(body))


async def test_everything_works_over_grpc(new_world: Any) -> None:
    async with _over_grpc(new_world) as (_, directory):
        streams: NodeStreams = await directory.connect("n1")
        assert await _text(await streams.logs(_logs())) == b"one\ntwo\n"
        assert await _text(await streams.logs(_logs(tail_lines=1))) == b"two\n"
        out, _, status = await _all(await streams.exec(_exec("echo", "hello")))
        assert (out, status["status"]) == (b"hello\n", "Success")
        channel = await streams.exec(_exec("cat", stdin=True))
        await channel.send(Frame(0, b"x" * 100_000))
        await channel.send(Frame(255, b"\x00"))
        out, _, _ = await _all(channel)
        assert len(out) == 100_000
        forward = await streams.port_forward("default", "web", 80)
        await forward.send(Frame(0, b"GET / HTTP/1.1\r\n\r\n"))
        assert (await _all(forward))[0].startswith(b"HTTP/1.1 200 OK")
        assert (await streams.stats())["node"]["nodeName"] == "n1"

        async def archive() -> AsyncIterator[bytes]:
            yield b"a" * 3_000_000

        names = await streams.load_image(archive())
        assert names[0] in [name for image in await streams.list_images() for name in image["names"]]


async def test_refusals_keep_their_code_and_words_over_grpc(new_world: Any) -> None:
    async with _over_grpc(new_world) as (_, directory):
        streams = await directory.connect("n1")
        with pytest.raises(NotFound, match='pods "nobody" not found'):
            await streams.logs(LogRequest(namespace="default", pod="nobody", container="main"))
        with pytest.raises(BadRequest, match="container nobody is not valid"):
            await streams.exec(ExecRequest(namespace="default", pod="web", container="nobody", command=("x",)))
        with pytest.raises(ServiceUnavailable, match='node "n2" is unknown'):
            await directory.connect("n2")


async def test_a_follower_who_leaves_is_let_go(new_world: Any) -> None:
    async with _over_grpc(new_world) as (_, directory):
        streams = await directory.connect("n1")
        pieces = await streams.logs(_logs(follow=True))
        assert await anext(pieces) == b"one\n"
        await pieces.aclose()
        channel = await streams.exec(_exec("sleep", "3600"))
        await channel.close()
        assert await channel.receive() is None


async def test_only_the_api_server_may_call(new_world: Any, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.ensure()
    serving = authority.issue(Identity(file="node", common_name="system:node:n1", hosts=("127.0.0.1",)))
    api = authority.issue(Identity(file="api", common_name="kube-apiserver"))
    other = authority.issue(Identity(file="other", common_name="system:node:n2"))
    async with _over_grpc(new_world, server_credentials(serving), client_credentials(api)) as (_, directory):
        streams = await directory.connect("n1")
        assert await _text(await streams.logs(_logs())) == b"one\ntwo\n"
        intruder = GrpcNodeDirectory(directory._client, client_credentials(other))
        with pytest.raises(ApiError, match="only the API server"):
            await (await intruder.connect("n1")).logs(_logs())
        await intruder.close()
