"""Finds out who asks: the certificate of the connection, a bearer token, or nobody.

Nothing here decides; it finds credentials in a request and objects in the cache, and remembers verified signatures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steersman.actors.apiserver.cache import WatchCache
from steersman.actors.apiserver.issuers import Others
from steersman.actors.http.messages import Request
from steersman.actors.ports import STRANGER, Now, Stranger, User
from steersman.cluster.api.kinds import Registry
from steersman.cluster.auth import jwt, requestheader
from steersman.cluster.auth.identity import ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, from_certificate
from steersman.cluster.auth.jwt import InvalidToken, Token
from steersman.cluster.auth.requestheader import SOCKET_TOKEN
from steersman.cluster.auth.tokens import (
    LEGACY_ISSUER,
    Identity,
    Invalidated,
    TokenIssuer,
    check_bootstrap,
    check_legacy,
    check_service_account,
    legacy_remarks,
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
    """A server that has authenticated users by itself, and says in headers for whom it asks.

    Args:
        own: who it is where it says nothing.
    """

    own: User | None = None


def to_user(identity: Identity) -> User:
    return User(identity.name, identity.groups, identity.uid, dict(identity.extra))


def user_of_certificate(certificate: Mapping[str, Any]) -> User | None:
    """The user of a verified client certificate; None when it names nobody."""
    try:
        identity = from_certificate(certificate)
    except ValueError:
        return STRANGER
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
        user = _by_connection(request)
        if user is not None and not isinstance(user, Stranger):
            return user if AUTHENTICATED in user.groups else _admitted(user)
        try:
            if token := bearer(request):
                return to_user(self.verify(token)[0])
        except InvalidToken:
            raise Unauthorized from None
        if user is None and self._others.settings.takes_anonymous(path):
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
                    try:
                        identity = check_legacy(claims, text, self.find)
                    except Invalidated:
                        self._note_use(claims, now)
                        raise
                    self._note_use(claims, now)
                    return identity, _common(own, wanted)
                identity = check_service_account(claims, wanted, now, self.find)
                return identity, tuple(one for one in wanted if one in claims["aud"])
        identity, meant = self._others.verify(text, token, own, wanted)
        return identity, _common(meant, wanted)

    def _note_use(self, claims: Obj, now: float) -> None:
        if (used := unmarked_use(claims, now, self.find)) is not None:
            self.used(*used)

    def remarks(self, request: Request) -> dict[str, str]:
        """What the audit log is told of the token of a request that was let in."""
        claims = self._claims.get(token_of(request))
        if claims is None:
            return {}
        if claims.get("iss") == LEGACY_ISSUER:
            return legacy_remarks(claims, self.find)
        stale = staleness(claims, self._now())
        return {"authentication.k8s.io/stale-token": stale} if stale else {}

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


def _by_connection(request: Request) -> User | None:
    """Whom the client's certificate stands for, or the headers of the proxy whose certificate it is."""
    user = request.user
    if not isinstance(user, FrontProxy):
        return user
    fronted = requestheader.identity_of(request.headers)
    return to_user(fronted) if fronted is not None else user.own


def _admitted(user: User) -> User:
    """The user as one of all those who have been authenticated."""
    if user.name == ANONYMOUS.name or UNAUTHENTICATED in user.groups:
        return user
    return User(user.name, (*user.groups, AUTHENTICATED), user.uid, user.extra)


def bearer(request: Request) -> str:
    """The bearer token of a request; empty when there is none. Raises InvalidToken."""
    scheme, _, rest = request.headers.get("authorization", "").strip().partition(" ")
    token = rest.partition(" ")[0] if scheme.lower() == "bearer" else ""
    return token or _socket_token(request.headers)


def token_of(request: Request) -> str:
    """The bearer token that decides who asks; empty where a certificate does, or nobody."""
    user = _by_connection(request)
    if user is not None and not isinstance(user, Stranger):
        return ""
    try:
        return bearer(request)
    except InvalidToken:
        return ""


def is_spaced(request: Request) -> bool:
    """Whether a bearer token is no token because of one space too many before it."""
    scheme, _, rest = request.headers.get("authorization", "").strip().partition(" ")
    return scheme.lower() == "bearer" and rest.startswith(" ")


def _socket_token(headers: Mapping[str, str]) -> str:
    """The bearer token that a browser's WebSocket carries as a subprotocol, beside at least one other."""
    protocols = headers.get("sec-websocket-protocol", "")
    if SOCKET_TOKEN not in protocols or headers.get("upgrade", "").lower() != "websocket":
        return ""
    names = [name.strip() for name in protocols.split(",")]
    tokens = [name[len(SOCKET_TOKEN) :] for name in names if name.startswith(SOCKET_TOKEN)]
    try:
        if len(tokens) > 1:
            raise InvalidToken("multiple base64.bearer.authorization tokens specified")
        if tokens and len(names) == 1:
            raise InvalidToken("missing additional subprotocol")
        return jwt.decode(tokens[0]).decode() if tokens else ""
    except ValueError:
        raise InvalidToken("invalid base64.bearer.authorization token encoding") from None
