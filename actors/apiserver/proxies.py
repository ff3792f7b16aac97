"""Answers the `proxy` subresource of pods, services and nodes: passes requests on, and their answers back.

Pods are reached through their node's agent, so that nobody's claim about an address leads anywhere; whom a Service or a
name means is decided in `cluster/api/proxying`.
"""

from __future__ import annotations

import errno
import random
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

from steersman.actors.apiserver.call import Call
from steersman.actors.apiserver.nodeendpoints import NodeEndpoints
from steersman.actors.apiserver.reads import Reader
from steersman.actors.apiserver.services import go_words, place
from steersman.actors.http import wires
from steersman.actors.http.messages import Response, Upgrade
from steersman.actors.http.passing import HOP_BY_HOP, pass_on
from steersman.actors.http.wires import ChannelWire, TlsWire, Wire
from steersman.actors.ports import NodeDirectory
from steersman.cluster.api import proxying
from steersman.cluster.api.htmllinks import LinkRewriter
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.proxying import Links, Name
from steersman.cluster.api.row import Kind
from steersman.cluster.auth.requestheader import without_claims
from steersman.cluster.meta.errors import ApiError, InternalError, NotFound, ServiceUnavailable
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import ENDPOINTS, PODS

_DIAL_S = 30.0
#: bytes of a page that one piece of a compressed one may become at a time
_INFLATED_BYTES = 1 << 18
_UNTRUSTED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_UNTRUSTED.check_hostname, _UNTRUSTED.verify_mode = False, ssl.CERT_NONE


class Proxies:
    """Args: on_loopback: whether this cluster's pods have loopback addresses."""

    def __init__(
        self, registry: Registry, reader: Reader, nodes: NodeDirectory, rng: random.Random, *, on_loopback: bool
    ) -> None:
        self._registry = registry
        self._reader = reader
        self._nodes = nodes
        self._rng = rng
        self._on_loopback = on_loopback
        self._own = NodeEndpoints(registry, reader)

    async def __call__(self, call: Call, kind: Kind) -> Response:
        """Raises ApiError: nobody can be asked."""
        asked, singular = call.attributes.name, kind.singular
        name = proxying.read_name(asked, singular)
        match kind.resource.plural:
            case "nodes":
                node = (await self._reader.find(kind, "", name.name)).obj
                if name.port in ("", proxying.agent_port(node)):
                    return await self._own(call, await self._nodes.connect(name.name), name.name)
                host, port = proxying.node_address(node), _number(name.port)
                return await self._pass(call, place(host, port), lambda: self._dial(host, port, name))
            case "pods":
                pod = (await self._reader.find(kind, call.attributes.namespace, name.name)).obj
                return await self._to_pod(call, pod, name, proxying.pod_port(pod, name.port))
        service = (await self._reader.find(kind, call.attributes.namespace, name.name)).obj
        return await self._to_service(call, service, name)

    async def _to_service(self, call: Call, service: Obj, name: Name) -> Response:
        namespace = call.attributes.namespace
        try:
            endpoints = (await self._reader.find(self._kind(ENDPOINTS.plural), namespace, name.name)).obj
        except NotFound:
            endpoints = None
        rows = list(proxying.endpoints_of(service, call.attributes.name, name, endpoints))
        self._rng.shuffle(rows)
        for pod_name, address, port in rows:
            try:
                pod = (await self._reader.find(self._kind(PODS.plural), namespace, pod_name)).obj
            except NotFound:
                continue
            if address in [row.get("ip") for row in (pod.get("status") or {}).get("podIPs") or ()]:
                return await self._to_pod(call, pod, name, port)
        raise proxying.no_endpoints(call.attributes.name)

    def _kind(self, plural: str) -> Kind:
        found = self._registry.kind("", "v1", plural)
        assert found is not None
        return found

    async def _to_pod(self, call: Call, pod: Obj, name: Name, port: int) -> Response:
        address = proxying.pod_address(pod, on_loopback=self._on_loopback)
        meta = pod["metadata"]

        async def dial() -> Wire:
            agent = await self._nodes.connect((pod.get("spec") or {}).get("nodeName", ""))
            try:
                channel = await agent.port_forward(meta["namespace"], meta["name"], port)
            except ApiError as error:
                refused = any(word in error.message.lower() for word in ("refused", f"errno {errno.ECONNREFUSED}"))
                text = f"dial tcp {place(address, port)}: connect: connection refused" if refused else error.message
                raise ConnectionError(text) from None
            wire = ChannelWire(channel)
            return TlsWire(wire, _UNTRUSTED, address) if name.scheme == "https" else wire

        return await self._pass(call, place(address, port), dial)

    async def _dial(self, host: str, port: int, name: Name) -> Wire:
        try:
            return await wires.connect(host, port, _DIAL_S, _UNTRUSTED if name.scheme == "https" else None)
        except OSError as error:
            raise ConnectionError(go_words(error, host, port)) from None

    async def _pass(self, call: Call, authority: str, dial: Callable[[], Awaitable[Wire]]) -> Response:
        request = call.request
        path, (_, question, query) = call.path, request.target.partition("?")
        prefix, rest = proxying.path_after(path)
        host = request.headers.get("host", authority)
        if not rest and request.method in ("GET", "HEAD") and not request.upgrade:
            return Response(301, {"location": f"{path}/{question}{query}"})
        dropped = HOP_BY_HOP | {"host"}
        headers = proxying.forwarded(
            without_claims(request.headers), request.peer, path, dropped, length=request.upload is not None
        )
        headers = {"host": host, **headers}
        if request.upgrade:
            headers |= {"connection": "Upgrade", "upgrade": request.headers["upgrade"]}
        body = request.body if request.upload is None else request.upload
        target = f"{rest or '/'}{question}{query}"
        try:
            response = await pass_on(await dial(), request.method, target, headers, body, timeout_s=None)
        except (OSError, TimeoutError) as error:
            if request.upgrade:
                raise InternalError(f"error dialing backend: {error}") from None
            raise ServiceUnavailable(f"error trying to reach service: {error or 'i/o timeout'}") from None
        return self._answer(response, Links(prefix, authority, host), request.method)

    def _answer(self, response: Response, links: Links, method: str) -> Response:
        headers = {key: value for key, value in response.headers.items() if key not in proxying.CORS}
        body = response.body
        if location := headers.get("location"):
            headers["location"] = links.rewrite(location)
        elif proxying.is_html(headers) and not isinstance(body, bytes | Upgrade) and method != "HEAD":
            encoding = headers.get("content-encoding", "")
            if encoding in _WINDOWS:
                headers.pop("content-length", None)
                body = _relinked(body, LinkRewriter(links.rewrite), encoding)
        return Response(response.status, headers, body)


#: content encoding to the window of zlib's that reads and writes it; None for plain text
_WINDOWS: dict[str, int | None] = {"": None, "gzip": 31, "deflate": -15}


async def _relinked(body: AsyncIterator[bytes], page: LinkRewriter, encoding: str) -> AsyncIterator[bytes]:
    """A page with its links rewritten, piece by piece, however it is compressed."""
    window = _WINDOWS[encoding]
    try:
        if window is None:
            async for piece in body:
                yield page.feed(piece)
            yield page.end()
            return
        reader, writer = zlib.decompressobj(window), zlib.compressobj(wbits=window)
        async for piece in body:
            left = piece
            while left:
                text = reader.decompress(left, _INFLATED_BYTES)
                left = reader.unconsumed_tail
                yield writer.compress(page.feed(text))
            yield writer.flush(zlib.Z_SYNC_FLUSH)
        yield writer.compress(page.feed(reader.flush()) + page.end()) + writer.flush()
    except zlib.error as error:
        raise ConnectionResetError(f"the page is not compressed as it says: {error}") from None
    finally:
        await body.aclose()  # type: ignore[attr-defined]


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ServiceUnavailable(f"error trying to reach service: dial tcp: lookup tcp/{text}: unknown port")
    return int(text)
