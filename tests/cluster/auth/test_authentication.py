"""Other issuers' tokens: from claims to an identity, and mistakes in an AuthenticationConfiguration."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from steersman.actors.apiserver.expressions import compiled
from steersman.cluster.auth.authentication import identify
from steersman.cluster.auth.authenticationfile import InvalidAuthentication, read_authentication
from steersman.cluster.auth.jwt import InvalidToken

NOW = 1_800_000_000
CLAIMS = {"iss": "https://id", "aud": "web", "exp": NOW + 60, "sub": "jane", "groups": ["devs"], "hd": "example.com"}
ISSUER = {"url": "https://id", "audiences": ["web"]}
NAMED = {"username": {"claim": "sub", "prefix": "oidc:"}}


def text(*issuers: Any, version: str = "v1", **more: Any) -> str:
    tree = {"apiVersion": f"apiserver.config.k8s.io/{version}", "kind": "AuthenticationConfiguration"}
    return yaml.safe_dump({**tree, "jwt": list(issuers), **more})


def who(claims: Any, mappings: Any = NAMED, now: float = NOW, **more: Any) -> Any:
    row = {"issuer": ISSUER, "claimMappings": mappings, **more}
    return identify(read_authentication(text(row), compiled).issuers[0], {**CLAIMS, **claims}, now)


def test_claims_become_an_identity_with_prefixes() -> None:
    groups = {"groups": {"claim": "groups", "prefix": "oidc:"}, "uid": {"claim": "sub"}}
    found = who({}, {**NAMED, **groups})
    assert (found.name, found.groups, found.uid) == ("oidc:jane", ("oidc:devs", "system:authenticated"), "jane")
    assert who({"groups": "ops"}, {**NAMED, **groups}).groups == ("oidc:ops", "system:authenticated")
    assert who({"groups": None}, {**NAMED, **groups}).groups == ("system:authenticated",)
    assert who({"aud": ["x", "web"]}).name == "oidc:jane"


def test_expressions_map_claims() -> None:
    mappings = {
        "username": {"expression": "'ext:' + claims.sub"},
        "groups": {"expression": "claims.groups.map(g, 'team-' + g)"},
        "uid": {"expression": "claims.sub"},
        "extra": [{"key": "example.com/domain", "valueExpression": "claims.hd"}],
    }
    found = who({}, mappings)
    assert (found.name, found.groups) == ("ext:jane", ("team-devs", "system:authenticated"))
    assert found.extra == (("example.com/domain", ("example.com",)),)


@pytest.mark.parametrize(
    ("claims", "more", "message"),
    [
        ({"exp": NOW}, {}, "oidc: token is expired"),
        ({"exp": "never"}, {}, "oidc: token is expired"),
        ({"exp": float("nan")}, {}, "oidc: token is expired"),
        ({"aud": [["web"], {"a": 1}]}, {}, "expected audience in [web] got"),
        ({"aud": {"web": 1}}, {}, "expected audience in [web] got"),
        ({"aud": None}, {}, "expected audience in [web] got"),
        ({"nbf": NOW + 400}, {}, "before the nbf"),
        ({"aud": ["other"]}, {}, "expected audience in [web] got ['other']"),
        ({"sub": 7}, {}, "error evaluating username claim"),
        ({}, {"claimValidationRules": [{"claim": "hd", "requiredValue": "x"}]}, "value does not match. Got = example"),
        ({}, {"claimValidationRules": [{"claim": "no", "requiredValue": "x"}]}, "required claim no not present"),
        ({}, {"claimValidationRules": [{"expression": "claims.hd == 'x'", "message": "wrong domain"}]}, "wrong domain"),
        ({}, {"claimValidationRules": [{"expression": "claims.nothing == 'x'"}]}, "no such key: nothing"),
        ({}, {"userValidationRules": [{"expression": "!user.username.startsWith('oidc:')", "message": "no"}]}, ": no"),
    ],
)  # fmt: skip
def test_a_token_that_breaks_a_rule_is_nobodys(claims: Any, more: Any, message: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        who(claims, **more)
    assert message in str(caught.value)


def test_an_address_counts_as_a_name_only_when_it_was_verified() -> None:
    mappings = {"username": {"claim": "email", "prefix": ""}}
    assert who({"email": "a@b", "email_verified": True}, mappings).name == "a@b"
    with pytest.raises(InvalidToken, match="email not verified"):
        who({"email": "a@b", "email_verified": False}, mappings)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("a: [", "not valid YAML"),
        ("kind: Pod", "kind: must be"),
        (text(version="v9"), "apiVersion: must be one of"),
        (text({"issuer": {"audiences": ["a"]}, "claimMappings": NAMED}), "jwt[0].issuer.url: Required value"),
        (text({"issuer": {**ISSUER, "url": "http://id"}, "claimMappings": NAMED}), "URL scheme must be https"),
        (
            text({"issuer": {"url": "https://id"}, "claimMappings": NAMED}),
            "at least one jwt[0].issuer.audiences is required",
        ),
        (text({"issuer": {**ISSUER, "audiences": ["a", "b"]}, "claimMappings": NAMED}), "must be MatchAny"),
        (text({"issuer": ISSUER}), "claimMappings.username: Required value: claim or expression is required"),
        (text(*[{"issuer": ISSUER, "claimMappings": NAMED}] * 2), "jwt[1].issuer.url: Duplicate value"),
        (text({"issuer": ISSUER, "claimMappings": {"username": {"expression": "claims."}}}), "ERROR: <input>:1"),
        (text({"issuer": ISSUER, "claimMappings": {"username": {"claim": "a", "expression": "'a'"}}}), "both be set"),
        (text({"issuer": ISSUER, "claimMappings": NAMED, "claimValidationRules": [{}]}), "claim or expression is req"),
        (
            text({"issuer": {**ISSUER, "url": "https://u:p@id"}, "claimMappings": NAMED}),
            "not contain a username or pass",
        ),
        (text({"issuer": {**ISSUER, "url": "https://id?a=b"}, "claimMappings": NAMED}), "must not contain a query"),
        (
            text({"issuer": {**ISSUER, "url": "https://own"}, "claimMappings": NAMED}),
            "disallowed issuers: [https://own]",
        ),
        (
            text({"issuer": {**ISSUER, "discoveryURL": "https://id/"}, "claimMappings": NAMED}),
            "discoveryURL must be different from URL",
        ),
        (
            text({"issuer": {**ISSUER, "certificateAuthority": "x"}, "claimMappings": NAMED}),
            'certificateAuthority: Invalid value: "<omitted>"',
        ),
        (
            text({"issuer": ISSUER, "claimMappings": {"username": {"claim": "sub"}}}),
            "prefix: Required value: prefix is",
        ),
        (
            text({"issuer": ISSUER, "claimMappings": {"username": {"expression": "claims.email"}}}),
            "claims.email_verified must be used in claimMappings.username.expression",
        ),
        (
            text({"issuer": ISSUER, "claimMappings": NAMED, "userValidationRules": [{"expression": "user.username"}]}),
            "must evaluate to bool but got string",
        ),
        (
            text(
                {"issuer": ISSUER, "claimMappings": NAMED, "userValidationRules": [{"expression": "user.nick == ''"}]}
            ),
            "undefined field 'nick'",
        ),
        (
            text(
                {"issuer": ISSUER, "claimMappings": {**NAMED, "extra": [{"key": "k8s.io/a", "valueExpression": "'a'"}]}}
            ),
            "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use",
        ),
        (text(mood="good"), 'strict decoding error: unknown field "mood"'),
        (text(anonymous={"enabled": False, "conditions": [{"path": "/a"}]}), "enabled should be set to true"),
    ],
)
def test_a_mistake_in_a_configuration_is_named(document: str, message: str) -> None:
    with pytest.raises(InvalidAuthentication) as caught:
        read_authentication(document, compiled, ["https://own"])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("anonymous", "open_", "shut"),
    [
        (None, ("/healthz", "/version"), ("/api",)),
        ({"enabled": False}, (), ("/healthz", "/api")),
        ({"enabled": True}, ("/healthz", "/api"), ()),
        ({"enabled": True, "conditions": [{"path": "/livez"}]}, ("/livez",), ("/healthz", "/livez/ping")),
    ],
)
def test_what_anybody_may_ask_is_configured(anonymous: Any, open_: Any, shut: Any) -> None:
    more = {} if anonymous is None else {"anonymous": anonymous}
    found = read_authentication(text(**more), compiled)
    assert all(found.takes_anonymous(path) for path in open_)
    assert not any(found.takes_anonymous(path) for path in shut)
