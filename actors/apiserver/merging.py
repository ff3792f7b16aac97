"""The documents of everything that is served here, by this server and by others: discovery and OpenAPI put together.

What goes into them is decided in `cluster/api`; here it is fetched from those who know it.
"""

from __future__ import annotations

import hashlib

import orjson

from steersman.actors.apiserver.aggregator import Aggregator
from steersman.actors.apiserver.remote import Remote
from steersman.cluster.api import discovery, openapi_merge, openapi_v2
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.openapi import OpenApi
from steersman.cluster.meta.objects import Obj


class Merged:
    """Makes the documents; whoever asks keeps them for as long as `generation` stays the same."""

    def __init__(self, registry: Registry, openapi: OpenApi, aggregator: Aggregator) -> None:
        self._registry = registry
        self._openapi = openapi
        self._aggregator = aggregator

    @property
    def generation(self) -> tuple[int, int]:
        """Grows with every change of any document."""
        return self._registry.generation, self._aggregator.generation

    def aggregated(self, *, core: bool) -> Obj:
        order, extensions = self._aggregator.order(), self._aggregator.extensions()
        return discovery.aggregated(self._registry, core=core, order=order, extensions=extensions)

    def group_list(self) -> Obj:
        return discovery.group_list(self._registry, self._aggregator.order(), self._aggregator.extensions())

    def group(self, name: str) -> Obj | None:
        return discovery.group(self._registry, name, self._aggregator.order(), self._aggregator.extensions())

    # ---- OpenAPI

    def index(self) -> Obj:
        """The document of `/openapi/v3`."""
        paths = dict(self._openapi.index()["paths"])
        for remote in self._aggregator.remotes():
            path, found = remote.path[1:], remote.openapi
            paths.pop(path, None)
            digest = self.digest(path)
            if url := found.url or (digest and f"/openapi/v3/{path}?hash={digest}"):
                paths[path] = {"serverRelativeURL": url}
        return {"paths": dict(sorted(paths.items()))}

    def remote(self, path: str) -> Remote | None:
        """Who else serves the group of a document of the third version (as `apis/apps/v1`)."""
        parts = path.split("/")
        return self._aggregator.route_to(parts[1], parts[2]) if len(parts) == 3 and parts[0] == "apis" else None

    def digest(self, path: str) -> str | None:
        """Changes when a document of the third version does; None where there is none."""
        remote = self.remote(path)
        if remote is None:
            return self._openapi.digest(path)
        known = remote.openapi
        return None if known.document is None else hashlib.sha256(known.tag.encode()).hexdigest().upper()

    def document(self, path: str) -> bytes | None:
        """A document of the third version; of a server that has only the second, turned into it."""
        remote = self.remote(path)
        if remote is None:
            return self._openapi.document(path)
        known = remote.openapi.document
        if known is None:
            return None
        return orjson.dumps(openapi_merge.version_3(known, remote.extension.group, remote.extension.version))

    def version_2(self) -> bytes:
        found = self._openapi.version_2()
        theirs = {
            (remote.extension.group, remote.extension.version): remote.openapi.document
            for remote in self._aggregator.remotes()
            if remote.openapi.document is not None
        }
        return orjson.dumps(openapi_merge.merged(orjson.loads(found), theirs)) if theirs else found

    def version_2_protobuf(self) -> bytes:
        """The same as protobuf, which is all that kubectl takes of it."""
        return openapi_v2.encode(orjson.loads(self.version_2()))
