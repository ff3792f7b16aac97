from __future__ import annotations

import asyncio
import base64
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import yaml

from steersman.actors.client import Client, read_body
from steersman.actors.http.client import ConnectionFailed, HttpTransport
from steersman.actors.http.messages import Request, Response, Upgrade
from steersman.actors.http.server import HttpServer
from steersman.actors.kubeconfig import KubeconfigError, load
from steersman.actors.ports import STRANGER, Channel, ExecRequest, Frame, LogRequest, User
from steersman.cluster.meta.errors import AlreadyExists, BadRequest, Conflict, NotFound, ServerTimeout, Unauthorized
from steersman.cluster.meta.resources import CONFIG_MAPS, PODS
from steersman.runtime.pki import Authority, Identity


class Recording:
    """Answers with whatever the test says and remembers what it was asked."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.requests: list[Request] = []

    async def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        found = self.answer(request)
        return await found if asyncio.iscoroutine(found) else found


async def serving(handler: Any, **options: Any) -> HttpServer:
    server = HttpServer(handler, host="127.0.0.1", port=0, **options)
    await server.start()
    return server


def client_of(*servers: HttpServer, **options: Any) -> Client:
    return Client(HttpTransport([f"http://127.0.0.1:{server.port}" for server in servers], **options))


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


async def test_objects_are_written_read_and_refused_over_http(tiny_api: Any) -> None:
    server = await serving(tiny_api(time.time))
    async with client_of(server) as client:
        made = await client.create(CONFIG_MAPS, config_map("a", x="1"))
        assert made["metadata"]["uid"]
        with pytest.raises(AlreadyExists, match='configmaps "a" already exists'):
            await client.create(CONFIG_MAPS, config_map("a"))
        patched = await client.patch(CONFIG_MAPS, "a", {"data": {"y": "2"}}, "default")
        assert patched["data"] == {"x": "1", "y": "2"}
        with pytest.raises(Conflict):
            await client.update(CONFIG_MAPS, made)
        page = await client.list(CONFIG_MAPS, "default")
        assert [item["kind"] for item in page.items] == ["ConfigMap"]
        assert page.resource_version
        with pytest.raises(Conflict):
            await client.delete(CONFIG_MAPS, "a", "default", uid="another")
        await client.delete(CONFIG_MAPS, "a", "default", uid=made["metadata"]["uid"])
        with pytest.raises(NotFound):
            await client.get(CONFIG_MAPS, "a", "default")
    await server.stop()


async def test_a_watch_streams_events_and_connections_are_kept(tiny_api: Any) -> None:
    api = tiny_api(time.time)
    server = await serving(api)
    async with client_of(server) as client:
        events = client.watch(CONFIG_MAPS, "default", resource_version="1")
        first = asyncio.ensure_future(anext(events))
        for number in range(20):
            await client.create(CONFIG_MAPS, config_map(f"c{number}"))
        kind, obj = await first
        assert (kind, obj["metadata"]["name"]) == ("ADDED", "c0")
        for number in range(1, 20):
            _, obj = await anext(events)
            assert obj["metadata"]["name"] == f"c{number}"
        assert len(server.connections) == 2
        await events.aclose()
    await server.stop()


async def test_one_connection_carries_requests_after_each_other(tiny_api: Any) -> None:
    callers = set()

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.add(writer.get_extra_info("peername"))
        upstream, onward = await asyncio.open_connection("127.0.0.1", server.port)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                target.write(data)
            target.close()

        await asyncio.gather(copy(reader, onward), copy(upstream, writer))

    server = await serving(tiny_api(time.time))
    front = await asyncio.start_server(counted, "127.0.0.1", 0)
    transport = HttpTransport([f"http://127.0.0.1:{front.sockets[0].getsockname()[1]}"])
    async with Client(transport) as client:
        for number in range(5):
            await client.create(CONFIG_MAPS, config_map(f"c{number}"))
            await client.get(CONFIG_MAPS, f"c{number}", "default")
            with pytest.raises(NotFound):
                await client.get(CONFIG_MAPS, "nowhere", "default")
    front.close()
    await server.stop()
    assert len(callers) == 1


async def test_a_container_is_talked_to_and_the_verdict_comes_last() -> None:
    async def echo(channel: Channel) -> None:
        while (frame := await channel.receive()) is not None and frame.channel != 255:
            await channel.send(Frame(1, frame.data.upper()))
        await channel.send(Frame(3, b'{"status":"Success"}'))

    handler = Recording(lambda request: Response(101, {}, Upgrade(run=echo)))
    server = await serving(handler)
    for client in (client_of(server), Client(handler)):
        request = ExecRequest(namespace="default", pod="web", container="c", command=("cat", "-"), stdin=True)
        channel = await client.exec(request)
        await channel.send(Frame(0, b"hello"))
        assert await channel.receive() == Frame(1, b"HELLO")
        await channel.send(Frame(255, b"\0"))
        assert await channel.receive() == Frame(3, b'{"status":"Success"}')
        assert await channel.receive() is None
        await channel.close()
        await client.close()
        target = handler.requests[-1].target
        assert target.startswith("/api/v1/namespaces/default/pods/web/exec?container=c&command=cat&command=-")
    await server.stop()


async def test_a_refused_conversation_raises_the_servers_error() -> None:
    refusal = orjson.dumps(BadRequest("container c is not running").to_status())
    handler = Recording(lambda request: Response(400, {"content-type": "application/json"}, refusal))
    server = await serving(handler)
    for client in (client_of(server), Client(handler)):
        with pytest.raises(BadRequest, match="container c is not running"):
            await client.exec(ExecRequest(namespace="default", pod="web", container="c", command=("true",)))
        await client.close()
    await server.stop()


async def test_a_port_is_forwarded() -> None:
    class Echo:
        def __init__(self) -> None:
            self.inbox: asyncio.Queue[Frame | None] = asyncio.Queue()

        async def send(self, frame: Frame) -> None:
            await self.inbox.put(Frame(1, frame.data[::-1]) if frame.data else None)

        async def receive(self) -> Frame | None:
            return await self.inbox.get()

        async def close(self) -> None:
            await self.inbox.put(None)

    async def open_port(port: int) -> Channel:
        assert port == 8080
        return Echo()

    handler = Recording(
        lambda request: Response(101, {}, Upgrade(port_forward=True, ports=(8080,), open_port=open_port))
    )
    server = await serving(handler)
    for client in (client_of(server), Client(handler)):
        channel = await client.port_forward("default", "web", 8080)
        await channel.send(Frame(0, b"abc"))
        assert await channel.receive() == Frame(1, b"cba")
        await channel.close()
        await client.close()
    await server.stop()


async def test_logs_stream_and_uploads_go_in_pieces() -> None:
    seen: list[int] = []

    async def lines() -> AsyncIterator[bytes]:
        yield b"one\n"
        yield b"two\n"

    async def answer(request: Request) -> Response:
        if request.method == "GET":
            return Response(200, {"content-type": "text/plain"}, lines())
        assert request.upload is not None
        size = sum([len(piece) async for piece in request.upload])
        seen.append(size)
        return Response(200, {}, b"{}")

    handler = Recording(answer)
    server = await serving(handler, uploads=lambda method, target: target.endswith("/upload"))
    for client in (client_of(server), Client(handler)):
        request = LogRequest(namespace="default", pod="web", container="c", follow=True, tail_lines=5)
        assert b"".join([piece async for piece in client.logs(request)]) == b"one\ntwo\n"
        assert "follow=true" in handler.requests[-1].target
        assert "tailLines=5" in handler.requests[-1].target

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(64):
                yield b"x" * 65536

        response = await client.request("POST", "/upload", pieces())
        assert await read_body(response) == b"{}"
        await client.close()
    assert seen == [64 * 65536] * 2
    await server.stop()


async def test_another_server_takes_over_when_one_is_gone(tiny_api: Any) -> None:
    api = tiny_api(time.time)
    first, second = await serving(api), await serving(api)
    async with client_of(first, second) as client:
        await client.create(CONFIG_MAPS, config_map("a"))
        await first.stop(grace_s=0.1)
        assert (await client.get(CONFIG_MAPS, "a", "default"))["metadata"]["name"] == "a"
    await second.stop()


async def test_a_server_that_is_not_there_is_told_in_a_line() -> None:
    client = Client(HttpTransport(["http://127.0.0.1:1"]))
    with pytest.raises(ConnectionFailed, match=r"Unable to connect to the server: 127\.0\.0\.1:1: connection refused"):
        await client.get(PODS, "a", "default")


async def test_a_server_that_does_not_answer_is_given_up() -> None:
    async def never(request: Request) -> Response:
        await asyncio.sleep(60)
        raise AssertionError

    server = await serving(Recording(never))
    async with client_of(server, response_timeout_s=0.1) as client:
        with pytest.raises(ServerTimeout):
            await client.get(PODS, "a", "default")
    await server.stop(grace_s=0)


def test_throttling_is_waited_out(virtually: Any) -> None:
    calls: list[Request] = []

    def answer(request: Request) -> Response:
        calls.append(request)
        if len(calls) < 3:
            status = {"kind": "Status", "code": 429, "reason": "TooManyRequests", "message": "slow down"}
            return Response(429, {"retry-after": "5"}, orjson.dumps(status))
        return Response(200, {}, b'{"metadata":{"name":"a"}}')

    async def scenario(world: Any) -> None:
        client = Client(Recording(answer))
        assert (await client.get(PODS, "a", "default"))["metadata"]["name"] == "a"
        assert len(calls) == 3
        assert world.loop.time() == 10

    virtually(scenario)


async def test_a_connection_is_used_again_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    server = await serving(Recording(lambda request: Response(200, {}, b'{"metadata":{"name":"a"}}')))
    client = client_of(server)
    admitted: list[Any] = []
    admit = server.admit
    monkeypatch.setattr(server, "admit", lambda connection: (admitted.append(connection), admit(connection))[1])
    for _ in range(3):
        await client.get(PODS, "a", "default")
    assert len(admitted) == 1
    monkeypatch.setattr("steersman.actors.http.client.CONNECTION_AGE_MAX_S", 0.0)
    for _ in range(2):
        await client.get(PODS, "a", "default")
    assert len(admitted) == 3
    await client.close()
    await server.stop()


async def test_client_certificates_tell_who_asks_and_a_foreign_authority_is_refused(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    for authority in (ours, theirs):
        authority.ensure()
    serving_pair = ours.issue(Identity(file="api", common_name="api", hosts=("127.0.0.1",)))
    mine = ours.issue(Identity(file="admin", common_name="admin", organizations=("system:masters",)))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ours.ca))
    context.load_cert_chain(serving_pair.cert, serving_pair.key)
    context.verify_mode = ssl.CERT_OPTIONAL
    names: list[str] = []

    def identify(certificate: Any) -> User:
        fields = dict(pair for row in certificate["subject"] for pair in row)
        names.append(fields["commonName"])
        return User(fields["commonName"])

    handler = Recording(lambda request: Response(200, {}, b'{"metadata":{"name":"a"}}'))
    server = await serving(handler, tls=context, identify=identify)
    server_clock = time.time()

    def config(authority: Authority) -> str:
        file = tmp_path / f"{authority.ca.parent.name}.yaml"
        cluster = {"server": f"https://127.0.0.1:{server.port}", "certificate-authority": str(authority.ca)}
        user = {"client-certificate": str(mine.cert), "client-key": str(mine.key)}
        text = {
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "c", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        }
        file.write_text(yaml.safe_dump(text))
        return str(file)

    async with Client.from_kubeconfig(config(ours)) as client:
        assert (await client.get(PODS, "a", "default"))["metadata"]["name"] == "a"
        with monkeypatch.context() as later:
            later.setattr(time, "time", lambda: server_clock + 400 * 86_400)
            await client.get(PODS, "a", "default")
    assert names == ["admin"], "both came over one connection"
    assert [request.user for request in handler.requests] == [User("admin"), STRANGER], "it has expired"
    async with Client.from_kubeconfig(config(theirs)) as client:
        with pytest.raises(ConnectionFailed, match="its certificate is not trusted"):
            await client.get(PODS, "a", "default")
    await server.stop()


async def test_an_answer_that_is_no_status_still_makes_an_error() -> None:
    client = Client(Recording(lambda request: Response(401, {}, b"go away")))
    with pytest.raises(Unauthorized, match="go away"):
        await client.get(PODS, "a", "default")


def test_a_kubeconfig_gives_servers_certificates_and_namespace(tmp_path: Any) -> None:
    (tmp_path / "token").write_text("secret\n")
    config = {
        "current-context": "b",
        "clusters": [
            {"name": "c1", "cluster": {"server": "https://10.0.0.1:6443", "insecure-skip-tls-verify": True}},
            {
                "name": "c2",
                "cluster": {
                    "server": "https://10.0.0.2:6443",
                    "certificate-authority-data": base64.b64encode(b"CA").decode(),
                    "extensions": [{"name": "steersman/servers", "extension": ["https://10.0.0.3:6443"]}],
                },
            },
        ],
        "users": [{"name": "u1", "user": {"token": "t"}}, {"name": "u2", "user": {"tokenFile": "token"}}],
        "contexts": [
            {"name": "a", "context": {"cluster": "c1", "user": "u1", "namespace": "team"}},
            {"name": "b", "context": {"cluster": "c2", "user": "u2"}},
        ],
    }
    file = tmp_path / "config"
    file.write_text(yaml.safe_dump(config))
    present = load(str(file))
    assert present.servers == ("https://10.0.0.2:6443", "https://10.0.0.3:6443")
    assert (present.ca_pem, present.token(), present.namespace) == (b"CA", "secret", "default")
    other = load(str(file), "a")
    assert (other.namespace, other.token(), other.insecure) == ("team", "t", True)
    with pytest.raises(KubeconfigError, match='context "c" does not exist; known: a, b'):
        load(str(file), "c")
    with pytest.raises(KubeconfigError, match="does not exist"):
        load(str(tmp_path / "nowhere"))
