"""The store's front door: sessions of the cluster's own components, the etcd services, and the wire of its members.

One address serves all three. Only certificates of the cluster get in, and of those only the names allowed.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Collection

from steersman.actors.rpc.etcd import add_etcd_services
from steersman.actors.rpc.h2.limits import Limits
from steersman.actors.rpc.h2.server import Server
from steersman.actors.rpc.raft import MESSAGE_BYTES_MAX, add_peer_service
from steersman.actors.rpc.session import add_session_service
from steersman.actors.store.replica import Replica


class AddressInUse(OSError):
    """The address cannot be listened on."""


async def serve_store(
    replica: Replica,
    address: str,
    tls: ssl.SSLContext | None,
    *,
    names: Collection[str] | None = None,
    meet: Callable[[int, str], None] | None = None,
) -> Server:
    """Serves a replica; the caller stops the server before the replica.

    Args:
        meet: told which other member calls, and where it is (`GrpcTransport.meet`).
        address: `host:port`.
        tls: with client certificates required; None for plain text (tests on loopback).
        names: common names of the client certificates that may use the store; None for every certificate let in.

    Raises:
        AddressInUse: somebody listens there already, or the address is not this machine's.
    """
    server = Server(tls, names=names, limits=Limits(message_bytes=MESSAGE_BYTES_MAX))
    add_session_service(server, replica)
    add_peer_service(server, replica, meet)
    add_etcd_services(server, replica)
    try:
        await server.start(address)
    except OSError as error:
        raise AddressInUse(f"the store cannot listen on {address}: the port is in use ({error})") from None
    return server
