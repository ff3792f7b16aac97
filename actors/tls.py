"""TLS between components: both sides show a certificate of the cluster's authority."""

from __future__ import annotations

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
