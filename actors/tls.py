"""TLS between components: both sides show a certificate of the cluster's authority."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from steersman.runtime.credentials import Credentials


def server_credentials(credentials: Credentials) -> grpc.ServerCredentials:
    """What a gRPC server of the cluster listens with: a caller without a certificate of the authority is refused."""
    pair = (credentials.key.read_bytes(), credentials.cert.read_bytes())
    return grpc.ssl_server_credentials([pair], credentials.ca.read_bytes(), require_client_auth=True)


def client_credentials(credentials: Credentials) -> grpc.ChannelCredentials:
    """What a component calls another with."""
    return grpc.ssl_channel_credentials(
        credentials.ca.read_bytes(), credentials.key.read_bytes(), credentials.cert.read_bytes()
    )


def server_context(credentials: Credentials) -> ssl.SSLContext:
    """As `server_credentials`, for servers of `rpc.h2`."""
    return context_of(ssl.PROTOCOL_TLS_SERVER, credentials.ca, credentials.cert, credentials.key)


def client_context(credentials: Credentials) -> ssl.SSLContext:
    """As `client_credentials`, for channels of `rpc.h2`."""
    return context_of(ssl.PROTOCOL_TLS_CLIENT, credentials.ca, credentials.cert, credentials.key)


def context_of(protocol: int, ca: Path, cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["h2"])
    context.options |= ssl.OP_NO_RENEGOTIATION  # which HTTP/2 forbids
    return context
