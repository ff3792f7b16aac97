"""Certificates of authenticating proxies: which connections may say in headers for whom they ask.

The server takes client certificates of two authorities and must tell them apart: one names users, the other proxies.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#authenticating-proxy
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from steersman.actors.apiserver.authenticator import FrontProxy, user_of_certificate
from steersman.actors.ports import User

#: the common names that proxies' certificates bear
ALLOWED_NAMES = ("front-proxy-client",)


def identifier(client_ca: bytes, proxy_ca: bytes) -> Callable[[Mapping[str, Any]], User | None]:
    """Returns what finds the user in a verified certificate, or the proxy.

    Raises:
        ValueError: the two authorities bear the same name, so that their certificates cannot be told apart.
    """
    if not proxy_ca:
        return user_of_certificate
    proxies, users = _subjects(proxy_ca), _subjects(client_ca) if client_ca else []
    if any(subject in users for subject in proxies):
        raise ValueError("the authority of front proxies must bear another name than that of clients")

    def identify(certificate: Mapping[str, Any]) -> User | None:
        if certificate.get("issuer") not in proxies:
            return user_of_certificate(certificate)
        found = user_of_certificate(certificate)
        return FrontProxy(found.name) if found is not None and found.name in ALLOWED_NAMES else None

    return identify


def _subjects(authorities: bytes) -> Sequence[object]:
    """The names of authorities, in the form in which certificates name their issuer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authorities.decode("ascii"))
    return [row["subject"] for row in context.get_ca_certs()]
