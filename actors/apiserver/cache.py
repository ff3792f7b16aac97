"""The watch cache: one watch on the store, fanned out into a shelf per kind, from which lists and watches are served.

It is a cache with a revision: the store stays the truth. It refuses to know kinds: keys and bytes are all it sees,
except for the fields that audiences are found by.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from sortedcontainers import SortedDict

from steersman.actors.apiserver.entry import ADDED, DELETED, MODIFIED, Entry, Event, read, stamp
from steersman.actors.apiserver.watcher import Audience
from steersman.actors.ports import Store
from steersman.cluster.store.values import Compacted, Range, StoreError, WatchBatch, WatchEvent

log = logging.getLogger(__name__)

ROOT = "/registry/"
_ROOT_END = b"/registry0"
#: events a shelf remembers, for watches that resume
RING_MAX = 8192
#: objects read from the store at once while the cache fills
PAGE = 2000
#: how far back the cache begins, so that watches survive a restart of the API server
HISTORY = 2000
RETRY_S = 0.2


class TooOld(Exception):
    """The revision to watch from is no longer remembered."""

    def __init__(self, wanted: int, oldest: int) -> None:
        super().__init__(f"too old resource version: {wanted} ({oldest})")


class Shelf:
    """The objects of one storage prefix, and what happened to them lately."""

    def __init__(self, floor: int) -> None:
        #: `namespace/name` to the newest version, in the store's order
        self.entries: SortedDict = SortedDict()
        #: counts changes; what is compiled from this shelf is valid for one number
        self.generation = 0
        self.listeners: list[Callable[[Event], None]] = []
        #: takes changes in place of the audiences, which it offers them later
        self.gate: Callable[[Event], None] | None = None
        self._ring: deque[Event] = deque()
        #: every event after this revision is in the ring
        self.floor = floor
        #: by the field that finds them, then by key
        self._audiences: dict[tuple[str, str] | None, dict[tuple[str, ...], Audience]] = {}
        #: that have taken in changes since the last flush
        self._dirty: list[Audience] = []
        self._by_node = False

    def get(self, key: str) -> Entry | None:
        found: Entry | None = self.entries.get(key)
        return found

    def within(self, namespace: str = "") -> Iterable[Entry]:
        """Every object (of the namespace), in order of its key."""
        if not namespace:
            values: Iterable[Entry] = self.entries.values()
            return values
        entries = self.entries
        keys: Iterator[str] = entries.irange(f"{namespace}/", f"{namespace}0", (True, False))
        return [entries[key] for key in keys]

    def since(self, revision: int) -> list[Event]:
        """Every event after `revision`; raises TooOld."""
        if revision < self.floor:
            raise TooOld(revision, self.floor)
        found = []
        for event in reversed(self._ring):
            if event.revision <= revision:
                break
            found.append(event)
        found.reverse()
        return found

    def join(self, audience: Audience) -> Audience:
        """Offers changes to an audience from now on; returns the one of the same key that is here already, if any."""
        return self._audiences.setdefault(audience.trigger, {}).setdefault(audience.key, audience)

    def leave(self, audience: Audience) -> None:
        """Forgets an audience that nobody is part of any more."""
        group = self._audiences[audience.trigger]
        del group[audience.key]
        if not group:
            del self._audiences[audience.trigger]

    def apply(self, event: Event) -> None:
        """Takes a change in and offers it to the audiences that may select it; `flush` sends."""
        key = event.entry.key
        if event.type == DELETED:
            self.entries.pop(key, None)
        else:
            self.entries[key] = event.entry
        self.generation += 1
        self._ring.append(event)
        if len(self._ring) > RING_MAX:
            self.floor = self._ring.popleft().revision
        for listener in self.listeners:
            listener(event)
        if self._audiences:
            (self.gate or self.offer)(event)

    def audiences(self) -> list[Audience]:
        return [audience for group in self._audiences.values() for audience in group.values()]

    def offer(self, event: Event) -> None:
        """Offers a change to the audiences that may select it."""
        namespace, _, name = event.entry.key.rpartition("/")
        groups = self._audiences
        triggers: list[tuple[str, str] | None] = [None, ("metadata.namespace", namespace), ("metadata.name", name)]
        if any(trigger is not None and trigger[0] == "spec.nodeName" for trigger in groups):
            nodes = [
                node for version in (event.entry, event.previous) if version is not None for node in nodes_in(version)
            ]
            triggers += [("spec.nodeName", node) for node in dict.fromkeys(nodes)]
        for trigger in triggers:
            for audience in groups.get(trigger, {}).values():
                if audience.offer(event):
                    self._dirty.append(audience)

    def flush(self) -> None:
        """Sends what the audiences have taken in to their watches."""
        dirty, self._dirty = self._dirty, []
        for audience in dirty:
            audience.flush()

    def close(self) -> None:
        """The cache begins anew: every watch ends."""
        for audience in self.audiences():
            audience.end()


_NODE_NAME = re.compile(rb'"nodeName":"([^"\\]*)"')


def nodes_in(entry: Entry) -> list[str]:
    """Every text that may be the object's `spec.nodeName`, found without decoding it; the caller looks closer."""
    return [name.decode() for name in _NODE_NAME.findall(entry.raw)]


class WatchCache:
    """The cache of everything under `/registry/`; a Component."""

    def __init__(self, store: Store, rng: random.Random) -> None:
        self._store = store
        self._rng = rng
        self._shelves: dict[str, Shelf] = {}
        self._follower: asyncio.Task[None] | None = None
        #: those who wait until a revision is reached
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        #: those who wait for the next answer of the store's present revision
        self._readers: list[asyncio.Future[int]] = []
        self._reading: asyncio.Task[None] | None = None
        self._loaded = 0
        #: how often everything was read anew: shelves of before are no longer followed
        self.loads = 0
        #: every change up to it is applied
        self.revision = 0
        self.healthy = False

    async def start(self) -> None:
        """Returns when the cache holds everything.

        Raises:
            StoreError: the store does not answer.
        """
        await self._load()
        self._follower = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        tasks = [task for task in (self._follower, self._reading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for shelf in self._shelves.values():
            shelf.close()
        for _, waiter in self._waiters:
            waiter.cancel()

    def shelf(self, prefix: str) -> Shelf:
        """The shelf of a kind's storage prefix (`/registry/core/pods/`)."""
        found = self._shelves.get(prefix)
        if found is None:
            found = self._shelves[prefix] = Shelf(self._loaded)
        return found

    # ---- following the store

    async def _load(self) -> None:
        newest = (await self._store.range(Range(key=ROOT.encode(), range_end=_ROOT_END, count_only=True))).revision
        try:
            await self._load_at(max(1, newest - HISTORY))
        except StoreError:
            await self._load_at(newest)

    async def _load_at(self, revision: int) -> None:
        key, more = ROOT.encode(), True
        found: dict[str, dict[str, Entry]] = {}
        while more:
            page = await self._store.range(Range(key=key, range_end=_ROOT_END, revision=revision, limit=PAGE))
            for kv in page.kvs:
                prefix, item = _split(kv.key)
                raw = read(kv.value, kv.mod_revision)
                if raw is not None:
                    found.setdefault(prefix, {})[item] = Entry(item, kv.mod_revision, raw)
                key = kv.key + b"\0"
            more = page.more
            await asyncio.sleep(0)
        self._loaded = self.revision = revision
        for prefix, shelf in self._shelves.items():
            shelf.entries.clear()
            shelf.floor = revision
            shelf.generation += 1
            shelf.entries.update(found.pop(prefix, {}))
        for prefix, entries in found.items():
            self.shelf(prefix).entries.update(entries)

    async def _follow(self) -> None:
        while True:
            try:
                async for batch in self._store.watch(b"\0", b"\0", self.revision + 1):
                    self.healthy = True
                    self._apply(batch)
            except Compacted:
                log.warning("the store has forgotten revision %d: reading everything anew", self.revision)
                await self._begin_anew()
            except StoreError as error:
                log.warning("the store's watch broke: %s", error)
            self.healthy = False
            await asyncio.sleep(RETRY_S * (1 + self._rng.random()))

    async def _begin_anew(self) -> None:
        listeners = {prefix: shelf.listeners for prefix, shelf in self._shelves.items()}
        for shelf in self._shelves.values():
            shelf.close()
        self._shelves = {}
        self.loads += 1
        try:
            await self._load()
        except StoreError as error:
            log.warning("the store cannot be read: %s", error)
        for prefix, kept in listeners.items():
            shelf = self.shelf(prefix)
            shelf.listeners = kept
            for entry in list(shelf.entries.values()):
                for listener in kept:
                    listener(Event(MODIFIED, entry, None))

    def _apply(self, batch: WatchBatch) -> None:
        changed: dict[Shelf, None] = {}
        for change in batch.events:
            if change.kv.mod_revision > self.revision and change.kv.key.startswith(b"/registry/"):
                changed[self._apply_one(change)] = None
        if batch.revision > self.revision:
            self.revision = batch.revision
            self._wake()
        for shelf in changed:
            shelf.flush()

    def _apply_one(self, change: WatchEvent) -> Shelf:
        prefix, key = _split(change.kv.key)
        shelf = self.shelf(prefix)
        previous, revision = shelf.get(key), change.kv.mod_revision
        raw = None if change.deleted else read(change.kv.value, revision)
        if raw is None:
            if previous is not None:
                gone = Entry(key, revision, stamp(previous.raw, revision))
                shelf.apply(Event(DELETED, gone, previous))
            return shelf
        entry = Entry(key, revision, raw)
        shelf.apply(Event(ADDED if previous is None else MODIFIED, entry, previous))
        return shelf

    # ---- how fresh it is

    def _wake(self) -> None:
        left = []
        for revision, waiter in self._waiters:
            if revision > self.revision:
                left.append((revision, waiter))
            elif not waiter.done():
                waiter.set_result(None)
        self._waiters = left

    async def reach(self, revision: int, timeout_s: float = 3.0) -> None:
        """Returns when every change up to `revision` is here.

        Raises:
            TimeoutError: it did not come in time; the revision may not exist yet.
        """
        if revision <= self.revision:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((revision, waiter))
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        finally:
            if not waiter.done() or waiter.cancelled():
                self._waiters = [row for row in self._waiters if row[1] is not waiter]

    async def fresh(self) -> None:
        """Returns when the cache shows everything acknowledged before the call.

        Many callers share one question to the store.

        Raises:
            StoreError: the store does not answer; nothing can be said about freshness.
        """
        reader: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._readers.append(reader)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        await self.reach(await reader, timeout_s=10.0)

    async def _read(self) -> None:
        try:
            while self._readers:
                readers, self._readers = self._readers, []
                try:
                    revision = (await self._store.range(Range(key=b"/registry/\0"))).revision
                except StoreError as error:
                    for reader in readers:
                        if not reader.done():
                            reader.set_exception(error)
                    continue
                for reader in readers:
                    if not reader.done():
                        reader.set_result(revision)
        finally:
            self._reading = None
            for reader in self._readers:
                reader.cancel()


def _split(key: bytes) -> tuple[str, str]:
    """Returns the storage prefix of a key and the rest: `/registry/core/pods/`, `default/web`."""
    text = key.decode(errors="replace")
    end = text.find("/", len(ROOT))
    end = text.find("/", end + 1) if end > 0 else -1
    return (text[: end + 1], text[end + 1 :]) if end > 0 else (text, "")
