"""Fills Secrets of the type `kubernetes.io/service-account-token` with a token, and removes those without an account.

A label says when a token was used last; a ConfigMap since when that is written down. Once a day those that nobody has
used for long are looked for.

Source: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#token-controller
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from functools import partial

from steersman.actors.apiserver.authenticator import SERVER
from steersman.actors.apiserver.cache import WatchCache
from steersman.actors.apiserver.entry import Event
from steersman.actors.apiserver.writes import Writer
from steersman.actors.ports import Now
from steersman.cluster.api.kinds import Registry
from steersman.cluster.auth.legacytokens import ACCOUNT_NAME, ACCOUNT_UID, Step, is_tracked, marked, step_of
from steersman.cluster.auth.node import references
from steersman.cluster.auth.tokens import LAST_USED, LEGACY_TYPE, TokenIssuer, day_of, legacy_claims
from steersman.cluster.meta.errors import AlreadyExists, ApiError
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import CONFIG_MAPS, PODS, SECRETS, SERVICE_ACCOUNTS
from steersman.cluster.store.values import StoreError

log = logging.getLogger(__name__)

_TYPE = LEGACY_TYPE.encode()
_RETRY_S = 1.0
#: how often unused tokens are looked for
_CLEAN_UP_PERIOD_S = 86_400.0
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
        pods = registry.kind(PODS.group, PODS.version, PODS.plural)
        if secrets is None or accounts is None or pods is None:
            raise LookupError("this version of Kubernetes has no Secrets")
        self._secrets, self._accounts, self._pods = secrets, accounts, pods
        #: Secrets to look at: `namespace/name`
        self._due: dict[str, None] = {}
        #: of them those whose token was used today
        self._used: set[str] = set()
        self._stirred = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        shelf = self._cache.shelf(self._secrets.prefix())
        shelf.listeners.append(self._follow)
        self._cache.shelf(self._accounts.prefix()).listeners.append(self._follow_account)
        for entry in shelf.within():
            self._follow(Event("ADDED", entry, None))
        self._tasks = [asyncio.create_task(self._work()), asyncio.create_task(self._clean_up_always())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

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
        account = self._writer.lookup(SERVICE_ACCOUNTS, namespace, annotations.get(ACCOUNT_NAME, ""))
        context = self._writer.context(SERVER, "steersman-tokens")
        if account is None or annotations.get(ACCOUNT_UID, account["metadata"]["uid"]) != account["metadata"]["uid"]:
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
            log.debug(
                "Secret %s/%s has a token of %s", namespace, name, wanted["metadata"]["annotations"][ACCOUNT_NAME]
            )

    # ---- tokens that nobody uses

    async def _clean_up_always(self) -> None:
        while True:
            await self.clean_up()
            await asyncio.sleep(_CLEAN_UP_PERIOD_S)

    async def clean_up(self) -> None:
        """Marks and removes the Secrets whose tokens nobody has used for long."""
        now = self._now()
        if not is_tracked(self._writer.lookup(CONFIG_MAPS, "kube-system", _TRACKING), now):
            return
        for entry in list(self._cache.shelf(self._secrets.prefix()).within()):
            if _TYPE in entry.raw:
                try:
                    await self._clean_up(entry.obj, now)
                except (ApiError, StoreError, TimeoutError) as error:
                    log.info("Secret %s is looked at again tomorrow: %s", entry.key, error)

    async def _clean_up(self, secret: Obj, now: float) -> None:
        meta = secret["metadata"]
        namespace, name = meta["namespace"], meta["name"]
        context = self._writer.context(SERVER, "legacy-service-account-token-cleaner")
        match step_of(secret, self._account_of(secret), partial(self._is_mounted, namespace, name), now):
            case Step.MARK:
                log.info("the token in Secret %s/%s is not good any longer: nobody uses it", namespace, name)
                await self._writer.run(
                    self._writer.transform(self._secrets, namespace, name, context, lambda old: marked(old, now))
                )
            case Step.REMOVE:
                log.info("Secret %s/%s goes: nobody has used its token for long", namespace, name)
                version = {"preconditions": {"resourceVersion": meta["resourceVersion"]}}
                await self._writer.run(self._writer.delete(self._secrets, namespace, name, version, context))

    def _account_of(self, secret: Obj) -> Obj | None:
        annotations = secret["metadata"].get("annotations") or {}
        name, uid = annotations.get(ACCOUNT_NAME, ""), annotations.get(ACCOUNT_UID, "")
        account = self._writer.lookup(SERVICE_ACCOUNTS, secret["metadata"]["namespace"], name)
        return account if account is not None and uid in ("", account["metadata"]["uid"]) else None

    def _is_mounted(self, namespace: str, name: str) -> bool:
        pods = self._cache.shelf(self._pods.prefix()).within(namespace)
        return any(("secrets", name) in references(entry.obj) for entry in pods)

    def _filled(self, secret: Obj, account: Obj, today: bool) -> Obj:
        """The Secret with all that it should hold; what it holds already stays. Args: today: its token was used."""
        meta = secret["metadata"]
        token = self._issuer.sign(legacy_claims(account, meta["name"]))
        wanted = {"token": token.encode(), "namespace": meta["namespace"].encode(), "ca.crt": self._root_ca}
        data = {key: base64.b64encode(value).decode() for key, value in wanted.items() if value}
        annotations = {**(meta.get("annotations") or {}), ACCOUNT_UID: account["metadata"]["uid"]}
        labels = {"labels": {**(meta.get("labels") or {}), LAST_USED: day_of(self._now())}} if today else {}
        return {
            **secret,
            "metadata": {**meta, "annotations": annotations, **labels},
            "data": {**data, **(secret.get("data") or {})},
        }
