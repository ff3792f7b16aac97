"""Signs `cluster-info` with the bootstrap tokens and removes those that have expired; decides nothing."""

from __future__ import annotations

import asyncio
import logging

from steersman.actors.apiserver.authenticator import SERVER
from steersman.actors.apiserver.cache import WatchCache
from steersman.actors.apiserver.entry import Event
from steersman.actors.apiserver.writes import Writer
from steersman.actors.ports import Now
from steersman.cluster.api.kinds import Registry
from steersman.cluster.auth.bootstraptokens import INFO, INFO_NAMESPACE, NAMESPACE, PREFIX, TYPE, expires_at, signed
from steersman.cluster.meta.errors import ApiError, NotFound
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import CONFIG_MAPS, SECRETS
from steersman.cluster.store.values import StoreError

log = logging.getLogger(__name__)

_RETRY_S = 1.0
#: the clock may be set: looked at again at the latest after
_SLEEP_MAX_S = 600.0


class BootstrapTokens:
    """Follows the tokens and `cluster-info` in the cache; a Component."""

    def __init__(self, cache: WatchCache, registry: Registry, writer: Writer, now: Now) -> None:
        self._cache = cache
        self._writer = writer
        self._now = now
        secrets = registry.kind(SECRETS.group, SECRETS.version, SECRETS.plural)
        config_maps = registry.kind(CONFIG_MAPS.group, CONFIG_MAPS.version, CONFIG_MAPS.plural)
        if secrets is None or config_maps is None:
            raise LookupError("this version of Kubernetes has no Secrets")
        self._secrets, self._config_maps = secrets, config_maps
        self._stirred = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._cache.shelf(self._secrets.prefix()).listeners.append(self._follow)
        self._cache.shelf(self._config_maps.prefix()).listeners.append(self._follow)
        self._worker = asyncio.create_task(self._work())

    async def stop(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    def _follow(self, event: Event) -> None:
        if event.entry.key.startswith(f"{NAMESPACE}/{PREFIX}") or event.entry.key == f"{INFO_NAMESPACE}/{INFO}":
            self._stirred.set()

    async def _work(self) -> None:
        while True:
            self._stirred.clear()
            try:
                wait_s = await self._settle()
            except (ApiError, StoreError, TimeoutError) as error:
                log.info("the bootstrap tokens are looked at again: %s", error)
                wait_s = _RETRY_S
            try:
                async with asyncio.timeout(wait_s):
                    await self._stirred.wait()
            except TimeoutError:
                continue

    def _tokens(self) -> list[Obj]:
        entries = self._cache.shelf(self._secrets.prefix()).within(NAMESPACE)
        found = [entry.obj for entry in entries if entry.key.startswith(f"{NAMESPACE}/{PREFIX}")]
        return [secret for secret in found if secret.get("type") == TYPE]

    async def _settle(self) -> float:
        """Brings everything about; returns after how many seconds time alone changes something."""
        now, context, left_s = self._now(), self._writer.context(SERVER, "steersman-bootstrap-tokens"), _SLEEP_MAX_S
        for secret in self._tokens():
            expires, meta = expires_at(secret), secret["metadata"]
            if expires is None or "deletionTimestamp" in meta:
                continue
            if now < expires:
                left_s = min(left_s, expires - now)
                continue
            options = {"preconditions": {"uid": meta["uid"]}}
            try:
                await self._writer.run(self._writer.delete(self._secrets, NAMESPACE, meta["name"], options, context))
            except NotFound:
                continue  # another server was faster
        info = self._writer.lookup(CONFIG_MAPS, INFO_NAMESPACE, INFO)
        if info is not None and signed(info, self._tokens(), now) is not None:
            await self._writer.run(
                self._writer.transform(self._config_maps, INFO_NAMESPACE, INFO, context, self._signed)
            )
        return max(left_s, 0.01)

    def _signed(self, info: Obj) -> Obj:
        data = signed(info, self._tokens(), self._now())
        return info if data is None else {**info, "data": data}
