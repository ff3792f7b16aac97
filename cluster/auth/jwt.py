"""JSON web tokens: read, verified with the public keys of an issuer, and signed with a P-256 key.

Nothing here says whom a token stands for; times and audiences are not looked at.

Source: RFC 7515 (JWS), RFC 7517 (JWK), RFC 7518 (algorithms)
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from steersman.cluster.meta.objects import Obj

TOKEN_BYTES_MAX = 16 * 1024
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}
#: of each elliptic curve the algorithm, the name in a JWK and the bytes of a coordinate
_CURVES = {
    "secp256r1": ("ES256", "P-256", 32),
    "secp384r1": ("ES384", "P-384", 48),
    "secp521r1": ("ES512", "P-521", 66),
}
_RSA_BITS_MIN = 2048


class InvalidToken(ValueError):
    """The token is not to be trusted; the message says why and holds nothing secret."""


def encode(data: bytes) -> str:
    """Base64 for URLs, without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """Raises ValueError."""
    return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)


@dataclass(frozen=True, slots=True)
class Token:
    """A token that is well formed; its claims are anybody's until a key has verified them."""

    header: Obj
    claims: Obj
    signed: bytes
    signature: bytes


def read(text: str) -> Token:
    """Raises InvalidToken."""
    parts = text.split(".")
    if len(parts) != 3 or len(text) > TOKEN_BYTES_MAX:
        raise InvalidToken("not a JSON web token")
    try:
        header, claims, signature = json.loads(decode(parts[0])), json.loads(decode(parts[1])), decode(parts[2])
    except (binascii.Error, ValueError, RecursionError):
        raise InvalidToken("not a JSON web token") from None
    if not isinstance(header, dict) or not isinstance(claims, dict) or not isinstance(claims.get("iss", ""), str):
        raise InvalidToken("not a JSON web token")
    return Token(header, claims, f"{parts[0]}.{parts[1]}".encode(), signature)


class VerifyingKey:
    """A public key of an issuer.

    Args:
        key_id: as tokens name it; empty for the hash of the key itself.

    Raises:
        ValueError: it is neither RSA of 2048 bits or more nor on a curve of JWS.
    """

    def __init__(self, key: Any, key_id: str = "") -> None:
        if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
            numbers = key.public_numbers()
            size = _CURVES[key.curve.name][2]
            self._coordinates = (numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big"))
            identity = b"".join(self._coordinates)
        elif isinstance(key, rsa.RSAPublicKey) and key.key_size >= _RSA_BITS_MIN:
            identity = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        else:
            raise ValueError("a key must be RSA of at least 2048 bits, or on P-256, P-384 or P-521")
        digest = hashes.Hash(hashes.SHA256())
        digest.update(identity)
        self.key_id = key_id or encode(digest.finalize())
        self._key = key

    def to_jwk(self) -> Obj:
        """The key as an issuer publishes it."""
        if isinstance(self._key, rsa.RSAPublicKey):
            numbers = self._key.public_numbers()
            row = {"kty": "RSA", "alg": "RS256", "n": _number(numbers.n), "e": _number(numbers.e)}
        else:
            algorithm, curve, _ = _CURVES[self._key.curve.name]
            x, y = self._coordinates
            row = {"kty": "EC", "crv": curve, "alg": algorithm, "x": encode(x), "y": encode(y)}
        return {"use": "sig", "kid": self.key_id, **row}

    def verify(self, token: Token) -> bool:
        """Whether this key has signed a token; a key verifies only by algorithms of its own kind."""
        algorithm = str(token.header.get("alg", ""))
        digest = _HASHES.get(algorithm[2:])
        if digest is None:
            return False
        try:
            if isinstance(self._key, rsa.RSAPublicKey):
                if algorithm[:2] == "RS":
                    scheme: Any = padding.PKCS1v15()
                elif algorithm[:2] == "PS":
                    scheme = padding.PSS(padding.MGF1(digest()), digest().digest_size)
                else:
                    return False
                self._key.verify(token.signature, token.signed, scheme, digest())
                return True
            wanted, _, size = _CURVES[self._key.curve.name]
            if algorithm != wanted or len(token.signature) != 2 * size:
                return False
            r, s = token.signature[:size], token.signature[size:]
            der = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
            self._key.verify(der, token.signed, ec.ECDSA(digest()))
            return True
        except InvalidSignature:
            return False


def _number(value: int) -> str:
    return encode(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def from_pem(pem: bytes) -> VerifyingKey:
    """The public key in a PEM text, be it public or private, or of a certificate's request; raises ValueError."""
    if b"PRIVATE KEY" in pem:
        return VerifyingKey(serialization.load_pem_private_key(pem, None).public_key())
    return VerifyingKey(serialization.load_pem_public_key(pem))


def from_jwks(document: Any) -> list[VerifyingKey]:
    """The signing keys of a JWK set that this module knows; others are left out."""
    rows = document.get("keys") if isinstance(document, dict) else None
    found = []
    for row in rows if isinstance(rows, list) else ():
        try:
            if row.get("use", "sig") == "sig":
                found.append(VerifyingKey(_from_jwk(row), str(row.get("kid") or "")))
        except (KeyError, ValueError, TypeError, AttributeError):
            continue
    return found


def _from_jwk(row: Mapping[str, Any]) -> Any:
    def number(name: str) -> int:
        return int.from_bytes(decode(row[name]), "big")

    if row["kty"] == "RSA":
        return rsa.RSAPublicNumbers(number("e"), number("n")).public_key()
    curves = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
    return ec.EllipticCurvePublicNumbers(number("x"), number("y"), curves[row["crv"]]).public_key()


def verified(token: Token, keys: Iterable[VerifyingKey]) -> bool:
    """Whether one of the keys has signed a token; a token that names a key is tried with that one only."""
    key_id = token.header.get("kid")
    rows: Sequence[VerifyingKey] = list(keys)
    named = [key for key in rows if key.key_id == key_id]
    return any(key.verify(token) for key in (named or (() if key_id and rows else rows)))


class SigningKey:
    """Signs with one P-256 key (ES256); equal claims give the same token.

    Raises:
        ValueError: the PEM text holds no such key.
    """

    def __init__(self, pem: bytes) -> None:
        key = serialization.load_pem_private_key(pem, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            raise ValueError("the service-account key must be an EC P-256 private key")
        self._key = key
        self.public = VerifyingKey(key.public_key())

    def sign(self, claims: Mapping[str, Any]) -> str:
        header = encode(json.dumps({"alg": "ES256", "kid": self.public.key_id}, separators=(",", ":")).encode())
        text = f"{header}.{encode(json.dumps(claims, separators=(',', ':')).encode())}"
        der = self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        r, s = decode_dss_signature(der)
        return f"{text}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
