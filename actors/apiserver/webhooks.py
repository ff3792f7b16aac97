"""Calls out: keeps the configured webhooks compiled, and carries their calls out on kept-alive connections.

Whom to ask and what an answer means is decided in `cluster/api/admission`; a failure is told in the words of Go's HTTP
client, as clients know them from Kubernetes.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections import OrderedDict
from collections.abc import Sequence
from urllib.parse import urlsplit

from steersman.actors import kubeconfig
from steersman.actors.apiserver.cache import Shelf, WatchCache
from steersman.actors.apiserver.services import Services, Unresolved, go_words, place
from steersman.actors.http.client import ConnectionFailed, HttpTransport
from steersman.actors.http.messages import Request
from steersman.cluster.api.admission.hooks import Hooks, compile_hooks
from steersman.cluster.api.admission.plugins import is_on
from steersman.cluster.api.context import ApiSettings
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.steps import HookCall, HookReply
from steersman.cluster.meta.errors import ServerTimeout
from steersman.cluster.meta.resources import (
    MUTATING_BINDINGS,
    MUTATING_POLICIES,
    MUTATING_WEBHOOKS,
    VALIDATING_BINDINGS,
    VALIDATING_POLICIES,
    VALIDATING_WEBHOOKS,
    Resource,
)

#: what hooks are compiled of, and the plugin that asks them
_CONFIGURED = (
    (MUTATING_WEBHOOKS, "MutatingAdmissionWebhook"), (VALIDATING_WEBHOOKS, "ValidatingAdmissionWebhook"),
    (MUTATING_POLICIES, "MutatingAdmissionPolicy"), (MUTATING_BINDINGS, "MutatingAdmissionPolicy"),
    (VALIDATING_POLICIES, "ValidatingAdmissionPolicy"), (VALIDATING_BINDINGS, "ValidatingAdmissionPolicy"),
)  # fmt: skip
#: endpoints of webhooks to which connections are kept; a cluster has a dozen webhooks with a few endpoints each
TRANSPORTS_MAX = 64
#: calls in flight; beyond them writes wait
CALLS_MAX = 256
#: the longest answer read: an object and a patch of it
ANSWER_BYTES_MAX = 8 * 1024 * 1024
_NOBODY = kubeconfig.Login()
_HEADERS = {
    "content-type": "application/json", "accept": "application/json, */*", "user-agent": "kube-apiserver-admission",
}  # fmt: skip


class Webhooks:
    """Knows the cluster's webhooks and calls them."""

    def __init__(self, cache: WatchCache, registry: Registry, services: Services, settings: ApiSettings) -> None:
        self._cache = cache
        self._registry = registry
        self._services = services
        #: whether those that are configured by each shelf are asked at all
        self._asked = [is_on(plugin, settings) for _, plugin in _CONFIGURED]
        files = settings.admission.mutating_kubeconfig, settings.admission.validating_kubeconfig
        self._logins = {path: kubeconfig.Logins(path) for path in files if path}
        self._hooks: Hooks | None = None
        #: the shelves of what is configured, and the generations of which `_hooks` was compiled
        self._shelves: list[Shelf] = []
        self._compiled: list[int] = []
        #: transports by endpoint, authorities and own certificate, the one used last at the end
        self._transports: OrderedDict[tuple[str, str, bytes], HttpTransport] = OrderedDict()
        #: of transports that were given up
        self._closing: set[asyncio.Task[None]] = set()
        self._calls = asyncio.Semaphore(CALLS_MAX)

    async def stop(self) -> None:
        transports = list(self._transports.values())
        self._transports.clear()
        await asyncio.gather(*self._closing, *(transport.close() for transport in transports))

    def _drop(self, transport: HttpTransport) -> None:
        """Closes a transport whose place another one takes; calls that are under way on it end first."""
        task = asyncio.create_task(transport.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _shelf(self, resource: Resource) -> Shelf:
        kind = self._registry.kind(resource.group, resource.version, resource.plural)
        if kind is None:
            raise LookupError(f"this version of Kubernetes has no {resource}")
        return self._cache.shelf(kind.prefix())

    def hooks(self) -> Hooks | None:
        """The webhooks and policies as they are configured now; None when there are none."""
        if not self._shelves:
            self._shelves = [self._shelf(resource) for resource, _ in _CONFIGURED]
        state = [shelf.generation for shelf in self._shelves]
        if state != self._compiled:
            shelves = zip(self._shelves, self._asked, strict=True)
            rows = [[entry.obj for entry in shelf.within()] if asked else [] for shelf, asked in shelves]
            self._hooks = compile_hooks(rows[0], rows[1], (rows[2], rows[3]), (rows[4], rows[5]))
            self._compiled = state
        return self._hooks

    # ---- calling

    async def ask(self, calls: Sequence[HookCall]) -> list[HookReply]:
        """Makes calls, all at the same time; a failure is a reply, never an exception."""
        if len(calls) == 1:
            return [await self._call(calls[0])]
        return list(await asyncio.gather(*map(self._call, calls)))

    async def _call(self, call: HookCall) -> HookReply:
        try:
            async with asyncio.timeout(call.timeout_s), self._calls:
                host, port = self._place(call)
                login = self._login(call)
                transport = self._transport(call, host, port, login)
                target = call.url[call.url.index("/", len("https://")) :]
                headers = {**_HEADERS, "host": urlsplit(call.url).netloc}
                if authorization := login.authorization:
                    headers["authorization"] = authorization
                request = Request("POST", target, headers, call.body, None)
                response = await transport(request)
                return HookReply(status=response.status, body=await _all(response.body))
        except Unresolved as error:
            return HookReply(failure=str(error))
        except (TimeoutError, ServerTimeout):
            return HookReply(failure="context deadline exceeded")
        except ConnectionFailed as error:
            return HookReply(failure=go_words(error.__cause__ or error, host, port))
        except (ssl.SSLError, ValueError) as error:
            return HookReply(failure=f"unable to load root certificates: {error}")

    def _place(self, call: HookCall) -> tuple[str, int]:
        if call.service is not None:
            address = call.service
            return self._services.resolve(address.namespace, address.name, address.port)
        parts = urlsplit(call.url)
        return parts.hostname or "", parts.port or 443

    def _login(self, call: HookCall) -> kubeconfig.Login:
        """Who the server is to a webhook, which is known by the name in its URL."""
        if not call.kubeconfig:
            return _NOBODY
        parts = urlsplit(call.url)
        return self._logins[call.kubeconfig].of(parts.hostname or "", parts.port or 443)

    def _transport(self, call: HookCall, host: str, port: int, login: kubeconfig.Login) -> HttpTransport:
        name = f"{call.service.name}.{call.service.namespace}.svc" if call.service else host
        authority = place(host, port)
        key = authority, name, hashlib.sha256(call.ca_bundle).digest() + login.cert_pem
        found = self._transports.get(key)
        if found is None:
            context = ssl.create_default_context(cadata=call.ca_bundle.decode("ascii") if call.ca_bundle else None)
            if login.cert_pem:
                kubeconfig.load_certificate(context, login.cert_pem, login.key_pem)
            found = HttpTransport(
                [f"https://{authority}"], tls=context, server_hostname=name, connect_timeout_s=30.0, repeats=True,
                whole_bytes_max=ANSWER_BYTES_MAX,
            )  # fmt: skip
            self._transports[key] = found
            while len(self._transports) > TRANSPORTS_MAX:
                self._drop(self._transports.popitem(last=False)[1])
        self._transports.move_to_end(key)
        return found


async def _all(body: object) -> bytes:
    if isinstance(body, bytes):
        return body
    pieces, size = [], 0
    async for piece in body:  # type: ignore[attr-defined]
        size += len(piece)
        if size > ANSWER_BYTES_MAX:
            raise ValueError("the answer is too long")
        pieces.append(piece)
    return b"".join(pieces)
