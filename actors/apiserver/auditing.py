"""Follows each request through its stages and hands an event of each to those who keep them.

What is written is decided by the policy of `cluster/auth/audit`; with no policy there is no Auditor, and no cost.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import parse_qs

import orjson

from steersman.actors.apiserver.auditlog import AuditLog, AuditWebhook
from steersman.actors.apiserver.config import AuditConfig
from steersman.actors.apiserver.series import Series
from steersman.actors.http.messages import Request, Response, Upgrade
from steersman.actors.ports import Now, User
from steersman.actors.webhook import Webhook
from steersman.cluster.api.decode import PROTOBUF, decode, media_type
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.protobuf.codec import ProtobufError
from steersman.cluster.api.protobuf.codec import decode as decode_protobuf
from steersman.cluster.api.syntax import parse_yaml
from steersman.cluster.auth import audit
from steersman.cluster.auth.attributes import Attributes, Verdict
from steersman.cluster.auth.audit import AuditPolicy, Decision, Level
from steersman.cluster.auth.reviews import user_info
from steersman.cluster.meta.errors import ApiError
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.times import format_micro_time

#: a client may choose the id of its request's events, up to so many characters
ID_CHARS_MAX = 64
_CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
#: verbs whose bodies are objects; below which others are what somebody else is sent
_WHOLE, _CONNECTIONS = ("create", "update"), ("attach", "exec", "portforward", "proxy")


class Sink(Protocol):
    """Keeps events: a file, a webhook."""

    def write(self, event: bytes) -> None:
        """Takes one event as JSON; never waits, never raises."""
        ...

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


class Auditor:
    """Makes events of requests; a Component, for its sinks.

    Args:
        new_id: an unpredictable id for each request.
    """

    def __init__(
        self,
        policy: AuditPolicy,
        sinks: Sequence[Sink],
        registry: Registry,
        now: Now,
        new_id: Callable[[], str],
        series: Series,
    ) -> None:
        self._series = series
        self._policy = policy
        self._registry = registry
        self.now = now
        self._sinks = sinks
        self._new_id = new_id

    async def start(self) -> None:
        for sink in self._sinks:
            await sink.start()

    async def stop(self) -> None:
        for sink in self._sinks:
            await sink.stop()

    def begin(self, request: Request, attributes: Attributes) -> Trail:
        """Returns what follows one request."""
        return Trail(self, request, attributes, request.headers.get("audit-id", "")[:ID_CHARS_MAX] or self._new_id())

    def decide(self, user: User | None, attributes: Attributes) -> Decision:
        """How much of a request is written down."""
        name, groups = (user.name, user.groups) if user is not None else ("", ())
        decision = self._policy.decide(name, groups, attributes)
        self._series.count("apiserver_audit_level_total", level=audit.LEVEL_NAMES[decision.level])
        return decision

    def read(self, attributes: Attributes, body: bytes, content_type: str) -> Obj | None:
        """The object that a request makes or puts, as its kind's defaults complete it; None when there is none.

        Source: k8s.io/apiserver/pkg/endpoints/handlers/{create,update}.go, where what was decoded is written down
        """
        kind = self._registry.kind(attributes.group, attributes.version, attributes.resource)
        if kind is None:
            return None
        kind = self._registry.body_kind(kind, attributes.subresource)
        obj, _ = decode(self._registry, kind, body, content_type, "Ignore")
        kind.defaults(obj)
        return obj

    def keep(self, event: Obj) -> None:
        self._series.count("apiserver_audit_event_total")
        data = orjson.dumps(event)
        for sink in self._sinks:
            sink.write(data)


def auditor_of(config: AuditConfig, registry: Registry, now: Now, series: Series) -> Auditor:
    """Returns the auditor of a configuration.

    Raises:
        InvalidPolicy, KubeconfigError: a file in it cannot be used.
    """
    sinks: list[Sink] = []
    if config.log is not None:
        sinks.append(AuditLog(config.log, config.rotation, partial(_lose, series, "log")))
    if config.webhook is not None:
        sinks.append(AuditWebhook(Webhook(config.webhook), partial(_lose, series, "webhook")))
    return Auditor(config.policy, sinks, registry, now, lambda: str(uuid.uuid4()), series)


def _lose(series: Series, plugin: str, count: int) -> None:
    series.count("apiserver_audit_error_total", count, plugin=plugin)


class Trail:
    """One request as it is audited."""

    __slots__ = (
        "_acts_as",
        "_attributes",
        "_auditor",
        "_constraint",
        "_decision",
        "_id",
        "_is_read",
        "_received",
        "_request",
        "_user",
        "annotations",
    )

    def __init__(self, auditor: Auditor, request: Request, attributes: Attributes, audit_id: str) -> None:
        self._auditor = auditor
        self._request = request
        self._attributes = attributes
        self._id = audit_id
        self._received = auditor.now()
        self._user: User | None = None
        self._acts_as: User | None = None
        self._constraint = ""
        #: whether the request was looked into: nobody does who has refused it
        self._is_read = False
        self._decision: Decision | None = None
        #: remarks for the events that follow
        self.annotations: dict[str, str] = {}

    def known(self, user: User) -> None:
        """Who asks is known: the policy decides, and the first stage is over."""
        if self._decision is None:
            self._user = user
            self._decision = self._auditor.decide(user, self._attributes)
            self._write(audit.RECEIVED, None, None)

    @property
    def keeps_objects(self) -> bool:
        """Whether the events hold the object of the request."""
        return self._decision is not None and self._decision.level >= Level.REQUEST

    def acts_as(self, user: User, constraint: str) -> None:
        """Args: constraint: of the impersonation; empty for none."""
        self._acts_as, self._constraint = user, constraint

    def decided(self, verdict: Verdict) -> None:
        self._is_read = verdict.allowed
        self.annotate("authorization.k8s.io/decision", "allow" if verdict.allowed else "forbid")
        self.annotate("authorization.k8s.io/reason", verdict.reason)

    def annotate(self, key: str, value: str) -> None:
        """Adds a remark to the events that follow."""
        self.annotations[key] = value

    def finish(self, response: Response) -> Response:
        """Writes what the answer ends, and returns it with the id of the events."""
        response.headers = {**response.headers, "audit-id": self._id}
        if self._decision is None:
            self._decision = self._auditor.decide(None, self._attributes)
            self._write(audit.STARTED, response.status, _failure(self._request))
            return response
        if self._decision.level is Level.NONE:
            return response
        body = response.body
        if isinstance(body, bytes):
            self._write(audit.COMPLETE, response.status, body)
        elif isinstance(body, Upgrade):
            self._write(audit.STARTED, response.status, None)
            response.body = replace(body, close=self._closing(body.close, response.status))
        else:
            self._write(audit.STARTED, response.status, None)
            response.body = self._following(body, response.status)
        return response

    async def _following(self, stream: AsyncIterator[bytes], status: int) -> AsyncIterator[bytes]:
        try:
            async for piece in stream:
                yield piece
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()
            self._write(audit.COMPLETE, status, None)

    def _closing(self, close: Callable[[], Awaitable[None]] | None, status: int) -> Callable[[], Awaitable[None]]:
        told = False

        async def both() -> None:
            nonlocal told
            if not told:
                told = True
                self._write(audit.COMPLETE, status, None)
            if close is not None:
                await close()

        return both

    # ---- events

    def _write(self, stage: str, status: int | None, answer: bytes | None) -> None:
        decision = self._decision
        if decision is None or decision.level is Level.NONE or stage in decision.omit_stages:
            return
        request, level = self._request, decision.level
        event: Obj = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": audit.LEVEL_NAMES[level],
            "auditID": self._id,
            "stage": stage,
            "requestURI": request.target,
            "verb": self._attributes.verb,
            "user": _user(self._user),
        }
        if self._acts_as is not None:
            event["impersonatedUser"] = _user(self._acts_as)
            if self._constraint:
                event["authenticationMetadata"] = {"impersonationConstraint": self._constraint}
        if request.peer:
            event["sourceIPs"] = _sources(request)
        if agent := request.headers.get("user-agent", ""):
            event["userAgent"] = agent
        begins = stage == audit.RECEIVED
        changes = request.method in _CHANGES
        wanted = self._is_read and not begins and changes and (level >= Level.REQUEST or self._unnamed())
        sent = self._sent() if wanted else None
        if self._attributes.is_resource:
            event["objectRef"] = audit.object_ref(self._attributes, sent)
        if status is not None:
            shown = _tree(answer) if answer and (status >= 400 or level is Level.REQUEST_RESPONSE) else None
            event["responseStatus"] = audit.response_status(status, shown)
            self._add_objects(event, decision, sent, shown)
        event["requestReceivedTimestamp"] = format_micro_time(self._received)
        event["stageTimestamp"] = format_micro_time(self._auditor.now())
        if self.annotations and not begins:
            event["annotations"] = self.annotations
        self._auditor.keep(event)

    def _add_objects(self, event: Obj, decision: Decision, sent: Any, shown: Any) -> None:
        strip = audit.without_managed_fields if decision.omit_managed_fields else lambda obj: obj
        if decision.level >= Level.REQUEST and sent is not None:
            event["requestObject"] = strip(sent) if isinstance(sent, dict) else sent
        if decision.level is Level.REQUEST_RESPONSE and isinstance(shown, dict):
            event["responseObject"] = strip(shown)

    def _unnamed(self) -> bool:
        return self._attributes.verb == "create" and not self._attributes.name

    def _sent(self) -> Any:
        """The object in the request's body; None where there is none that can be read."""
        body, attributes = self._request.body, self._attributes
        content_type = self._request.headers.get("content-type", "")
        media = media_type(content_type)
        if not body or attributes.subresource in _CONNECTIONS:
            return None
        try:
            if self.keeps_objects and attributes.is_resource and attributes.verb in _WHOLE:
                return self._auditor.read(attributes, body, content_type)
            if media == PROTOBUF:
                return decode_protobuf(body)
            return parse_yaml(body) if "yaml" in media else _tree(body)
        except (ApiError, ProtobufError):
            return None


def _user(user: User | None) -> Obj:
    return {} if user is None else user_info(user.name, user.groups, user.uid, user.extra)


def _failure(request: Request) -> bytes:
    """What is written of a request whose user is not known: by what it tried to say who asks."""
    header = request.headers.get("authorization", "").strip().lower()
    tried = [scheme for scheme in ("basic", "bearer") if header.startswith(f"{scheme} ")]
    if parse_qs(request.target.partition("?")[2]).get("access_token"):
        tried.append("access_token")
    if request.user is not None:
        tried.append("x509")
    how = f"attempted: {', '.join(tried)}" if tried else "no credentials provided"
    return orjson.dumps({"kind": "Status", "apiVersion": "v1", "message": f"Authentication failed, {how}"})


def _sources(request: Request) -> list[str]:
    """Where a request came from, the client that a proxy names first."""
    headers = request.headers
    found = [ip for part in headers.get("x-forwarded-for", "").split(",") if (ip := _address(part))]
    real = _address(headers.get("x-real-ip", ""))
    if real and real not in found:
        found.append(real)
    return found if found and found[-1] == request.peer else [*found, request.peer]


def _address(text: str) -> str:
    try:
        return str(ip_address(text.strip()))
    except ValueError:
        return ""


def _tree(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
