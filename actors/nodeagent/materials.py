"""ConfigMaps, Secrets, services and tokens that pods of this node use: read when needed, shared, compared in time.

An object read before a pod was first seen is never good enough for it, so a pod sees at least what was there when it
was created; what is mounted is read again every `refresh_s` and the pods that show it are told.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from steersman.actors.client import Client
from steersman.actors.ports import Now, monotonic
from steersman.cluster.meta.errors import ApiError, NotFound
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS, SERVICES
from steersman.cluster.meta.times import parse_time
from steersman.cluster.node.values import RuntimeFailure
from steersman.cluster.node.volumes import TokenSource

#: a token is renewed when this part of its life is over, or after a day
TOKEN_LIFE_USED = 0.8
TOKEN_AGE_S_MAX = 86400.0
_RESOURCES = {"ConfigMap": CONFIG_MAPS, "Secret": SECRETS, "ServiceAccount": SERVICE_ACCOUNTS}

#: (kind, namespace, name)
Key = tuple[str, str, str]
Found = TypeVar("Found")


@dataclass(slots=True)
class _Entry(Generic[Found]):
    """Args: value: what was read; asked_at: when that reading began, as `monotonic`."""

    value: Found
    asked_at: float


@dataclass(slots=True)
class _Token:
    text: str
    renew_at: float


class Materials:
    """Reads and remembers."""

    def __init__(self, client: Client, now: Now, rng: random.Random) -> None:
        self._client = client
        self._now = now
        self._rng = rng
        self._objects: dict[Key, _Entry[Obj | None]] = {}
        self._services: dict[str, _Entry[list[Obj]]] = {}
        self._tokens: dict[tuple[str, TokenSource], _Token] = {}
        self._reading: dict[Any, tuple[float, asyncio.Task[Any]]] = {}

    async def configuration(
        self, namespace: str, wanted: Iterable[tuple[str, str]], newer_than: float
    ) -> dict[tuple[str, str], Obj | None]:
        """Returns the objects of (kind, name); None for one that does not exist.

        Args:
            newer_than: what was read before this moment, as `monotonic`, is read again.

        Raises:
            RuntimeFailure: `CreateContainerConfigError`: the API cannot be asked, or refuses.
        """
        return {(kind, name): await self.get(kind, namespace, name, newer_than) for kind, name in wanted}

    async def get(self, kind: str, namespace: str, name: str, newer_than: float) -> Obj | None:
        """Returns one object, or None when it does not exist; raises as `configuration` does."""
        key = (kind, namespace, name)
        entry = self._objects.get(key)
        if entry is None or entry.asked_at < newer_than:
            entry = await self._read(key, newer_than, lambda: self._fetch(key))
            self._objects[key] = entry
        return entry.value

    async def _fetch(self, key: Key) -> Obj | None:
        kind, namespace, name = key
        try:
            return await self._client.get(_RESOURCES[kind], name, namespace)
        except NotFound:
            return None

    async def services(self, namespace: str, newer_than: float) -> tuple[Obj, ...]:
        """Returns the services whose variables a pod of this namespace gets; raises as `configuration` does."""
        found: list[Obj] = []
        for space in dict.fromkeys((namespace, "default")):
            entry = self._services.get(space)
            if entry is None or entry.asked_at < newer_than:
                entry = await self._read(("services", space), newer_than, lambda s=space: self._list_services(s))  # type: ignore[misc]
                self._services[space] = entry
            found += entry.value
        return tuple(found)

    async def _list_services(self, namespace: str) -> list[Obj]:
        return (await self._client.list(SERVICES, namespace)).items

    async def _read(self, key: Any, newer_than: float, read: Callable[[], Awaitable[Found]]) -> _Entry[Found]:
        """Reads, or joins a reading of the same thing that began late enough."""
        under_way = self._reading.get(key)
        if under_way is None or under_way[0] < newer_than:
            task = asyncio.ensure_future(read())
            under_way = self._reading[key] = (monotonic(), task)
        asked_at, task = under_way
        try:
            return _Entry(await asyncio.shield(task), asked_at)
        except (ApiError, OSError) as error:
            raise RuntimeFailure("CreateContainerConfigError", f"failed to sync cache: {error}") from error
        finally:
            if self._reading.get(key) is under_way and task.done():
                del self._reading[key]

    async def tokens(self, pod: Obj, sources: Iterable[TokenSource]) -> dict[TokenSource, str]:
        """Returns a bound token for each source, renewed in time.

        Raises:
            RuntimeFailure: `FailedMount`.
        """
        found = {}
        for source in sources:
            key = (pod["metadata"]["uid"], source)
            token = self._tokens.get(key)
            if token is None or monotonic() >= token.renew_at:
                token = self._tokens[key] = await self._request_token(pod, source)
            found[source] = token.text
        return found

    def token_due(self, pod_uid: str, sources: Iterable[TokenSource]) -> bool:
        """Whether a token of the pod ought to be renewed now."""
        tokens = (self._tokens.get((pod_uid, source)) for source in sources)
        return any(token is not None and monotonic() >= token.renew_at for token in tokens)

    async def _request_token(self, pod: Obj, source: TokenSource) -> _Token:
        meta = pod["metadata"]
        request: Obj = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "expirationSeconds": source.expiration_s,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]},
            },
        }
        if source.audience:
            request["spec"]["audiences"] = [source.audience]
        account = pod["spec"].get("serviceAccountName") or "default"
        try:
            answer = await self._client.create(
                SERVICE_ACCOUNTS, request, meta["namespace"], name=account, subresource="token"
            )
        except (ApiError, OSError) as error:
            raise RuntimeFailure("FailedMount", f"failed to fetch token: {error}") from error
        status = answer["status"]
        life_s = parse_time(status["expirationTimestamp"]) - self._now()
        # spread, so that tokens asked for together are not renewed together
        used_s = min(life_s * TOKEN_LIFE_USED, TOKEN_AGE_S_MAX) - self._rng.uniform(0, 10)
        return _Token(status["token"], monotonic() + max(used_s, 1.0))

    async def refresh(self, wanted: Iterable[Key]) -> list[Key]:
        """Reads `wanted` again, forgets everything else; returns the keys that changed."""
        keys = list(dict.fromkeys(wanted))
        self._objects = {key: entry for key, entry in self._objects.items() if key in keys}
        self._services.clear()
        changed = []
        for key in keys:
            old = self._objects.get(key)
            if old is not None and old.value is not None and old.value.get("immutable"):
                continue
            try:
                new = await self.get(*key, newer_than=monotonic())
            except RuntimeFailure:
                continue  # the API is away: what is mounted stays as it is
            if old is not None and _version(old.value) != _version(new):
                changed.append(key)
        return changed

    def forget_pod(self, pod_uid: str) -> None:
        self._tokens = {key: token for key, token in self._tokens.items() if key[0] != pod_uid}


def _version(obj: Obj | None) -> tuple[str, str] | None:
    if obj is None:
        return None
    return obj["metadata"].get("uid", ""), obj["metadata"].get("resourceVersion", "")
