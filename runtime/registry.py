"""Fetching images from registries: the pull half of the distribution protocol.

Decides nothing about when to pull. Manifests and configurations are checked against their digests; layers against the
digests of their plain archives, which the configuration names. Blocking HTTP runs in threads.
Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md,
https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import ipaddress
import platform
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

import orjson

from steersman.cluster.node.values import RegistryAuth, RuntimeFailure
from steersman.runtime.images import ImageStore
from steersman.runtime.layers import LayerError
from steersman.runtime.names import Reference

#: manifests and configurations larger than this are refused
_DOCUMENT_BYTES_MAX = 4 * 1024 * 1024
_TIMEOUT_S = 60.0
#: layers of one image fetched at a time
_LAYERS_AT_ONCE = 3

_INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x"}


class _Refused(Exception):
    """The registry wants (other) credentials."""


class _Missing(Exception):
    """The registry has no such image."""


class Puller:
    """Fetches images into a store.

    Args:
        insecure: hosts that are spoken to over plain HTTP, beside those on loopback.
    """

    def __init__(self, store: ImageStore, *, insecure: frozenset[str]) -> None:
        self._store = store
        self._insecure = insecure

    async def pull(self, wanted: Reference, auths: tuple[RegistryAuth, ...]) -> str:
        """Fetches an image, trying each credential in turn, and returns its id.

        Raises:
            RuntimeFailure: `ErrImagePull`; its message says whether the image is missing, access is refused or the
                registry cannot be reached.
        """
        prefix = f'failed to pull image "{wanted}": '
        refusal = ""
        for auth in auths or (None,):
            client = _Client(wanted, auth, plain=self._is_plain(wanted.host))
            try:
                return await self._pull(client, wanted)
            except _Refused as error:
                refusal = str(error)
            except _Missing:
                raise RuntimeFailure("ErrImagePull", f"{prefix}{wanted}: not found") from None
            except (LayerError, ValueError) as error:
                raise RuntimeFailure("ErrImagePull", f"{prefix}{error}") from error
            except (OSError, http.client.HTTPException) as error:
                raise RuntimeFailure(
                    "ErrImagePull", f"{prefix}registry {wanted.host} cannot be reached: {_plain_words(error)}"
                ) from error
        raise RuntimeFailure(
            "ErrImagePull",
            f"{prefix}pull access denied, repository does not exist or may require authorization: {refusal}",
        )

    def _is_plain(self, host: str) -> bool:
        name = host.rsplit(":", 1)[0].strip("[]")
        if host in self._insecure or name in self._insecure or name == "localhost":
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    async def _pull(self, client: _Client, wanted: Reference) -> str:
        manifest, digest = await asyncio.to_thread(client.image_manifest, wanted.wanted)
        image_id = str(manifest["config"]["digest"])
        names = [f"{wanted.name}@{digest}"]
        if wanted.tag:
            names.append(f"{wanted.name}:{wanted.tag}")
        config = await asyncio.to_thread(client.document, image_id)
        layers = layers_of(config)
        if len(layers) != len(manifest["layers"]):
            raise ValueError(f"the manifest has {len(manifest['layers'])} layers, the configuration {len(layers)}")
        size = sum(int(row.get("size", 0)) for row in manifest["layers"])
        if self._store.unpacks:
            gate = asyncio.Semaphore(_LAYERS_AT_ONCE)
            try:
                async with asyncio.TaskGroup() as group:
                    for diff_id, row in dict(zip(layers, manifest["layers"], strict=True)).items():
                        group.create_task(self._fetch_layer(gate, client, str(row["digest"]), diff_id))
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
        self._store.add(config, image_id, layers, size, tuple(names))
        return image_id

    async def _fetch_layer(self, gate: asyncio.Semaphore, client: _Client, blob: str, diff_id: str) -> None:
        async with gate:
            if not self._store.has_layer(diff_id):
                await asyncio.to_thread(self._fetch_layer_now, client, blob, diff_id)

    def _fetch_layer_now(self, client: _Client, blob: str, diff_id: str) -> None:
        with client.open(f"blobs/{blob}", "*/*") as answer:
            self._store.add_layer(answer, diff_id)


def layers_of(config: bytes) -> tuple[str, ...]:
    """Returns the digests of the plain layers that a configuration names, the lowest first. Raises ValueError."""
    document = orjson.loads(config)
    try:
        found = tuple(str(row) for row in document["rootfs"]["diff_ids"])
    except (KeyError, TypeError):
        raise ValueError("the image's configuration names no layers") from None
    return found


def choose(index: Mapping[str, Any]) -> str:
    """Returns the digest of this machine's manifest in an index. Raises ValueError when there is none."""
    wanted = _ARCHITECTURES.get(platform.machine(), platform.machine())
    for row in index.get("manifests") or ():
        found = row.get("platform") or {}
        if found.get("os", "linux") == "linux" and found.get("architecture", wanted) == wanted:
            return str(row["digest"])
    raise ValueError(f"no matching manifest for linux/{wanted} in the manifest list")


def _plain_words(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return str(reason if reason is not None else error)


class _Client:
    """Speaks to one repository of one registry with one credential. Its methods block."""

    def __init__(self, wanted: Reference, auth: RegistryAuth | None, *, plain: bool) -> None:
        host = "registry-1.docker.io" if wanted.host == "docker.io" else wanted.host
        self._base = f"{'http' if plain else 'https'}://{host}/v2/{wanted.repository}"
        self._repository = wanted.repository
        self._auth = auth
        self._authorization = ""
        # what is on loopback is not behind a proxy, whatever the environment says
        handlers = [urllib.request.ProxyHandler({})] if plain else []
        context = urllib.request.HTTPSHandler(context=ssl.create_default_context())
        self._opener = urllib.request.build_opener(context, *handlers)

    def open(self, path: str, accept: str) -> http.client.HTTPResponse:
        """Opens a resource, authenticating when asked to. Raises _Refused, _Missing and OSError."""
        for attempt in range(2):
            request = urllib.request.Request(f"{self._base}/{path}", headers={"Accept": accept})
            if self._authorization:
                # blobs are often redirected to other hosts, which must not see the credential
                request.add_unredirected_header("Authorization", self._authorization)
            try:
                found: http.client.HTTPResponse = self._opener.open(request, timeout=_TIMEOUT_S)
                return found
            except urllib.error.HTTPError as error:
                challenge = error.headers.get("WWW-Authenticate", "")
                code, text = error.code, _registry_message(error)
                if code == 401 and attempt == 0:
                    self._authenticate(challenge)
                    continue
                if code in (401, 403):
                    raise _Refused(f"{code} {text}") from None
                if code == 404:
                    raise _Missing(text) from None
                raise OSError(f"HTTP {code} {text}") from None
        raise _Refused("401 Unauthorized")

    def _authenticate(self, challenge: str) -> None:
        kind, _, rest = challenge.partition(" ")
        basic = ""
        if self._auth is not None:
            raw = f"{self._auth.username}:{self._auth.password}".encode()
            basic = "Basic " + base64.b64encode(raw).decode()
        if kind.lower() == "basic":
            if not basic:
                raise _Refused("401 no basic auth credentials")
            self._authorization = basic
        elif kind.lower() == "bearer":
            parameters = dict(re.findall(r'([a-z]+)="([^"]*)"', rest))
            self._authorization = f"Bearer {self._token(parameters, basic)}"
        else:
            raise _Refused("401 Unauthorized")

    def _token(self, parameters: dict[str, str], basic: str) -> str:
        scope = parameters.get("scope") or f"repository:{self._repository}:pull"
        query = {"service": parameters.get("service", ""), "scope": scope}
        url = f"{parameters.get('realm', '')}?{urllib.parse.urlencode(query)}"
        if not url.startswith(("http://", "https://")):
            raise _Refused("401 the registry names no place to get a token from")
        request = urllib.request.Request(url, headers={"Authorization": basic} if basic else {})
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as answer:
                found = orjson.loads(answer.read(_DOCUMENT_BYTES_MAX))
        except urllib.error.HTTPError as error:
            if error.code in (400, 401, 403):
                raise _Refused(f"{error.code} {_registry_message(error)}") from None
            raise OSError(f"HTTP {error.code} from {parameters.get('realm')}") from None
        return str(found.get("token") or found.get("access_token") or "")

    def _read(self, path: str, accept: str) -> tuple[bytes, str]:
        with self.open(path, accept) as answer:
            data = answer.read(_DOCUMENT_BYTES_MAX + 1)
            if len(data) > _DOCUMENT_BYTES_MAX:
                raise ValueError(f"{path} is larger than {_DOCUMENT_BYTES_MAX} bytes")
            return data, answer.headers.get_content_type()

    def image_manifest(self, wanted: str) -> tuple[dict[str, Any], str]:
        """Returns (manifest, digest of what the name means: the index where there is one)."""
        data, _ = self._read(f"manifests/{wanted}", ", ".join(_INDEX_TYPES + _MANIFEST_TYPES))
        digest = _digest(data)
        if wanted.startswith("sha256:") and wanted != digest:
            raise ValueError(f"manifest {wanted} has digest {digest}")
        document = orjson.loads(data)
        if "manifests" in document:
            chosen = choose(document)
            data, _ = self._read(f"manifests/{chosen}", ", ".join(_MANIFEST_TYPES))
            if _digest(data) != chosen:
                raise ValueError(f"manifest {chosen} has digest {_digest(data)}")
            document = orjson.loads(data)
        if "config" not in document or "layers" not in document:
            raise ValueError(f"unsupported manifest of type {document.get('mediaType', 'unknown')}")
        return document, digest

    def document(self, digest: str) -> bytes:
        """Returns a small blob, checked."""
        data, _ = self._read(f"blobs/{digest}", "*/*")
        if _digest(data) != digest:
            raise ValueError(f"blob {digest} has digest {_digest(data)}")
        return data


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _registry_message(error: urllib.error.HTTPError) -> str:
    """Returns what a registry says about an error, cut to a line."""
    try:
        document = orjson.loads(error.read(64 * 1024))
        row = document["errors"][0]
        return str(row.get("message") or row.get("code") or error.reason)[:200]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OSError):
        return str(error.reason)
