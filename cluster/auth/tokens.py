"""Bearer tokens: service-account JWTs (ES256) issued and checked, and bootstrap tokens kept as Secrets.

Whether the account, pod or secret a token is bound to still exists is asked of `lookup`; nothing is read from
anywhere else.

Source: RFC 7515, RFC 7518 section 3.4; https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
and https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import NODES, PODS, SECRETS, SERVICE_ACCOUNTS, Resource
from steersman.cluster.meta.times import parse_time

#: the clock of another host may be so far ahead
_SKEW_S = 60.0
_TOKEN_BYTES_MAX = 16 * 1024
_BOOTSTRAP = re.compile(r"^([a-z0-9]{6})\.([a-z0-9]{16})$")

#: finds an object by (resource, namespace, name)
Find = Callable[[Resource, str, str], Obj | None]


class InvalidToken(ValueError):
    """The token is not to be trusted; the message says why and holds nothing secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a verified credential stands for."""

    name: str
    groups: tuple[str, ...]
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class TokenIssuer:
    """Signs and verifies service-account tokens with one P-256 key.

    Args:
        key_pem: the private key.
        issuer: the `iss` claim.
        audience: of the API server itself; tokens without a wanted audience get it.
    """

    def __init__(self, key_pem: bytes, *, issuer: str, audience: str) -> None:
        key = serialization.load_pem_private_key(key_pem, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the service-account key must be an EC P-256 private key")
        self._key = key
        self._public = key.public_key()
        self.issuer = issuer
        self.audience = audience
        numbers = self._public.public_numbers()
        self._point = (numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big"))
        digest = hashes.Hash(hashes.SHA256())
        digest.update(b"".join(self._point))
        self.key_id = _b64(digest.finalize())

    def jwks(self) -> Obj:
        """The public key as `/openid/v1/jwks` shows it."""
        x, y = self._point
        row = {
            "use": "sig",
            "kty": "EC",
            "kid": self.key_id,
            "crv": "P-256",
            "alg": "ES256",
            "x": _b64(x),
            "y": _b64(y),
        }
        return {"keys": [row]}

    def sign(self, claims: dict[str, Any]) -> str:
        """Returns the JWT of the claims; equal claims give the same token."""
        header = _b64(json.dumps({"alg": "ES256", "kid": self.key_id}, separators=(",", ":")).encode())
        text = f"{header}.{_b64(json.dumps(claims, separators=(',', ':')).encode())}"
        der = self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        r, s = decode_dss_signature(der)
        return f"{text}.{_b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def verify(self, token: str) -> dict[str, Any]:
        """Returns the claims of a token with a valid signature of this issuer; times are not checked.

        Raises:
            InvalidToken: it is none.
        """
        parts = token.split(".")
        if len(parts) != 3 or len(token) > _TOKEN_BYTES_MAX:
            raise InvalidToken("not a JSON web token")
        try:
            header, claims, signature = json.loads(_unb64(parts[0])), json.loads(_unb64(parts[1])), _unb64(parts[2])
        except (binascii.Error, ValueError, RecursionError):
            raise InvalidToken("not a JSON web token") from None
        if not isinstance(header, dict) or header.get("alg") != "ES256" or len(signature) != 64:
            raise InvalidToken("signed with another algorithm")
        if not isinstance(claims, dict) or claims.get("iss") != self.issuer:
            raise InvalidToken("issued by somebody else")
        der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        try:
            self._public.verify(der, f"{parts[0]}.{parts[1]}".encode(), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise InvalidToken("the signature does not match") from None
        return claims


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
) -> dict[str, Any]:
    """The claims of a token for a service account, bound to one of pod, secret and node, or to none."""
    meta = account["metadata"]
    private: Obj = {
        "namespace": meta["namespace"],
        "serviceaccount": {"name": meta["name"], "uid": meta["uid"]},
    }
    for key, obj in (("pod", pod), ("secret", secret), ("node", node)):
        if obj is not None:
            private[key] = {"name": obj["metadata"]["name"], "uid": obj["metadata"]["uid"]}
    return {
        "aud": list(audiences),
        "exp": int(now) + expires_in_s,
        "iat": int(now),
        "iss": issuer,
        "jti": token_id,
        "kubernetes.io": private,
        "nbf": int(now),
        "sub": f"system:serviceaccount:{meta['namespace']}:{meta['name']}",
    }


def check_service_account(claims: dict[str, Any], audiences: Sequence[str], now: float, find: Find) -> Identity:
    """Returns who a verified token stands for.

    Args:
        audiences: the token must be meant for one of them.

    Raises:
        InvalidToken: it is early, late, for somebody else, or what it is bound to is gone.
    """
    expires, not_before = claims.get("exp", 0), claims.get("nbf", 0)
    if not isinstance(expires, int | float) or not isinstance(not_before, int | float) or now >= expires:
        raise InvalidToken("service account token has expired")
    if not_before > now + _SKEW_S:
        raise InvalidToken("service account token is not valid yet")
    if not set(claims.get("aud") or ()) & set(audiences):
        raise InvalidToken("token audiences are not the server's")
    private = claims.get("kubernetes.io") or {}
    bound = private.get("serviceaccount") or {}
    namespace, name, uid = private.get("namespace", ""), bound.get("name", ""), bound.get("uid", "")
    _must_exist(find, SERVICE_ACCOUNTS, namespace, name, uid)
    extra = [("authentication.kubernetes.io/credential-id", (f"JTI={claims.get('jti', '')}",))]
    for key, resource in (("pod", PODS), ("secret", SECRETS), ("node", NODES)):
        row = private.get(key)
        if not row:
            continue
        if key != "node" or "pod" not in private:
            found = _must_exist(
                find, resource, namespace if resource.namespaced else "", row.get("name", ""), row["uid"]
            )
            if key == "pod" and "deletionTimestamp" in found["metadata"]:
                _must_not_be_long_gone(found, now)
        if key != "secret":
            extra.append((f"authentication.kubernetes.io/{key}-name", (row.get("name", ""),)))
            extra.append((f"authentication.kubernetes.io/{key}-uid", (row["uid"],)))
    return Identity(
        name=f"system:serviceaccount:{namespace}:{name}",
        groups=("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"),
        uid=uid,
        extra=tuple(extra),
    )


def _must_exist(find: Find, resource: Resource, namespace: str, name: str, uid: str) -> Obj:
    found = find(resource, namespace, name)
    if found is None or found["metadata"].get("uid") != uid:
        raise InvalidToken(f"{resource.kind} {name} has been deleted")
    return found


def _must_not_be_long_gone(obj: Obj, now: float) -> None:
    if now > parse_time(obj["metadata"]["deletionTimestamp"]) + _SKEW_S:
        raise InvalidToken(f"{obj['metadata']['name']} has been deleted")


def check_bootstrap(token: str, now: float, find: Find) -> Identity | None:
    """Returns who a bootstrap token stands for; None when it is not of that form.

    Raises:
        InvalidToken: it has the form, but is unknown, expired or not for authentication.
    """
    match = _BOOTSTRAP.match(token)
    if match is None:
        return None
    secret = find(SECRETS, "kube-system", f"bootstrap-token-{match[1]}")
    if (
        secret is None
        or secret.get("type") != "bootstrap.kubernetes.io/token"
        or "deletionTimestamp" in secret["metadata"]
    ):
        raise InvalidToken("unknown bootstrap token")
    data = {key: base64.b64decode(value).decode(errors="replace") for key, value in (secret.get("data") or {}).items()}
    if data.get("token-id") != match[1] or not hmac.compare_digest(data.get("token-secret", ""), match[2]):
        raise InvalidToken("unknown bootstrap token")
    try:
        expired = bool(data.get("expiration")) and now >= parse_time(data["expiration"])
    except ValueError:
        expired = True
    if expired or data.get("usage-bootstrap-authentication") != "true":
        raise InvalidToken("the bootstrap token has expired or is not for authentication")
    extra = [
        group for group in data.get("auth-extra-groups", "").split(",") if group.startswith("system:bootstrappers:")
    ]
    return Identity(
        name=f"system:bootstrap:{match[1]}", groups=("system:bootstrappers", *extra, "system:authenticated")
    )
