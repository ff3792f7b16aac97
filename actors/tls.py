"""TLS between components: both sides show a certificate of the cluster's authority."""

from __future__ import annotations

import ssl
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc

from steersman.actors.renewed import KeyPair, Renewals, renewed_context
from steersman.runtime.credentials import Credentials

#: more than a cluster has actors or nodes at the sizes it is made for
CHANNELS_MAX = 10_000

Options = Sequence[tuple[str, Any]]


def server_credentials(credentials: Credentials) -> grpc.ServerCredentials:
    """What a gRPC server of the cluster listens with: a caller without a certificate of the authority is refused."""
    pair = KeyPair(credentials.cert.read_bytes(), credentials.key.read_bytes())
    return renewed_server_credentials(pair, credentials.ca.read_bytes(), Renewals(credentials))


def renewed_server_credentials(pair: KeyPair, client_ca: bytes, renewals: Renewals | None) -> grpc.ServerCredentials:
    """What a gRPC server listens with.

    Args:
        client_ca: of whom callers have to show a certificate; empty for nobody.
        renewals: of the certificate; None when nobody renews it.
    """

    def configured(pair: KeyPair) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(pair.key, pair.cert)], client_ca or None)

    def fetched() -> Any:  # the configuration, or None to go on with the present one
        news = renewals.news() if renewals is not None else None
        return configured(news) if news is not None else None

    return grpc.dynamic_ssl_server_credentials(configured(pair), fetched, require_client_authentication=bool(client_ca))


#: returns what to call with now: the same object until the certificate is another
ChannelCredentials = Callable[[], grpc.ChannelCredentials]


def client_credentials(credentials: Credentials) -> ChannelCredentials:
    """What a component calls another with."""
    ca, renewals = credentials.ca.read_bytes(), Renewals(credentials)
    made = grpc.ssl_channel_credentials(ca, credentials.key.read_bytes(), credentials.cert.read_bytes())

    def present() -> grpc.ChannelCredentials:
        nonlocal made
        if (news := renewals.news()) is not None:
            made = grpc.ssl_channel_credentials(ca, news.key, news.cert)
        return made

    return present


class Channels:
    """gRPC channels by address, each with the certificate as it is when somebody begins to call.

    Args:
        credentials: None for plain text (tests on loopback).
        size_max: channels kept; of more the one that is unused for longest goes.
    """

    def __init__(self, credentials: ChannelCredentials | None, options: Options, size_max: int = CHANNELS_MAX) -> None:
        self._credentials, self._options, self._size_max = credentials, options, size_max
        self._made_with: grpc.ChannelCredentials | None = None
        self._channels: OrderedDict[str, grpc.aio.Channel] = OrderedDict()
        #: those of the certificate before this one, on which calls may go on; a channel ends with its last reference
        self._former: OrderedDict[str, grpc.aio.Channel] = OrderedDict()

    def to(self, address: str) -> grpc.aio.Channel:
        """Returns the channel for a new call."""
        credentials = self._credentials() if self._credentials is not None else None
        if credentials is not self._made_with:
            self._made_with = credentials
            self._former, self._channels = self._channels, OrderedDict()
        channel = self._channels.get(address)
        if channel is None:
            if credentials is None:
                channel = grpc.aio.insecure_channel(address, options=self._options)
            else:
                channel = grpc.aio.secure_channel(address, credentials, options=self._options)
            self._channels[address] = channel
            if len(self._channels) > self._size_max:
                self._channels.popitem(last=False)
        self._channels.move_to_end(address)
        return channel

    async def close(self) -> None:
        """Ends every channel, and the calls on it."""
        for channel in (*self._former.values(), *self._channels.values()):
            await channel.close(None)
        self._former.clear()
        self._channels.clear()


def server_context(credentials: Credentials) -> ssl.SSLContext:
    """As `server_credentials`, for servers of `rpc.h2`."""
    return context_of(ssl.PROTOCOL_TLS_SERVER, credentials.ca, credentials.cert, credentials.key)


def client_context(credentials: Credentials) -> ssl.SSLContext:
    """As `client_credentials`, for channels of `rpc.h2`."""
    return context_of(ssl.PROTOCOL_TLS_CLIENT, credentials.ca, credentials.cert, credentials.key)


def context_of(protocol: int, ca: Path, cert: Path, key: Path) -> ssl.SSLContext:
    context = renewed_context(protocol, Credentials(ca, cert, key))
    context.set_alpn_protocols(["h2"])
    context.options |= ssl.OP_NO_RENEGOTIATION  # which HTTP/2 forbids
    return context
