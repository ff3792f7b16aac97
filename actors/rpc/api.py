"""The native gRPC API: wire to requests and answers to wire; everything else is the API server's.

A caller is known by its client certificate, or by a bearer token in the metadata; a token given beside a certificate
decides. Refusals carry the Kubernetes Status in trailing metadata.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol
from urllib.parse import quote, urlencode

import grpc
import grpc.aio
import orjson
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from steersman.actors.client import read_body
from steersman.actors.http.messages import Request, Response
from steersman.actors.ports import User
from steersman.actors.renewed import KeyPair, Renewals
from steersman.actors.tls import renewed_server_credentials
from steersman.cluster.meta.errors import ApiError, BadRequest, InternalError, from_status
from steersman.cluster.meta.resources import Resource
from steersman.pb import api_pb2, api_pb2_grpc
from steersman.runtime.credentials import Credentials

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

STATUS_KEY = "steersman-status-bin"
#: of an answer; of a request no more than the bodies that are read, with what is around them: it is held before
#: anybody has been asked who they are
ANSWER_BYTES_MAX, REQUEST_BYTES_MAX = 64 << 20, 4 << 20
#: calls of one connection, and of all
STREAMS_MAX, CALLS_MAX = 1000, 10_000
#: objects of one list message; a client that wants more asks for the next page
LIST_MAX = 10_000
_STOP_GRACE_S = 1.0

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    406: grpc.StatusCode.INVALID_ARGUMENT,
    409: grpc.StatusCode.ABORTED,
    410: grpc.StatusCode.OUT_OF_RANGE,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_VERBS = api_pb2.WriteRequest.Verb
_METHODS: dict[int, tuple[str, str]] = {
    _VERBS.CREATE: ("POST", "application/json"),
    _VERBS.UPDATE: ("PUT", "application/json"),
    _VERBS.PATCH: ("PATCH", "application/merge-patch+json"),
    _VERBS.APPLY: ("PATCH", "application/apply-patch+yaml"),
    _VERBS.DELETE: ("DELETE", "application/json"),
}


class Backend(Protocol):
    """The API server as this front door sees it."""

    async def __call__(self, request: Request) -> Response: ...
    async def transact(self, requests: Sequence[Request]) -> list[tuple[int, bytes]]: ...


class Listening(Protocol):
    """What is told about where to listen; see `ApiServerConfig`."""

    @property
    def host(self) -> str: ...
    @property
    def grpc_port(self) -> int | None: ...
    @property
    def grpc_token_port(self) -> int | None: ...
    @property
    def tls_cert(self) -> bytes: ...
    @property
    def tls_key(self) -> bytes: ...
    @property
    def client_ca(self) -> bytes: ...
    @property
    def tls_files(self) -> Credentials | None: ...


class GrpcApi:
    """The gRPC server of one API server; a Component.

    Args:
        identify: the user of a verified certificate in the form that `ssl` shows it.
    """

    def __init__(
        self, backend: Backend, config: Listening, identify: Callable[[Mapping[str, Any]], User | None]
    ) -> None:
        self._backend = backend
        self._config = config
        self._identify = identify
        self._server: grpc.aio.Server | None = None
        self.port = 0
        self.token_port = 0

    async def start(self) -> None:
        """Listens.

        Raises:
            OSError: a port is taken.
        """
        options = [
            ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
            ("grpc.max_send_message_length", ANSWER_BYTES_MAX),
            ("grpc.max_concurrent_streams", STREAMS_MAX),
            ("grpc.so_reuseport", 0),
        ]
        server = grpc.aio.server(options=options, maximum_concurrent_rpcs=CALLS_MAX)
        api_pb2_grpc.add_ApiServicer_to_server(_Servicer(self._backend, self._identify), server)  # type: ignore[no-untyped-call]
        config = self._config
        self.port = self._listen(server, config.grpc_port, config.client_ca)
        self.token_port = self._listen(server, config.grpc_token_port, b"")
        await server.start()
        self._server = server

    def _listen(self, server: grpc.aio.Server, port: int | None, client_ca: bytes) -> int:
        if port is None:
            return 0
        address = f"{self._config.host}:{port}"
        try:
            if not self._config.tls_cert:
                return server.add_insecure_port(address)
            files = self._config.tls_files
            pair = KeyPair(self._config.tls_cert, self._config.tls_key)
            credentials = renewed_server_credentials(pair, client_ca, Renewals(files) if files is not None else None)
            return server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from None

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(_STOP_GRACE_S)


class _Servicer(api_pb2_grpc.ApiServicer):
    def __init__(self, backend: Backend, identify: Callable[[Mapping[str, Any]], User | None]) -> None:
        self._backend = backend
        self._identify = identify

    # ---- who asks

    def _request(self, context: Context, method: str, target: str, body: bytes = b"", media: str = "") -> Request:
        metadata: dict[str, str] = {}
        for key, value in context.invocation_metadata() or ():
            if not key.endswith("-bin"):
                metadata[key] = f"{metadata[key]}\n{value!s}" if key in metadata else str(value)
        headers = {"user-agent": metadata.get("user-agent", "grpc"), "content-type": media or "application/json"}
        for key in metadata:
            if key == "authorization" or key.startswith("impersonate-"):
                headers[key] = metadata[key]
        user = None if "authorization" in headers else self._peer(context)
        return Request(method, target, headers, body, user)

    def _peer(self, context: Context) -> User | None:
        pem = context.auth_context().get("x509_pem_cert")
        if not pem:
            return None
        certificate = x509.load_pem_x509_certificate(next(iter(pem)))
        if time.time() >= certificate.not_valid_after_utc.timestamp():  # a connection may outlive it
            return None
        subject = certificate.subject
        names = {NameOID.COMMON_NAME: "commonName", NameOID.ORGANIZATION_NAME: "organizationName"}
        rows = tuple(((names.get(part.oid, part.oid.dotted_string), part.value),) for part in subject)
        return self._identify({"subject": rows, "der": certificate.public_bytes(Encoding.DER)})

    # ---- one call of the API

    async def _call(self, context: Context, request: Request) -> Response:
        response = await self._backend(request)
        if response.status >= 400:
            assert isinstance(response.body, bytes)
            await _fail(context, from_status(orjson.loads(response.body)))
        return response

    async def Get(self, request: Any, context: Context) -> Any:
        target = _target(request.address, {"resourceVersion": request.resource_version})
        return _object(await self._call(context, self._request(context, "GET", target)))

    async def List(self, request: Any, context: Context) -> Any:
        query = {
            "labelSelector": request.label_selector,
            "fieldSelector": request.field_selector,
            "resourceVersion": request.resource_version,
            "limit": str(min(request.limit or LIST_MAX, LIST_MAX)),
            "continue": request.continue_token,
        }
        response = await self._call(context, self._request(context, "GET", _target(request.address, query)))
        found = orjson.loads(await read_body(response))
        meta = found["metadata"]
        return api_pb2.ListReply(
            items=[orjson.dumps(item) for item in found["items"]],
            resource_version=meta["resourceVersion"],
            continue_token=meta.get("continue", ""),
            remaining=meta.get("remainingItemCount", 0),
        )

    async def Watch(self, request: Any, context: Context) -> AsyncIterator[Any]:
        query = {
            "watch": "true",
            "labelSelector": request.label_selector,
            "fieldSelector": request.field_selector,
            "resourceVersion": request.resource_version,
            "allowWatchBookmarks": "true" if request.bookmarks or request.initial_events else "",
            "sendInitialEvents": "true" if request.initial_events else "",
            "resourceVersionMatch": "NotOlderThan" if request.initial_events else "",
            "timeoutSeconds": str(request.timeout_s or ""),
        }
        response = await self._call(context, self._request(context, "GET", _target(request.address, query)))
        stream: Any = response.body
        try:
            async for piece in stream:
                lines = [orjson.loads(line) for line in piece.splitlines()]
                events = [api_pb2.Event(type=row["type"], json=orjson.dumps(row["object"])) for row in lines]
                yield api_pb2.WatchReply(events=events)
        finally:
            await stream.aclose()

    async def _write(self, request: Any, context: Context, verb: int) -> Any:
        return _object(await self._call(context, self._writing(context, request, verb)))

    async def Create(self, request: Any, context: Context) -> Any:
        return await self._write(request, context, _VERBS.CREATE)

    async def Update(self, request: Any, context: Context) -> Any:
        return await self._write(request, context, _VERBS.UPDATE)

    async def Patch(self, request: Any, context: Context) -> Any:
        return await self._write(request, context, _VERBS.PATCH)

    async def Apply(self, request: Any, context: Context) -> Any:
        return await self._write(request, context, _VERBS.APPLY)

    async def Delete(self, request: Any, context: Context) -> Any:
        return await self._write(request, context, _VERBS.DELETE)

    async def Transact(self, request: Any, context: Context) -> Any:
        try:
            if any(write.verb not in _METHODS for write in request.writes):
                raise BadRequest("a write says no verb")
            writes = [self._writing(context, write, write.verb) for write in request.writes]
            shown = await self._backend.transact(writes)
        except ApiError as error:
            await _fail(context, error)
        return api_pb2.TransactReply(objects=[api_pb2.Object(json=body) for _, body in shown])

    def _writing(self, context: Context, write: Any, verb: int) -> Request:
        method, media = _METHODS[verb]
        query = {
            "fieldManager": write.field_manager,
            "fieldValidation": write.field_validation,
            "force": "true" if write.force else "",
            "dryRun": "All" if write.dry_run else "",
        }
        address = write.address
        if verb == _VERBS.CREATE and not address.subresource:
            address = api_pb2.Address()
            address.CopyFrom(write.address)
            address.name = ""
        target = _target(address, query)
        chosen = media if verb == _VERBS.APPLY else write.content_type or media
        return self._request(context, method, target, write.body, chosen)


def _target(address: Any, query: Mapping[str, str]) -> str:
    group, version, plural = (_segment(part) for part in (address.group, address.version, address.resource))
    resource = Resource(group, version or "v1", plural, "")
    parts = (_segment(part) or None for part in (address.namespace, address.name, address.subresource))
    path = resource.path(*parts)
    text = urlencode({key: value for key, value in query.items() if value})
    return f"{path}?{text}" if text else path


def _segment(text: str) -> str:
    """A segment of a path; a slash in it stays encoded when it is read, and is refused with the name it is in."""
    return quote(text, safe="").replace("%2F", "%252F")


def _object(response: Response) -> Any:
    assert isinstance(response.body, bytes)
    texts = [row.partition('"')[2].rstrip('"') for row in response.headers.get("warning", "").split("\n") if row]
    return api_pb2.Object(json=response.body, warnings=texts)


async def _fail(context: Context, error: ApiError) -> NoReturn:
    """Ends the call with a status that carries the Kubernetes one."""
    trailing = ((STATUS_KEY, orjson.dumps(error.to_status())),)
    exists = error.reason == "AlreadyExists"
    code = grpc.StatusCode.ALREADY_EXISTS if exists else _CODES.get(error.code, grpc.StatusCode.INTERNAL)
    await context.abort(code, error.message, trailing)
    raise InternalError("an aborted call went on")


def error_of(failure: grpc.RpcError) -> ApiError | None:
    """The API error in a failed call; None when the failure is the connection's."""
    metadata: Any = failure.trailing_metadata() or ()  # type: ignore[attr-defined]
    found = dict(metadata).get(STATUS_KEY)
    return None if found is None else from_status(orjson.loads(found))
