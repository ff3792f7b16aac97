"""Everything that is no resource: discovery, OpenAPI, version, health, metrics, the token issuer's keys, backups.

The documents are built by `cluster/api`, encoded once per set of kinds and answered with an ETag.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from hashlib import sha256

import orjson

from steersman.actors.apiserver.aggregator import Aggregator
from steersman.actors.apiserver.cache import WatchCache
from steersman.actors.apiserver.call import Call
from steersman.actors.apiserver.config import ApiServerConfig
from steersman.actors.apiserver.forms import JSON_HEADERS, TEXT_HEADERS
from steersman.actors.apiserver.health import Health
from steersman.actors.apiserver.merging import Merged
from steersman.actors.apiserver.metrics import Metrics
from steersman.actors.apiserver.reads import Reader
from steersman.actors.apiserver.rendering import made_as
from steersman.actors.apiserver.resources import nowhere
from steersman.actors.apiserver.watches import Watches
from steersman.actors.http.messages import Response
from steersman.actors.ports import Now
from steersman.cluster.api import discovery
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.negotiation import JSON, negotiate
from steersman.cluster.api.openapi import OpenApi
from steersman.cluster.auth import flowdump
from steersman.cluster.auth.flows import Dispatcher
from steersman.cluster.auth.tokens import TokenIssuer
from steersman.cluster.meta.errors import MethodNotAllowed, NotAcceptable, NotFound, PageNotFound
from steersman.cluster.meta.objects import Obj

_METRICS = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}
_PROTOBUF_V2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_PROTOBUF_V2_OLDER = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
#: where paths begin that lead to the same with a slash at their end: no others do, as authorizers tell them apart
_SLASHED = frozenset({"api", "apis", "version", "openid", ".well-known"})
#: documents whose path carries their hash never change
_IMMUTABLE = "public, immutable"
#: encoded documents held; one more and the table starts anew
_DOCUMENTS_MAX = 500


class Documents:
    """Answers paths that are no resources."""

    def __init__(
        self,
        registry: Registry,
        aggregator: Aggregator,
        cache: WatchCache,
        reader: Reader,
        watches: Watches,
        metrics: Metrics,
        issuer: TokenIssuer | None,
        config: ApiServerConfig,
        flows: Dispatcher,
        now: Now,
        checks: Callable[[], Mapping[str, str]],
    ) -> None:
        self.health = Health(cache, checks)
        self._registry = registry
        self._cache = cache
        self._reader = reader
        self._watches = watches
        self._metrics = metrics
        self._issuer = issuer
        self._config = config
        self._flows = flows
        self._now = now
        #: encoded documents with their ETags, valid for one generation of the registry
        self._made: dict[str, tuple[bytes, str]] = {}
        self._generation = (-1, -1)
        self._aggregator = aggregator
        self._merged = Merged(registry, OpenApi(registry), aggregator)

    async def __call__(self, call: Call) -> Response:
        if call.request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        path = "/" + call.attributes.path.strip("/")
        parts = path[1:].split("/")
        if call.attributes.path not in (path, f"{path}/" if parts[0] in _SLASHED else path):
            raise PageNotFound
        match parts:
            case ["healthz" | "livez" | "readyz", *rest]:
                if (answer := await self.health(call, parts[0], "/".join(rest))) is not None:
                    return answer
            case ["version"]:
                return _indented(self._version())
            case ["metrics"]:
                more = [*flowdump.metrics(self._flows), *self._aggregator.metrics()]
                page = self._metrics.render(self._cache.revision, self._watches.open, more)
                return Response(200, _METRICS, page)
            case ["debug", "api_priority_and_fairness", what]:
                table = flowdump.dump(self._flows, what, asyncio.get_running_loop().time(), self._now())
                if table is not None:
                    return Response(200, TEXT_HEADERS, table.encode())
            case ["steersman", "v1", "backup"]:
                # everything, secrets too: RBAC gives this path to administrators alone
                return Response(200, {"content-type": "application/octet-stream"}, await self._reader.backup())
            case ["api" | "apis", *_]:
                return self._discovery(call, parts)
            case ["openapi", "v2"]:
                return self._openapi_2(call, path)
            case ["openapi", "v3", *rest]:
                return await self._openapi(call, path, "/".join(rest))
            case ["openid", "v1", "jwks"] if self._issuer is not None:
                return Response(200, {"content-type": "application/jwk-set+json"}, orjson.dumps(self._issuer.jwks()))
            case [".well-known", "openid-configuration"] if self._issuer is not None:
                return _json(self._openid())
            case [""]:
                return _indented({"paths": self._paths()})
        raise PageNotFound

    # ---- facts

    def _version(self) -> Obj:
        major, _, minor = self._config.kubernetes_version.partition(".")
        return {
            "major": major,
            "minor": minor,
            "gitVersion": f"v{self._config.kubernetes_version}.0+steersman",
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "",
            "compiler": "CPython",
            "platform": f"linux/{'arm64' if platform.machine() == 'aarch64' else 'amd64'}",
        }

    def _openid(self) -> Obj:
        return {
            "issuer": self._config.issuer,
            "jwks_uri": f"{self._config.issuer}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": self._issuer.algorithms() if self._issuer else [],
        }

    def _paths(self) -> list[str]:
        groups = sorted({(k.resource.group, k.resource.version) for k in self._registry.all() if k.resource.group})
        fixed = ["/.well-known/openid-configuration", "/api", "/api/v1", "/apis", "/healthz", "/livez", "/metrics"]
        fixed += ["/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/readyz", "/steersman/v1/backup", "/version"]
        return sorted(fixed + [f"/apis/{group}/{version}" for group, version in groups])

    # ---- documents

    def _discovery(self, call: Call, parts: list[str]) -> Response:
        core, is_root = parts[0] == "api", len(parts) == 1
        accepted = negotiate(call.header.get("accept", ""), tabular=False, discovery=is_root)
        if accepted.shape:
            key, form = f"aggregated {parts[0]} {accepted.media}", discovery.AGGREGATED.format(accepted.media)
            return self._document(call, key, lambda: self._aggregated(core, accepted.media), form, cache="public")
        if is_root:
            if core:
                address = call.header.get("host", "")
                return _json(discovery.api_versions(address))
            return self._document(call, "apis", self._merged.group_list)
        if core and len(parts) == 2:
            found = discovery.resource_list(self._registry, "", parts[1])
        elif not core and len(parts) == 2:
            found = self._merged.group(parts[1])
        elif not core and len(parts) == 3:
            found = discovery.resource_list(self._registry, parts[1], parts[2])
        else:
            found = None
        if found is None:
            raise nowhere(self._registry, "" if core else parts[1])
        return _json(found)

    def _aggregated(self, core: bool, media: str) -> bytes:
        return made_as(media, orjson.dumps(self._merged.aggregated(core=core)))

    async def _openapi(self, call: Call, path: str, rest: str) -> Response:
        if not rest:
            return self._document(call, path, self._merged.index)
        remote = self._merged.remote(rest)
        if remote is not None and remote.openapi.url:
            return await remote.forward(call)
        digest = self._merged.digest(rest)
        if digest is None:
            raise NotFound("the server could not find the requested resource")
        _accepts(call.header.get("accept", ""), JSON)
        asked = call.query.get("hash", "")
        if asked and asked != digest:
            return Response(301, {"location": f"{path}?hash={digest}", "vary": "Accept"})
        response = self._document(call, path, lambda: self._merged.document(rest) or b"", tag=digest)
        if asked:
            until = format_datetime(datetime.fromtimestamp(self._now(), UTC) + timedelta(days=365), usegmt=True)
            response.headers = {**response.headers, "cache-control": _IMMUTABLE, "expires": until}
        return response

    def _openapi_2(self, call: Call, path: str) -> Response:
        accept = call.header.get("accept", "")
        if _accepts(accept, JSON, _PROTOBUF_V2, _PROTOBUF_V2_OLDER) == JSON:
            return self._document(call, path, self._merged.version_2)
        return self._document(call, f"{path} protobuf", self._merged.version_2_protobuf, _PROTOBUF_V2)

    def _document(
        self,
        call: Call,
        key: str,
        make: Callable[[], Obj | bytes],
        media: str = JSON,
        *,
        tag: str = "",
        cache: str = "no-cache, private",
    ) -> Response:
        """Answers with a document that is made once per set of kinds.

        Args:
            tag: changes when the document does; empty to take a hash of it.
            cache: the `Cache-Control` of the answer.
        """
        if self._generation != self._merged.generation:
            self._made.clear()
            self._generation = self._merged.generation
        found = self._made.get(key)
        if found is None:
            if len(self._made) >= _DOCUMENTS_MAX:
                self._made.clear()
            made = make()
            body = made if isinstance(made, bytes) else orjson.dumps(made)
            found = self._made[key] = (body, f'"{tag or sha256(body).hexdigest().upper()}"')
        body, tag = found
        headers = {"content-type": media, "etag": tag, "vary": "Accept", "cache-control": cache}
        if _is_known(call.header.get("if-none-match", ""), tag):
            return Response(304, headers)
        return Response(200, headers, body)


def _json(obj: Obj) -> Response:
    return Response(200, JSON_HEADERS, orjson.dumps(obj))


def _indented(obj: Obj) -> Response:
    return Response(200, JSON_HEADERS, orjson.dumps(obj, option=orjson.OPT_INDENT_2))


def _is_known(tags: str, tag: str) -> bool:
    """Whether an `If-None-Match` header names a tag (RFC 9110, section 13.1.2)."""
    return any(known.strip().removeprefix("W/") in (tag, "*") for known in tags.split(","))


def _accepts(accept: str, *served: str) -> str:
    """The first of the media types that an `Accept` header takes; raises NotAcceptable."""
    wanted = [clause.partition(";")[0].strip() for clause in accept.split(",")] if accept else ["*/*"]
    for clause in wanted:
        for media in served:
            if clause in (media, "application/*", "*/*"):
                return media
    raise NotAcceptable(f"only the following media types are accepted: {', '.join(served)}")
