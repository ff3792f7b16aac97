"""Certificates of authenticating proxies: which connections may say in headers for whom they ask.

The server takes client certificates of two authorities and must tell them apart: one names users, the other proxies.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#authenticating-proxy and
k8s.io/apiserver/pkg/authentication/request/x509
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from steersman.actors.apiserver.authenticator import FrontProxy, user_of_certificate
from steersman.actors.ports import STRANGER, User

#: the common names that proxies' certificates bear
ALLOWED_NAMES = ("front-proxy-client",)


def identifier(client_ca: bytes, proxy_ca: bytes) -> Callable[[Mapping[str, Any]], User | None]:
    """Returns what finds the user in a verified certificate, or the proxy."""
    users, proxies = _authorities(client_ca), _authorities(proxy_ca)

    def identify(certificate: Mapping[str, Any]) -> User | None:
        root = certificate["root"]
        user = user_of_certificate(certificate)
        own = user if root in users else STRANGER
        is_proxy = root in proxies and user is not None and user.name in ALLOWED_NAMES
        return FrontProxy("", own=own) if is_proxy else own

    return identify


def _authorities(pem: bytes) -> frozenset[bytes]:
    """The certificates in a PEM text, as DER."""
    if not pem:
        return frozenset()
    return frozenset(cert.public_bytes(Encoding.DER) for cert in x509.load_pem_x509_certificates(pem))
