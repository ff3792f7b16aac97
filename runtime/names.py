"""Image references: their parts and their full form.

Source: https://github.com/distribution/reference/blob/main/reference.go
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from steersman.cluster.node.values import RuntimeFailure

#: made on every node without a registry
BUILT_IN_IMAGES = ("localhost/web:v1", "localhost/web:v2")

_HOST = re.compile(r"^([a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(:[0-9]+)?$")
_PATH = re.compile(r"^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$")
_TAG = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")
_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True)
class Reference:
    """A full image reference.

    Args:
        host: registry, as `docker.io` or `127.0.0.1:5000`.
        repository: path within it.
        tag: empty when only a digest is given.
        digest: `sha256:...` or empty; decides over the tag.
    """

    host: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        return f"{self.host}/{self.repository}"

    @property
    def wanted(self) -> str:
        """What to ask the registry for."""
        return self.digest or self.tag

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"


def parse(reference: str) -> Reference:
    """Parses `nginx`, `user/app:tag`, `host:5000/app@sha256:...`.

    Raises:
        RuntimeFailure: `InvalidImageName`.
    """
    rest, _, digest = reference.partition("@")
    head, slash, path = rest.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost" or head.lower() != head):
        host = head
    else:
        host, path = "docker.io", rest
    path, _, tag = path.partition(":")
    if host == "docker.io" and "/" not in path:
        path = f"library/{path}"
    tag = tag if tag or digest else "latest"
    valid = _HOST.match(host) and _PATH.match(path) and (not tag or _TAG.match(tag))
    if not valid or (("@" in reference) and not _DIGEST.match(digest)):
        raise RuntimeFailure(
            "InvalidImageName", f'Failed to apply default image tag "{reference}": invalid reference format'
        )
    return Reference(host, path, tag, digest)


def normalize(reference: str) -> str:
    """Returns the full form: `nginx` is `docker.io/library/nginx:latest`. Raises as `parse` does."""
    return str(parse(reference))
