"""Asks others whose token it is: fetches the keys of OpenID issuers, and calls a webhook that reviews tokens.

Both are remembered for a while, so that a request is answered from memory; what is not known is asked for once.

Source: OpenID Connect Discovery 1.0 and https://kubernetes.io/docs/reference/access-authn-authz/authentication/
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import orjson

from steersman.actors.http.client import HttpTransport
from steersman.actors.http.messages import Request
from steersman.actors.ports import Now, monotonic
from steersman.actors.webhook import ANSWER_BYTES_MAX, Webhook, whole
from steersman.cluster.auth import jwt
from steersman.cluster.auth.authentication import NO_OTHERS, Authentication, Issuer, identify
from steersman.cluster.auth.jwt import InvalidToken, Token, VerifyingKey
from steersman.cluster.auth.tokens import Identity
from steersman.cluster.meta.errors import ApiError
from steersman.cluster.meta.objects import Obj

log = logging.getLogger(__name__)

#: keys are fetched anew for a token that names an unknown one, but not more often
_REFRESH_S = 10.0
#: and in any case when they are so old
_AGE_MAX_S = 3600.0
_TIMEOUT_S = 10.0
#: how long what the webhook said of a token counts
_REVIEW_S, _REFUSAL_S = 120.0, 10.0
#: tokens remembered
_TOKENS_MAX = 4096


class Others:
    """Whose tokens of other issuers are.

    Args:
        webhook: answers TokenReviews; None for none.
    """

    def __init__(self, webhook: Webhook | None, now: Now) -> None:
        self.settings = NO_OTHERS
        self._issuers: dict[str, Issuer] = {}
        self._webhook = webhook
        self._now = now
        self._keys: dict[str, tuple[float, list[VerifyingKey]]] = {}
        self._claims: OrderedDict[str, tuple[Issuer, Obj]] = OrderedDict()
        #: hash of a token and the audiences asked for, to what the webhook said and until when it counts
        self._reviews: OrderedDict[bytes, tuple[float, Identity | None, tuple[str, ...]]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[None]] = {}

    def take(self, settings: Authentication) -> None:
        """From now on these issuers count; the keys of those that were known before stay known."""
        self.settings = settings
        self._issuers = {issuer.url: issuer for issuer in settings.issuers}
        self._keys = {url: keys for url, keys in self._keys.items() if url in self._issuers}
        self._claims.clear()

    def knows(self, token: Token | None) -> bool:
        """Whether a token may be somebody's here: of a configured issuer, or of whom the webhook knows."""
        return self._webhook is not None or (token is not None and token.claims.get("iss") in self._issuers)

    def verify(
        self, text: str, token: Token | None, api_audiences: Sequence[str], wanted: Sequence[str]
    ) -> tuple[Identity, tuple[str, ...]]:
        """Returns whose token it is by what is known now, and the audiences it is meant for.

        Args:
            wanted: audiences that it was asked about (see `ask`).

        Raises:
            InvalidToken: it is nobody's; or nobody has been asked yet (see `ask`).
        """
        issuer = self._issuers.get(str(token.claims.get("iss"))) if token is not None else None
        if token is not None and issuer is not None:
            if text not in self._claims:
                if not jwt.verified(token, self._keys.get(issuer.url, (0.0, []))[1]):
                    raise InvalidToken("oidc: verify token: failed to verify signature")
                _remember(self._claims, text, (issuer, token.claims))
            return identify(issuer, token.claims, self._now()), tuple(api_audiences)
        until, identity, audiences = self._reviews.get(_hash(text, wanted), (0.0, None, ()))
        if identity is None or monotonic() >= until:
            raise InvalidToken("unknown")
        return identity, audiences or tuple(api_audiences)

    async def ask(self, text: str, token: Token | None, audiences: Sequence[str]) -> None:
        """Finds out what `verify` has to know about a token, unless that was done a moment ago."""
        issuer = self._issuers.get(str(token.claims.get("iss"))) if token is not None else None
        if issuer is not None:
            fetched = self._keys.get(issuer.url, (float("-inf"), []))[0]
            if monotonic() - fetched >= _REFRESH_S:
                await self._once(issuer.url, self._fetch(issuer))
        elif self._webhook is not None:
            key = _hash(text, audiences)
            if monotonic() >= self._reviews.get(key, (0.0, None, ()))[0]:
                await self._once(key.hex(), self._review(self._webhook, text, key, audiences))

    async def renew(self) -> None:
        """Fetches the keys that are old; the task of a server for as long as it runs."""
        while True:
            for issuer in list(self._issuers.values()):
                if monotonic() - self._keys.get(issuer.url, (float("-inf"), []))[0] >= _AGE_MAX_S:
                    await self._once(issuer.url, self._fetch(issuer))
            await asyncio.sleep(_REFRESH_S)

    async def _once(self, key: str, work: Any) -> None:
        """Carries out what somebody may already be waiting for only once."""
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.ensure_future(work)
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        else:
            work.close()
        await asyncio.shield(task)

    async def _fetch(self, issuer: Issuer) -> None:
        former = self._keys.get(issuer.url, (0.0, []))[1]
        try:
            found = await _get(issuer.discovery_url, issuer.ca)
            if not isinstance(found, dict) or found.get("issuer") != issuer.url:
                raise ValueError("its discovery document is of another issuer")
            keys = jwt.from_jwks(await _get(str(found.get("jwks_uri")), issuer.ca))
            self._claims.clear()
        except (ApiError, ValueError, OSError) as error:
            log.warning("the keys of the issuer %s cannot be fetched: %s", issuer.url, error)
            keys = former
        self._keys[issuer.url] = (monotonic(), keys)

    async def _review(self, webhook: Webhook, text: str, key: bytes, audiences: Sequence[str]) -> None:
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "metadata": {"creationTimestamp": None},
            "spec": {"token": text, "audiences": list(audiences)},
        }
        try:
            status, body = await webhook.post(orjson.dumps(review))
            answer = orjson.loads(body).get("status") if status < 300 else None
            identity, found = _reviewed(answer)
        except (ApiError, ValueError, AttributeError, TypeError) as error:
            log.warning("the webhook that reviews tokens does not answer: %s", error)
            return
        until = monotonic() + (_REVIEW_S if identity is not None else _REFUSAL_S)
        _remember(self._reviews, key, (until, identity, found))


def _reviewed(status: Any) -> tuple[Identity | None, tuple[str, ...]]:
    if not isinstance(status, dict) or status.get("authenticated") is not True:
        return None, ()
    user = status.get("user") or {}
    extra = tuple((str(key), tuple(map(str, values))) for key, values in (user.get("extra") or {}).items())
    groups = tuple(map(str, user.get("groups") or ()))
    identity = Identity(
        name=str(user.get("username", "")),
        groups=(*dict.fromkeys(groups), "system:authenticated"),
        uid=str(user.get("uid", "")),
        extra=extra,
    )
    return (identity, tuple(status.get("audiences") or ())) if identity.name else (None, ())


def _remember(table: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    table[key] = value
    if len(table) > _TOKENS_MAX:
        table.popitem(last=False)


def _hash(text: str, audiences: Sequence[str]) -> bytes:
    return sha256(orjson.dumps((text, tuple(audiences)))).digest()


async def _get(url: str, ca: str) -> Any:
    """The JSON document at an address."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise ValueError(f"{url!r} is no https address")
    tls = ssl.create_default_context(cadata=ca or None)
    transport = HttpTransport(
        [f"https://{parts.netloc}"], tls=tls, connect_timeout_s=_TIMEOUT_S, response_timeout_s=_TIMEOUT_S,
        whole_bytes_max=ANSWER_BYTES_MAX,
    )  # fmt: skip
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        response = await transport(Request("GET", target, {"accept": "application/json"}))
        body = await whole(response)
    finally:
        await transport.close()
    if response.status != 200:
        raise ValueError(f"{url} answered {response.status}")
    return orjson.loads(body)
