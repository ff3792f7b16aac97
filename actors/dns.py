"""Cluster DNS on one node: questions about the cluster are answered from informers, others go upstream.

What the answer is, `cluster/net/dns` decides. The component shows itself to the cluster as an EndpointSlice of the
`kube-dns` Service, meant for its own node first.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from steersman.actors.background import failure_of
from steersman.actors.client import Client
from steersman.actors.dnsforward import Forwarder
from steersman.actors.informer import Informer
from steersman.actors.ports import Now
from steersman.cluster.meta.errors import ApiError, NotFound
from steersman.cluster.meta.objects import Obj, labels_of
from steersman.cluster.meta.resources import ENDPOINT_SLICES, NAMESPACES, NODES, SERVICES
from steersman.cluster.net.dns.records import records_of_service
from steersman.cluster.net.dns.wire import (
    FORMERR,
    REFUSED,
    SERVFAIL,
    Query,
    WireError,
    answer_addresses,
    encode_answer,
    encode_error,
    parse_query,
)
from steersman.cluster.net.dns.zone import Reply, Zone
from steersman.cluster.net.services import SERVICE_NAME_LABEL

SERVICE, NAMESPACE = "kube-dns", "kube-system"
#: TCP connections at once, and how long one may be silent
CONNECTIONS_MAX, IDLE_S = 256, 10.0
#: how often the own endpoint is looked after
PUBLISH_S = 30.0
PUBLISH_RETRY_S = 1.0


class Dns:
    """Component: one per host.

    Args:
        bind_host: the node's own address (not a wildcard: answers must come from the address that was asked).
        port: 0 for any; `port` tells the one taken.
        upstream: `address` or `address:port` of resolvers for all other names; None for those of this host's
            resolv.conf; with none at all these names are refused.
        node_name: whose endpoint this is; empty to show none.
    """

    def __init__(
        self,
        client: Client,
        *,
        bind_host: str,
        port: int,
        cluster_domain: str = "cluster.local",
        upstream: Sequence[str] | None = None,
        node_name: str = "",
        now: Now,
        rng: random.Random,
    ) -> None:
        self._client = client
        self._bind_host = bind_host
        self.port = port
        self._node_name = node_name
        self.zone = Zone(cluster_domain)
        self._now = now
        self._upstream = upstream
        self._rng = rng
        self._forwarder = Forwarder(upstream or (), rng)
        self._services = Informer(client, SERVICES, on_change=self._service_changed)
        self._slices = Informer(
            client, ENDPOINT_SLICES, on_change=self._slice_changed, indexes={"service": _service_of_slice}
        )
        self._namespaces = Informer(client, NAMESPACES, on_change=self._namespace_changed)
        self._dirty: OrderedDict[str, None] = OrderedDict()
        self._turn = 0
        self._datagrams: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._publisher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listens by UDP and TCP on one port. Raises OSError when it is taken."""
        loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._serve, self._bind_host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=(self._bind_host, self.port)
        )
        self._datagrams = transport
        if self._upstream is None:
            self._forwarder = Forwarder(_host_resolvers(self._bind_host, self.port), self._rng)
        for informer in (self._services, self._slices, self._namespaces):
            await informer.start()
        if self._node_name:
            self._publisher = asyncio.create_task(self._publish(), name="dns endpoint")

    async def stop(self) -> None:
        """Takes its endpoint back, then ends."""
        if self._publisher is not None:
            self._publisher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._publisher
            self._publisher = None
            with contextlib.suppress(ApiError, OSError, TimeoutError):
                async with asyncio.timeout(2):
                    await self._client.delete(ENDPOINT_SLICES, self._slice_name, NAMESPACE)
        for informer in (self._services, self._slices, self._namespaces):
            await informer.stop()
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._datagrams is not None:
            self._datagrams.close()
        await self._forwarder.stop()

    @property
    def failure(self) -> str:
        """What ended the background work unforeseen; empty while all is well."""
        return failure_of(self._publisher)

    async def synced(self) -> None:
        """Returns once every service is known."""
        for informer in (self._services, self._slices, self._namespaces):
            await informer.synced.wait()

    # --- what is seen ---
    def _service_changed(self, before: Obj | None, after: Obj | None) -> None:
        obj = after or before
        if obj is not None:
            self._dirty[f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"] = None

    def _slice_changed(self, before: Obj | None, after: Obj | None) -> None:
        for obj in (before, after):
            for name in _service_of_slice(obj) if obj is not None else ():
                self._dirty[name] = None

    def _namespace_changed(self, before: Obj | None, after: Obj | None) -> None:
        obj = after or before
        if obj is not None:
            self.zone.set_namespace(obj["metadata"]["name"], after is not None)

    def _refresh(self) -> None:
        """Brings the zone up to date; costs nothing while nothing has changed."""
        while self._dirty:
            name, _ = self._dirty.popitem(last=False)
            service = self._services.get(name)
            slices = self._slices.by_index("service", name)
            records = records_of_service(service, slices, self.zone.domain) if service is not None else []
            self.zone.set_service(name, records)
            self.zone.serial = int(self._now())

    # --- what is answered ---
    def answer_at_once(self, data: bytes, *, tcp: bool) -> bytes | Query | None:
        """Returns the response, the question when it has to be asked elsewhere, or None for what deserves nothing."""
        try:
            query = parse_query(data, tcp=tcp)
        except WireError as error:
            return None if error.message_id is None else encode_error(error.message_id, FORMERR)
        if not self._services.synced.is_set() or not self._slices.synced.is_set():
            return encode_answer(query, SERVFAIL, authoritative=False)
        self._refresh()
        self._turn += 1
        reply = self.zone.answer(query, self._turn)
        if reply is None or reply.chase:
            return query
        return _encoded(query, reply)

    async def answer_later(self, query: Query, data: bytes, *, tcp: bool) -> bytes:
        """Asks upstream: the whole question, or the name that an answer of ours leads to."""
        reply = self.zone.answer(query, self._turn)
        if reply is None:
            if not self._forwarder.has_upstream:
                return encode_answer(query, REFUSED, authoritative=False)
            found = await self._forwarder.ask(data, tcp=tcp)
            return found or encode_answer(query, SERVFAIL, authoritative=False)
        more: list[Any] = []
        if reply.chase and self._forwarder.has_upstream:
            message = await self._forwarder.ask_name(reply.chase, query.type)
            if message is not None:
                with contextlib.suppress(WireError, IndexError, struct.error):
                    more = answer_addresses(message)
        return encode_answer(query, reply.code, [*reply.answers, *more], reply.authority, reply.additional)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= CONNECTIONS_MAX:
            writer.close()
            return
        self._connections.add(task)
        try:
            while True:
                async with asyncio.timeout(IDLE_S):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    data = await reader.readexactly(length)
                found = self.answer_at_once(data, tcp=True)
                if isinstance(found, Query):
                    found = await self.answer_later(found, data, tcp=True)
                if found is None:
                    return
                writer.write(struct.pack("!H", len(found)) + found)
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._connections.discard(task)
            writer.close()

    # --- what is shown ---
    @property
    def _slice_name(self) -> str:
        return f"{SERVICE}-{self._node_name}"

    async def _publish(self) -> None:
        while True:
            try:
                await self._put_slice()
            except (ApiError, OSError):
                await asyncio.sleep(PUBLISH_RETRY_S)
            else:
                await asyncio.sleep(PUBLISH_S)

    async def _put_slice(self) -> None:
        wanted = await self._own_slice()
        try:
            held = await self._client.get(ENDPOINT_SLICES, self._slice_name, NAMESPACE)
        except NotFound:
            await self._client.create(ENDPOINT_SLICES, wanted, NAMESPACE)
            return
        if any(held.get(field) != wanted[field] for field in ("endpoints", "ports")):
            await self._client.update(ENDPOINT_SLICES, {**held, **wanted, "metadata": held["metadata"]})

    async def _own_slice(self) -> Obj:
        owner: list[Obj] = []
        with contextlib.suppress(NotFound):
            node = await self._client.get(NODES, self._node_name)
            meta = node["metadata"]
            owner = [{"apiVersion": "v1", "kind": "Node", "name": meta["name"], "uid": meta["uid"]}]
        return {
            "apiVersion": ENDPOINT_SLICES.api_version,
            "kind": ENDPOINT_SLICES.kind,
            "metadata": {
                "name": self._slice_name,
                "namespace": NAMESPACE,
                "labels": {SERVICE_NAME_LABEL: SERVICE, "endpointslice.kubernetes.io/managed-by": "steersman-dns"},
                **({"ownerReferences": owner} if owner else {}),
            },
            "addressType": "IPv4",
            "endpoints": [
                {
                    "addresses": [self._bind_host],
                    "conditions": {"ready": True, "serving": True, "terminating": False},
                    "hints": {"forNodes": [{"name": self._node_name}]},
                    "nodeName": self._node_name,
                }
            ],
            "ports": [
                {"name": "dns", "port": self.port, "protocol": "UDP"},
                {"name": "dns-tcp", "port": self.port, "protocol": "TCP"},
            ],
        }


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, dns: Dns) -> None:
        self._dns = dns
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        found = self._dns.answer_at_once(data, tcp=False)
        if isinstance(found, Query):
            task = asyncio.create_task(self._later(found, data, addr))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif found is not None and self._transport is not None:
            self._transport.sendto(found, addr)

    async def _later(self, query: Query, data: bytes, addr: tuple[Any, ...]) -> None:
        found = await self._dns.answer_later(query, data, tcp=False)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(found, addr)

    def connection_lost(self, exc: Exception | None) -> None:
        for task in self._tasks:
            task.cancel()


def _host_resolvers(own_address: str, own_port: int) -> list[str]:
    """The resolvers that this host uses, itself left out."""
    try:
        lines = Path("/etc/resolv.conf").read_text().splitlines()
    except OSError:
        return []
    rows = [line.split() for line in lines]
    found = [row[1] for row in rows if row[:1] == ["nameserver"] and len(row) > 1 and ":" not in row[1]]
    return [address for address in found if (address, 53) != (own_address, own_port)]


def _encoded(query: Query, reply: Reply) -> bytes:
    return encode_answer(query, reply.code, reply.answers, reply.authority, reply.additional)


def _service_of_slice(obj: Obj) -> list[str]:
    name = labels_of(obj).get(SERVICE_NAME_LABEL)
    return [f"{obj['metadata']['namespace']}/{name}"] if name else []
