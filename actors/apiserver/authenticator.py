"""Finds out who asks: the certificate of the connection, a bearer token, or nobody.

Nothing here decides; it finds credentials in a request and objects in the cache, and remembers verified signatures.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steersman.actors.apiserver.cache import WatchCache
from steersman.actors.apiserver.issuers import Others
from steersman.actors.http.messages import Request
from steersman.actors.ports import Now, User
from steersman.cluster.api.kinds import Registry
from steersman.cluster.auth import jwt, requestheader
from steersman.cluster.auth.identity import ANONYMOUS, AUTHENTICATED, from_certificate
from steersman.cluster.auth.jwt import InvalidToken, Token
from steersman.cluster.auth.tokens import (
    LEGACY_ISSUER,
    Identity,
    TokenIssuer,
    check_bootstrap,
    check_legacy,
    check_service_account,
    staleness,
    unmarked_use,
)
from steersman.cluster.meta.errors import Unauthorized
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import Resource

#: acts for the server itself
SERVER = User("system:apiserver", ("system:masters", AUTHENTICATED))
#: verified tokens remembered, so that a signature is checked once
_TOKENS_MAX = 4096


@dataclass(frozen=True, slots=True)
class FrontProxy(User):
    """A server that has authenticated users by itself, and says in headers for whom it asks."""


def to_user(identity: Identity) -> User:
    return User(identity.name, identity.groups, identity.uid, dict(identity.extra))


def user_of_certificate(certificate: Mapping[str, Any]) -> User | None:
    """The user of a verified client certificate."""
    identity = from_certificate(certificate)
    return None if identity is None else to_user(identity)


def _ignore(_namespace: str, _name: str) -> None:
    return None


class Authenticator:
    """Finds out who asks."""

    def __init__(
        self, cache: WatchCache, registry: Registry, issuer: TokenIssuer | None, others: Others, now: Now
    ) -> None:
        self._cache = cache
        self._registry = registry
        self._issuer = issuer
        self._others = others
        self._now = now
        self._claims: dict[str, Obj] = {}
        #: is told of each Secret whose token was used for the first time today
        self.used: Callable[[str, str], None] = _ignore

    def find(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        kind = self._registry.kind(resource.group, resource.version, resource.plural)
        if kind is None:
            return None
        entry = self._cache.shelf(kind.prefix()).get(f"{namespace}/{name}" if resource.namespaced else name)
        return None if entry is None else entry.obj

    def authenticate(self, request: Request, path: str) -> User:
        """Returns the user of a request; raises Unauthorized."""
        user = request.user
        if isinstance(user, FrontProxy):
            fronted = requestheader.identity_of(request.headers)
            if fronted is not None:
                return to_user(fronted)
            user = None
        if user is not None:
            return (
                user
                if AUTHENTICATED in user.groups
                else User(user.name, (*user.groups, AUTHENTICATED), user.uid, user.extra)
            )
        if token := bearer(request):
            try:
                return to_user(self.verify(token)[0])
            except InvalidToken:
                raise Unauthorized from None
        if self._others.settings.takes_anonymous(path):
            return to_user(ANONYMOUS)
        raise Unauthorized

    def verify(self, text: str, audiences: Sequence[str] = ()) -> tuple[Identity, tuple[str, ...]]:
        """Returns who a bearer token stands for, and which of the audiences it is meant for.

        Args:
            audiences: wanted ones; none for the server's own.

        Raises:
            InvalidToken
        """
        now, own = self._now(), self._own_audiences()
        wanted = tuple(audiences) or own
        identity = check_bootstrap(text, now, self.find)
        if identity is not None:
            return identity, _common(own, wanted)
        token = _read(text)
        if self._issuer is not None and token is not None:
            issued_by = token.claims.get("iss")
            if issued_by in (self._issuer.issuer, LEGACY_ISSUER):
                claims = self._verified(self._issuer, text)
                if issued_by == LEGACY_ISSUER:
                    identity = check_legacy(claims, text, self.find)
                    if (used := unmarked_use(claims, now, self.find)) is not None:
                        self.used(*used)
                    return identity, _common(own, wanted)
                identity = check_service_account(claims, wanted, now, self.find)
                return identity, tuple(one for one in wanted if one in claims["aud"])
        identity, meant = self._others.verify(text, token, own)
        return identity, _common(meant, wanted)

    def staleness(self, request: Request) -> str:
        """What is to be said of the token of a request that was let in: that it should have been renewed."""
        claims = self._claims.get(bearer(request))
        return staleness(claims, self._now()) if claims is not None else ""

    def _own_audiences(self) -> tuple[str, ...]:
        return (self._issuer.audience,) if self._issuer is not None else ()

    def _verified(self, issuer: TokenIssuer, text: str) -> Obj:
        claims = self._claims.get(text)
        if claims is None:
            claims = issuer.verify(text)
            if len(self._claims) >= _TOKENS_MAX:
                self._claims.clear()
            self._claims[text] = claims
        return claims

    async def learn(self, text: str, audiences: Sequence[str] = ()) -> None:
        """Asks those elsewhere who may know a token, so that `verify` knows as much as they do."""
        token = _read(text)
        if self._others.knows(token):
            await self._others.ask(text, token, audiences or self._own_audiences())


def _read(text: str) -> Token | None:
    try:
        return jwt.read(text)
    except InvalidToken:
        return None


def _common(meant: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """The wanted audiences that a token is meant for; raises InvalidToken when there are none."""
    found = tuple(one for one in wanted if one in meant)
    if not found and wanted:
        raise InvalidToken("token audiences are not the wanted ones")
    return found


def bearer(request: Request) -> str:
    """The bearer token of a request; empty when there is none."""
    header = request.headers.get("authorization", "")
    token = header[7:].strip() if header[:7].lower() == "bearer " else ""
    return token or _socket_token(request.headers.get("sec-websocket-protocol", ""))


def _socket_token(protocols: str) -> str:
    """The bearer token that a browser's WebSocket carries as a subprotocol."""
    prefix = "base64url.bearer.authorization.k8s.io."
    for name in protocols.split(","):
        if name.strip().startswith(prefix):
            text = name.strip()[len(prefix) :]
            try:
                return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
            except (binascii.Error, ValueError):
                return ""
    return ""
