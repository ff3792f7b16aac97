"""The plugins that keep keys of the encryption at rest: asked how they are, for new keys, and to open old ones."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Iterable
from typing import TypeVar

from steersman.actors.apiserver.series import Series
from steersman.actors.ports import monotonic
from steersman.actors.rpc.kms import KmsPlugin, PluginFailed
from steersman.cluster.auth.ciphers import Chance
from steersman.cluster.auth.envelope import SEED_BYTES, Kms, Locked, UnusableAnswer, check_status, sealed_seed

log = logging.getLogger(__name__)

T = TypeVar("T")

#: how often a plugin is asked how it is, when it was well and when it was not
_WELL_S, _UNWELL_S = 20.0, 10.0


class KeyPlugins:
    """The plugins of a configuration; a Component for what it asks from time to time."""

    def __init__(self, chance: Chance, series: Series) -> None:
        self._series = series
        self._chance = chance
        self._plugins: dict[tuple[str, str], tuple[Kms, KmsPlugin]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        #: by name of a plugin what is wrong with it
        self.failures: dict[str, str] = {}
        self._poller: asyncio.Task[None] | None = None

    def use(self, keys: Iterable[Kms]) -> None:
        """From now on these keys count; what is known of a plugin that was there before stays known."""
        former, self._plugins = self._plugins, {}
        for key in keys:
            place = key.name, key.endpoint
            known = former.pop(place, None)
            if known is not None:
                key.adopt(known[0])
            self._plugins[place] = key, known[1] if known is not None else KmsPlugin(key.endpoint, key.timeout_s)
        for _, plugin in former.values():
            task = asyncio.ensure_future(plugin.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        names = {name for name, _ in self._plugins}
        self.failures = {name: text for name, text in self.failures.items() if name in names}

    async def start(self) -> None:
        """Returns when every plugin has been asked once."""
        await self.probe()
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll())

    async def stop(self) -> None:
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
        await asyncio.gather(*self._closing, *(plugin.close() for _, plugin in self._plugins.values()))

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(_UNWELL_S if self.failures else _WELL_S)
            await self.probe()

    async def probe(self) -> None:
        """Asks every plugin how it is, and takes a new seed where it has changed its key."""
        for key, plugin in list(self._plugins.values()):
            try:
                await self._renew(key, plugin)
                self.failures.pop(key.name, None)
            except (PluginFailed, UnusableAnswer) as error:
                if self.failures.get(key.name) != str(error):
                    log.error("the KMS plugin %s is not healthy: %s", key.name, error)
                self.failures[key.name] = str(error)
                key.expire(monotonic())

    async def _renew(self, key: Kms, plugin: KmsPlugin) -> None:
        version, healthz, key_id = await self._timed(key, "Status", plugin.status())
        check_status(version, healthz, key_id)
        if key.writes_with(key_id, monotonic()):
            return
        seed = self._chance(SEED_BYTES)
        ciphertext, used, annotations = await self._timed(key, "Encrypt", plugin.encrypt(seed))
        key.write_with(seed, sealed_seed(ciphertext, used, annotations, key_id), monotonic())
        log.info("the KMS plugin %s encrypts with another key", key.name)

    async def _timed(self, key: Kms, method: str, call: Awaitable[T]) -> T:
        began, code = time.monotonic(), "OK"
        try:
            return await call
        except PluginFailed as failed:
            code = failed.code
            raise
        finally:
            self._series.observe(
                "apiserver_envelope_encryption_kms_operations_latency_seconds", time.monotonic() - began,
                grpc_status_code=code, method_name=f"/v2.KeyManagementService/{method}", provider_name=key.name,
            )  # fmt: skip

    async def unlock(self, lock: Locked) -> None:
        """Lets a plugin open the seed of a value; raises PluginFailed."""
        key, envelope = lock.key, lock.envelope
        known = self._plugins.get((key.name, key.endpoint))
        if known is None:
            raise PluginFailed("it is not configured any longer")
        decrypting = known[1].decrypt(envelope.source, envelope.key_id, dict(envelope.annotations))
        seed = await self._timed(key, "Decrypt", decrypting)
        key.unlock(envelope, seed)
