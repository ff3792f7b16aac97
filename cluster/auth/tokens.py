"""Bearer tokens: those of service accounts issued and checked, bound or kept in Secrets, and bootstrap tokens.

Whether the account, pod or secret a token is bound to still exists is asked of `lookup`; nothing is read from
anywhere else.

Source: RFC 7515, RFC 7518 section 3.4; https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
and https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/
"""

from __future__ import annotations

import base64
import hmac
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steersman.cluster.auth import jwt
from steersman.cluster.auth.bootstraptokens import NAMESPACE, PREFIX, TYPE, data_of, expires_at
from steersman.cluster.auth.jwt import InvalidToken, SigningKey, from_pem
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import NODES, PODS, SECRETS, SERVICE_ACCOUNTS, Resource
from steersman.cluster.meta.times import format_time, parse_time

#: the clock of another host may be so far ahead or behind
_SKEW_S = 60.0
#: how long a token lives of a program that may not read it anew, and the time that is asked for by which it is known
_EXTENDED_S = 365 * 86_400
EXTENDS_S = 3607
_BOOTSTRAP_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\Z")
_BOOTSTRAP = re.compile(r"^([a-z0-9]{6})\.([a-z0-9]{16})$")

#: who issues the tokens that are kept in Secrets, and the type of these
LEGACY_ISSUER = "kubernetes/serviceaccount"
LEGACY_TYPE = "kubernetes.io/service-account-token"
_LEGACY = "kubernetes.io/serviceaccount"
_INVALIDATED = "service account token has been invalidated"
#: labels of Secrets that hold tokens: the day of their last use, and from when on they are not good
LAST_USED, INVALID_SINCE = "kubernetes.io/legacy-token-last-used", "kubernetes.io/legacy-token-invalid-since"

#: finds an object by (resource, namespace, name)
Find = Callable[[Resource, str, str], Obj | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a verified credential stands for."""

    name: str
    groups: tuple[str, ...]
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


class TokenIssuer:
    """Signs service-account tokens with one P-256 key, and verifies those of this and of former keys.

    Args:
        key_pem: the private key.
        issuer: the `iss` claim.
        audience: of the API server itself; tokens without a wanted audience get it.
        former: PEM texts of further keys whose tokens are accepted; a key that is changed stays here for a while.

    Raises:
        ValueError: a key is none.
    """

    def __init__(self, key_pem: bytes, *, issuer: str, audience: str, former: Sequence[bytes] = ()) -> None:
        self._key = SigningKey(key_pem)
        self.issuer = issuer
        self.audience = audience
        self._keys = [self._key.public, *(from_pem(pem) for pem in former)]

    def jwks(self) -> Obj:
        """The public keys as `/openid/v1/jwks` shows them."""
        return {"keys": [key.to_jwk() for key in self._keys]}

    def algorithms(self) -> list[str]:
        return sorted({key.to_jwk()["alg"] for key in self._keys})

    def sign(self, claims: dict[str, Any]) -> str:
        """Returns the JWT of the claims; equal claims give the same token."""
        return self._key.sign(claims)

    def verify(self, token: str) -> Obj:
        """Returns the claims of a token with a valid signature of this issuer; times are not checked.

        Raises:
            InvalidToken: it is none.
        """
        found = jwt.read(token)
        if found.claims.get("iss") not in (self.issuer, LEGACY_ISSUER):
            raise InvalidToken("issued by somebody else")
        if not jwt.verified(found, self._keys):
            raise InvalidToken("the signature does not match")
        return found.claims


def service_account_claims(
    *,
    issuer: str,
    account: Obj,
    audiences: Sequence[str],
    now: float,
    expires_in_s: int,
    token_id: str,
    pod: Obj | None = None,
    secret: Obj | None = None,
    node: Obj | None = None,
    extends: bool = False,
) -> dict[str, Any]:
    """The claims of a token for a service account, bound to one of pod, secret and node, or to none.

    Args:
        node: that of the pod is named with it; without uid if it is gone.
        extends: whether it is as the pods get it whose programs may not read it anew: it lives for a year, and is told
            in the audit log from the end on that was asked for.
    """
    meta = account["metadata"]
    private: Obj = {
        "namespace": meta["namespace"],
        "serviceaccount": {"name": meta["name"], "uid": meta["uid"]},
    }
    for key, obj in (("pod", pod), ("secret", secret), ("node", node)):
        if obj is not None:
            meta_of = obj["metadata"]
            private[key] = {field: meta_of[field] for field in ("name", "uid") if field in meta_of}
    if extends:
        private["warnafter"] = int(now) + expires_in_s
    return {
        "aud": list(audiences),
        "exp": int(now) + (_EXTENDED_S if extends else expires_in_s),
        "iat": int(now),
        "iss": issuer,
        "jti": token_id,
        "kubernetes.io": private,
        "nbf": int(now),
        "sub": f"system:serviceaccount:{meta['namespace']}:{meta['name']}",
    }


def staleness(claims: Mapping[str, Any], now: float) -> str:
    """What the audit log is told of a token that should have been renewed; empty while it need not be."""
    after = (claims.get("kubernetes.io") or {}).get("warnafter")
    if not isinstance(after, int) or now <= after:
        return ""
    return f"subject: {claims.get('sub', '')}, seconds after warning threshold: {int(now) - after}"


class Invalidated(InvalidToken):
    """The token of a Secret has been given up because nobody used it; that somebody tries to is worth knowing."""


def legacy_claims(account: Obj, secret: str) -> dict[str, Any]:
    """The claims of a token that is kept in a Secret and has no end but that of the Secret."""
    meta = account["metadata"]
    return {
        "iss": LEGACY_ISSUER,
        f"{_LEGACY}/namespace": meta["namespace"],
        f"{_LEGACY}/secret.name": secret,
        f"{_LEGACY}/service-account.name": meta["name"],
        f"{_LEGACY}/service-account.uid": meta["uid"],
        "sub": f"system:serviceaccount:{meta['namespace']}:{meta['name']}",
    }


def check_legacy(claims: dict[str, Any], token: str, find: Find) -> Identity:
    """Returns who a verified token stands for that is kept in a Secret.

    Raises:
        InvalidToken: the Secret holds it no longer, or its account is gone. Invalidated: it is not to be used.
    """
    rows = ("namespace", "secret.name", "service-account.name", "service-account.uid")
    namespace, secret, name, uid = (str(claims.get(f"{_LEGACY}/{row}", "")) for row in rows)
    kept = find(SECRETS, namespace, secret)
    if kept is None or "deletionTimestamp" in kept["metadata"]:
        raise InvalidToken(_INVALIDATED)
    data = (kept.get("data") or {}).get("token", "")
    if not hmac.compare_digest(base64.b64encode(token.encode()).decode(), data):
        raise InvalidToken("service account token does not match server's copy")
    account = _must_exist(find, SERVICE_ACCOUNTS, namespace, name, uid)
    if "deletionTimestamp" in account["metadata"]:
        raise InvalidToken(f"service account {namespace}/{name} has been deleted")
    if (kept["metadata"].get("labels") or {}).get(INVALID_SINCE):
        raise Invalidated(
            f"the token in secret {namespace}/{secret} for service account {namespace}/{name} has been marked invalid."
            " Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the"
            f" '{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
        )
    return _account_identity(namespace, name, uid, ())


def legacy_remarks(claims: Mapping[str, Any], find: Find) -> dict[str, str]:
    """What the audit log is told of the token of a Secret that was let in."""
    rows = ("namespace", "secret.name", "service-account.name")
    namespace, secret, name = (str(claims.get(f"{_LEGACY}/{row}", "")) for row in rows)
    account = find(SERVICE_ACCOUNTS, namespace, name) or {}
    made = any(row.get("name") == secret for row in account.get("secrets") or ())
    sort = "autogenerated" if made else "manual"
    return {
        "authentication.k8s.io/legacy-token": str(claims.get("sub", "")),
        f"authentication.k8s.io/legacy-token-{sort}-secret": secret,
    }


def unmarked_use(claims: Mapping[str, Any], now: float, find: Find) -> tuple[str, str] | None:
    """Namespace and name of the Secret of a token that does not say yet that it has been used today."""
    namespace, secret = str(claims.get(f"{_LEGACY}/namespace", "")), str(claims.get(f"{_LEGACY}/secret.name", ""))
    kept = find(SECRETS, namespace, secret)
    if kept is None or (kept["metadata"].get("labels") or {}).get(LAST_USED, "") >= day_of(now):
        return None
    return namespace, secret


def day_of(now: float) -> str:
    return format_time(now)[:10]


def _account_identity(namespace: str, name: str, uid: str, extra: Sequence[tuple[str, tuple[str, ...]]]) -> Identity:
    return Identity(
        name=f"system:serviceaccount:{namespace}:{name}",
        groups=("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"),
        uid=uid,
        extra=tuple(extra),
    )


def check_service_account(claims: dict[str, Any], audiences: Sequence[str], now: float, find: Find) -> Identity:
    """Returns who a verified token stands for.

    Args:
        audiences: the token must be meant for one of them.

    Raises:
        InvalidToken: it is early, late, for somebody else, or what it is bound to is gone.
    """
    expires, not_before, issued = (claims.get(key, 0) for key in ("exp", "nbf", "iat"))
    if not all(isinstance(one, int | float) for one in (expires, not_before, issued)) or now - _SKEW_S > expires:
        raise InvalidToken("service account token has expired")
    if now + _SKEW_S < not_before:
        raise InvalidToken("service account token is not valid yet")
    if now + _SKEW_S < issued:
        raise InvalidToken("service account token is issued in the future")
    meant = [claims["aud"]] if isinstance(claims.get("aud"), str) else claims.get("aud") or []
    if not set(meant) & set(audiences):
        text = f"token audiences {_quoted(meant)} is invalid for the target audiences {_quoted(audiences)}"
        raise InvalidToken(text)
    private = claims.get("kubernetes.io") or {}
    bound = private.get("serviceaccount") or {}
    namespace, name, uid = private.get("namespace", ""), bound.get("name", ""), bound.get("uid", "")
    account = _must_exist(find, SERVICE_ACCOUNTS, namespace, name, uid)
    if _is_long_gone(account, now):
        raise InvalidToken(f"service account {namespace}/{name} has been deleted")
    extra = []
    if claims.get("jti"):
        extra.append(("authentication.kubernetes.io/credential-id", (f"JTI={claims['jti']}",)))
    for key, resource in (("secret", SECRETS), ("pod", PODS), ("node", NODES)):
        row = private.get(key)
        if not row:
            continue
        if key != "node" or "pod" not in private:
            place = namespace if resource.namespaced else ""
            found = _must_exist(find, resource, place, row.get("name", ""), row.get("uid", ""))
            if _is_long_gone(found, now):
                raise InvalidToken(_INVALIDATED)
        if key != "secret":
            extra += [
                (f"authentication.kubernetes.io/{key}-{field}", (row[field],))
                for field in ("name", "uid")
                if row.get(field)
            ]
    return _account_identity(namespace, name, uid, extra)


def _quoted(texts: Iterable[str]) -> str:
    return "[" + " ".join(json.dumps(text) for text in texts) + "]"


def _must_exist(find: Find, resource: Resource, namespace: str, name: str, uid: str) -> Obj:
    found = find(resource, namespace, name)
    if found is None:
        if resource is SERVICE_ACCOUNTS:
            raise InvalidToken(f'serviceaccounts "{name}" not found')
        raise InvalidToken(_INVALIDATED)
    now = found["metadata"].get("uid", "")
    if now != uid:
        if resource is SERVICE_ACCOUNTS:
            raise InvalidToken(f"service account UID ({now}) does not match claim ({uid})")
        kind = resource.kind.lower()
        by = "service account secret" if resource is SECRETS else f"service account {kind}"
        raise InvalidToken(f"{kind} UID ({now}) does not match {by} ref claim ({uid})")
    return found


def _is_long_gone(obj: Obj, now: float) -> bool:
    deleted = obj["metadata"].get("deletionTimestamp")
    return deleted is not None and now > parse_time(deleted) + _SKEW_S


def check_bootstrap(token: str, now: float, find: Find) -> Identity | None:
    """Returns who a bootstrap token stands for; None when it is not of that form.

    Raises:
        InvalidToken: it has the form, but is unknown, expired or not for authentication.
    """
    match = _BOOTSTRAP.match(token)
    if match is None:
        return None
    secret = find(SECRETS, NAMESPACE, PREFIX + match[1])
    if secret is None or secret.get("type") != TYPE or "deletionTimestamp" in secret["metadata"]:
        raise InvalidToken("unknown bootstrap token")
    data, expires = data_of(secret), expires_at(secret)
    if data.get("token-id") != match[1] or not hmac.compare_digest(
        data.get("token-secret", "").encode(), match[2].encode()
    ):
        raise InvalidToken("unknown bootstrap token")
    if (expires is not None and now >= expires) or data.get("usage-bootstrap-authentication") != "true":
        raise InvalidToken("the bootstrap token has expired or is not for authentication")
    extra = data["auth-extra-groups"].split(",") if data.get("auth-extra-groups") else []
    for group in extra:
        if not _BOOTSTRAP_GROUP.match(group):
            raise InvalidToken(f'invalid bootstrap group "{group}"')
    groups = ("system:bootstrappers", *sorted(extra), "system:authenticated")
    return Identity(name=f"system:bootstrap:{match[1]}", groups=tuple(dict.fromkeys(groups)))
