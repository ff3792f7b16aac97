"""The ciphers of encryption at rest: bytes in, bytes out, in the layout that Kubernetes stores.

Each value names its provider and key in front (`k8s:enc:aesgcm:v1:KEY:`), so that it can be read whatever writes now.

Source: k8s.io/apiserver/pkg/storage/value/encrypt
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

#: returns so many unpredictable bytes
Chance = Callable[[int], bytes]

ENCRYPTED = b"k8s:enc:"
_BLOCK = 16
_AES_KEY_SIZES = (16, 24, 32)


class CannotDecrypt(ValueError):
    """A stored value cannot be read with this key; the message holds nothing secret."""


class CannotEncrypt(ValueError):
    """A value cannot be written with this key now."""


class Key(Protocol):
    """One key of one provider.

    Args:
        prefix: what the values it writes begin with; empty for plain ones.
    """

    prefix: bytes

    @property
    def mark(self) -> bytes:
        """What tells the values that it would write now from others."""
        ...

    def mark_of(self, stored: bytes) -> bytes:
        """The mark that a stored value was written with."""
        ...

    def seal(self, place: bytes, value: bytes, chance: Chance) -> bytes:
        """Returns the stored form of a value; `place` is its key in the store. Raises CannotEncrypt."""
        ...

    def open(self, place: bytes, stored: bytes) -> bytes:
        """Returns the value; raises CannotDecrypt."""
        ...


class _Local:
    """A key that is always at hand: its values are told by their prefix."""

    prefix: bytes

    @property
    def mark(self) -> bytes:
        return self.prefix

    def mark_of(self, _stored: bytes) -> bytes:
        return self.prefix


class Identity(_Local):
    """Stores values as they are."""

    prefix = b""

    def seal(self, _place: bytes, value: bytes, _chance: Chance) -> bytes:
        return value

    def open(self, _place: bytes, stored: bytes) -> bytes:
        if stored.startswith(ENCRYPTED):
            raise CannotDecrypt("identity transformer tried to read encrypted data")
        return stored


class AesGcm(_Local):
    """AES in Galois/Counter mode; a value opens only in the place that it was written to."""

    sizes = _AES_KEY_SIZES

    def __init__(self, name: str, secret: bytes) -> None:
        self.prefix = b"k8s:enc:aesgcm:v1:" + name.encode() + b":"
        self._cipher = AESGCM(secret)

    def seal(self, place: bytes, value: bytes, chance: Chance) -> bytes:
        nonce = chance(12)
        return self.prefix + nonce + self._cipher.encrypt(nonce, value, place)

    def open(self, place: bytes, stored: bytes) -> bytes:
        body = stored[len(self.prefix) :]
        try:
            return self._cipher.decrypt(body[:12], body[12:], place)
        except (InvalidTag, ValueError):
            raise CannotDecrypt("message authentication failed") from None


class AesCbc(_Local):
    """AES in cipher block chaining with PKCS#7 padding; nothing proves that a value was not changed."""

    sizes = _AES_KEY_SIZES

    def __init__(self, name: str, secret: bytes) -> None:
        self.prefix = b"k8s:enc:aescbc:v1:" + name.encode() + b":"
        self._algorithm = algorithms.AES(secret)

    def seal(self, _place: bytes, value: bytes, chance: Chance) -> bytes:
        vector, padding = chance(_BLOCK), _BLOCK - len(value) % _BLOCK
        encryptor = Cipher(self._algorithm, modes.CBC(vector)).encryptor()
        return self.prefix + vector + encryptor.update(value + bytes((padding,)) * padding) + encryptor.finalize()

    def open(self, _place: bytes, stored: bytes) -> bytes:
        body = stored[len(self.prefix) :]
        if len(body) < 2 * _BLOCK or len(body) % _BLOCK:
            raise CannotDecrypt("the stored data is not a multiple of the block size")
        decryptor = Cipher(self._algorithm, modes.CBC(body[:_BLOCK])).decryptor()
        value = decryptor.update(body[_BLOCK:]) + decryptor.finalize()
        padding = value[-1]
        if not 0 < padding <= _BLOCK or value[-padding:] != bytes((padding,)) * padding:
            raise CannotDecrypt("invalid padding on input")
        return value[:-padding]


class SecretBox(_Local):
    """XSalsa20 and Poly1305; its nonce is long enough to be drawn at random for ever."""

    sizes = (32,)

    def __init__(self, name: str, secret: bytes) -> None:
        from nacl.secret import SecretBox as Box  # its library is loaded where this provider is used only

        self.prefix = b"k8s:enc:secretbox:v1:" + name.encode() + b":"
        self._box = Box(secret)

    def seal(self, _place: bytes, value: bytes, chance: Chance) -> bytes:
        return self.prefix + bytes(self._box.encrypt(value, chance(24)))

    def open(self, _place: bytes, stored: bytes) -> bytes:
        from nacl.exceptions import CryptoError

        try:
            return self._box.decrypt(stored[len(self.prefix) :])
        except (CryptoError, ValueError):
            raise CannotDecrypt("message authentication failed") from None
