"""From a verified certificate to an identity, and who nobody in particular is.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import unquote

from steersman.cluster.auth.tokens import Identity

AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
ANONYMOUS = Identity(name="system:anonymous", groups=(UNAUTHENTICATED,))

#: the part of a certificate's subject that holds the user's uid
_UID = "1.3.6.1.4.1.57683.2"
_STRAY_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
#: what anybody may ask without saying who they are, as far as roles allow it
ANONYMOUS_PATHS = frozenset(
    {"/healthz", "/livez", "/readyz", "/version", "/api/v1/namespaces/kube-public/configmaps/cluster-info"}
)


def is_anonymous_path(path: str) -> bool:
    return path.rstrip("/") in ANONYMOUS_PATHS or path.startswith(("/livez/", "/readyz/", "/healthz/"))


def from_certificate(certificate: Mapping[str, Any]) -> Identity | None:
    """The identity in a verified client certificate: CN is the user, each O a group; None when it names nobody.

    Args:
        certificate: as `ssl` shows it, with its bytes as `der` where they are known.

    Raises:
        ValueError: it has several uids.
    """
    found: dict[str, list[str]] = {}
    for part in certificate.get("subject") or ():
        for key, value in part:
            found.setdefault(key, []).append(value)
    names, uids = found.get("commonName", []), found.get(_UID, [])
    if not names or not names[-1]:
        return None
    if len(uids) > 1:
        raise ValueError(f"expected 1 UID, but found multiple: {uids}")
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()
    if der := certificate.get("der"):
        extra = (("authentication.kubernetes.io/credential-id", (f"X509SHA256={sha256(der).hexdigest()}",)),)
    groups = dict.fromkeys(found.get("organizationName", []))
    return Identity(name=names[-1], groups=(*groups, AUTHENTICATED), uid=uids[0] if uids else "", extra=extra)


def header_text(value: str) -> str:
    """What a header says in UTF-8; it came as Latin-1 of its bytes."""
    return value if value.isascii() else value.encode("latin-1", "replace").decode("utf-8", "replace")


def extra_key(text: str) -> str:
    """The key of an extra that the rest of a header's name stands for; as it is where it is not percent-encoded."""
    return text if _STRAY_PERCENT.search(text) else unquote(text)
