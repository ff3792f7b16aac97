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
from steersman.actors.apiserver.watcher import Audience, Watch
from steersman.actors.ports import Store
from steersman.cluster.store.values import Compacted, Range, StoreError, WatchBatch, WatchEvent

log = logging.getLogger(__name__)

ROOT = "/registry/"
_ROOT_END = b"/registry0"
#: events a shelf remembers, for watches that resume
RING_MAX = 8192
#: and no more than those of so many bytes, where objects are large
RING_BYTES_MAX = 64 << 20
#: objects read from the store at once while the cache fills
PAGE = 2000
#: how far back the cache begins, so that watches survive a restart of the API server
HISTORY = 2000
#: between two tries to follow the store: the first soon, for a leader that changed, later ones up to the second
RETRY_S = 0.2
RETRY_MAX_S = 2.0
#: how long a request waits for a revision that it names; and for the one that the store says is the newest
REACH_S = 3.0
FRESH_S = 10.0


class Behind(TimeoutError):
    """The cache did not come as far as it was asked to in time; the revision may not exist yet."""

    def __init__(self, wanted: int, current: int) -> None:
        super().__init__(f"Too large resource version: {wanted}, current: {current}")


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
        self._ring_bytes = 0
        #: every event after this revision is in the ring
        self.floor = floor
        #: the revision of the last change, as far as it is known
        self.changed = floor
        #: watches have been told of everything up to this revision; None: of all that the cache has applied
        self.told: int | None = None
        #: by the field that finds them, then by key
        self._audiences: dict[tuple[str, str] | None, dict[tuple[str, ...], Audience]] = {}
        #: that have taken in changes since the last flush
        self._dirty: list[Audience] = []
        self._by_node = False

    def get(self, key: str) -> Entry | None:
        found: Entry | None = self.entries.get(key)
        return found

    def within(self, namespace: str = "", start: str = "") -> Iterable[Entry]:
        """Every object (of the namespace), in order of its key; from `start` on, a key (in the namespace)."""
        entries = self.entries
        if not entries:
            return ()
        if not namespace and not start:
            values: Iterable[Entry] = entries.values()
            return values
        first, last = (f"{namespace}/{start}", f"{namespace}0") if namespace else (start, None)
        keys: Iterator[str] = entries.irange(first, last, (True, False))
        return map(entries.__getitem__, keys)

    def count(self, namespace: str, start: str) -> int:
        """How many objects `within` has."""
        if not namespace:
            return len(self.entries) - int(self.entries.bisect_left(start))
        first, last = (self.entries.bisect_left(key) for key in (f"{namespace}/{start}", f"{namespace}0"))
        return int(last - first)

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

    def leave(self, like: Audience, watch: Watch) -> None:
        """Lets a watch go from the audience of this key, and forgets an audience that nobody is part of any more."""
        group = self._audiences.get(like.trigger, {})
        audience = group.get(like.key)
        if audience is None or watch not in audience.watches:
            return
        del audience.watches[watch]
        if not audience.watches:
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
        self.changed = event.revision
        self._ring.append(event)
        self._ring_bytes += len(event.entry.raw)
        while len(self._ring) > RING_MAX or (self._ring_bytes > RING_BYTES_MAX and len(self._ring) > 1):
            oldest = self._ring.popleft()
            self.floor = oldest.revision
            self._ring_bytes -= len(oldest.entry.raw)
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
        """Every watch ends."""
        for audience in self.audiences():
            audience.end()

    def renew(self, entries: dict[str, Entry], revision: int) -> None:
        """Begins anew with the state at a revision: watches end, listeners are told what has changed meanwhile."""
        self.close()
        before, self.entries = self.entries, SortedDict(entries)
        self._ring.clear()
        self._ring_bytes = 0
        self.floor = self.changed = revision
        self.generation += 1
        for listener in self.listeners:
            for key, entry in self.entries.items():
                previous = before.get(key)
                if previous is None or previous.revision != entry.revision:
                    listener(Event(ADDED if previous is None else MODIFIED, entry, previous))
            for key, previous in before.items():
                if key not in entries:
                    listener(Event(DELETED, previous.later(revision), previous))


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
        #: every change up to it is applied
        self.revision = 0
        self._healthy = False
        #: whether it was said that the store cannot be followed, which is said once
        self._failing = False

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
        return self._shelves.setdefault(prefix, Shelf(self._loaded)) if found is None else found

    # ---- following the store

    async def _load(self) -> None:
        """Takes the store's state in, as of a little ago where the store remembers it, so that watches can resume."""
        newest = (await self._store.range(Range(key=ROOT.encode(), range_end=_ROOT_END, count_only=True))).revision
        revision = max(1, newest - HISTORY)
        try:
            found = await self._read_state(revision)
        except Compacted:
            revision = newest
            found = await self._read_state(revision)
        self._loaded = self.revision = revision
        for prefix in dict.fromkeys([*self._shelves, *found]):
            self.shelf(prefix).renew(found.get(prefix, {}), revision)
        self._wake()

    async def _read_state(self, revision: int) -> dict[str, dict[str, Entry]]:
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
        return found

    async def _follow(self) -> None:
        """Follows the store for ever; what has been taken in stays served while it cannot be reached."""
        delay_s = RETRY_S
        while True:
            try:
                await self._follow_once()
            except StoreError as error:
                if not self._failing:
                    log.warning("the store cannot be followed, and reads show what was known of it: %s", error)
                self._failing = True
            delay_s = RETRY_S if self._healthy else min(2 * delay_s, RETRY_MAX_S)
            self._healthy = False
            await asyncio.sleep(delay_s * (1 + self._rng.random()))

    async def _follow_once(self) -> None:
        try:
            async for batch in self._store.watch(b"\0", b"\0", self.revision + 1):
                if self._failing:
                    log.warning("the store is followed again")
                self._healthy, self._failing = True, False
                self._apply(batch)
        except Compacted:
            if not self._failing:
                log.warning("the store has forgotten revision %d: reading everything anew", self.revision)
            await self._load()

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

    async def reach(self, revision: int) -> None:
        """Returns when every change up to `revision` is here.

        Raises:
            Behind: it did not come in time; the revision may not exist yet.
        """
        if revision > self.revision:
            await self._reach(revision, REACH_S)

    async def _reach(self, revision: int, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self.come(revision)
        except TimeoutError:
            raise Behind(revision, self.revision) from None

    async def come(self, revision: int) -> None:
        """Returns when every change up to `revision` is here, however long it takes."""
        if revision <= self.revision:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((revision, waiter))
        try:
            await waiter
        finally:
            if not waiter.done() or waiter.cancelled():
                self._waiters = [row for row in self._waiters if row[1] is not waiter]

    async def fresh(self) -> None:
        """Returns when the cache shows everything acknowledged before the call.

        Raises:
            StoreError: the store does not answer; nothing can be said about freshness. Behind: it cannot be followed.
        """
        revision = await self.newest()
        if revision > self.revision:
            await self._reach(revision, FRESH_S)

    async def newest(self) -> int:
        """The store's revision; many callers share one question. Raises StoreError."""
        reader: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._readers.append(reader)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        return await reader

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
