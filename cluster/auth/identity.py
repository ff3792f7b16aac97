"""From a verified certificate to an identity, and the rules of acting as somebody else.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from steersman.cluster.auth.attributes import Attributes
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


def impersonated(headers: Mapping[str, str]) -> tuple[Identity, list[Attributes]] | None:
    """Who a request wants to act as, with the actions that the real user must be allowed to do so.

    Returns None when it asks for nothing of the kind.

    Raises:
        ValueError: groups or extras are given without a user.
    """
    name = headers.get("impersonate-user", "")
    groups = [g.strip() for g in headers.get("impersonate-group", "").split(",") if g.strip()]
    uid = headers.get("impersonate-uid", "")
    extra = {
        unquote(key[len("impersonate-extra-") :]): tuple(v.strip() for v in value.split(","))
        for key, value in headers.items()
        if key.startswith("impersonate-extra-")
    }
    if not name:
        if groups or uid or extra:
            raise ValueError("requested impersonation of groups, uid or extra without impersonating a user")
        return None
    checks = [_subject(name)]
    checks += [Attributes("impersonate", resource="groups", name=group) for group in groups]
    if uid:
        checks.append(Attributes("impersonate", group="authentication.k8s.io", resource="uids", name=uid))
    for key, values in extra.items():
        checks += [
            Attributes("impersonate", group="authentication.k8s.io", resource="userextras", subresource=key, name=value)
            for value in values
        ]
    return Identity(name=name, groups=_groups(name, groups), uid=uid, extra=tuple(sorted(extra.items()))), checks


def _subject(name: str) -> Attributes:
    parts = name.split(":")
    if name.startswith("system:serviceaccount:") and len(parts) == 4:
        return Attributes("impersonate", resource="serviceaccounts", namespace=parts[2], name=parts[3])
    return Attributes("impersonate", resource="users", name=name)


def _groups(name: str, groups: Iterable[str]) -> tuple[str, ...]:
    found = dict.fromkeys(groups)
    parts = name.split(":")
    if name.startswith("system:serviceaccount:") and len(parts) == 4 and not found:
        found |= dict.fromkeys(("system:serviceaccounts", f"system:serviceaccounts:{parts[2]}"))
    if UNAUTHENTICATED not in found:
        found[UNAUTHENTICATED if name == ANONYMOUS.name else AUTHENTICATED] = None
    return tuple(found)
