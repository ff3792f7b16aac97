"""Who comes from elsewhere: tokens of other issuers (OpenID Connect), and what may be asked without saying who one is.

The claims of a verified token become an identity. Refuses to know how the issuers' keys are fetched, and how
expressions are evaluated.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#using-authentication-configuration
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steersman.cluster.auth.identity import AUTHENTICATED, is_anonymous_path
from steersman.cluster.auth.jwt import InvalidToken
from steersman.cluster.auth.tokens import Identity
from steersman.cluster.meta.configfile import Expression
from steersman.cluster.meta.objects import Obj

#: the clock of an issuer may be so far ahead
_NOT_BEFORE_SKEW_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """Where a value comes from: a claim with a prefix, or an expression over the claims."""

    claim: str = ""
    prefix: str = ""
    expression: Expression | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What must be true: a claim with a value, or an expression."""

    claim: str = ""
    value: str = ""
    expression: Expression | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """An issuer whose tokens are accepted.

    Args:
        discovery_url: of its configuration document.
        ca: PEM of the authorities of its certificate; empty for those that everybody trusts.
    """

    url: str
    discovery_url: str
    ca: str
    audiences: frozenset[str]
    username: Mapped
    groups: Mapped
    uid: Mapped
    extra: tuple[tuple[str, Expression], ...]
    claim_rules: tuple[Rule, ...]
    user_rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Authentication:
    """Whose tokens count, and what may be asked by nobody in particular.

    Args:
        anonymous_paths: that anybody may ask; with `*` in it everything that RBAC allows them. None for health and
            version alone.
    """

    issuers: tuple[Issuer, ...] = ()
    anonymous_paths: frozenset[str] | None = None

    def takes_anonymous(self, path: str) -> bool:
        """Whether a request without credentials is let in as `system:anonymous`."""
        if self.anonymous_paths is None:
            return is_anonymous_path(path)
        return "*" in self.anonymous_paths or path in self.anonymous_paths


#: only tokens of this cluster
NO_OTHERS = Authentication()


def identify(issuer: Issuer, claims: Obj, now: float) -> Identity:
    """Returns whom a token with a good signature stands for.

    Raises:
        InvalidToken: it has expired, is for somebody else, or breaks a rule.
    """
    expires, begins = claims.get("exp"), claims.get("nbf", 0)
    if not isinstance(expires, int | float) or not now < expires:  # which a number that is none would be, too
        raise InvalidToken("oidc: verify token: oidc: token is expired")
    if isinstance(begins, int | float) and begins > now + _NOT_BEFORE_SKEW_S:
        raise InvalidToken("oidc: verify token: oidc: current time before the nbf (not before) time")
    meant = claims.get("aud")
    rows = meant if isinstance(meant, list) else [meant]
    if not any(isinstance(one, str) and one in issuer.audiences for one in rows):
        wanted = ", ".join(sorted(issuer.audiences))
        raise InvalidToken(f"oidc: verify token: oidc: expected audience in [{wanted}] got {meant!r}")
    for rule in issuer.claim_rules:
        _check_claim(rule, claims)
    groups = _groups(issuer.groups, claims)
    identity = Identity(
        name=_username(issuer.username, claims),
        groups=(*dict.fromkeys(groups), AUTHENTICATED),
        uid=_text(issuer.uid, claims, "uid") if issuer.uid.claim or issuer.uid.expression else "",
        extra=tuple((key, _values(expression, claims)) for key, expression in issuer.extra),
    )
    user = {
        "username": identity.name, "uid": identity.uid, "groups": list(groups),
        "extra": {key: list(values) for key, values in identity.extra},
    }  # fmt: skip
    for rule in issuer.user_rules:
        if rule.expression is not None and _evaluated(rule.expression, user) is not True:
            raise InvalidToken(f"oidc: error evaluating user info validation rule: {rule.message or 'it is not true'}")
    return identity


def _evaluated(expression: Expression, value: Any) -> Any:
    try:
        return expression(value)
    except ValueError as error:
        raise InvalidToken(f"oidc: error evaluating expression: {error}") from None


def _check_claim(rule: Rule, claims: Obj) -> None:
    if rule.expression is not None:
        if _evaluated(rule.expression, claims) is not True:
            raise InvalidToken(
                f"oidc: error evaluating claim validation expression: {rule.message or 'it is not true'}"
            )
    elif rule.claim not in claims:
        raise InvalidToken(f"oidc: required claim {rule.claim} not present in ID token")
    elif claims[rule.claim] != rule.value:
        raise InvalidToken(f"oidc: required claim {rule.claim} value does not match. Got = {claims[rule.claim]}")


def _text(source: Mapped, claims: Obj, what: str) -> str:
    value = _evaluated(source.expression, claims) if source.expression else claims.get(source.claim)
    if not isinstance(value, str) or not value:
        raise InvalidToken(f"oidc: error evaluating {what} claim: it is not present or no string")
    return source.prefix + value


def _username(source: Mapped, claims: Obj) -> str:
    if source.claim == "email" and claims.get("email_verified", True) is not True:
        raise InvalidToken("oidc: email not verified")
    return _text(source, claims, "username")


def _groups(source: Mapped, claims: Obj) -> list[str]:
    if source.expression is not None:
        value = _evaluated(source.expression, claims)
    elif source.claim:
        value = claims.get(source.claim)
    else:
        return []
    rows = [value] if isinstance(value, str) else value or []
    if not isinstance(rows, list | tuple) or not all(isinstance(row, str) for row in rows):
        raise InvalidToken("oidc: error evaluating groups claim: it is no string and no list of strings")
    return [source.prefix + row for row in rows if row]


def _values(expression: Expression, claims: Obj) -> tuple[str, ...]:
    value = _evaluated(expression, claims)
    rows = [value] if isinstance(value, str) else value or []
    if not isinstance(rows, list | tuple) or not all(isinstance(row, str) for row in rows):
        raise InvalidToken("oidc: error evaluating extra: it is no string and no list of strings")
    return tuple(row for row in rows if row)
