"""JSON web tokens: every algorithm, keys in and out of sets, and what is no token."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from steersman.cluster.auth import jwt

RSA = rsa.generate_private_key(65537, 2048)
CURVES = {"ES256": (ec.SECP256R1(), 32), "ES384": (ec.SECP384R1(), 48), "ES512": (ec.SECP521R1(), 66)}
DIGESTS: dict[str, Any] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


def sign(algorithm: str, key: Any, claims: Any, **header: str) -> str:
    """A token made without the code that is tested."""
    parts = [{"alg": algorithm, **header}, claims]
    text = ".".join(jwt.encode(json.dumps(part).encode()) for part in parts)
    digest = DIGESTS[algorithm[2:]]
    if algorithm[:2] == "ES":
        r, s = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(digest)))
        size = CURVES[algorithm][1]
        signature = r.to_bytes(size, "big") + s.to_bytes(size, "big")
    else:
        scheme = padding.PKCS1v15() if algorithm[:2] == "RS" else padding.PSS(padding.MGF1(digest), digest.digest_size)
        signature = key.sign(text.encode(), scheme, digest)
    return f"{text}.{jwt.encode(signature)}"


def private(algorithm: str) -> Any:
    return ec.generate_private_key(CURVES[algorithm][0]) if algorithm in CURVES else RSA


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"])
def test_a_signature_is_good_by_its_key_alone(algorithm: str) -> None:
    key, other = private(algorithm), private("ES256")
    token = jwt.read(sign(algorithm, key, {"sub": "jane"}))
    good, bad = jwt.VerifyingKey(key.public_key()), jwt.VerifyingKey(other.public_key())
    assert token.claims == {"sub": "jane"} and good.verify(token) and not bad.verify(token)
    assert jwt.verified(token, [bad, good]) and not jwt.verified(token, [bad]) and not jwt.verified(token, [])
    forged = jwt.Token(token.header, token.claims, token.signed + b"x", token.signature)
    assert not good.verify(forged)


def test_an_algorithm_of_another_kind_or_none_verifies_nothing() -> None:
    key = jwt.VerifyingKey(RSA.public_key())
    token = jwt.read(sign("RS256", RSA, {}))
    for algorithm in ("none", "HS256", "ES256", "", "RS1"):
        assert not key.verify(jwt.Token({"alg": algorithm}, {}, token.signed, token.signature))


def test_a_token_that_names_its_key_is_tried_with_no_other() -> None:
    first = jwt.VerifyingKey(RSA.public_key(), "one")
    assert jwt.verified(jwt.read(sign("RS256", RSA, {}, kid="one")), [first])
    assert not jwt.verified(jwt.read(sign("RS256", RSA, {}, kid="two")), [first])


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "ES384", "ES512"])
def test_a_key_goes_through_a_set_unchanged(algorithm: str) -> None:
    key = private(algorithm)
    published = {"keys": [jwt.VerifyingKey(key.public_key(), "k").to_jwk(), {"kty": "oct", "k": "AA"}, {}, None]}
    (found,) = jwt.from_jwks(json.loads(json.dumps(published)))
    assert found.key_id == "k" and found.verify(jwt.read(sign(algorithm, key, {})))
    assert jwt.from_jwks({"keys": "x"}) == [] and jwt.from_jwks([]) == []


def test_keys_are_read_from_public_and_private_pem_and_weak_ones_are_refused() -> None:
    key = private("ES256")
    pems = [
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    ]
    assert jwt.from_pem(pems[0]).key_id == jwt.from_pem(pems[1]).key_id
    with pytest.raises(ValueError, match="2048 bits"):
        jwt.VerifyingKey(rsa.generate_private_key(65537, 1024).public_key())
    with pytest.raises(ValueError, match="P-256"):
        jwt.SigningKey(ec.generate_private_key(ec.SECP384R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ))  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a.b",
        "a.b.c",
        "e30.e30.!",
        "e30.W10.AA",
        "W10.e30.AA",
        "e30." + "A" * 20000 + ".A",
        "e30.eyJpc3MiOltdfQ.AA",
        "e30.eyJpc3MiOnt9fQ.AA",
    ],
)
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(jwt.InvalidToken, match="not a JSON web token"):
        jwt.read(text)
