"""Reads an `AuthenticationConfiguration`: strictly, and with every mistake told in Kubernetes' words.

Source: k8s.io/apiserver/pkg/apis/apiserver/validation/validation.go
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509

from steersman.cluster.auth.authentication import Authentication, Issuer, Mapped, Rule
from steersman.cluster.meta.configfile import Compile, Expression, Mistakes, read_tree
from steersman.cluster.meta.names import subdomain_errors

_VERSIONS = ("v1", "v1beta1")
_ISSUERS_MAX = 64
_ISSUER_FIELDS = ("issuer", "claimValidationRules", "claimMappings", "userValidationRules")
_ABOUT_FIELDS = (
    "url", "discoveryURL", "certificateAuthority", "audiences", "audienceMatchPolicy", "egressSelectorType",
)  # fmt: skip
_UNVERIFIED = (
    "claims.email_verified must be used in claimMappings.username.expression or"
    " claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in"
    " claimMappings.username.expression"
)


class InvalidAuthentication(ValueError):
    """The text is no AuthenticationConfiguration; the message names every mistake with its field."""


def read_authentication(text: str, compiled: Compile, own_issuers: Iterable[str] = ()) -> Authentication:
    """Compiles an `AuthenticationConfiguration`.

    Args:
        own_issuers: URLs that the cluster's own tokens name, and nobody else's may.

    Raises:
        InvalidAuthentication
    """
    try:
        tree = read_tree(text, "AuthenticationConfiguration", _VERSIONS)
    except ValueError as error:
        raise InvalidAuthentication(str(error)) from None
    mistakes = Mistakes()
    mistakes.unknown(tree, ("apiVersion", "kind", "jwt", "anonymous"), "")
    rows = mistakes.rows(tree.get("jwt"), "jwt")
    if len(rows) > _ISSUERS_MAX:
        mistakes.too_many("jwt", len(rows), _ISSUERS_MAX)
        rows = []
    reader = _Reader(compiled, mistakes, sorted(own_issuers))
    issuers = [reader.issuer(row, f"jwt[{at}]") for at, row in enumerate(rows)]
    for field in ("url", "discoveryURL"):
        values = [(row.get("issuer") or {}).get(field) for row in rows if isinstance(row, dict)]
        for at, value in enumerate(values):
            if value and value in values[:at]:
                mistakes.duplicate(f"jwt[{at}].issuer.{field}", value)
    paths = _anonymous_paths(tree, mistakes)
    if mistakes:
        raise InvalidAuthentication("; ".join(mistakes))
    return Authentication(issuers=tuple(issuers), anonymous_paths=paths)


def _anonymous_paths(tree: Mapping[str, Any], mistakes: Mistakes) -> frozenset[str] | None:
    if tree.get("anonymous") is None:
        return None
    row = mistakes.mapping(tree["anonymous"], "anonymous", ("enabled", "conditions"))
    conditions = mistakes.rows(row.get("conditions"), "anonymous.conditions")
    paths = [
        str(mistakes.mapping(one, f"anonymous.conditions[{at}]", ("path",)).get("path", ""))
        for at, one in enumerate(conditions)
    ]
    if conditions and not row.get("enabled"):
        detail = "enabled should be set to true when conditions are defined"
        mistakes.invalid("anonymous.conditions", conditions, detail)
    return frozenset(paths or (["*"] if row.get("enabled") else []))


class _Reader:
    """Reads issuers and collects what is wrong with them."""

    def __init__(self, compiled: Compile, mistakes: Mistakes, own_issuers: Sequence[str]) -> None:
        self._compiled = compiled
        self._mistakes = mistakes
        self._own = own_issuers

    def issuer(self, row: Any, path: str) -> Issuer:
        mistakes = self._mistakes
        row = mistakes.mapping(row, path, _ISSUER_FIELDS)
        about = mistakes.mapping(row.get("issuer"), f"{path}.issuer", _ABOUT_FIELDS)
        url, discovery = str(about.get("url") or ""), str(about.get("discoveryURL") or "")
        self._urls(url, discovery, f"{path}.issuer")
        audiences = self._audiences(about, f"{path}.issuer")
        ca = str(about.get("certificateAuthority") or "")
        if ca and not _is_certificate(ca):
            detail = "data does not contain any valid RSA or ECDSA certificates"
            mistakes.invalid(f"{path}.issuer.certificateAuthority", "<omitted>", detail)
        if kind := about.get("egressSelectorType"):
            detail = "egress selector is not supported"
            mistakes.invalid(f"{path}.issuer.egressSelectorType", kind, detail)
        claim_rules = self._claim_rules(row.get("claimValidationRules"), f"{path}.claimValidationRules")
        where = f"{path}.claimMappings"
        mappings = mistakes.mapping(row.get("claimMappings"), where, ("username", "groups", "uid", "extra"))
        issuer = Issuer(
            url=url,
            discovery_url=discovery or f"{url.rstrip('/')}/.well-known/openid-configuration",
            ca=ca,
            audiences=audiences,
            username=self._prefixed(mappings.get("username"), f"{where}.username", required=True),
            groups=self._prefixed(mappings.get("groups"), f"{where}.groups", required=False),
            uid=self._uid(mappings.get("uid"), f"{where}.uid"),
            extra=tuple(self._extra(mappings.get("extra"), f"{where}.extra")),
            claim_rules=claim_rules,
            user_rules=self._user_rules(row.get("userValidationRules"), f"{path}.userValidationRules"),
        )
        self._check_email(issuer, f"{where}.username.expression")
        return issuer

    def _check_email(self, issuer: Issuer, path: str) -> None:
        """An address that nobody has verified is no name: a mapping that reads the one has to look at the other."""
        name = issuer.username.expression
        if name is None or not name.selects("email"):
            return
        rules = (rule.expression for rule in issuer.claim_rules)
        readers = [name, *(expression for _, expression in issuer.extra), *(one for one in rules if one is not None)]
        if not any(one.selects("email_verified") for one in readers):
            self._mistakes.invalid(path, name.source, _UNVERIFIED)

    def _urls(self, url: str, discovery: str, path: str) -> None:
        if not url:
            self._mistakes.required(f"{path}.url")
        else:
            if url in self._own:
                detail = f"URL must not overlap with disallowed issuers: [{' '.join(self._own)}]"
                self._mistakes.invalid(f"{path}.url", url, detail)
            self._url(url, f"{path}.url")
        if discovery:
            if url and url.rstrip("/") == discovery.rstrip("/"):
                self._mistakes.invalid(f"{path}.discoveryURL", discovery, "discoveryURL must be different from URL")
            self._url(discovery, f"{path}.discoveryURL")

    def _url(self, url: str, path: str) -> None:
        try:
            parts = urlsplit(url)
        except ValueError as error:
            self._mistakes.invalid(path, url, str(error))
            return
        if parts.scheme != "https":
            self._mistakes.invalid(path, url, "URL scheme must be https")
        if "@" in parts.netloc:
            self._mistakes.invalid(path, url, "URL must not contain a username or password")
        if parts.query:
            self._mistakes.invalid(path, url, "URL must not contain a query")
        if parts.fragment:
            self._mistakes.invalid(path, url, "URL must not contain a fragment")

    def _audiences(self, about: Mapping[str, Any], path: str) -> frozenset[str]:
        mistakes, policy = self._mistakes, about.get("audienceMatchPolicy") or ""
        audiences = [str(one) for one in mistakes.rows(about.get("audiences"), f"{path}.audiences")]
        if not audiences:
            mistakes.required(f"{path}.audiences", f"at least one {path}.audiences is required")
        for at, audience in enumerate(audiences):
            if not audience:
                mistakes.required(f"{path}.audiences[{at}]")
            if audience in audiences[:at]:
                mistakes.duplicate(f"{path}.audiences[{at}]", audience)
        if len(audiences) > 1 and policy != "MatchAny":
            detail = "audienceMatchPolicy must be MatchAny for multiple audiences"
            mistakes.invalid(f"{path}.audienceMatchPolicy", policy, detail)
        if len(audiences) == 1 and policy not in ("", "MatchAny"):
            detail = "audienceMatchPolicy must be empty or MatchAny for single audience"
            mistakes.invalid(f"{path}.audienceMatchPolicy", policy, detail)
        return frozenset(audiences)

    def _expression(self, text: str, path: str, variable: str, condition: bool = False) -> Expression | None:
        try:
            return self._compiled(text, variable, condition)
        except ValueError as error:
            self._mistakes.invalid(path, text, str(error))
            return None

    def _prefixed(self, row: Any, path: str, *, required: bool) -> Mapped:
        row = self._mistakes.mapping(row, path, ("claim", "prefix", "expression"))
        claim, text, prefix = str(row.get("claim") or ""), str(row.get("expression") or ""), row.get("prefix")
        expression = None
        if claim and text:
            self._mistakes.invalid(path, "", "claim and expression can't both be set")
        elif text:
            if prefix is not None:
                detail = "may not be specified when expression is set"
                self._mistakes.invalid(f"{path}.prefix", prefix, detail)
            expression = self._expression(text, f"{path}.expression", "claims")
        elif claim:
            if prefix is None:
                detail = "prefix is required when claim is set. It can be set to an empty string to disable prefixing"
                self._mistakes.required(f"{path}.prefix", detail)
        elif required:
            self._mistakes.required(path, "claim or expression is required")
        return Mapped(claim=claim, prefix=str(prefix or ""), expression=expression)

    def _uid(self, row: Any, path: str) -> Mapped:
        row = self._mistakes.mapping(row, path, ("claim", "expression"))
        claim, text = str(row.get("claim") or ""), str(row.get("expression") or "")
        if claim and text:
            self._mistakes.invalid(path, "", "claim and expression can't both be set")
            return Mapped()
        return Mapped(claim=claim, expression=self._expression(text, f"{path}.expression", "claims") if text else None)

    def _extra(self, rows: Any, path: str) -> Iterator[tuple[str, Expression]]:
        seen: set[str] = set()
        for at, one in enumerate(self._mistakes.rows(rows, path)):
            where = f"{path}[{at}]"
            row = self._mistakes.mapping(one, where, ("key", "valueExpression"))
            key, text = str(row.get("key") or ""), str(row.get("valueExpression") or "")
            self._key(key, f"{where}.key")
            if key in seen:
                self._mistakes.duplicate(f"{where}.key", key)
                continue
            seen.add(key)
            if not text:
                self._mistakes.required(f"{where}.valueExpression")
            elif (expression := self._expression(text, f"{where}.valueExpression", "claims")) is not None:
                yield key, expression

    def _key(self, key: str, path: str) -> None:
        domain, slash, rest = key.partition("/")
        if not key:
            self._mistakes.required(path)
        elif not slash or not domain or not rest:
            self._mistakes.invalid(path, key, 'must be a domain-prefixed path (such as "acme.io/foo")')
        elif errors := subdomain_errors(domain.lower()):
            self._mistakes.invalid(path, domain, errors[0])
        if key != key.lower():
            self._mistakes.invalid(path, key, "must be lowercase")
        if slash and any(domain == own or domain.endswith(f".{own}") for own in ("kubernetes.io", "k8s.io")):
            detail = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use"
            self._mistakes.invalid(path, key, detail)

    def _claim_rules(self, rows: Any, path: str) -> tuple[Rule, ...]:
        mistakes, found = self._mistakes, []
        seen: set[str] = set()
        for at, one in enumerate(mistakes.rows(rows, path)):
            where = f"{path}[{at}]"
            row = mistakes.mapping(one, where, ("claim", "requiredValue", "expression", "message"))
            claim, text = str(row.get("claim") or ""), str(row.get("expression") or "")
            message, value = str(row.get("message") or ""), str(row.get("requiredValue") or "")
            expression = None
            if claim and text:
                mistakes.invalid(where, claim, "claim and expression can't both be set")
            elif claim:
                if message:
                    mistakes.invalid(f"{where}.message", message, "may not be specified when claim is set")
                if f"claim {claim}" in seen:
                    mistakes.duplicate(f"{where}.claim", claim)
            elif text:
                if value:
                    mistakes.invalid(f"{where}.requiredValue", value, "may not be specified when expression is set")
                if f"expression {text}" in seen:
                    mistakes.duplicate(f"{where}.expression", text)
                else:
                    expression = self._expression(text, f"{where}.expression", "claims", True)
            else:
                mistakes.required(where, "claim or expression is required")
            seen |= {f"claim {claim}", f"expression {text}"}
            found.append(Rule(claim=claim, value=value, expression=expression, message=message))
        return tuple(found)

    def _user_rules(self, rows: Any, path: str) -> tuple[Rule, ...]:
        found: dict[str, Rule] = {}
        for at, one in enumerate(self._mistakes.rows(rows, path)):
            where = f"{path}[{at}].expression"
            row = self._mistakes.mapping(one, f"{path}[{at}]", ("expression", "message"))
            text = str(row.get("expression") or "")
            if not text:
                self._mistakes.required(where)
            elif text in found:
                self._mistakes.duplicate(where, text)
            else:
                expression = self._expression(text, where, "user", True)
                found[text] = Rule(expression=expression, message=str(row.get("message") or ""))
        return tuple(found.values())


def _is_certificate(pem: str) -> bool:
    try:
        return bool(x509.load_pem_x509_certificates(pem.encode()))
    except ValueError:
        return False
