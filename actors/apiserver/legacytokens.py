"""Fills Secrets of the type `kubernetes.io/service-account-token` with a token, and removes those without an account.

A label says when a token was used last; a ConfigMap since when that is written down.

Source: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#token-controller
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging

from steersman.actors.apiserver.authenticator import SERVER
from steersman.actors.apiserver.cache import WatchCache
from steersman.actors.apiserver.entry import Event
from steersman.actors.apiserver.writes import Writer
from steersman.actors.ports import Now
from steersman.cluster.api.kinds import Registry
from steersman.cluster.auth.tokens import LAST_USED, LEGACY_TYPE, TokenIssuer, day_of, legacy_claims
from steersman.cluster.meta.errors import AlreadyExists, ApiError
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS
from steersman.cluster.store.values import StoreError

log = logging.getLogger(__name__)

_NAME, _UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"
_TYPE = LEGACY_TYPE.encode()
_RETRY_S = 1.0
_TRACKING = "kube-apiserver-legacy-service-account-token-tracking"


class LegacyTokens:
    """Follows Secrets and service accounts in the cache; a Component."""

    def __init__(
        self, cache: WatchCache, registry: Registry, writer: Writer, issuer: TokenIssuer, root_ca: bytes, now: Now
    ) -> None:
        self._now = now
        self._cache = cache
        self._writer = writer
        self._issuer = issuer
        self._root_ca = root_ca
        self._registry = registry
        secrets = registry.kind(SECRETS.group, SECRETS.version, SECRETS.plural)
        accounts = registry.kind(SERVICE_ACCOUNTS.group, SERVICE_ACCOUNTS.version, SERVICE_ACCOUNTS.plural)
        if secrets is None or accounts is None:
            raise LookupError("this version of Kubernetes has no Secrets")
        self._secrets, self._accounts = secrets, accounts
        #: Secrets to look at: `namespace/name`
        self._due: dict[str, None] = {}
        #: of them those whose token was used today
        self._used: set[str] = set()
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

    def used(self, namespace: str, name: str) -> None:
        """Has it written down that the token in a Secret was used today."""
        self._used.add(f"{namespace}/{name}")
        self._due[f"{namespace}/{name}"] = None
        self._stirred.set()

    async def publish(self) -> None:
        """Says since when the use of tokens is written down, unless that has been said."""
        kind = self._registry.kind(CONFIG_MAPS.group, CONFIG_MAPS.version, CONFIG_MAPS.plural)
        if kind is None or self._writer.lookup(CONFIG_MAPS, "kube-system", _TRACKING) is not None:
            return
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": _TRACKING, "namespace": "kube-system"}}
        data = {"since": day_of(self._now())}
        context = self._writer.context(SERVER, "steersman-tokens")
        with contextlib.suppress(AlreadyExists):
            await self._writer.run(
                self._writer.create(kind, "kube-system", lambda: ({**body, "data": {**data}}, []), context)
            )

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
        today = f"{namespace}/{name}" in self._used
        self._used.discard(f"{namespace}/{name}")
        if (wanted := self._filled(secret, account, today)) != secret:
            await self._writer.run(
                self._writer.transform(
                    self._secrets, namespace, name, context, lambda old: self._filled(old, account, today)
                )
            )
            log.debug("Secret %s/%s has a token of %s", namespace, name, wanted["metadata"]["annotations"][_NAME])

    def _filled(self, secret: Obj, account: Obj, today: bool) -> Obj:
        """The Secret with all that it should hold; what it holds already stays. Args: today: its token was used."""
        meta = secret["metadata"]
        token = self._issuer.sign(legacy_claims(account, meta["name"]))
        wanted = {"token": token.encode(), "namespace": meta["namespace"].encode(), "ca.crt": self._root_ca}
        data = {key: base64.b64encode(value).decode() for key, value in wanted.items() if value}
        annotations = {**(meta.get("annotations") or {}), _UID: account["metadata"]["uid"]}
        labels = {"labels": {**(meta.get("labels") or {}), LAST_USED: day_of(self._now())}} if today else {}
        return {
            **secret,
            "metadata": {**meta, "annotations": annotations, **labels},
            "data": {**data, **(secret.get("data") or {})},
        }
