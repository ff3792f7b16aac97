"""Fills Secrets of the type `kubernetes.io/service-account-token` with a token, and removes those without an account.

Source: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#token-controller
"""

from __future__ import annotations

import asyncio
import base64
import logging

from steersman.actors.apiserver.authenticator import SERVER
from steersman.actors.apiserver.cache import WatchCache
from steersman.actors.apiserver.entry import Event
from steersman.actors.apiserver.writes import Writer
from steersman.cluster.api.kinds import Registry
from steersman.cluster.auth.tokens import LEGACY_TYPE, TokenIssuer, legacy_claims
from steersman.cluster.meta.errors import ApiError
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import SECRETS, SERVICE_ACCOUNTS
from steersman.cluster.store.values import StoreError

log = logging.getLogger(__name__)

_NAME, _UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"
_TYPE = LEGACY_TYPE.encode()
_RETRY_S = 1.0


class LegacyTokens:
    """Follows Secrets and service accounts in the cache; a Component."""

    def __init__(
        self, cache: WatchCache, registry: Registry, writer: Writer, issuer: TokenIssuer, root_ca: bytes
    ) -> None:
        self._cache = cache
        self._writer = writer
        self._issuer = issuer
        self._root_ca = root_ca
        secrets = registry.kind(SECRETS.group, SECRETS.version, SECRETS.plural)
        accounts = registry.kind(SERVICE_ACCOUNTS.group, SERVICE_ACCOUNTS.version, SERVICE_ACCOUNTS.plural)
        if secrets is None or accounts is None:
            raise LookupError("this version of Kubernetes has no Secrets")
        self._secrets, self._accounts = secrets, accounts
        #: Secrets to look at: `namespace/name`
        self._due: dict[str, None] = {}
        self._stirred = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        shelf = self._cache.shelf(self._secrets.prefix())
        shelf.listeners.append(self._follow)
        self._cache.shelf(self._accounts.prefix()).listeners.append(self._follow_account)
        for entry in shelf.within():
            self._follow(Event("ADDED", entry, None))
        self._worker = asyncio.create_task(self._work())

    async def stop(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    def _follow(self, event: Event) -> None:
        if _TYPE in event.entry.raw and event.type != "DELETED":
            self._due[event.entry.key] = None
            self._stirred.set()

    def _follow_account(self, event: Event) -> None:
        if event.type != "DELETED":
            return
        namespace = event.entry.key.partition("/")[0]
        for entry in self._cache.shelf(self._secrets.prefix()).within(namespace):
            self._follow(Event("MODIFIED", entry, None))

    async def _work(self) -> None:
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            due, self._due = self._due, {}
            for key in due:
                try:
                    await self._settle(*key.split("/", 1))
                except (ApiError, StoreError, TimeoutError) as error:
                    log.info("Secret %s is tried again: %s", key, error)
                    self._due[key] = None
            if self._due:
                await asyncio.sleep(_RETRY_S)
                self._stirred.set()

    async def _settle(self, namespace: str, name: str) -> None:
        await self._cache.fresh()
        secret = self._writer.lookup(SECRETS, namespace, name)
        if secret is None or secret.get("type") != LEGACY_TYPE or "deletionTimestamp" in secret["metadata"]:
            return
        annotations = secret["metadata"].get("annotations") or {}
        account = self._writer.lookup(SERVICE_ACCOUNTS, namespace, annotations.get(_NAME, ""))
        context = self._writer.context(SERVER, "steersman-tokens")
        if account is None or annotations.get(_UID, account["metadata"]["uid"]) != account["metadata"]["uid"]:
            options = {"preconditions": {"uid": secret["metadata"]["uid"]}}
            await self._writer.run(self._writer.delete(self._secrets, namespace, name, options, context))
            return
        if (wanted := self._filled(secret, account)) != secret:
            await self._writer.run(
                self._writer.transform(self._secrets, namespace, name, context, lambda old: self._filled(old, account))
            )
            log.debug("Secret %s/%s has a token of %s", namespace, name, wanted["metadata"]["annotations"][_NAME])

    def _filled(self, secret: Obj, account: Obj) -> Obj:
        """The Secret with all that it should hold; what it holds already stays."""
        meta = secret["metadata"]
        token = self._issuer.sign(legacy_claims(account, meta["name"]))
        wanted = {"token": token.encode(), "namespace": meta["namespace"].encode(), "ca.crt": self._root_ca}
        data = {key: base64.b64encode(value).decode() for key, value in wanted.items() if value}
        annotations = {**(meta.get("annotations") or {}), _UID: account["metadata"]["uid"]}
        return {
            **secret,
            "metadata": {**meta, "annotations": annotations},
            "data": {**data, **(secret.get("data") or {})},
        }
