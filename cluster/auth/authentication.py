"""Who comes from elsewhere: tokens of other issuers (OpenID Connect), and what may be asked without saying who one is.

An `AuthenticationConfiguration` becomes values; the claims of a verified token become an identity. Refuses to know how
the issuers' keys are fetched, and how expressions are evaluated.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#using-authentication-configuration
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import yaml

from steersman.cluster.auth.identity import AUTHENTICATED, is_anonymous_path
from steersman.cluster.auth.jwt import InvalidToken
from steersman.cluster.auth.tokens import Identity
from steersman.cluster.meta.objects import Obj

_VERSIONS = ("apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1")
#: the clock of an issuer may be so far ahead
_NOT_BEFORE_SKEW_S = 300.0

#: evaluates an expression over the value of its one variable; raises ValueError where it fails
Expression = Callable[[Any], Any]
#: compiles an expression over a variable of this name; raises ValueError with what is wrong with it
Compile = Callable[[str, str], Expression]


class InvalidAuthentication(ValueError):
    """The text is no AuthenticationConfiguration; the message names every mistake with its field."""


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
    if not isinstance(expires, int | float) or now >= expires:
        raise InvalidToken("oidc: verify token: oidc: token is expired")
    if isinstance(begins, int | float) and begins > now + _NOT_BEFORE_SKEW_S:
        raise InvalidToken("oidc: verify token: oidc: current time before the nbf (not before) time")
    meant = claims.get("aud")
    if not issuer.audiences & set([meant] if isinstance(meant, str) else meant or ()):
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


# ---- the configuration


def read_authentication(text: str, compiled: Compile) -> Authentication:
    """Compiles an `AuthenticationConfiguration`.

    Raises:
        InvalidAuthentication
    """
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidAuthentication(f"not valid YAML: {error}") from None
    if not isinstance(tree, dict) or tree.get("kind") != "AuthenticationConfiguration":
        raise InvalidAuthentication("kind: must be AuthenticationConfiguration")
    if tree.get("apiVersion") not in _VERSIONS:
        raise InvalidAuthentication(f"apiVersion: must be one of {', '.join(_VERSIONS)}")
    reader = _Reader(compiled)
    issuers = [reader.issuer(row, f"jwt[{at}]") for at, row in enumerate(tree.get("jwt") or ())]
    urls = [issuer.url for issuer in issuers]
    for at, url in enumerate(urls):
        if url in urls[:at]:
            reader.mistakes.append(f"jwt[{at}].issuer.url: Duplicate value: {url!r}")
    anonymous = tree.get("anonymous")
    paths = [str(row.get("path", "")) for row in (anonymous or {}).get("conditions") or ()]
    if anonymous and paths and not anonymous.get("enabled"):
        reader.mistakes.append("anonymous.conditions: Invalid value: enabled should be set to true when it is given")
    if reader.mistakes:
        raise InvalidAuthentication("; ".join(reader.mistakes))
    everything = ["*"] if anonymous and anonymous.get("enabled") else []
    return Authentication(
        issuers=tuple(issuers), anonymous_paths=None if anonymous is None else frozenset(paths or everything)
    )


class _Reader:
    """Reads issuers and collects what is wrong with them."""

    def __init__(self, compiled: Compile) -> None:
        self._compiled = compiled
        self.mistakes: list[str] = []

    def issuer(self, row: Any, path: str) -> Issuer:
        row = row if isinstance(row, dict) else {}
        about, mappings = row.get("issuer") or {}, row.get("claimMappings") or {}
        url = self._url(about, f"{path}.issuer.url", required=True)
        audiences = [str(one) for one in about.get("audiences") or ()]
        if not audiences:
            self.mistakes.append(f"{path}.issuer.audiences: Required value: at least one audience is required")
        if len(audiences) > 1 and about.get("audienceMatchPolicy") != "MatchAny":
            text = "must be MatchAny when multiple audiences are specified"
            self.mistakes.append(f"{path}.issuer.audienceMatchPolicy: Invalid value: {text}")
        discovery = self._url(about, f"{path}.issuer.discoveryURL", required=False)
        where = f"{path}.claimMappings"
        username = self._mapped(mappings.get("username"), f"{where}.username", "claims")
        if not username.claim and username.expression is None:
            self.mistakes.append(f"{where}.username: Required value: claim or expression is required")
        return Issuer(
            url=url,
            discovery_url=discovery or f"{url.rstrip('/')}/.well-known/openid-configuration",
            ca=str(about.get("certificateAuthority") or ""),
            audiences=frozenset(audiences),
            username=username,
            groups=self._mapped(mappings.get("groups"), f"{where}.groups", "claims"),
            uid=self._mapped(mappings.get("uid"), f"{where}.uid", "claims"),
            extra=tuple(self._extra(mappings.get("extra"), f"{where}.extra")),
            claim_rules=self._rules(row.get("claimValidationRules"), f"{path}.claimValidationRules", "claims"),
            user_rules=self._rules(row.get("userValidationRules"), f"{path}.userValidationRules", "user"),
        )

    def _url(self, about: Mapping[str, Any], path: str, *, required: bool) -> str:
        url = str(about.get(path.rpartition(".")[2]) or "")
        if not url and required:
            self.mistakes.append(f"{path}: Required value: URL is required")
        elif url and (urlsplit(url).scheme != "https" or not urlsplit(url).hostname):
            self.mistakes.append(f"{path}: Invalid value: {url!r}: URL scheme must be https")
        return url

    def _expression(self, text: str, path: str, variable: str) -> Expression | None:
        if not text:
            return None
        try:
            return self._compiled(text, variable)
        except ValueError as error:
            self.mistakes.append(f"{path}: Invalid value: {text!r}: {error}")
            return None

    def _mapped(self, row: Any, path: str, variable: str) -> Mapped:
        row = row if isinstance(row, dict) else {}
        claim, expression = str(row.get("claim") or ""), str(row.get("expression") or "")
        if claim and expression:
            self.mistakes.append(f"{path}: Invalid value: claim and expression can't both be set")
        return Mapped(
            claim=claim,
            prefix=str(row.get("prefix") or ""),
            expression=self._expression(expression, f"{path}.expression", variable),
        )

    def _extra(self, rows: Any, path: str) -> Sequence[tuple[str, Expression]]:
        found = []
        for at, row in enumerate(rows or ()):
            key, text = str(row.get("key") or ""), str(row.get("valueExpression") or "")
            if not key or not text:
                self.mistakes.append(f"{path}[{at}]: Required value: key and valueExpression are required")
            elif (expression := self._expression(text, f"{path}[{at}].valueExpression", "claims")) is not None:
                found.append((key, expression))
        return found

    def _rules(self, rows: Any, path: str, variable: str) -> tuple[Rule, ...]:
        found = []
        for at, row in enumerate(rows or ()):
            claim, text = str(row.get("claim") or ""), str(row.get("expression") or "")
            if bool(claim) is bool(text):
                self.mistakes.append(f"{path}[{at}]: Required value: claim or expression is required")
            expression = self._expression(text, f"{path}[{at}].expression", variable)
            message = str(row.get("message") or "")
            value = str(row.get("requiredValue") or "")
            found.append(Rule(claim=claim, value=value, expression=expression, message=message))
        return tuple(found)
