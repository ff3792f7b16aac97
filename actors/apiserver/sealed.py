"""The store as an API server sees it that encrypts what it keeps there: plain values on this side, sealed ones on that.

The configuration is a file that is read again when it changes, so that keys are changed without a restart.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from steersman.actors.apiserver.plugins import KeyPlugins
from steersman.actors.apiserver.reloading import RELOAD_S, read
from steersman.actors.apiserver.series import Series
from steersman.actors.ports import Store
from steersman.actors.rpc.kms import PluginFailed
from steersman.cluster.auth.ciphers import ENCRYPTED, CannotDecrypt, CannotEncrypt, Chance
from steersman.cluster.auth.encryption import Sealer, read_encryption
from steersman.cluster.auth.envelope import Locked
from steersman.cluster.store.values import (
    KeyValue,
    Put,
    Range,
    RangeResult,
    StoreError,
    Txn,
    TxnResult,
    WatchBatch,
    WatchEvent,
)

log = logging.getLogger(__name__)

_PAGE = 1000
#: seeds that one batch of values may need
_SEEDS_MAX = 1000

T = TypeVar("T")


class Undecryptable(StoreError):
    """The store holds a value that no key of the configuration opens; give the key back to go on."""


class PluginAway(StoreError):
    """A plugin that keeps a key does not answer."""


class Unsealable(StoreError):
    """A value cannot be encrypted now."""


class SealedStore:
    """A `ports.Store` around another; a Component, for what it reads anew.

    Args:
        path: of the EncryptionConfiguration.
        series: counts what plugins are asked.

    Raises:
        InvalidEncryption: it cannot be read as one.
    """

    def __init__(self, store: Store, path: Path, series: Series, *, chance: Chance = os.urandom) -> None:
        self._store = store
        self._path = path
        self._chance = chance
        self._text = read(path)
        self._sealer = read_encryption(self._text)
        self._plugins = KeyPlugins(chance, series)
        #: of each key below a configured resource, the newest revision seen and the prefix it is stored with
        self._written: dict[bytes, tuple[int, bytes]] = {}
        #: of every change up to this revision the newest was read at the start
        self._began = 0
        self._reloader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when everything that is stored of the named resources can be read.

        Raises:
            Undecryptable: something cannot. StoreError: the store, or a plugin that keeps a key, does not answer.
        """
        self._plugins.use(self._sealer.plugins())
        await self._plugins.start()
        for place in self._sealer.places():
            request = Range(key=place, range_end=place[:-1] + b"0", limit=_PAGE)
            while (page := await self.range(request)).more:
                request = msgspec.structs.replace(request, key=page.kvs[-1].key + b"\0")
            self._began = max(self._began, page.revision)
        self._reloader = asyncio.create_task(self._reload_always())

    async def stop(self) -> None:
        if self._reloader is not None:
            self._reloader.cancel()
            await asyncio.gather(self._reloader, return_exceptions=True)
        await self._plugins.stop()

    def checks(self) -> dict[str, str]:
        """What is wrong with what it depends on, by the names of health checks; empty where nothing is."""
        wrong = [f"the KMS provider {name}: {text}" for name, text in self._plugins.failures.items()]
        return {"kms-providers": ", ".join(wrong)} if self._sealer.plugins() else {}

    def is_stale(self, key: bytes) -> bool:
        """Whether a value is stored otherwise than it would be written now, so that any write has to renew it."""
        found = self._written.get(key)
        return found is not None and found[1] != self._sealer.writes(key)

    def seals(self, key: bytes) -> bool:
        """Whether the value of a key may be stored otherwise than it is given."""
        return bool(self._sealer.keys(key))

    def reload(self) -> bool:
        """Reads the configuration again if it has changed; a bad one is told and the former one stays.

        Returns whether another one counts now.
        """
        try:
            text = read(self._path)
            if text == self._text:
                return False
            self._text = text
            self._take(read_encryption(text))
        except ValueError as error:
            log.error("%s is not used: %s", self._path, error)
            return False
        log.info("%s was read again", self._path)
        return True

    def _take(self, sealer: Sealer) -> None:
        self._plugins.use(sealer.plugins())
        self._sealer = sealer

    async def _reload_always(self) -> None:
        while True:
            await asyncio.sleep(RELOAD_S)
            if self.reload():
                await self._plugins.probe()

    # ---- values in and out

    def _open(self, kv: KeyValue) -> KeyValue:
        keys = self._sealer.keys(kv.key)
        if not keys and not kv.value.startswith(ENCRYPTED):
            return kv
        try:
            value, prefix = self._sealer.open(kv.key, kv.value)
        except CannotDecrypt:
            self.reload()
            try:
                value, prefix = self._sealer.open(kv.key, kv.value)
            except CannotDecrypt as error:
                raise Undecryptable(f"{error} (by the keys in {self._path})") from None
        if self._written.get(kv.key, (0,))[0] <= kv.mod_revision:
            self._written[kv.key] = (kv.mod_revision, prefix)
        return kv if value is kv.value else msgspec.structs.replace(kv, value=value)

    async def _unlocked(self, work: Callable[[], T]) -> T:
        """What opens values, with every seed at hand that it needs.

        Raises:
            PluginAway
        """
        for _ in range(_SEEDS_MAX):
            try:
                return work()
            except Locked as caught:
                lock = caught
            try:
                await self._plugins.unlock(lock)
            except PluginFailed as error:
                raise PluginAway(f"failed to decrypt DEK, error: the KMS plugin {lock.key.name}: {error}") from None
        raise PluginAway("the values need too many seeds")

    def _events(self, events: tuple[WatchEvent, ...]) -> Iterator[WatchEvent]:
        for event in events:
            key, revision = event.kv.key, event.kv.mod_revision
            if event.deleted:
                if self._written.get(key, (0,))[0] <= revision:
                    self._written.pop(key, None)
                yield event
                continue
            try:
                kv = self._open(event.kv)
            except Undecryptable:
                # an old version, by a key that has been given up since: a newer one or its end follows
                if revision <= self._began and self._written.get(key, (0,))[0] != revision:
                    continue
                raise
            yield event if kv is event.kv else WatchEvent(False, kv)

    def _opened(self, events: tuple[WatchEvent, ...]) -> tuple[WatchEvent, ...]:
        return tuple(self._events(events))

    def _put(self, operation: Put) -> Put:
        try:
            value = self._sealer.seal(operation.key, operation.value, self._chance)
        except CannotEncrypt as error:
            raise Unsealable(str(error)) from None
        return operation if value is operation.value else msgspec.structs.replace(operation, value=value)

    # ---- the store

    async def range(self, request: Range) -> RangeResult:
        result = await self._store.range(request)
        if request.keys_only or not result.kvs:
            return result
        kvs = await self._unlocked(lambda: tuple(map(self._open, result.kvs)))
        return msgspec.structs.replace(result, kvs=kvs)

    async def txn(self, request: Txn) -> TxnResult:
        if any(self._sealer.keys(row.key) for row in request.success if isinstance(row, Put)):
            success = tuple(self._put(row) if isinstance(row, Put) else row for row in request.success)
            request = msgspec.structs.replace(request, success=success)
        return await self._store.txn(request)

    async def watch(self, key: bytes, range_end: bytes, start_revision: int) -> AsyncIterator[WatchBatch]:
        async for batch in self._store.watch(key, range_end, start_revision):
            sealer = self._sealer
            if any(event.kv.value.startswith(ENCRYPTED) or sealer.keys(event.kv.key) for event in batch.events):
                batch = WatchBatch(batch.revision, await self._unlocked(partial(self._opened, batch.events)))
            yield batch

    async def compact(self, revision: int) -> None:
        await self._store.compact(revision)

    async def lease_grant(self, ttl_s: int, lease: int = 0) -> int:
        return await self._store.lease_grant(ttl_s, lease)

    async def lease_revoke(self, lease: int) -> None:
        await self._store.lease_revoke(lease)

    async def lease_keep_alive(self, lease: int) -> int:
        return await self._store.lease_keep_alive(lease)

    def backup(self) -> AsyncIterator[bytes]:
        """Yields what is stored as it is stored: encrypted values stay so."""
        return self._store.backup()
