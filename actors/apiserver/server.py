"""The API server: every request's way from bytes to an answer, and the lifetime of what it takes to give one.

Who asks (authentication), as whom (impersonation), whether there is room (flows), whether they may (authorization),
and only then what it means. It is stateless: any number of servers may run on one store.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_network
from itertools import count
from typing import Any

import orjson

from steersman.actors.apiserver.access import Authorizer, forbidden
from steersman.actors.apiserver.actions import Actions
from steersman.actors.apiserver.admissionfile import read_settings
from steersman.actors.apiserver.aggregator import Aggregator
from steersman.actors.apiserver.askedwebhooks import Modes, answered
from steersman.actors.apiserver.auditing import ID_CHARS_MAX, Trail, auditor_of
from steersman.actors.apiserver.authenticator import Authenticator, is_spaced, token_of, user_of_certificate
from steersman.actors.apiserver.bootstrap import Bootstrap
from steersman.actors.apiserver.bootstraptokens import BootstrapTokens
from steersman.actors.apiserver.cache import Behind, WatchCache
from steersman.actors.apiserver.call import Call, Query, time_limit_s
from steersman.actors.apiserver.certificates import Certificates
from steersman.actors.apiserver.components import Components
from steersman.actors.apiserver.config import ApiServerConfig
from steersman.actors.apiserver.conversions import Conversions
from steersman.actors.apiserver.custom import CustomKinds
from steersman.actors.apiserver.definitions import read_definitions
from steersman.actors.apiserver.documents import Documents
from steersman.actors.apiserver.expressions import compiled
from steersman.actors.apiserver.flowcontrol import FlowControl, Overloaded
from steersman.actors.apiserver.forms import TEXT_HEADERS
from steersman.actors.apiserver.frontproxy import identifier
from steersman.actors.apiserver.issuers import Others
from steersman.actors.apiserver.legacytokens import LegacyTokens
from steersman.actors.apiserver.metrics import UNKNOWN, Metrics, labels_of
from steersman.actors.apiserver.operations import Operations
from steersman.actors.apiserver.proxies import Proxies
from steersman.actors.apiserver.reads import Reader, too_large
from steersman.actors.apiserver.registrations import Registrations
from steersman.actors.apiserver.reloading import Reloaded
from steersman.actors.apiserver.rendering import is_rendered, rendered
from steersman.actors.apiserver.resources import Resources
from steersman.actors.apiserver.reviews import Reviews
from steersman.actors.apiserver.sealed import SealedStore, Undecryptable, Unsealable
from steersman.actors.apiserver.services import Services
from steersman.actors.apiserver.streams import Streams
from steersman.actors.apiserver.watches import Watches
from steersman.actors.apiserver.webhooks import Webhooks
from steersman.actors.apiserver.writes import Writer
from steersman.actors.http.messages import Request, Response
from steersman.actors.http.server import HttpServer
from steersman.actors.ports import NodeDirectory, Now, Store, Stranger, User
from steersman.actors.renewed import KeyPair, Renewals, RenewedContext
from steersman.actors.rpc.api import GrpcApi
from steersman.actors.webhook import Webhook
from steersman.cluster.api import proxying
from steersman.cluster.api.admission.settings import AdmissionSettings
from steersman.cluster.api.context import ApiSettings
from steersman.cluster.api.kinds import Registry
from steersman.cluster.auth import impersonation
from steersman.cluster.auth.attributes import Attributes, plain, read_attributes
from steersman.cluster.auth.authenticationfile import read_authentication
from steersman.cluster.auth.certificates import Authority
from steersman.cluster.auth.tokens import TokenIssuer
from steersman.cluster.meta import warningheaders
from steersman.cluster.meta.errors import (
    ApiError,
    BadRequest,
    Forbidden,
    InternalError,
    NotFound,
    PageNotFound,
    ServerTimeout,
    ServiceUnavailable,
    Unauthorized,
    out_of_time,
)
from steersman.cluster.store.values import InvalidRequest, StoreError, TooLarge, Unavailable
from steersman.runtime.strangers import admit_strangers

log = logging.getLogger(__name__)

#: a webhook that says whose a token is has to answer within
_WEBHOOK_S = 10.0
#: between two tries to reach a store that does not answer yet
_STORE_RETRY_S = 0.3
#: a client that asks for a state that is not here yet may try again after
_AGAIN_S = 1
_SPACED = "the provided Authorization header contains extra space before the bearer token, and is ignored"
_READS = frozenset({"get", "list", "watch", "head"})
_APPLY = "application/apply-patch"
#: writes in one transaction; the store bounds its bytes
TRANSACTION_MAX = 100


def _issuer_of(config: ApiServerConfig) -> TokenIssuer | None:
    if not config.service_account_key:
        return None
    return TokenIssuer(
        config.service_account_key,
        issuer=config.issuer,
        audience=config.issuer,
        former=config.former_service_account_keys,
    )


def _settings_of(config: ApiServerConfig) -> ApiSettings:
    return ApiSettings(
        service_cidr=config.service_cidr,
        node_port_range=config.node_port_range,
        cluster_domain=config.cluster_domain,
        plugins=frozenset(config.admission_plugins),
        plugins_off=frozenset(config.admission_plugins_off),
        admission=read_settings(config.admission) if config.admission is not None else AdmissionSettings(),
    )


class ApiServer:
    """One API server: a `Handler` for its transports and a Component for its launcher.

    Args:
        store: the cluster's store.
        nodes: finds node agents for logs, exec and the like.
        now, rng: the clock, and the source of uids and generated names.
    """

    def __init__(
        self, *, store: Store, nodes: NodeDirectory, config: ApiServerConfig, now: Now, rng: random.Random
    ) -> None:
        self.config = config
        self.registry = Registry(read_definitions(config.kubernetes_version), config.kubernetes_version)
        issuer, settings = _issuer_of(config), _settings_of(config)
        self.metrics = Metrics()
        series = self.metrics.series
        self._identifier, self._now = identifier(config.client_ca, config.proxy_ca), now
        self._sealed = SealedStore(store, config.encryption, series) if config.encryption else None
        store = self._sealed or store
        self.cache = WatchCache(store, rng)
        sealed = {"is_stale": self._sealed.is_stale, "seals": self._sealed.seals} if self._sealed else {}
        services = Services(self.cache, self.registry, rng)
        self._webhooks = Webhooks(self.cache, self.registry, services, settings)
        self._modes = Modes(config.authorization, rng, series)
        self.authorizer = Authorizer(self.cache, self.registry, self._modes)
        self.writer = Writer(
            store, self.cache, self.registry, self._webhooks, self.authorizer.answer, settings, now, rng, **sealed
        )
        self._conversions = Conversions(self._webhooks, self.writer.new_uid)
        #: by component status: what is wrong with a component of this process; one that is not here has leases
        self.beside: dict[str, Callable[[], str]] = {}
        self.reader = Reader(store, self.cache, self.registry, self._conversions, now)
        self.watches = Watches(self.reader, self.cache, rng)
        webhook = Webhook(config.token_webhook, timeout_s=_WEBHOOK_S) if config.token_webhook else None
        self._others = Others(webhook, now)
        self._authentication = None
        if config.authentication is not None:
            self._authentication = Reloaded(config.authentication, self._take_authentication)
        self.authenticator = Authenticator(self.cache, self.registry, issuer, self._others, now)
        self._renewal: asyncio.Task[None] | None = None
        self._legacy_tokens = None
        if issuer is not None:
            self._legacy_tokens = LegacyTokens(self.cache, self.registry, self.writer, issuer, config.client_ca, now)
            self.authenticator.used = self._legacy_tokens.used
        self._certificates = None
        if config.client_ca_key:
            authority = Authority(config.client_ca, config.client_ca_key)
            self._certificates = Certificates(self.cache, self.registry, self.writer, self.authorizer, authority, now)
        self._bootstrap_tokens = BootstrapTokens(self.cache, self.registry, self.writer, now)
        self._registrations = Registrations(self.cache, self.registry, self.writer)
        self._custom = CustomKinds(self.cache, self.registry, self.writer, self._conversions)
        self._flows = FlowControl(self.cache, self.registry, self.writer, now, config.requests_in_flight)
        self._aggregator = Aggregator(self.registry, self.writer, services, config, now)
        self._documents = Documents(
            self.registry, self._aggregator, self.cache, self.reader, self.watches, self.metrics, issuer, config,
            self._flows.dispatcher, now, self._sealed.checks if self._sealed else dict,
        )  # fmt: skip
        on_loopback = ip_network(config.service_cidr).is_loopback
        proxies = Proxies(self.registry, self.reader, nodes, rng, on_loopback=on_loopback)
        self._resources = Resources(
            self.registry,
            self.reader,
            self.watches,
            self.writer,
            Operations(self.registry, self.writer, self.authorizer),
            Reviews(self.registry, self.authenticator, self.authorizer),
            Components(self.registry, self.reader, self._documents.health.fault_of_store, self.beside, now),
            Actions(self.registry, self.reader, self.writer, self.authorizer, issuer, now),
            Streams(self.registry, self.reader, self.writer, nodes, proxies, config.http.last_work_s),
        )
        self._bootstrap = Bootstrap(store, self.cache, self.registry, self.writer, config)
        self._auditor = auditor_of(config.audit, self.registry, now, series) if config.audit is not None else None
        base = self.writer.new_uid()[:-12]
        #: names of requests where no auditor gives them
        self._request_ids = (f"{base}{number:012x}" for number in count(1))
        self._http: HttpServer | None = None
        self._grpc: GrpcApi | None = None

    def _take_authentication(self, text: str) -> None:
        self._others.take(read_authentication(text, compiled, (self.config.issuer,)))

    @property
    def port(self) -> int:
        """The port listened on; 0 without a socket."""
        return self._http.port if self._http is not None else 0

    @property
    def grpc_port(self) -> int:
        """The port of the native API; 0 without one."""
        return self._grpc.port if self._grpc is not None else 0

    # ---- lifetime

    async def start(self) -> None:
        """Returns when requests are answered, here and on the socket.

        Raises:
            OSError: the port is taken. Undecryptable: the store holds what no key opens.
        """
        while True:
            try:
                if self._sealed is not None:
                    await self._sealed.start()
                await self.cache.start()
                break
            except Undecryptable:
                raise
            except StoreError as error:
                log.warning("waiting for the store: %s", error)
                await asyncio.sleep(_STORE_RETRY_S)
        self._custom.start()
        self.authorizer.start()
        self._modes.start()
        if self._auditor is not None:
            await self._auditor.start()
        await self._bootstrap.ensure()
        await self._flows.start()
        self._registrations.start()
        self._aggregator.start()
        if self._legacy_tokens is not None:
            await self._legacy_tokens.publish()
            self._legacy_tokens.start()
        if self._certificates is not None:
            self._certificates.start()
        self._bootstrap_tokens.start()
        if self._authentication is not None:
            self._authentication.start()
            self._renewal = asyncio.create_task(self._others.renew())
        if self.config.port is not None:
            self._http = HttpServer(
                self,
                host=self.config.host,
                port=self.config.port,
                tls=_tls(self.config),
                identify=self._identify,
                uploads=_is_upload,
                limits=self.config.http,
            )
            await self._http.start()
        if self.config.grpc_port is not None:
            self._grpc = GrpcApi(self, self.config, user_of_certificate)
            await self._grpc.start()
        await self._bootstrap.announce(self.port)

    def _identify(self, certificate: Mapping[str, Any]) -> User | None:
        """Whose a connection's certificate is; noted is how long it is good for, once and not for each request."""
        left_s = ssl.cert_time_to_seconds(certificate["notAfter"]) - self._now()
        self.metrics.series.observe("apiserver_client_certificate_expiration_seconds", left_s)
        return self._identifier(certificate)

    async def stop(self) -> None:
        """Ends watches and conversations, lets short requests finish, and lets go of the store."""
        self._documents.health.stopping = True
        await self._bootstrap.stop()
        await self._flows.stop()
        if self._legacy_tokens is not None:
            await self._legacy_tokens.stop()
        if self._certificates is not None:
            await self._certificates.stop()
        await self._bootstrap_tokens.stop()
        if self._authentication is not None:
            await self._authentication.stop()
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        self.watches.stop()
        if self._http is not None:
            await self._http.stop()
        if self._grpc is not None:
            await self._grpc.stop()
        await self._registrations.stop()
        await self._aggregator.stop()
        await self._custom.stop()
        await self._conversions.stop()
        await self._webhooks.stop()
        await self._modes.stop()
        await self.cache.stop()
        if self._sealed is not None:
            await self._sealed.stop()
        if self._auditor is not None:
            await self._auditor.stop()

    # ---- requests

    async def __call__(self, request: Request) -> Response:
        """Answers one request; a refusal is a `Status`, never an exception."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        path, _, text = request.target.partition("?")
        query = Query(text)
        attributes = read_attributes(request.method, path, query)
        trail = self._auditor.begin(request, attributes) if self._auditor is not None else None
        changes = attributes.verb not in _READS
        self.metrics.in_flight[changes] += 1
        try:
            response = await self._answer(request, query, attributes, trail)
        except ApiError as error:
            response = failure(error)
            if error.code in (401, 403) and is_spaced(request):
                response.headers["warning"] = warningheaders.headers([_SPACED])[0]
        except (StoreError, Behind) as error:
            response = failure(_store_failure(error))
        finally:
            self.metrics.in_flight[changes] -= 1
        if trail is not None:
            response = trail.finish(response)
        else:
            audit_id = request.headers.get("audit-id", "")[:ID_CHARS_MAX] or next(self._request_ids)
            response.headers = {**response.headers, "audit-id": audit_id}
        pretty = query.get("pretty", "")
        if is_rendered(request.headers, pretty) and attributes.verb != "watch" and not response.passed_on:
            response = await rendered(request, pretty, response)
        verb = attributes.verb
        if verb == "patch" and request.headers.get("content-type", "").startswith(_APPLY):
            verb = "apply"
        is_known = response.status < 400 or self._is_known(attributes)
        labels = labels_of(attributes if is_known else UNKNOWN, verb, "dryRun" in query)
        self.metrics.observe(labels, response.status, loop.time() - started)
        return response

    def _who(self, request: Request, attributes: Attributes, trail: Trail | None) -> User:
        """The user as whom a request acts; raises Unauthorized or Forbidden."""
        user = self.authenticator.authenticate(request, attributes.path)
        if trail is not None:
            trail.known(user)
            trail.annotations |= self.authenticator.remarks(request)
        if impersonation.is_wanted(request.headers):
            acting = self.authorizer.impersonate(user, request.headers, attributes)
            if acting is not None:
                user, constraint = acting
                if trail is not None:
                    trail.acts_as(user, constraint)
        return user

    def _judge(self, request: Request, user: User, attributes: Attributes, trail: Trail | None) -> None:
        """Raises Forbidden when the user may not."""
        verdict = self.authorizer.judge(user, attributes)
        if trail is not None:
            trail.decided(verdict)
        if verdict.error and not verdict.allowed:
            raise InternalError(f'Internal Server Error: "{request.target}": {verdict.error}')
        if not verdict.allowed:
            raise forbidden(user, attributes, verdict)

    async def _known(self, request: Request, attributes: Attributes, trail: Trail | None) -> User:
        """As `_who`, but a refusal counts only when it was decided on state no older than the request."""
        try:
            return self._who(request, attributes, trail)
        except (Unauthorized, Forbidden):
            if not await self._catches_up(request):
                raise
            if token := token_of(request):
                await self.authenticator.learn(token)
            return self._who(request, attributes, trail)

    async def _permit(self, request: Request, user: User, attributes: Attributes, trail: Trail | None) -> None:
        """As `_judge`, but a refusal counts only when it was decided on state no older than the request."""
        try:
            self._judge(request, user, attributes, trail)
        except Forbidden:
            if not await self._catches_up(request):
                raise
            self._judge(request, user, attributes, trail)

    async def _catches_up(self, request: Request) -> bool:
        """Whether what is refused is to be decided again, as far as possible on what is acknowledged by now."""
        if not token_of(request) and (request.user is None or isinstance(request.user, Stranger)):
            return False
        try:
            await self.cache.fresh()
        except (StoreError, Behind) as error:
            log.info("a refusal could not be checked on fresh state: %s", error)
        return True

    async def _answer(self, request: Request, query: Query, attributes: Attributes, trail: Trail | None) -> Response:
        limit_s = time_limit_s(query, attributes)
        if limit_s is None:
            return await self._answer_at_leisure(request, query, attributes, trail)
        try:
            async with asyncio.timeout(limit_s) as limit:
                return await self._answer_at_leisure(request, query, attributes, trail)
        except TimeoutError:
            if not limit.expired():
                raise
            raise out_of_time() from None

    async def _answer_at_leisure(
        self, request: Request, query: Query, attributes: Attributes, trail: Trail | None
    ) -> Response:
        if self.authorizer.asks:
            return await answered(lambda: self._answer_once(request, query, attributes, trail))
        return await self._answer_once(request, query, attributes, trail)

    async def _answer_once(
        self, request: Request, query: Query, attributes: Attributes, trail: Trail | None
    ) -> Response:
        counts = self.metrics
        try:
            user = await self._known(request, attributes, trail)
        except Unauthorized:
            counts.unknown += 1
            raise
        except Forbidden:
            counts.forbidden += 1
            raise
        # who floods with what is forbidden waits like everybody
        ticket = self._flows.enter(user, attributes, len(request.body))
        if ticket is not None and ticket.started is None:
            await self._flows.wait(ticket)
        try:
            call = _call(request, attributes, query, user, trail)
            try:
                try:
                    await self._permit(request, user, attributes, trail)
                except Forbidden:
                    counts.forbidden += 1
                    if is_spaced(request):
                        call.warn(_SPACED)
                    raise
                counts.allowed += 1
                response = await self._serve(call)
            except ApiError as error:
                response = failure(error)
        finally:
            self._flows.leave(ticket)
        if ticket is not None:
            response.headers = {**response.headers, **ticket.flow.headers}
        if warned := warningheaders.headers(call.warnings):
            response.headers = {**response.headers, "warning": "\n".join(warned)}
        return response

    async def _serve(self, call: Call) -> Response:
        attributes = call.attributes
        if attributes.path.startswith("//"):  # it is read as if there were one slash, and leads nowhere
            raise PageNotFound
        remote = None if self._aggregator.is_empty else self._aggregator.route(attributes)
        if remote is None:
            try:
                response = await (self._resources(call) if attributes.is_resource else self._documents(call))
                response.passed_on = attributes.subresource == "proxy"
                return response
            except NotFound:
                # its APIService may just have been written: looking for an unknown kind has waited until it is here
                if self._aggregator.is_empty or (remote := self._aggregator.route(attributes)) is None:
                    raise
        response = await remote.forward(call)
        response.passed_on = True
        return response

    def _is_known(self, attributes: Attributes) -> bool:
        """Whether there is what a request names."""
        kind = self.registry.kind(attributes.group, attributes.version, attributes.resource)
        return kind is not None and (not attributes.subresource or attributes.subresource in kind.subresources)

    async def transact(self, requests: Sequence[Request]) -> list[tuple[int, bytes]]:
        """Carries out several writes, all or none; returns status and object of each.

        Args:
            requests: each a POST, PUT, PATCH or DELETE of one object, all with the same credentials.

        Raises:
            ApiError: one is refused, and nothing is written.
        """
        trails: list[Trail] = []
        try:
            answers = await answered(lambda: self._transact(requests, trails))
        except (ApiError, StoreError, Behind) as caught:
            error = caught if isinstance(caught, ApiError) else _store_failure(caught)
            for trail in trails:
                trail.finish(failure(error))
            raise error from caught
        for trail, (status, body) in zip(trails, answers, strict=bool(trails)):
            trail.finish(Response(status, {}, body))
        return answers

    async def _transact(self, requests: Sequence[Request], trails: list[Trail]) -> list[tuple[int, bytes]]:
        if not 0 < len(requests) <= TRANSACTION_MAX:
            raise BadRequest(f"a transaction has between 1 and {TRANSACTION_MAX} writes")
        calls = []
        for at, request in enumerate(requests):
            path, _, text = request.target.partition("?")
            query = Query(text)
            attributes = read_attributes(request.method, path, query)
            if self._auditor is not None and at == len(trails):
                trails.append(self._auditor.begin(request, attributes))
            trail = trails[at] if trails else None
            user = await self._known(request, attributes, trail)
            await self._permit(request, user, attributes, trail)
            calls.append(_call(request, attributes, query, user, trail))
        ticket = self._flows.enter(calls[0].user, calls[0].attributes, sum(len(request.body) for request in requests))
        if ticket is not None and ticket.started is None:
            await self._flows.wait(ticket)
        try:
            return await self._resources.transact(calls)
        finally:
            self._flows.leave(ticket)


def _is_upload(method: str, target: str) -> bool:
    return method in proxying.BODIED and "proxy" in target and proxying.is_proxied(plain(target.partition("?")[0]))


def failure(error: ApiError) -> Response:
    """The answer that says what was refused."""
    if isinstance(error, PageNotFound):
        return Response(error.code, TEXT_HEADERS, b"404 page not found\n")
    if isinstance(error, Overloaded):
        headers = {"retry-after": str(error.retry_after_s), **error.flow.headers}
        return Response(error.code, {**TEXT_HEADERS, **headers}, f"{error.message}\n".encode())
    headers = {"content-type": "application/json", "cache-control": "no-cache, private"}
    if error.retry_after_s:
        headers["retry-after"] = str(error.retry_after_s)
    if error.code == 401:
        headers["www-authenticate"] = 'Bearer realm="kubernetes"'
    return Response(error.code, headers, orjson.dumps(error.to_status()))


def _store_failure(error: StoreError | Behind) -> ApiError:
    match error:
        case Behind():
            return too_large(error, _AGAIN_S)
        case TooLarge():
            return BadRequest(f"the object is too large to be stored: {error}")
        case InvalidRequest():
            return BadRequest(str(error))
        case Unsealable():
            return InternalError(f"Internal error occurred: {error}")
        case Unavailable():
            return ServerTimeout(f"the store did not answer in time: {error}", retry_after_s=1)
    return ServiceUnavailable(f"the store cannot serve this now: {error}", retry_after_s=1)


def _call(request: Request, attributes: Attributes, query: Query, user: User, trail: Trail | None) -> Call:
    if trail is None:
        return Call(request, attributes, query, user)
    return Call(request, attributes, query, user, annotations=trail.annotations, is_kept=trail.keeps_objects)


def _tls(config: ApiServerConfig) -> ssl.SSLContext | None:
    """The TLS context: our certificate, and the client's looked at where it shows one."""
    if not config.tls_cert:
        return None
    context = RenewedContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # as Go's servers: a client could keep the processor busy with it
    context.set_alpn_protocols(["http/1.1"])
    KeyPair(config.tls_cert, config.tls_key).load(context)
    if config.tls_files is not None:
        context.renewals = Renewals(config.tls_files)
    if config.client_ca or config.proxy_ca:
        admit_strangers(context, config.client_ca + b"\n" + config.proxy_ca)
    return context
