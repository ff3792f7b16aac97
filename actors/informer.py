"""A local copy of one kind, kept up to date by list and watch: what every component reads instead of asking.

It decides when to list anew and when to resume, and knows nothing of what the objects mean. Events are hints, the
list is the truth: after any doubt it lists again and tells its listener the differences.
Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable, Mapping

from steersman.actors.client import Client
from steersman.cluster.meta.errors import ApiError, Expired
from steersman.cluster.meta.objects import Obj, key
from steersman.cluster.meta.resources import Resource

#: a watch is renewed after a random time from this to twice this
WATCH_S = 300
BACKOFF_START_S = 0.2
BACKOFF_MAX_S = 15.0

#: told (before, after); before is None for a new object, after is None for one that is gone
Change = Callable[[Obj | None, Obj | None], None]


class Informer:
    """Component: holds every object of a kind (or of a namespace, or of a selection).

    Objects are shared with all readers and must not be changed; `metadata.managedFields` is left out of them.

    Args:
        on_change: called on the event loop for each difference, in order, the first list's objects as new ones.
        indexes: name to a function that gives an object's values in that index.
        rng: chance for jitter; by default seeded by the resource, so that equal runs are equal.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        on_change: Change | None = None,
        indexes: Mapping[str, Callable[[Obj], Iterable[str]]] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self.resource = resource
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._on_change = on_change
        self._functions = dict(indexes or {})
        self._rng = rng or random.Random(f"{resource}/{namespace}/{label_selector}/{field_selector}")
        self._objects: dict[str, Obj] = {}
        self._indexes: dict[str, dict[str, dict[str, Obj]]] = {name: {} for name in self._functions}
        self._revision = ""
        self._task: asyncio.Task[None] | None = None
        #: set once the first list is in; stays set
        self.synced = asyncio.Event()
        #: the latest failure to list or watch, in words; empty while all is well
        self.trouble = ""

    async def start(self) -> None:
        """Begins to list and watch; `synced` says when the first list is in."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"informer {self.resource}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def get(self, key: str) -> Obj | None:
        """The object of key `namespace/name`, or `name`."""
        return self._objects.get(key)

    def all(self) -> list[Obj]:
        return list(self._objects.values())

    def __len__(self) -> int:
        return len(self._objects)

    def by_index(self, name: str, value: str) -> list[Obj]:
        """The objects that have `value` in index `name`."""
        return list(self._indexes[name].get(value, {}).values())

    def index_values(self, name: str) -> list[str]:
        """Every value that some object has in index `name`."""
        return list(self._indexes[name])

    def add_index(self, name: str, function: Callable[[Obj], Iterable[str]]) -> None:
        """Adds an index, filled from what is held already."""
        self._functions[name] = function
        self._indexes[name] = {}
        for object_key, obj in self._objects.items():
            for value in function(obj):
                self._indexes[name].setdefault(value, {})[object_key] = obj

    def has_index(self, name: str) -> bool:
        return name in self._functions

    def observe(self, obj: Obj) -> None:
        """Takes in the answer to a write of one's own before the watch brings it.

        What the watch has passed already is ignored, so that nothing gone comes back. Only for an informer of a whole
        kind: selections are not checked.
        """
        if not self._revision.isdigit() or _revision(obj) <= int(self._revision):
            return
        held = self._objects.get(key(obj))
        if held is None or _revision(held) < _revision(obj):
            self._put(obj)

    def forget(self, object_key: str, uid: str) -> None:
        """Takes in that one's own deletion of an object was final, before the watch brings it."""
        held = self._objects.get(object_key)
        if held is not None and held["metadata"].get("uid") == uid:
            self._remove(object_key)

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                if not self._revision:
                    await self._list()
                await self._watch()
                failures, self.trouble = 0, ""
            except Expired:
                self._revision = ""
            except (ApiError, OSError) as error:
                self.trouble = f"{self.resource}: {error}"
                delay_s = min(BACKOFF_MAX_S, BACKOFF_START_S * 2**failures) * self._rng.uniform(0.5, 1.0)
                failures = min(failures + 1, 10)
                await asyncio.sleep(delay_s)

    async def _list(self) -> None:
        page = await self._client.list(
            self.resource,
            self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        listed = {key(obj): obj for obj in page.items}
        for gone in [held for held in self._objects if held not in listed]:
            self._remove(gone)
        for object_key, obj in listed.items():
            held = self._objects.get(object_key)
            if held is None or _version(held) != _version(obj):
                self._put(obj)
        self._revision = page.resource_version
        self.trouble = ""
        self.synced.set()

    async def _watch(self) -> None:
        timeout_s = int(WATCH_S * self._rng.uniform(1.0, 2.0))
        batches = self._client.watch_batches(
            self.resource,
            self._namespace,
            resource_version=self._revision,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            timeout_s=timeout_s,
        )
        try:
            # a server that forgets to end the watch, or a dead connection, costs at most this long
            async with asyncio.timeout(timeout_s + 30):
                async for batch in batches:
                    for kind, obj in batch:
                        self._apply(kind, obj)
        except TimeoutError:
            return
        finally:
            await batches.aclose()  # type: ignore[attr-defined]

    def _apply(self, kind: str, obj: Obj) -> None:
        self._revision = obj["metadata"].get("resourceVersion") or self._revision
        if kind == "BOOKMARK":
            return
        held = self._objects.get(key(obj))
        if kind == "DELETED":
            if held is not None and _revision(held) <= _revision(obj):
                self._remove(key(obj), obj)
        elif held is None or _revision(held) < _revision(obj):
            self._put(obj)

    def _put(self, obj: Obj) -> None:
        obj.setdefault("apiVersion", self.resource.api_version)
        obj.setdefault("kind", self.resource.kind)
        if "managedFields" in obj["metadata"]:
            obj["metadata"] = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
        object_key = key(obj)
        before = self._objects.get(object_key)
        self._objects[object_key] = obj
        for name, function in self._functions.items():
            index = self._indexes[name]
            values = list(function(obj))
            if before is not None:
                self._unindex(index, [value for value in function(before) if value not in values], object_key)
            for value in values:
                index.setdefault(value, {})[object_key] = obj
        if self._on_change is not None:
            self._on_change(before, obj)

    def _remove(self, object_key: str, last: Obj | None = None) -> None:
        before = self._objects.pop(object_key)
        for name, function in self._functions.items():
            self._unindex(self._indexes[name], function(before), object_key)
        if self._on_change is not None:
            self._on_change(before, None)

    @staticmethod
    def _unindex(index: dict[str, dict[str, Obj]], values: Iterable[str], object_key: str) -> None:
        for value in values:
            bucket = index.get(value)
            if bucket is not None:
                bucket.pop(object_key, None)
                if not bucket:
                    del index[value]


def _version(obj: Obj) -> tuple[str, str]:
    meta = obj["metadata"]
    return meta.get("uid", ""), meta.get("resourceVersion", "")


def _revision(obj: Obj) -> int:
    """The version as a number, which it is here and in every Kubernetes on etcd; 0 where it is not."""
    text = obj["metadata"].get("resourceVersion") or ""
    return int(text) if text.isdigit() else 0
