"""Carries certificate signing requests through: approves, signs and removes them as `cluster/auth/certificates` says.

Every API server that has the authority's key does so; a step that another was faster with comes to nothing.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from steersman.actors.apiserver.access import Authorizer
from steersman.actors.apiserver.askedwebhooks import answered
from steersman.actors.apiserver.authenticator import SERVER
from steersman.actors.apiserver.cache import WatchCache
from steersman.actors.apiserver.entry import Event
from steersman.actors.apiserver.writes import Writer
from steersman.actors.ports import Now, User
from steersman.cluster.api.kinds import Registry
from steersman.cluster.auth import certificates
from steersman.cluster.auth.attributes import Attributes
from steersman.cluster.auth.certificates import Approve, Authority, Delete, Fail, Sign, Step
from steersman.cluster.meta.errors import ApiError
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import CERTIFICATE_SIGNING_REQUESTS as REQUESTS
from steersman.cluster.store.values import StoreError

log = logging.getLogger(__name__)

#: how often requests are looked at whose time may have come
_SWEEP_S = 60.0
_RETRY_S = 1.0


class Certificates:
    """Follows the requests in the cache; a Component."""

    def __init__(
        self,
        cache: WatchCache,
        registry: Registry,
        writer: Writer,
        authorizer: Authorizer,
        authority: Authority,
        now: Now,
    ) -> None:
        self._cache = cache
        self._writer = writer
        self._authorizer = authorizer
        self._authority = authority
        self._now = now
        kind = registry.kind(REQUESTS.group, REQUESTS.version, REQUESTS.plural)
        if kind is None:
            raise LookupError("this version of Kubernetes has no CertificateSigningRequests")
        self._kind = kind
        self._due: dict[str, None] = {}
        self._stirred = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        shelf = self._cache.shelf(self._kind.prefix())
        shelf.listeners.append(self._follow)
        self._worker = asyncio.create_task(self._work())

    async def stop(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    def _follow(self, event: Event) -> None:
        if event.type != "DELETED":
            self._due[event.entry.key] = None
            self._stirred.set()

    async def _work(self) -> None:
        while True:
            self._due.update(dict.fromkeys(entry.key for entry in self._cache.shelf(self._kind.prefix()).within()))
            self._stirred.set()
            try:
                async with asyncio.timeout(_SWEEP_S):
                    while True:
                        await self._stirred.wait()
                        self._stirred.clear()
                        await self._settle_all()
            except TimeoutError:
                continue

    async def _settle_all(self) -> None:
        due, self._due = self._due, {}
        for name in due:
            try:
                await self._settle(name)
            except (ApiError, StoreError) as error:
                log.info("certificate signing request %s is tried again: %s", name, error)
                self._due[name] = None
        if self._due:
            await asyncio.sleep(_RETRY_S)
            self._stirred.set()

    async def _settle(self, name: str) -> None:
        csr = self._writer.lookup(REQUESTS, "", name)
        if csr is None:
            return
        step = await answered(partial(self._decide, csr))
        context = self._writer.context(SERVER, "steersman-certificates")
        match step:
            case Delete():
                options = {"preconditions": {"uid": csr["metadata"]["uid"]}}
                await self._writer.run(self._writer.delete(self._kind, "", name, options, context))
            case Approve():
                await self._change(csr, "approval", _with_condition(csr, step.condition))
            case Fail():
                await self._change(csr, "status", _with_condition(csr, step.condition))
            case Sign():
                await self._change(csr, "status", {**(csr.get("status") or {}), "certificate": step.pem})

    async def _decide(self, csr: Obj) -> Step | None:
        return certificates.decide(csr, self._now(), lambda below: self._may(csr["spec"], below), self._authority)

    async def _change(self, csr: Obj, subresource: str, status: Obj) -> None:
        context = self._writer.context(SERVER, "steersman-certificates")
        revision = csr["metadata"]["resourceVersion"]

        def change(old: Obj) -> Obj:
            # decided on this version; a newer one is looked at when it comes
            return {**old, "status": status} if old["metadata"]["resourceVersion"] == revision else old

        await self._writer.run(
            self._writer.transform(self._kind, "", csr["metadata"]["name"], context, change, subresource)
        )

    def _may(self, spec: Obj, below: str) -> bool:
        """Whether the one who asks may have a node's certificate."""
        extra = {key: tuple(values) for key, values in (spec.get("extra") or {}).items()}
        user = User(spec.get("username", ""), tuple(spec.get("groups") or ()), spec.get("uid", ""), extra)
        return self._authorizer.allows(
            user, Attributes("create", "", REQUESTS.group, REQUESTS.version, REQUESTS.plural, below)
        )


def _with_condition(csr: Obj, condition: Obj) -> Obj:
    status = csr.get("status") or {}
    return {**status, "conditions": [*(status.get("conditions") or ()), condition]}
