"""A node agent's streams on the wire: the servicer at the agent, and the directory with which the API server finds it.

Bytes are never queued beyond what gRPC's flow control lets pass: a slow reader slows the container.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio
import orjson

from steersman.actors.client import Client
from steersman.actors.ports import Channel, ExecRequest, Frame, LogRequest, NodeStreams
from steersman.actors.tls import ChannelCredentials, Channels
from steersman.cluster.meta.errors import ApiError, NotFound, ServiceUnavailable, from_status
from steersman.cluster.meta.resources import NODES
from steersman.pb import node_pb2, node_pb2_grpc

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

STATUS_KEY = "steersman-status-bin"
#: who may ask a node for its streams: the common name of the API servers' certificates
CALLERS = ("kube-apiserver",)
#: how long a node may take to accept a call
ANSWER_S = 10.0
#: how long a node's address is believed
ADDRESS_S = 30.0
CHANNELS_MAX = 1024
PIECE_BYTES_MAX = 1 << 20
MESSAGE_BYTES_MAX = 16 << 20
_OPTIONS = [("grpc.max_receive_message_length", MESSAGE_BYTES_MAX), ("grpc.enable_http_proxy", 0)]

#: what a stream's `read` returns at its end
_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    503: grpc.StatusCode.UNAVAILABLE,
}


class AddressInUse(OSError):
    """The address cannot be listened on."""


# --- the agent's side


async def serve_node(
    streams: NodeStreams,
    address: str,
    server_credentials: grpc.ServerCredentials | None,
    *,
    callers: Collection[str] | None = CALLERS,
) -> tuple[grpc.aio.Server, int]:
    """Serves a node's streams; returns the server and its port.

    Args:
        address: `host:port`; port 0 takes a free one.
        server_credentials: with client certificates required; None for plain text (tests on loopback).
        callers: common names that may call; None for everyone that the credentials let in.

    Raises:
        AddressInUse: somebody listens there already, or the address is not this machine's.
    """
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)]
    server = grpc.aio.server(options=options)
    allowed = None if server_credentials is None or callers is None else frozenset(callers)
    node_pb2_grpc.add_NodeStreamsServicer_to_server(NodeServicer(streams, allowed), server)
    try:
        if server_credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, server_credentials)
    except RuntimeError as error:
        raise AddressInUse(f"the node agent cannot listen on {address}: {error}") from None
    if port == 0:
        raise AddressInUse(f"the node agent cannot listen on {address}: the port is in use")
    await server.start()
    return server, port


async def _refuse(context: Context, error: ApiError) -> NoReturn:
    status = orjson.dumps(error.to_status())
    code = _CODES.get(error.code, grpc.StatusCode.INTERNAL)
    await context.abort(code, error.message, trailing_metadata=((STATUS_KEY, status),))


class NodeServicer(node_pb2_grpc.NodeStreamsServicer):
    """Args: callers: common names that may call; None for everyone."""

    def __init__(self, streams: NodeStreams, callers: frozenset[str] | None) -> None:
        self._streams = streams
        self._callers = callers

    async def _admit(self, context: Context) -> None:
        if self._callers is None:
            return
        names = {name.decode() for name in context.auth_context().get("x509_common_name", ())}
        if not names & self._callers:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "only the API server may ask a node for its streams")

    async def Logs(self, request: node_pb2.LogRequest, context: Context) -> None:
        await self._admit(context)
        try:
            pieces = await self._streams.logs(_log_request(request))
        except ApiError as error:
            await _refuse(context, error)
        await context.write(node_pb2.Piece())
        async for data in pieces:
            await context.write(node_pb2.Piece(data=data))

    async def Converse(self, requests: AsyncIterator[node_pb2.Say], context: Context) -> None:
        await self._admit(context)
        first = await anext(aiter(requests))
        try:
            channel = await self._open(first.open)
        except ApiError as error:
            await _refuse(context, error)
        await context.write(node_pb2.Say())
        hearing = asyncio.ensure_future(_pass_on(requests, channel))
        try:
            while (frame := await channel.receive()) is not None:
                await context.write(node_pb2.Say(frame=node_pb2.Frame(channel=frame.channel, data=frame.data)))
        finally:
            hearing.cancel()
            await channel.close()

    async def _open(self, request: node_pb2.Open) -> Channel:
        if request.kind == node_pb2.Open.PORT_FORWARD:
            return await self._streams.port_forward(request.namespace, request.pod, request.port)
        wanted = ExecRequest(
            namespace=request.namespace,
            pod=request.pod,
            container=request.container,
            command=tuple(request.command),
            stdin=request.stdin,
            stdout=request.stdout,
            stderr=request.stderr,
            tty=request.tty,
        )
        if request.kind == node_pb2.Open.ATTACH:
            return await self._streams.attach(wanted)
        return await self._streams.exec(wanted)

    async def Stats(self, request: node_pb2.Empty, context: Context) -> node_pb2.Document:
        await self._admit(context)
        try:
            return node_pb2.Document(json=orjson.dumps(await self._streams.stats()))
        except ApiError as error:
            await _refuse(context, error)

    async def LoadImage(self, requests: AsyncIterator[node_pb2.Piece], context: Context) -> node_pb2.Names:
        await self._admit(context)
        try:
            return node_pb2.Names(names=await self._streams.load_image(_data(requests)))
        except ApiError as error:
            await _refuse(context, error)

    async def ListImages(self, request: node_pb2.Empty, context: Context) -> node_pb2.Images:
        await self._admit(context)
        try:
            rows = await self._streams.list_images()
        except ApiError as error:
            await _refuse(context, error)
        images = [node_pb2.Image(names=row["names"], id=row["id"], size_bytes=row["sizeBytes"]) for row in rows]
        return node_pb2.Images(images=images)


def _log_request(request: node_pb2.LogRequest) -> LogRequest:
    def optional(field: str) -> Any:
        return getattr(request, field) if request.HasField(field) else None

    return LogRequest(
        namespace=request.namespace,
        pod=request.pod,
        container=request.container,
        follow=request.follow,
        previous=request.previous,
        timestamps=request.timestamps,
        tail_lines=optional("tail_lines"),
        limit_bytes=optional("limit_bytes"),
        since_s=optional("since_s"),
        since_time=optional("since_time"),
    )


async def _pass_on(requests: AsyncIterator[node_pb2.Say], channel: Channel) -> None:
    async for said in requests:
        await channel.send(Frame(said.frame.channel, said.frame.data))


async def _data(pieces: AsyncIterator[node_pb2.Piece]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        yield piece.data


# --- the API server's side


def _error(node: str, error: grpc.aio.AioRpcError) -> ApiError:
    metadata: Any = error.trailing_metadata() or ()
    for key, value in metadata:
        if key == STATUS_KEY:
            return from_status(orjson.loads(value))
    return ServiceUnavailable(f'the agent of node "{node}" does not answer: {error.details() or error.code().name}')


class _GrpcChannel:
    """The API server's end of a conversation."""

    def __init__(self, call: grpc.aio.StreamStreamCall[Any, Any]) -> None:
        self._call = call
        self._sending = asyncio.Lock()

    async def send(self, frame: Frame) -> None:
        async with self._sending:
            with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
                await self._call.write(node_pb2.Say(frame=node_pb2.Frame(channel=frame.channel, data=frame.data)))

    async def receive(self) -> Frame | None:
        try:
            said: Any = await self._call.read()
        except (asyncio.CancelledError, grpc.aio.AioRpcError):
            if self._call.done():
                return None  # the node is gone, or this side has closed
            raise
        return None if said is _EOF else Frame(said.frame.channel, said.frame.data)

    async def close(self) -> None:
        self._call.cancel()


class GrpcNodeStreams:
    """A node's streams over a connection; implements `ports.NodeStreams`."""

    def __init__(self, node: str, stub: node_pb2_grpc.NodeStreamsStub) -> None:
        self._node = node
        self._stub = stub

    async def logs(self, request: LogRequest) -> AsyncIterator[bytes]:
        call = self._stub.Logs(
            node_pb2.LogRequest(
                namespace=request.namespace,
                pod=request.pod,
                container=request.container,
                follow=request.follow,
                previous=request.previous,
                timestamps=request.timestamps,
                tail_lines=request.tail_lines,
                limit_bytes=request.limit_bytes,
                since_s=request.since_s,
                since_time=request.since_time,
            )
        )
        await self._accepted(call)
        return self._pieces(call)

    async def _accepted(self, call: Any) -> None:
        """Waits for the empty message that says that the call was not refused."""
        try:
            async with asyncio.timeout(ANSWER_S):
                if await call.read() is _EOF:
                    await call.code()
        except TimeoutError:
            call.cancel()
            raise ServiceUnavailable(f'the agent of node "{self._node}" does not answer in {ANSWER_S:g} s') from None
        except grpc.aio.AioRpcError as error:
            raise _error(self._node, error) from None

    async def _pieces(self, call: Any) -> AsyncIterator[bytes]:
        try:
            while (piece := await call.read()) is not _EOF:
                yield piece.data
        except grpc.aio.AioRpcError as error:
            raise _error(self._node, error) from None
        finally:
            call.cancel()

    async def exec(self, request: ExecRequest) -> Channel:
        return await self._converse(_open_message(node_pb2.Open.EXEC, request))

    async def attach(self, request: ExecRequest) -> Channel:
        return await self._converse(_open_message(node_pb2.Open.ATTACH, request))

    async def port_forward(self, namespace: str, pod: str, port: int) -> Channel:
        return await self._converse(
            node_pb2.Open(kind=node_pb2.Open.PORT_FORWARD, namespace=namespace, pod=pod, port=port)
        )

    async def _converse(self, opening: node_pb2.Open) -> Channel:
        call = self._stub.Converse()
        with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            await call.write(node_pb2.Say(open=opening))
        await self._accepted(call)
        return _GrpcChannel(call)

    async def stats(self) -> dict[str, Any]:
        answer = await self._ask(self._stub.Stats(node_pb2.Empty(), timeout=ANSWER_S))
        found: dict[str, Any] = orjson.loads(answer.json)
        return found

    async def load_image(self, archive: AsyncIterator[bytes]) -> list[str]:
        async def pieces() -> AsyncIterator[node_pb2.Piece]:
            async for data in archive:
                for start in range(0, len(data), PIECE_BYTES_MAX):
                    yield node_pb2.Piece(data=data[start : start + PIECE_BYTES_MAX])

        answer = await self._ask(self._stub.LoadImage(pieces()))
        return list(answer.names)

    async def list_images(self) -> list[dict[str, Any]]:
        answer = await self._ask(self._stub.ListImages(node_pb2.Empty(), timeout=ANSWER_S))
        return [{"names": list(row.names), "id": row.id, "sizeBytes": row.size_bytes} for row in answer.images]

    async def _ask(self, call: Any) -> Any:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise _error(self._node, error) from None


def _open_message(kind: node_pb2.Open.Kind, request: ExecRequest) -> node_pb2.Open:
    return node_pb2.Open(
        kind=kind,
        namespace=request.namespace,
        pod=request.pod,
        container=request.container,
        command=request.command,
        stdin=request.stdin,
        stdout=request.stdout,
        stderr=request.stderr,
        tty=request.tty,
    )


@dataclass(slots=True)
class _Known:
    address: str
    until: float


class GrpcNodeDirectory:
    """Finds agents by what their Node objects say; implements `ports.NodeDirectory`.

    Args:
        client: reads Nodes.
        credentials: with the client certificate; None for plain text (tests on loopback).
    """

    def __init__(self, client: Client, credentials: ChannelCredentials | None) -> None:
        self._client = client
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._channels = Channels(credentials, _OPTIONS)

    async def connect(self, node: str) -> NodeStreams:
        address = await self._address(node)
        return GrpcNodeStreams(node, node_pb2_grpc.NodeStreamsStub(self._channels.to(address)))

    async def _address(self, node: str) -> str:
        now = asyncio.get_running_loop().time()
        known = self._known.get(node)
        if known is not None and now < known.until:
            return known.address
        try:
            status = (await self._client.get(NODES, node)).get("status") or {}
        except NotFound:
            raise ServiceUnavailable(f'node "{node}" is unknown') from None
        port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or 0
        host = next((row["address"] for row in status.get("addresses") or () if row["type"] == "InternalIP"), "")
        if not host or not port:
            raise ServiceUnavailable(f'node "{node}" does not say where its agent listens')
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._known[node] = _Known(address, now + ADDRESS_S)
        if len(self._known) > CHANNELS_MAX:
            self._known.popitem(last=False)
        return address

    async def close(self) -> None:
        await self._channels.close()
