"""Images as the kubelet sees them: reference names, when to pull, and which credentials fit which registry.

Source: https://kubernetes.io/docs/concepts/containers/images/
and k8s.io/kubernetes/pkg/credentialprovider/keyring.go
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from steersman.cluster.meta.objects import Obj
from steersman.cluster.node.values import RegistryAuth, RuntimeFailure

DEFAULT_REGISTRY = "docker.io"
_PART = r"[a-zA-Z0-9]+(?:(?:[._]|__|-+)[a-zA-Z0-9]+)*"
_REFERENCE = re.compile(
    rf"^(?P<name>(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]+)?/)?{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>[a-z0-9+._-]+:[0-9a-fA-F]{32,}))?$"
)
_IMAGE_ID = re.compile(r"^(sha256:)?[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """One entry of a docker configuration: a registry (perhaps with a path or wildcards) and its login."""

    registry: str
    auth: RegistryAuth


def full_reference(reference: str) -> str:
    """Returns the full reference: `web` is `docker.io/library/web:latest`.

    Raises:
        RuntimeFailure: `InvalidImageName`.
    """
    if _IMAGE_ID.match(reference):
        return reference
    match = _REFERENCE.match(reference)
    if match is None:
        raise RuntimeFailure(
            "InvalidImageName",
            f'Failed to apply default image tag "{reference}": couldn\'t parse image name "{reference}": '
            "invalid reference format",
        )
    first, slash, rest = match["name"].partition("/")
    if slash and (any(char in first for char in ".:") or first == "localhost"):
        registry, path = first, rest
    else:
        registry, path = DEFAULT_REGISTRY, match["name"]
        if not slash:
            path = f"library/{path}"
    if path != path.lower():
        raise RuntimeFailure(
            "InvalidImageName",
            f'Failed to apply default image tag "{reference}": couldn\'t parse image name "{reference}": '
            "invalid reference format: repository name must be lowercase",
        )
    tag = match["tag"] or ("" if match["digest"] else "latest")
    return f"{registry}/{path}" + (f":{tag}" if tag else "") + (f"@{match['digest']}" if match["digest"] else "")


def default_policy(reference: str) -> str:
    """Returns `Always` for the tag `latest` or none at all, `IfNotPresent` otherwise."""
    try:
        full = full_reference(reference)
    except RuntimeFailure:
        return "IfNotPresent"
    return "Always" if full.endswith(":latest") else "IfNotPresent"


def must_pull(container: Mapping[str, Any], present: bool) -> bool:
    """Whether the image has to be fetched before the container starts.

    Raises:
        RuntimeFailure: `ErrImageNeverPull`: it is absent and may not be fetched.
    """
    match container.get("imagePullPolicy") or default_policy(container["image"]):
        case "Always":
            return True
        case "Never" if not present:
            raise RuntimeFailure(
                "ErrImageNeverPull",
                f'Container image "{container["image"]}" is not present with pull policy of Never',
            )
        case _:
            return not present


def parse_pull_secret(secret: Mapping[str, Any]) -> list[Credentials]:
    """Returns the logins in a `kubernetes.io/dockerconfigjson` or `dockercfg` Secret; none for what cannot be read."""
    data = secret.get("data") or {}
    text = data.get(".dockerconfigjson") or data.get(".dockercfg")
    if not text:
        return []
    try:
        config = json.loads(base64.b64decode(text))
    except (binascii.Error, ValueError):
        return []
    rows = config.get("auths") if ".dockerconfigjson" in data and isinstance(config, dict) else config
    if not isinstance(rows, dict):
        return []
    found = []
    for registry, entry in rows.items():
        auth = _auth(entry) if isinstance(entry, dict) else None
        if auth is not None:
            found.append(Credentials(registry=registry, auth=auth))
    return found


def _auth(entry: Obj) -> RegistryAuth | None:
    if entry.get("username") or entry.get("password"):
        return RegistryAuth(username=entry.get("username", ""), password=entry.get("password", ""))
    try:
        user, _, password = base64.b64decode(entry.get("auth") or "").decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return RegistryAuth(username=user, password=password.strip("\x00\n")) if user else None


def credentials_for(reference: str, credentials: Iterable[Credentials]) -> tuple[RegistryAuth, ...]:
    """Returns the logins whose registry (and path) covers the image, the most specific first."""
    try:
        full = full_reference(reference)
    except RuntimeFailure:
        return ()
    host, _, path = full.partition("/")
    fits = [row for row in credentials if _covers(row.registry, host, path)]
    fits.sort(key=lambda row: row.registry.rstrip("/"), reverse=True)
    return tuple(dict.fromkeys(row.auth for row in fits))


def _covers(registry: str, host: str, path: str) -> bool:
    bare = registry.split("://", 1)[-1].rstrip("/")
    wanted_host, _, wanted_path = bare.partition("/")
    if wanted_path in ("v1", "v2"):
        wanted_path = ""
    if wanted_host in ("index.docker.io", "registry-1.docker.io"):
        wanted_host = DEFAULT_REGISTRY
    parts, wanted = host.split("."), wanted_host.split(".")
    if len(parts) != len(wanted) or not all(map(fnmatch.fnmatchcase, parts, wanted)):
        return False
    return not wanted_path or path == wanted_path or path.startswith((wanted_path + "/", wanted_path + ":"))
