"""From a verified certificate to an identity, and who nobody in particular is.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steersman.cluster.auth.tokens import Identity

AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
ANONYMOUS = Identity(name="system:anonymous", groups=(UNAUTHENTICATED,))

#: what anybody may ask without saying who they are, as far as roles allow it
ANONYMOUS_PATHS = frozenset(
    {"/healthz", "/livez", "/readyz", "/version", "/api/v1/namespaces/kube-public/configmaps/cluster-info"}
)


def is_anonymous_path(path: str) -> bool:
    return path.rstrip("/") in ANONYMOUS_PATHS or path.startswith(("/livez/", "/readyz/", "/healthz/"))


def from_certificate(certificate: Mapping[str, Any]) -> Identity | None:
    """The identity in a verified client certificate (as `ssl` shows it): CN is the user, each O a group."""
    names: list[str] = []
    groups: list[str] = []
    for part in certificate.get("subject") or ():
        for key, value in part:
            if key == "commonName":
                names.append(value)
            elif key == "organizationName":
                groups.append(value)
    if not names:
        return None
    return Identity(name=names[-1], groups=(*dict.fromkeys(groups), AUTHENTICATED))


def header_text(value: str) -> str:
    """What a header says in UTF-8; it came as Latin-1 of its bytes."""
    return value if value.isascii() else value.encode("latin-1", "replace").decode("utf-8", "replace")
