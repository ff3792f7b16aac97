"""Certificates that are renewed while they are in use: the next handshake takes them, connections that stand go on.

Source: OpenSSL, SSL_CTX_use_certificate(3): what a context is given counts for the connections made from it thereafter.
"""

from __future__ import annotations

import ssl
import tempfile
from dataclasses import dataclass
from typing import Any

from steersman.runtime.credentials import Credentials


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, as PEM."""

    cert: bytes
    key: bytes

    def load(self, context: ssl.SSLContext) -> None:
        """Has a context show the certificate from its next handshake on; raises `ssl.SSLError` for a wrong key."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.cert + b"\n" + self.key)
            file.flush()
            context.load_cert_chain(file.name)


class Renewals:
    """Notices that the files of a certificate have changed; two looks at file dates each time, no more."""

    def __init__(self, credentials: Credentials) -> None:
        self._paths = (credentials.cert, credentials.key)
        self._seen: tuple[tuple[int, int], ...] = ()

    def news(self) -> KeyPair | None:
        """Returns what the files hold when they have changed since the last time, or at the first; else None.

        Files that do not fit each other, since they are just being written, are left for the next time.
        """
        try:
            stats = [path.stat() for path in self._paths]
            now = tuple((stat.st_mtime_ns, stat.st_ino) for stat in stats)
            if now == self._seen:
                return None
            pair = KeyPair(*(path.read_bytes() for path in self._paths))
            pair.load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        except OSError:
            return None
        self._seen = now
        return pair


class RenewedContext(ssl.SSLContext):
    """A context that shows the certificate in some files, as they are at each handshake."""

    renewals: Renewals | None = None

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        pair = self.renewals.news() if self.renewals is not None else None
        if pair is not None:
            pair.load(self)
        return super().wrap_bio(*args, **kwargs)


def http_client_context(credentials: Credentials) -> ssl.SSLContext:
    """As `client_credentials`, for clients of the API."""
    return renewed_context(ssl.PROTOCOL_TLS_CLIENT, credentials)


def renewed_context(protocol: int, credentials: Credentials) -> RenewedContext:
    """A context that trusts the authority; raises OSError when the files cannot be used."""
    context = RenewedContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(credentials.ca)
    context.load_cert_chain(credentials.cert, credentials.key)
    context.renewals = Renewals(credentials)
    return context
