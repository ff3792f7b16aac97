"""Answers the review kinds: who am I, may I, may they, what may I, is this token good."""

from __future__ import annotations

import orjson

from steersman.actors.apiserver.access import Authorizer
from steersman.actors.apiserver.authenticator import Authenticator
from steersman.actors.apiserver.bodies import read_body
from steersman.actors.apiserver.call import Call
from steersman.actors.apiserver.forms import JSON_HEADERS
from steersman.actors.http.messages import Response
from steersman.actors.ports import User
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.negotiation import negotiate
from steersman.cluster.api.row import Kind
from steersman.cluster.auth import reviews
from steersman.cluster.auth.jwt import InvalidToken
from steersman.cluster.meta import errors
from steersman.cluster.meta.objects import Obj


class Reviews:
    """Answers a POST of a review."""

    def __init__(self, registry: Registry, authenticator: Authenticator, authorizer: Authorizer) -> None:
        self._registry = registry
        self._authenticator = authenticator
        self._authorizer = authorizer

    async def __call__(self, call: Call, kind: Kind) -> Response:
        negotiate(call.header.get("accept", ""), tabular=False)
        call.check_options("CreateOptions")
        obj = await read_body(self._registry, call, kind, call.query.field_validation())
        obj.setdefault("metadata", {})
        spec = obj.get("spec") or {}
        match kind.resource.kind:
            case "SelfSubjectReview":
                user = call.user
                obj["status"] = {"userInfo": reviews.user_info(user.name, user.groups, user.uid, user.extra)}
            case "TokenReview":
                obj["status"] = await self._token(spec)
            case "SelfSubjectRulesReview":
                obj["status"] = self._rules(call.user, spec)
            case _:
                obj["status"] = self._access(call, kind, obj)
        return Response(201, JSON_HEADERS, orjson.dumps(obj))

    def _access(self, call: Call, kind: Kind, obj: Obj) -> Obj:
        spec, of_self, local = obj.get("spec") or {}, kind.resource.kind == "SelfSubjectAccessReview", False
        namespace = obj["metadata"].get("namespace", "")
        if kind.resource.namespaced:
            local = True
            namespace = namespace or call.attributes.namespace
        causes = reviews.access_causes(spec, obj["metadata"], of_self=of_self, local=local, namespace=namespace)
        if causes:
            raise errors.invalid(kind.resource.kind, "", causes, kind.resource.group)
        if local and namespace != call.attributes.namespace:
            text = f"spec.resourceAttributes.namespace must match namespace: {call.attributes.namespace}"
            raise errors.BadRequest(text)
        extra = {key: tuple(values) for key, values in (spec.get("extra") or {}).items()}
        other = User(spec.get("user", ""), tuple(spec.get("groups") or ()), spec.get("uid", ""), extra)
        verdict = self._authorizer.judge(call.user if of_self else other, reviews.asked(spec))
        return reviews.access_status(spec, verdict)

    def _rules(self, user: User, spec: Obj) -> Obj:
        namespace = spec.get("namespace", "")
        if not namespace:
            raise errors.BadRequest("no namespace on request")
        return reviews.rules_status(*self._authorizer.rules(user, namespace))

    async def _token(self, spec: Obj) -> Obj:
        token, audiences = spec.get("token", ""), spec.get("audiences") or []
        if not token:
            raise errors.BadRequest("token is required for TokenReview in authentication")
        try:
            identity, meant = self._authenticator.verify(token, audiences)
        except InvalidToken:
            await self._authenticator.learn(token, audiences)
            try:
                identity, meant = self._authenticator.verify(token, audiences)
            except InvalidToken as error:
                return reviews.token_status(None, (), f"[invalid bearer token, {error}]")
        return reviews.token_status(identity, meant)
