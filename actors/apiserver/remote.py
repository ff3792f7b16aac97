"""One extension API server as its APIService describes it: asked again and again how it is, and asked for others.

Source: k8s.io/kube-aggregator/pkg/apiserver (`handler_proxy.go`), pkg/controllers/status/remote
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import orjson

from steersman.actors.apiserver.call import Call
from steersman.actors.apiserver.config import ApiServerConfig
from steersman.actors.apiserver.services import Services, Unresolved, go_words, place
from steersman.actors.http import wires
from steersman.actors.http.client import ConnectionFailed, HttpTransport
from steersman.actors.http.messages import Request, Response
from steersman.actors.http.passing import end_to_end, pass_on
from steersman.actors.renewed import KeyPair, Renewals, RenewedContext
from steersman.actors.webhook import whole
from steersman.cluster.api.apiservices import PASSED, Availability, failed, unreachable
from steersman.cluster.api.extensions import CURRENT, STALE, Extension, read_resources
from steersman.cluster.api.openapi_merge import is_sound
from steersman.cluster.auth import requestheader
from steersman.cluster.meta.errors import ApiError, ServerTimeout
from steersman.cluster.meta.objects import Obj

#: between two looks at a server, and the shortest pause after one that failed; each failure doubles it
CHECK_S, RETRY_S = 30.0, 0.5
#: within which a server has to answer that look
_CHECK_TIMEOUT_S = 5.0
#: endpoints asked at the same time, of which one has to answer
_ATTEMPTS = 5
_CONNECT_S, _ANSWER_S = 30.0, 60.0
#: connections to one endpoint, watches included
_CONNECTIONS_MAX = 4096
#: endpoints to which connections are kept
_TRANSPORTS_MAX = 8
#: a longer answer is passed on piece by piece
_WHOLE_BYTES_MAX = 1 << 20
_AGGREGATOR = requestheader.headers_of("system:kube-aggregator", ("system:masters",))
_REDIRECT = b"the backend attempted to redirect this request, which is not permitted"


@dataclass(frozen=True, slots=True)
class RemoteOpenApi:
    """What is known of a server's OpenAPI documents.

    Args:
        url: of the document of its group and version in the third form; empty where it has none.
        document: the whole of it in the second form.
        index_tag, tag: of what `url` and `document` were read from.
    """

    url: str = ""
    index_tag: str = ""
    document: Obj | None = None
    tag: str = ""


class Remote:
    """An extension API server.

    Args:
        spec: of its APIService.
        told: called with each finding about it.
    """

    def __init__(
        self,
        name: str,
        spec: Obj,
        services: Services,
        config: ApiServerConfig,
        told: Callable[[Remote, Availability], Awaitable[None]],
    ) -> None:
        self.name = name
        self.spec = spec
        self.extension = Extension(spec["group"], spec["version"])
        #: as the APIService's status says
        self.available = False
        self.verdict: Availability | None = None
        self.openapi = RemoteOpenApi()
        self._services = services
        self._config = config
        self._told = told
        self._transports: OrderedDict[tuple[str, bool], HttpTransport] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()
        self._poked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look how it is."""
        self._task = asyncio.create_task(self._watch(), name=f"apiservice {self.name}")

    @property
    def service(self) -> tuple[str, str]:
        service = self.spec["service"]
        return service["namespace"], service["name"]

    @property
    def path(self) -> str:
        return f"/apis/{self.spec['group']}/{self.spec['version']}"

    def poke(self) -> None:
        """Something about it has changed."""
        self._poked.set()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for transport in self._transports.values():
            await transport.close()

    # ---- how it is

    async def _watch(self) -> None:
        pause_s = RETRY_S
        while True:
            self._poked.clear()
            self.verdict = await self._check()
            good = self.verdict.status == "True"
            if not good:
                self.extension = Extension(
                    self.extension.group, self.extension.version, self.extension.resources, STALE
                )
            await self._told(self, self.verdict)
            if good and await self._learn():
                await self._told(self, self.verdict)
            try:
                async with asyncio.timeout(CHECK_S if good else pause_s):
                    await self._poked.wait()
                pause_s = RETRY_S
            except TimeoutError:
                pause_s = RETRY_S if good else min(CHECK_S, pause_s * 2)

    async def _check(self) -> Availability:
        namespace, name = self.service
        found = unreachable(self.spec, self._services.find(namespace, name), self._services.slices(namespace, name))
        if found is not None:
            return found
        try:
            places = self._services.places(namespace, name, self.spec["service"]["port"])
        except Unresolved as error:
            return Availability("False", "FailedDiscoveryCheck", str(error))
        tasks = [asyncio.create_task(self._ask(*each)) for each in places[:_ATTEMPTS]]
        last = PASSED
        try:
            for answer in asyncio.as_completed(tasks):
                last = await answer
                if last.status == "True":
                    break
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return last

    async def _ask(self, host: str, port: int) -> Availability:
        """Asks one endpoint for its resources, which every extension API server has to serve."""
        url = f"https://{place(host, port)}{self.path}"
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT_S):
                # whoever owns the network may say that it is there, but nothing else is told on this connection
                transport = self._transport(host, port, checks=False)
                headers = {**_AGGREGATOR, "accept": "application/json", "user-agent": "Go-http-client/1.1"}
                response = await transport(Request("GET", self.path, headers))
                body = await whole(response)
        except (TimeoutError, ServerTimeout):
            return failed(url, f'Get "{url}": context deadline exceeded')
        except ConnectionFailed as error:
            return failed(url, f'Get "{url}": {go_words(error.__cause__ or error, host, port)}')
        except (ssl.SSLError, ApiError, ValueError) as error:
            return failed(url, f'Get "{url}": {error}')
        if not 200 <= response.status < 300:
            return failed(url, f"bad status from {url}: {response.status}")
        group, version = self.extension.group, self.extension.version
        try:
            self.extension = Extension(group, version, read_resources(group, version, orjson.loads(body)), CURRENT)
        except ValueError:
            self.extension = Extension(group, version, self.extension.resources, STALE)
        return PASSED

    async def _learn(self) -> bool:
        """Asks for the OpenAPI documents, where they have changed; returns whether they had."""
        before = self.openapi
        index, tag = await self._fetch("/openapi/v3", before.index_tag)
        if tag != before.index_tag or not tag:
            paths = (index or {}).get("paths")
            row = paths.get(self.path[1:]) if isinstance(paths, dict) else None
            url = row.get("serverRelativeURL") if isinstance(row, dict) else None
            self.openapi = replace(self.openapi, url=url if isinstance(url, str) else "", index_tag=tag)
        document, tag = await self._fetch("/openapi/v2", before.tag)
        if document is not None and tag != before.tag:
            sound = is_sound(document, self.extension.group, self.extension.version)
            self.openapi = replace(self.openapi, document=document if sound else None, tag=tag)
        return self.openapi != before

    async def _fetch(self, path: str, tag: str) -> tuple[Obj | None, str]:
        """A document and its tag; the old tag alone when it has not changed or cannot be had now."""
        headers = {**_AGGREGATOR, "accept": "application/json", **({"if-none-match": tag} if tag else {})}
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT_S):
                host, port = self._services.resolve(*self.service, self.spec["service"]["port"])
                response = await self._transport(host, port)(Request("GET", path, headers))
                body = await whole(response)
            found = orjson.loads(body) if response.status == 200 else None
        except (Unresolved, ApiError, OSError, ValueError):
            return None, tag
        new_tag = response.headers.get("etag", "") or hashlib.sha256(body).hexdigest()
        return (found, new_tag) if isinstance(found, dict) else (None, tag)

    # ---- passing on

    async def forward(self, call: Call) -> Response:
        """Asks the server on behalf of a user who may ask this one."""
        if not self.available:
            return text_answer(503, "service unavailable")
        user, request = call.user, call.request
        try:
            host, port = self._services.resolve(*self.service, self.spec["service"]["port"])
            claims = requestheader.headers_of(user.name, user.groups, user.uid, user.extra)
        except Unresolved:
            return text_answer(503, "service unavailable")
        except ValueError as error:
            return text_answer(503, f"error trying to reach service: {error}")
        headers = {**_forwarded(call), **claims}
        try:
            if request.upgrade:
                return await self._switch(call, headers, host, port)
            response = await self._transport(host, port)(Request(request.method, _target(call), headers, request.body))
        except (ServerTimeout, TimeoutError):
            return text_answer(503, "error trying to reach service: context deadline exceeded")
        except ConnectionFailed as error:
            why = go_words(error.__cause__ or error, host, port)
            return text_answer(503, f"error trying to reach service: {why}")
        except OSError as error:
            return text_answer(503, f"error trying to reach service: {go_words(error, host, port)}")
        except ValueError as error:
            return text_answer(500, f"unable to load root certificates: {error}")
        return _answer(request.method, response)

    async def _switch(self, call: Call, headers: dict[str, str], host: str, port: int) -> Response:
        wire = await wires.connect(host, port, _CONNECT_S, self._context(checks=True), self._server_name)
        request = call.request
        headers |= {"host": place(host, port), "connection": "Upgrade", "upgrade": request.headers["upgrade"]}
        return await pass_on(wire, request.method, _target(call), headers, request.body, timeout_s=_ANSWER_S)

    @property
    def _server_name(self) -> str:
        namespace, name = self.service
        return f"{name}.{namespace}.svc"

    def _transport(self, host: str, port: int, *, checks: bool = True) -> HttpTransport:
        key = place(host, port), checks
        found = self._transports.get(key)
        if found is None:
            found = self._transports[key] = HttpTransport(
                [f"https://{key[0]}"],
                tls=self._context(checks=checks),
                server_hostname=self._server_name,
                connect_timeout_s=_CONNECT_S,
                response_timeout_s=_ANSWER_S,
                connections_max=_CONNECTIONS_MAX,
                whole_bytes_max=_WHOLE_BYTES_MAX,
            )
            while len(self._transports) > _TRANSPORTS_MAX:
                task = asyncio.create_task(self._transports.popitem(last=False)[1].close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        self._transports.move_to_end(key)
        return found

    def _context(self, *, checks: bool) -> ssl.SSLContext:
        """Raises ValueError when the APIService's authorities cannot be read."""
        context = RenewedContext(ssl.PROTOCOL_TLS_CLIENT)
        if not checks or self.spec.get("insecureSkipTLSVerify"):
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        else:
            try:
                bundle = base64.b64decode(self.spec.get("caBundle") or "").decode("ascii")
                if bundle:
                    context.load_verify_locations(cadata=bundle)
                else:
                    context.load_default_certs()
            except (binascii.Error, UnicodeDecodeError, ssl.SSLError) as error:
                raise ValueError(str(error)) from None
        if self._config.proxy_cert:
            KeyPair(self._config.proxy_cert, self._config.proxy_key).load(context)
            if self._config.proxy_files is not None:
                context.renewals = Renewals(self._config.proxy_files)
        return context


def _target(call: Call) -> str:
    """What the next server is asked for: what this one has understood and allowed, and nothing else."""
    query = call.query.encoded()
    return f"{call.path}?{query}" if query else call.path


def _forwarded(call: Call) -> dict[str, str]:
    """The headers of a request that go on to the next server."""
    headers = end_to_end(requestheader.without_claims(call.header))
    for name in ("host", "content-length", "expect"):
        headers.pop(name, None)
    headers["x-forwarded-uri"] = call.path
    if call.request.peer:
        before = headers.get("x-forwarded-for")
        headers["x-forwarded-for"] = f"{before}, {call.request.peer}" if before else call.request.peer
    return headers


def _answer(method: str, response: Response) -> Response:
    if 300 <= response.status < 400 and response.headers.get("location"):
        return Response(502, {}, _REDIRECT)
    headers = end_to_end(response.headers)
    if isinstance(response.body, bytes) and method != "HEAD":
        headers.pop("content-length", None)
    return Response(response.status, headers, response.body)


def text_answer(status: int, text: str) -> Response:
    """An error as Go's `http.Error` says it."""
    headers = {"content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff"}
    return Response(status, headers, text.encode() + b"\n")
