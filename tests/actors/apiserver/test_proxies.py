"""The `proxy` subresource over real connections, with a web server for a pod."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tests.actors.apiserver.test_webhooks import own_address

from steersman.actors.http.channels import pair
from steersman.actors.ports import Channel, Frame
from steersman.cluster.meta.errors import InternalError
from steersman.runtime.pki import Authority, Identity

PODS = "/api/v1/namespaces/default/pods"
SERVICES = "/api/v1/namespaces/default/services"
PAGE = b'<a href="/there">there</a>'


class Porter(BaseHTTPRequestHandler):
    """A web server that says what it was asked, as agnhost's porter does."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *values: Any) -> None:
        return

    def say(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def any(self) -> None:
        length = None if self.path == "/enough" else self.headers.get("content-length")
        body = self.rfile.read(int(length or 0)) if length else self.chunked()
        match self.path.partition("?")[0]:
            case "/page":
                self.say(200, PAGE, content_type="text/html; charset=utf-8")
            case "/packed":
                self.say(200, gzip.compress(PAGE), content_type="text/html", content_encoding="gzip")
            case "/moved":
                self.say(302, b"", location="/elsewhere?x=1")
            case "/cors":
                self.say(200, b"", access_control_allow_origin="*", set_cookie="a=1")
            case "/until-the-end":
                self.send_response(200)
                self.send_header("connection", "close")
                self.end_headers()
                self.wfile.write(b"x" * 100_000)
                self.close_connection = True
            case "/enough":
                self.say(413, b"enough", connection="close")
                self.close_connection = True
            case "/broken":
                self.send_response(200)
                self.send_header("content-length", "1000")
                self.end_headers()
                self.wfile.write(b"only this")
                self.close_connection = True
            case "/socket":
                self.send_response(101)
                self.send_header("Upgrade", "websocket")
                self.send_header("Connection", "Upgrade")
                self.end_headers()
                while data := self.connection.recv(100):
                    self.connection.sendall(data.upper())
                self.close_connection = True
            case _:
                said = {"Method": self.command, "Path": self.path, "Body": body.decode(), "Headers": dict(self.headers)}
                self.say(200, json.dumps(said).encode(), content_type="application/json")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = any

    def chunked(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return b""
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found


@pytest.fixture(scope="module")
def porters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, int]]:
    """The real port of each port of the pod: 80 speaks HTTP, 443 HTTPS."""
    authority = Authority(tmp_path_factory.mktemp("porter"))
    authority.ensure()
    credentials = authority.issue(Identity(file="porter", common_name="porter", hosts=("elsewhere",)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(credentials.cert, credentials.key)
    servers = [ThreadingHTTPServer(("0.0.0.0", 0), Porter) for _ in range(2)]
    servers[1].socket = context.wrap_socket(servers[1].socket, server_side=True, do_handshake_on_connect=False)
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield {80: servers[0].server_address[1], 443: servers[1].server_address[1]}
    for server in servers:
        server.shutdown()
        server.server_close()


class Node:
    """A node, whose agent connects to the servers of this test."""

    def __init__(self, ports: dict[int, int]) -> None:
        self._ports = ports
        self._tasks: set[asyncio.Task[None]] = set()
        self.forwarded: list[tuple[str, str, int]] = []

    async def stats(self) -> dict[str, Any]:
        return {"node": {"nodeName": "n1"}}

    async def port_forward(self, namespace: str, pod: str, port: int) -> Channel:
        self.forwarded.append((namespace, pod, port))
        if port not in self._ports:
            raise InternalError(f"error forwarding port {port}: connection refused")
        near, far = pair()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._ports[port])
        task = asyncio.create_task(self._carry(reader, writer, far))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return near

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, far: Channel) -> None:
        async def up() -> None:
            while (frame := await far.receive()) is not None:
                writer.write(frame.data)
            writer.close()

        task = asyncio.create_task(up())
        try:
            while data := await reader.read(1000):
                await far.send(Frame(1, data))
        except OSError:
            pass
        finally:
            await far.close()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            writer.close()


class Client:
    """Speaks HTTP to the server, byte by byte."""

    def __init__(self, api: Any, nodes: Node, token: str) -> None:
        self.api = api
        self.nodes = nodes
        self._token = token

    async def raw(self, method: str, target: str, body: bytes = b"", *lines: str) -> tuple[int, dict[str, str], bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.api.server.port)
        head = [f"{method} {target} HTTP/1.1", "host: api:6443", f"authorization: Bearer {self._token}", *lines]
        head.append("connection: close")
        if body and not any(line.startswith("transfer-encoding") for line in lines):
            head.append(f"content-length: {len(body)}")
        writer.write("\r\n".join([*head, "", ""]).encode() + body)
        async with asyncio.timeout(20):
            answer = await reader.read(-1)
        writer.close()
        top, _, rest = answer.partition(b"\r\n\r\n")
        first, *rows = top.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (row.partition(": ") for row in rows)}
        if headers.get("transfer-encoding") == "chunked":
            rest = _joined(rest)
        return int(first.split()[1]), headers, rest

    async def said(self, method: str, target: str, body: bytes = b"", *lines: str) -> Any:
        status, _, answer = await self.raw(method, target, body, *lines)
        assert status == 200, answer
        return json.loads(answer)

    async def refused(self, method: str, target: str) -> tuple[int, str]:
        status, _, answer = await self.raw(method, target)
        found = json.loads(answer)
        assert found["kind"] == "Status" and found["code"] == status
        return status, found["message"]


def _joined(text: bytes) -> bytes:
    found = b""
    while text:
        size, _, text = text.partition(b"\r\n")
        count = int(size, 16)
        found, text = found + text[:count], text[count + 2 :]
        if not count:
            break
    return found


@pytest.fixture
async def client(make_api: Any, make_store: Any, porters: dict[int, int]) -> AsyncIterator[Client]:
    store, nodes = make_store(time.time), Node(porters)
    await store.start()
    api = await make_api(store, port=0)
    api.nodes.agents["n1"] = nodes
    await api.ok("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    binding = {
        "metadata": {"name": "all"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
    }  # fmt: skip
    await api.ok("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    asked = await api.ok("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", {"spec": {}})
    for name, address in (("web", "10.1.0.1"), ("evil", "169.254.169.254"), ("early", "")):
        container = {"name": "c", "image": "i", "ports": [{"containerPort": 80, "name": "http"}]}
        pod = {"metadata": {"name": name}, "spec": {"nodeName": "n1", "containers": [container]}}
        await api.ok("POST", PODS, pod)
        if address:
            status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
            made = await api.ok("GET", f"{PODS}/{name}")
            await api.ok("PUT", f"{PODS}/{name}/status", {**made, "status": status})
    ports = [{"name": "web", "port": 8000, "targetPort": 80}, {"name": "tls", "port": 443}]
    await api.ok("POST", SERVICES, {"metadata": {"name": "s"}, "spec": {"ports": ports}})
    await api.ok("POST", SERVICES, {"metadata": {"name": "empty"}, "spec": {"ports": ports}})
    target = {"kind": "Pod", "name": "web", "namespace": "default"}
    addresses = [{"ip": "10.1.0.1", "targetRef": target}, {"ip": "10.1.0.9", "targetRef": target}, {"ip": "10.1.0.8"}]
    subset = {"addresses": addresses, "ports": [{"name": "web", "port": 80}, {"name": "tls", "port": 443}]}
    await api.ok("POST", "/api/v1/namespaces/default/endpoints", {"metadata": {"name": "s"}, "subsets": [subset]})
    yield Client(api, nodes, asked["status"]["token"])
    await api.server.stop()
    await store.stop()


async def test_every_method_goes_to_pods_and_services_with_a_path(client: Client) -> None:
    methods = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
    for base, method in itertools.product((f"{PODS}/web/proxy", f"{SERVICES}/s:web/proxy"), methods):
        status, headers, body = await client.raw(method, f"{base}/some/path/with/{method}")
        assert status == 200
        if method == "HEAD":
            assert body == b"" and int(headers["content-length"]) > 50
        else:
            assert json.loads(body)["Method"] == method and int(headers["content-length"]) == len(body)


async def test_without_a_path_get_and_head_are_led_to_one_and_others_go_through(client: Client) -> None:
    for base in (f"{PODS}/web/proxy", f"{SERVICES}/s:web/proxy"):
        for method in ("DELETE", "OPTIONS", "PATCH", "POST", "PUT"):
            assert (await client.said(method, f"{base}?method={method}"))["Path"] == f"/?method={method}"
        for method in ("GET", "HEAD"):
            status, headers, _ = await client.raw(method, f"{base}?method={method}")
            assert (status, headers["location"]) == (301, f"{base}/?method={method}")


async def test_a_port_is_meant_by_number_or_name_and_a_scheme_by_a_word(client: Client) -> None:
    for base, port in (
        (f"{PODS}/web", 80), (f"{PODS}/web:80", 80), (f"{PODS}/http:web:80", 80), (f"{PODS}/https:web:443", 443),
        (f"{PODS}/web:http", 80), (f"{SERVICES}/s:8000", 80), (f"{SERVICES}/s:web", 80),
        (f"{SERVICES}/https:s:tls", 443), (f"{SERVICES}/https:s:443", 443),
    ):  # fmt: skip
        assert (await client.said("GET", f"{base}/proxy/where"))["Path"] == "/where"
        assert client.nodes.forwarded.pop() == ("default", "web", port), base


async def test_path_query_and_body_arrive_as_they_were_sent_and_credentials_do_not(client: Client) -> None:
    base = f"{PODS}/web/proxy"
    lines = (
        "x-remote-user: root",
        "x-mine: kept",
        "te: trailers",
        "x-forwarded-for: 1.1.1.1",
    )
    said = await client.said("POST", f"{base}/a//%3F%20/./b/?x=%41&&y", b"body", *lines)
    assert said["Path"] == "/a//%3F%20/./b/?x=%41&&y" and said["Body"] == "body"
    headers = {name.lower(): value for name, value in said["Headers"].items()}
    assert headers["host"] == "api:6443" and headers["x-mine"] == "kept"
    assert headers["x-forwarded-for"] == "1.1.1.1, 127.0.0.1"
    assert headers["x-forwarded-uri"] == f"{base}/a//%3F%20/./b/"
    assert not {"authorization", "x-remote-user", "te"} & headers.keys()
    large = b"z" * 5_000_000
    assert len((await client.said("PUT", f"{base}/large", large))["Body"]) == len(large)
    said = await client.said("POST", f"{base}/x", b"3\r\nabc\r\n0\r\n\r\n", "transfer-encoding: chunked")
    assert said["Body"] == "abc"


async def test_encoded_slashes_are_slashes_as_clients_send_them_that_encode_the_whole_path(client: Client) -> None:
    base = f"{PODS}/web/proxy"
    assert (await client.said("GET", f"{base}/some%2Fpath%2fwith%3Fx?y=%2F"))["Path"] == "/some/path/with%3Fx?y=%2F"
    assert (await client.said("PUT", f"{PODS}%2Fweb%2Fproxy%2Fx", b"z" * 5_000_000))["Path"] == "/x"
    assert (await client.raw("GET", f"/{base}/x"))[0] == 404


async def test_links_and_redirects_lead_back_through_the_proxy(client: Client) -> None:
    base = f"{SERVICES}/s:web/proxy"
    page = f'<a href="{base}/there">there</a>'.encode()
    assert (await client.raw("GET", f"{base}/page"))[2] == page
    status, headers, body = await client.raw("GET", f"{base}/packed", b"", "accept-encoding: gzip")
    assert status == 200 and headers["content-encoding"] == "gzip" and gzip.decompress(body) == page
    status, headers, _ = await client.raw("GET", f"{base}/moved")
    assert (status, headers["location"]) == (302, f"{base}/elsewhere?x=1")
    _, headers, _ = await client.raw("GET", f"{base}/cors")
    assert "access-control-allow-origin" not in headers and headers["set-cookie"] == "a=1"


async def test_an_answer_ends_when_the_other_side_says_and_breaks_off_when_it_does(client: Client) -> None:
    assert (await client.raw("GET", f"{PODS}/web/proxy/until-the-end"))[2] == b"x" * 100_000
    _, headers, body = await client.raw("GET", f"{PODS}/web/proxy/broken")
    assert headers["content-length"] == "1000" and body == b"only this"


async def test_half_a_body_does_not_pass_for_the_whole(client: Client) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.api.server.port)
    head = [f"PUT {PODS}/web/proxy/x HTTP/1.1", "host: api", f"authorization: Bearer {client._token}"]
    writer.write("\r\n".join([*head, "transfer-encoding: chunked", "", "3\r\nabc\r\nno size\r\n"]).encode())
    async with asyncio.timeout(10):
        assert b" 200 " not in await reader.read(-1)
    writer.close()


async def test_an_answer_may_come_before_all_of_the_body_was_taken(client: Client) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.api.server.port)
    head = [f"PUT {PODS}/web/proxy/enough HTTP/1.1", "host: api", f"authorization: Bearer {client._token}"]
    writer.write("\r\n".join([*head, "content-length: 100000", "", "a part"]).encode())
    async with asyncio.timeout(10):
        assert b" 413 " in await reader.readline()
    writer.close()


async def test_a_connection_may_switch_to_a_websocket(client: Client) -> None:
    for base in (f"{PODS}/web/proxy", f"{PODS}/https:web:443/proxy", f"{SERVICES}/s:web/proxy"):
        await _switch(client, base)


async def _switch(client: Client, base: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.api.server.port)
    lines = [f"GET {base}/socket HTTP/1.1", "host: api", f"authorization: Bearer {client._token}"]
    lines += ["connection: Upgrade", "upgrade: websocket", "sec-websocket-version: 13", "sec-websocket-key: AAAA=="]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.write(b"as it is")
        assert await reader.readexactly(8) == b"AS IT IS"
    writer.close()


REFUSALS = (
    (f"{SERVICES}/empty/proxy/", 503, 'no endpoints available for service "empty"'),
    (f"{SERVICES}/s/proxy/", 503, 'no endpoints available for service "s"'),
    (f"{SERVICES}/s:81/proxy/", 503, 'no service port 81 found for service "s"'),
    (f"{SERVICES}/ftp:s:web/proxy/", 400, 'invalid service request "ftp:s:web"'),
    (f"{SERVICES}/none/proxy/", 404, 'services "none" not found'),
    (f"{PODS}/a:b:c:d/proxy/", 400, 'invalid pod request "a:b:c:d"'),
    (f"{PODS}/evil/proxy/", 400, "address not allowed"),
    (f"{PODS}/early/proxy/", 400, "address not allowed"),
    (f"{PODS}/web:9/proxy/", 503,
     "error trying to reach service: dial tcp 10.1.0.1:9: connect: connection refused"),
    ("/api/v1/nodes/ftp:n1:80/proxy/", 400, 'invalid node request "ftp:n1:80"'),
    ("/api/v1/nodes/n9/proxy/", 404, 'nodes "n9" not found'),
)  # fmt: skip


async def test_what_cannot_be_reached_is_refused_in_kubernetes_words(client: Client) -> None:
    for target, status, message in REFUSALS:
        assert await client.refused("GET", target) == (status, message)
    status, message = await client.refused("GET", f"{PODS}/https:web:80/proxy/")
    assert status == 503 and message.startswith("error trying to reach service: ")


async def test_a_node_answers_as_a_kubelet_and_its_other_ports_are_reached_directly(client: Client) -> None:
    await client.api.ok("POST", "/api/v1/nodes", {"metadata": {"name": "n1"}})
    made = await client.api.ok("GET", "/api/v1/nodes/n1")
    daemon = {"kubeletEndpoint": {"Port": 10250}}
    addresses = [{"type": "InternalIP", "address": "127.0.0.1"}]
    status = {"daemonEndpoints": daemon, "addresses": addresses}
    await client.api.ok("PUT", "/api/v1/nodes/n1/status", {**made, "status": status})
    base = "/api/v1/nodes/n1:10250/proxy"
    assert (await client.raw("GET", f"{base}/healthz"))[2] == b"ok"
    pods = await client.said("GET", f"{base}/pods")
    assert pods["kind"] == "PodList" and {row["metadata"]["name"] for row in pods["items"]} == {"web", "evil", "early"}
    assert [row["metadata"]["name"] for row in (await client.said("GET", f"{base}/runningpods"))["items"]] == [
        "evil",
        "web",
    ]
    assert (await client.said("GET", f"{base}/stats/summary"))["node"] == {"nodeName": "n1"}
    assert b"\nkubelet_running_pods 2\n" in (await client.raw("GET", f"{base}/metrics"))[2]
    assert (await client.raw("GET", f"{base}/metrics/resource"))[2].endswith(b"\nresource_scrape_error 0\n")
    assert (await client.raw("GET", f"{base}/none"))[0] == 404
    assert (await client.raw("PUT", f"{base}/pods"))[0] == 405
    assert await client.refused("GET", "/api/v1/nodes/n1:80/proxy/") == (400, "address not allowed")


async def test_other_ports_of_a_node_are_reached_at_its_address(client: Client, porters: dict[int, int]) -> None:
    address = own_address()
    if not address:
        pytest.skip("this machine has no address but its loopback")
    made = await client.api.ok("POST", "/api/v1/nodes", {"metadata": {"name": "n1"}})
    status = {"addresses": [{"type": "InternalIP", "address": address}]}
    await client.api.ok("PUT", "/api/v1/nodes/n1/status", {**made, "status": status})
    for name in (f"n1:{porters[80]}", f"https:n1:{porters[443]}"):
        assert (await client.said("GET", f"/api/v1/nodes/{name}/proxy/x?y"))["Path"] == "/x?y"
    words = f"error trying to reach service: dial tcp {address}:1: connect: connection refused"
    assert await client.refused("GET", "/api/v1/nodes/n1:1/proxy/x") == (503, words)
