"""Bootstrap tokens: whose signatures `cluster-info` carries, and when one has expired."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest

from steersman.cluster.auth.bootstraptokens import cluster_info, expires_at, signature, signed

NOW = 1_800_000_000.0
INFO: Any = {"metadata": {"name": "cluster-info"}, "data": {"kubeconfig": "clusters: []"}}
GOOD = {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-signing": "true"}


def token(name: str = "bootstrap-token-abcdef", **changes: str) -> Any:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in {**GOOD, **changes}.items()}
    return {"metadata": {"name": name}, "data": data}


def test_a_signature_is_a_web_signature_without_the_text() -> None:
    header, nothing, tail = signature("clusters: []", "abcdef", "0123456789abcdef").split(".")
    assert json.loads(base64.urlsafe_b64decode(header + "==")) == {"alg": "HS256", "kid": "abcdef"} and not nothing
    text = f"{header}.{base64.urlsafe_b64encode(b'clusters: []').decode().rstrip('=')}"
    expected = hmac.new(b"0123456789abcdef" + bytes(16), text.encode(), hashlib.sha256).digest()
    assert base64.urlsafe_b64decode(tail + "==") == expected


@pytest.mark.parametrize(
    ("secret", "signs"),
    [
        (token(), True),
        (token("bootstrap-token-other0"), False),
        (token(**{"usage-bootstrap-signing": "false"}), False),
        (token(**{"token-secret": ""}), False),
        (token(expiration="2026-01-01T00:00:00Z"), False),
        (token(expiration="2099-01-01T00:00:00Z"), True),
        (token(expiration="soon"), False),
    ],
)
def test_a_token_signs_while_it_may(secret: Any, signs: bool) -> None:
    found = signed(INFO, [secret], NOW)
    assert (found is not None) is signs
    if found is not None:
        assert found["jws-kubeconfig-abcdef"] == signature("clusters: []", "abcdef", "0123456789abcdef")
        assert signed({**INFO, "data": found}, [secret], NOW) is None, "it is signed once"


def test_signatures_go_with_their_tokens_and_are_made_anew_for_another_text() -> None:
    data = signed(INFO, [token()], NOW)
    assert data is not None
    assert signed({**INFO, "data": data}, [], NOW) == INFO["data"]
    changed = signed({**INFO, "data": {**data, "kubeconfig": "other"}}, [token()], NOW)
    assert changed is not None and changed["jws-kubeconfig-abcdef"] != data["jws-kubeconfig-abcdef"]
    assert signed({"metadata": {}, "data": {"x": "y"}}, [token()], NOW) is None


def test_a_time_that_cannot_be_read_has_passed() -> None:
    assert expires_at(token()) is None and expires_at(token(expiration="soon")) == 0.0


def test_the_info_says_where_the_cluster_is_and_its_authority() -> None:
    config = json.loads(cluster_info("https://10.0.0.1:6443", b"PEM")["data"]["kubeconfig"])
    (row,) = config["clusters"]
    assert row["cluster"] == {"server": "https://10.0.0.1:6443", "certificate-authority-data": "UEVN"}
