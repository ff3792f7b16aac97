"""Subresources that act on an object rather than show it: binding, eviction and the issue of tokens."""

from __future__ import annotations

import orjson

from steersman.actors.apiserver.access import Authorizer
from steersman.actors.apiserver.bodies import read_body
from steersman.actors.apiserver.call import Call
from steersman.actors.apiserver.forms import JSON_HEADERS
from steersman.actors.apiserver.reads import Reader
from steersman.actors.apiserver.writes import Writer
from steersman.actors.http.messages import Response
from steersman.actors.ports import Now
from steersman.cluster.api import write as pipeline
from steersman.cluster.api.admission.attempt import CREATE, Attempt
from steersman.cluster.api.binding import bind
from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind
from steersman.cluster.auth.tokens import EXTENDS_S, TokenIssuer, service_account_claims
from steersman.cluster.meta import errors
from steersman.cluster.meta.errors import ApiError, BadRequest, Cause, ServiceUnavailable
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import NODES, POD_DISRUPTION_BUDGETS, PODS, SECRETS, Resource
from steersman.cluster.meta.times import format_time

_CREATED = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
#: tokens live at least and at most so long, and an hour when nothing is asked for
_TOKEN_MIN_S, _TOKEN_MAX_S, _TOKEN_S = 600, 1 << 32, 3600


class Actions:
    """Answers `binding`, `eviction` and `token`."""

    def __init__(
        self,
        registry: Registry,
        reader: Reader,
        writer: Writer,
        authorizer: Authorizer,
        issuer: TokenIssuer | None,
        now: Now,
    ) -> None:
        self._registry = registry
        self._reader = reader
        self._writer = writer
        self._authorizer = authorizer
        self._issuer = issuer
        self._now = now

    async def _body(self, call: Call, api_version: str, kind: str) -> Obj:
        body_kind = self._registry.by_kind(api_version, kind)
        if body_kind is None:
            raise errors.NotFound("the server could not find the requested resource")
        call.check_options("CreateOptions")
        return await read_body(self._registry, call, body_kind, call.query.field_validation())

    # ---- binding

    async def bind(self, call: Call, _kind: Kind) -> Response:
        """Places a pod on a node; refuses when it is on one already."""
        binding = await self._body(call, "v1", "Binding")
        asked = (binding.get("metadata") or {}).get("name", "")
        name = (call.attributes.name if call.attributes.resource == PODS.plural else "") or asked
        if asked and asked != name:
            raise BadRequest(f"the name of the object ({asked}) does not match the name on the URL ({name})")
        context = self._context(call, call.query.dry_run())
        attempt = Attempt(
            operation=CREATE, kind=self._kind(PODS), subresource="binding", namespace=call.attributes.namespace,
            name=name, obj=binding, options=pipeline.options_of(context),
        )  # fmt: skip
        operation = self._writer.decided(attempt, context, lambda sent, pod: bind(pod, sent, context))
        await self._writer.run(operation, dry_run=call.query.dry_run())
        return Response(201, JSON_HEADERS, orjson.dumps(_CREATED))

    def _context(self, call: Call, dry_run: bool) -> WriteContext:
        return self._writer.context(call.user, call.field_manager(), dry_run=dry_run, call=call)

    def _kind(self, resource: Resource) -> Kind:
        found = self._registry.kind(resource.group, resource.version, resource.plural)
        if found is None:
            raise errors.NotFound("the server could not find the requested resource")
        return found

    async def evict(self, call: Call, kind: Kind) -> Response:
        """Deletes a pod if the disruption budget that covers it allows."""
        eviction = await self._body(call, "policy/v1", "Eviction")
        namespace, name = call.attributes.namespace, call.attributes.name
        dry_run = call.query.dry_run() or (eviction.get("deleteOptions") or {}).get("dryRun") == ["All"]
        context = self._context(call, dry_run)
        attempt = Attempt(
            operation=CREATE, kind=kind, subresource="eviction", namespace=namespace, name=name, obj=eviction,
            options=pipeline.options_of(context),
        )  # fmt: skip
        operation = self._writer.evict(attempt, self._kind(POD_DISRUPTION_BUDGETS), context)
        await self._writer.run(operation, dry_run=dry_run)
        return Response(201, JSON_HEADERS, orjson.dumps(_CREATED))

    # ---- tokens

    async def token(self, call: Call, kind: Kind) -> Response:
        """Issues a token for a service account."""
        if self._issuer is None:
            raise ServiceUnavailable("this server has no key to sign tokens with")
        request = await self._body(call, "authentication.k8s.io/v1", "TokenRequest")
        namespace, name = call.attributes.namespace, call.attributes.name
        context = self._context(call, call.query.dry_run())
        attempt = Attempt(
            operation=CREATE, kind=kind, subresource="token", namespace=namespace, name=name, obj=request,
            options=pipeline.options_of(context),
        )  # fmt: skip
        meta = request.get("metadata") or {}
        for field, wanted in (("name", name), ("namespace", namespace)):
            if meta.get(field, wanted) not in ("", wanted):
                text = f'Invalid value: "{meta[field]}": must match the service account {field} if specified'
                raise _invalid_request(name, f"metadata.{field}", text)
        await self._reader.fresh()
        account = self._writer.current(kind, namespace, name)[1]
        spec = request.get("spec") or {}
        seconds = spec.get("expirationSeconds", _TOKEN_S)
        if not _TOKEN_MIN_S <= seconds <= _TOKEN_MAX_S:
            limit = "less than 10 minutes" if seconds < _TOKEN_MIN_S else "larger than 2^32 seconds"
            text = f"Invalid value: {seconds}: may not specify a duration {limit}"
            raise _invalid_request("", "spec.expirationSeconds", text)
        request = await self._writer.admit(attempt, context) or request
        spec = request.get("spec") or {}
        pod, secret, node = self._bound(spec.get("boundObjectRef") or {}, namespace, name)
        audiences = spec.get("audiences") or [self._issuer.audience]
        now = self._now()
        claims = service_account_claims(
            issuer=self._issuer.issuer, account=account, audiences=audiences, now=now, expires_in_s=seconds,
            token_id=self._writer.new_uid(), pod=pod, secret=secret, node=node,
            extends=pod is not None and seconds == EXTENDS_S and audiences == [self._issuer.audience],
        )  # fmt: skip
        call.annotate("authentication.kubernetes.io/issued-credential-id", f"JTI={claims['jti']}")
        request["metadata"] = {"name": name, "namespace": namespace, "creationTimestamp": format_time(now)}
        request["spec"] = {**spec, "audiences": audiences, "expirationSeconds": seconds}
        request["status"] = {"token": self._issuer.sign(claims), "expirationTimestamp": format_time(now + seconds)}
        return Response(201, JSON_HEADERS, orjson.dumps(request))

    def _bound(self, bound: Obj, namespace: str, account: str) -> tuple[Obj | None, Obj | None, Obj | None]:
        """The pod (with its node), secret or node that a token is to be bound to."""
        if not bound:
            return None, None, None
        version, kind, name = bound.get("apiVersion", ""), bound.get("kind", ""), bound.get("name", "")
        resource = {"Pod": PODS, "Secret": SECRETS, "Node": NODES}.get(kind)
        group, slash, short = version.rpartition("/")
        if resource is None or slash:
            shown = f"{group}/{short}, Kind={kind}"
            raise BadRequest(f"cannot bind token to object of type {shown}")
        found = self._writer.lookup(resource, namespace if resource.namespaced else "", name)
        if found is None:
            raise errors.not_found(resource.plural, name)
        if resource is PODS and found["spec"].get("serviceAccountName", "default") != account:
            text = "to pod running with different serviceaccount name."
            raise BadRequest(f'cannot bind token for serviceaccount "{account}" {text}')
        if bound.get("uid", "") not in ("", found["metadata"].get("uid", "")):
            detail = (
                f"the UID in the bound object reference ({bound['uid']}) does not match the UID in record. "
                "The object might have been deleted and then recreated"
            )
            raise errors.conflict(kind, name, detail)
        if resource is not PODS:
            return (None, found, None) if resource is SECRETS else (None, None, found)
        node = found["spec"].get("nodeName", "")
        return found, None, (self._writer.lookup(NODES, "", node) or {"metadata": {"name": node}}) if node else None


def _invalid_request(name: str, field: str, text: str) -> ApiError:
    return errors.invalid("TokenRequest", name, [Cause(field, text)], "authentication.k8s.io")
