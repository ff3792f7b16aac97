"""Service-account tokens and bootstrap tokens: what is trusted and what is not."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from steersman.cluster.auth.tokens import (
    InvalidToken,
    TokenIssuer,
    check_bootstrap,
    check_service_account,
    service_account_claims,
    staleness,
)
from steersman.cluster.meta.resources import Resource

NOW = 1_800_000_000.0
AUDIENCE = "https://kubernetes.default.svc"


def issuer(name: str = AUDIENCE) -> TokenIssuer:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return TokenIssuer(pem, issuer=name, audience=AUDIENCE)


def obj(name: str, uid: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "a", "uid": uid, **more}}


ACCOUNT, POD = obj("robot", "u1"), obj("web", "u2")


def finding(**objects: dict[str, Any]) -> Callable[[Resource, str, str], dict[str, Any] | None]:
    return lambda resource, namespace, name: objects.get(f"{resource.plural}_{name}".replace("-", "_"))


def claims(**more: Any) -> dict[str, Any]:
    made = service_account_claims(
        issuer=AUDIENCE, account=ACCOUNT, audiences=[AUDIENCE], now=NOW, expires_in_s=600, token_id="t", pod=POD
    )
    return {**made, **more}


EVERYTHING = finding(serviceaccounts_robot=ACCOUNT, pods_web=POD)


def test_a_token_comes_back_as_the_account_it_was_issued_for() -> None:
    signer = issuer()
    token = signer.sign(claims())
    identity = check_service_account(signer.verify(token), (AUDIENCE,), NOW + 1, EVERYTHING)
    assert identity.name == "system:serviceaccount:a:robot"
    assert identity.groups == ("system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated")
    assert dict(identity.extra)["authentication.kubernetes.io/pod-name"] == ("web",)
    assert token == signer.sign(claims()), "equal claims give equal tokens"


def tampered(token: str, change: Callable[[dict[str, Any]], None], part: int = 1) -> str:
    parts = token.split(".")
    row = json.loads(base64.urlsafe_b64decode(parts[part] + "=="))
    change(row)
    parts[part] = base64.urlsafe_b64encode(json.dumps(row).encode()).rstrip(b"=").decode()
    return ".".join(parts)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda token: "", id="empty"),
        pytest.param(lambda token: "a.b.c", id="nonsense"),
        pytest.param(lambda token: token + "x", id="longer signature"),
        pytest.param(lambda token: token.rpartition(".")[0] + ".", id="no signature"),
        pytest.param(lambda token: tampered(token, lambda row: row.update(sub="root")), id="other claims"),
        pytest.param(lambda token: tampered(token, lambda row: row.update(alg="none"), 0), id="algorithm none"),
        pytest.param(
            lambda token: tampered(token, lambda row: row.update(alg="HS256"), 0), id="algorithm of a shared key"
        ),
        pytest.param(lambda token: issuer().sign(claims()), id="another key"),
        pytest.param(lambda token: "e" * 40_000, id="far too long"),
    ],
)
def test_a_spoilt_token_is_not_trusted(spoil: Callable[[str], str]) -> None:
    signer = issuer()
    with pytest.raises(InvalidToken):
        signer.verify(spoil(signer.sign(claims())))


def test_a_token_of_another_issuer_is_not_trusted_even_with_the_same_key() -> None:
    signer = issuer()
    with pytest.raises(InvalidToken):
        signer.verify(signer.sign(claims(iss="somebody")))


@pytest.mark.parametrize(
    ("changed", "now", "find", "message"),
    [
        ({}, NOW + 661, EVERYTHING, "service account token has expired"),
        ({"nbf": NOW - 900, "iat": NOW + 120}, NOW, EVERYTHING, "service account token is issued in the future"),
        ({"exp": "soon"}, NOW, EVERYTHING, "service account token has expired"),
        ({}, NOW - 120, EVERYTHING, "service account token is not valid yet"),
        ({"aud": ["vault"]}, NOW, EVERYTHING, 'token audiences ["vault"] is invalid for the target audiences ["'),
        ({}, NOW, finding(pods_web=POD), 'serviceaccounts "robot" not found'),
        ({}, NOW, finding(serviceaccounts_robot=obj("robot", "u9"), pods_web=POD), "service account UID (u9) does not"),
        ({}, NOW, finding(serviceaccounts_robot=ACCOUNT), "service account token has been invalidated"),
        (
            {}, NOW, finding(serviceaccounts_robot=ACCOUNT, pods_web=obj("web", "u9")),
            "pod UID (u9) does not match service account pod ref claim (",
        ),
    ],
)  # fmt: skip
def test_a_token_is_good_only_while_what_it_is_bound_to_exists(
    changed: dict[str, Any], now: float, find: Any, message: str
) -> None:
    with pytest.raises(InvalidToken) as caught:
        check_service_account(claims(**changed), (AUDIENCE,), now, find)
    assert message in str(caught.value)


def test_a_token_of_a_pod_s_program_outlives_what_was_asked_for_and_is_told_then() -> None:
    made = service_account_claims(
        issuer=AUDIENCE, account=ACCOUNT, audiences=[AUDIENCE], now=NOW, expires_in_s=3607, token_id="t", pod=POD,
        extends=True,
    )  # fmt: skip
    assert made["exp"] == NOW + 365 * 86_400 and made["kubernetes.io"]["warnafter"] == NOW + 3607
    assert check_service_account(made, (AUDIENCE,), NOW + 4000, EVERYTHING).name == "system:serviceaccount:a:robot"
    assert not staleness(made, NOW + 3607) and not staleness(claims(), NOW + 1e9)
    told = "subject: system:serviceaccount:a:robot, seconds after warning threshold: 393"
    assert staleness(made, NOW + 4000) == told


def secret(**data: str) -> dict[str, Any]:
    rows = {
        "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true", **data,
    }  # fmt: skip
    encoded = {key.replace("_", "-"): base64.b64encode(value.encode()).decode() for key, value in rows.items()}
    return {"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "data": encoded}


TOKEN = "abcdef.0123456789abcdef"


def test_a_bootstrap_token_stands_for_a_bootstrapper_with_its_extra_groups() -> None:
    found = secret(auth_extra_groups="system:bootstrappers:nodes")
    identity = check_bootstrap(TOKEN, NOW, finding(secrets_bootstrap_token_abcdef=found))
    assert identity is not None and identity.name == "system:bootstrap:abcdef"
    assert identity.groups == ("system:bootstrappers", "system:bootstrappers:nodes", "system:authenticated")
    wrong = secret(auth_extra_groups="system:bootstrappers:nodes,system:masters")
    with pytest.raises(InvalidToken, match='invalid bootstrap group "system:masters"'):
        check_bootstrap("abcdef.0123456789abcdef", NOW, lambda *_: wrong)


@pytest.mark.parametrize(
    ("token", "found"),
    [
        (TOKEN, None),
        ("abcdef.0123456789abcdee", secret()),
        (TOKEN, {**secret(), "type": "Opaque"}),
        (TOKEN, secret(expiration="2020-01-01T00:00:00Z")),
        (TOKEN, secret(expiration="some day")),
        (TOKEN, secret(**{"usage-bootstrap-authentication": "false"})),
    ],
    ids=["unknown", "wrong secret", "other type", "expired", "no date", "not for this"],
)
def test_other_bootstrap_tokens_are_refused(token: str, found: Any) -> None:
    objects = {"secrets_bootstrap_token_abcdef": found} if found else {}
    with pytest.raises(InvalidToken):
        check_bootstrap(token, NOW, finding(**objects))


def test_what_is_no_bootstrap_token_is_left_to_others() -> None:
    assert check_bootstrap("eyJ.x.y", NOW, finding()) is None
