"""Envelope encryption (KMS v2): a seed of ours encrypts values, and a plugin that keeps the key encrypts the seed.

A value carries its encrypted seed. Whoever reads it needs the plugin once for each seed (`Locked`), and remembers it.
Refuses to know how a plugin is reached.

Source: k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2 and .../encrypt/aes/aes_extended_nonce.go
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from steersman.cluster.auth.ciphers import CannotDecrypt, CannotEncrypt, Chance
from steersman.cluster.meta.names import subdomain_errors

SEED_BYTES = 32
_INFO_BYTES, _NONCE_BYTES = 32, 12
_KEY_ID_BYTES_MAX, _SOURCE_BYTES_MAX, _ANNOTATIONS_BYTES_MAX = 1024, 1024, 32 * 1024
#: seeds remembered; one a key of the plugin and start of a server
_SEEDS_MAX = 1000
#: a writer whose plugin has not been heard of for so long writes no more
WRITER_AGE_MAX_S = 180.0
_VERSIONS = ("v2", "v2beta1")


class UnusableAnswer(ValueError):
    """The plugin's answer breaks its contract; the message says how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What is stored of a value.

    Args:
        source: the encrypted seed (or key), as the plugin made it with the key `key_id`.
        derived: whether each value has a key of its own, derived from the seed; else the source is the key.
    """

    data: bytes
    key_id: str
    source: bytes
    annotations: tuple[tuple[str, bytes], ...] = ()
    derived: bool = True

    @property
    def lock(self) -> bytes:
        """What names the seed."""
        rows = (self.source, self.key_id.encode(), *(part for k, v in self.annotations for part in (k.encode(), v)))
        return sha256(b"".join(len(row).to_bytes(4, "big") + row for row in rows)).digest()


class Locked(Exception):
    """A value opens only when the plugin has decrypted its seed (see `Kms.unlock`)."""

    def __init__(self, key: Kms, envelope: Envelope) -> None:
        super().__init__("the seed of a value is not known yet")
        self.key, self.envelope = key, envelope


class Kms:
    """The key that a plugin keeps, as a `ciphers.Key`.

    Args:
        endpoint: `unix:///path` or `unix://@abstract-name`.
        timeout_s: of a call of the plugin.
    """

    def __init__(self, name: str, endpoint: str, timeout_s: float) -> None:
        self.name = name
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self.prefix = b"k8s:enc:kms:v2:" + name.encode() + b":"
        self._writer: Envelope | None = None
        self._writer_seed = b""
        self._heard = float("-inf")
        self._seeds: OrderedDict[bytes, bytes] = OrderedDict()

    @property
    def mark(self) -> bytes:
        return self.prefix + (self._writer.key_id.encode() if self._writer is not None else b"")

    def mark_of(self, stored: bytes) -> bytes:
        return self.prefix + decode(stored[len(self.prefix) :]).key_id.encode()

    def adopt(self, former: Kms) -> None:
        """Goes on with what is known of the same plugin."""
        self._writer, self._writer_seed = former._writer, former._writer_seed
        self._heard, self._seeds = former._heard, former._seeds

    # ---- the key that writes

    def writes_with(self, key_id: str, now: float) -> bool:
        """Whether values are written with this key of the plugin, which has just been heard of."""
        if self._writer is None or self._writer.key_id != key_id:
            return False
        self._heard = now
        return True

    def write_with(self, seed: bytes, sealed: Envelope, now: float) -> None:
        """From now on values are encrypted by this seed, of which `sealed` is the encrypted form."""
        self.unlock(sealed, seed)
        self._writer, self._writer_seed, self._heard = sealed, seed, now

    def expire(self, now: float) -> None:
        """Gives the writer up when the plugin has been silent for too long: its key may have been withdrawn."""
        if now - self._heard > WRITER_AGE_MAX_S:
            self._writer = None

    # ---- values

    def unlock(self, envelope: Envelope, seed: bytes) -> None:
        """Remembers a seed."""
        self._seeds[envelope.lock] = seed
        if len(self._seeds) > _SEEDS_MAX:
            self._seeds.popitem(last=False)

    def seal(self, place: bytes, value: bytes, chance: Chance) -> bytes:
        writer = self._writer
        if writer is None:
            raise CannotEncrypt(f"the KMS plugin {self.name} is not healthy, and nothing is written without its key")
        info, nonce = chance(_INFO_BYTES), chance(_NONCE_BYTES)
        data = info + nonce + AESGCM(_derived(self._writer_seed, info)).encrypt(nonce, value, place)
        return self.prefix + encode(data, writer)

    def open(self, place: bytes, stored: bytes) -> bytes:
        """Returns the value; raises CannotDecrypt or Locked."""
        envelope = decode(stored[len(self.prefix) :])
        seed = self._seeds.get(envelope.lock)
        if seed is None:
            raise Locked(self, envelope)
        self._seeds.move_to_end(envelope.lock)
        body, key = envelope.data, seed
        if envelope.derived:
            body, key = body[_INFO_BYTES:], _derived(seed, body[:_INFO_BYTES])
        try:
            return AESGCM(key).decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], place)
        except (InvalidTag, ValueError):
            raise CannotDecrypt("message authentication failed") from None


def _derived(seed: bytes, info: bytes) -> bytes:
    return HKDFExpand(SHA256(), 32, info).derive(seed)


# ---- what a plugin may answer


def check_status(version: str, healthz: str, key_id: str) -> None:
    """Raises UnusableAnswer when a plugin is not well."""
    wrong = []
    if healthz != "ok":
        wrong.append(f"got unexpected healthz status: {healthz}")
    if version not in _VERSIONS:
        wrong.append(f"expected KMSv2 API version {_VERSIONS[0]}, got {version}")
    wrong += _key_id_mistakes(key_id)
    if wrong:
        raise UnusableAnswer("; ".join(wrong))


def sealed_seed(ciphertext: bytes, key_id: str, annotations: Mapping[str, bytes], wanted_key_id: str) -> Envelope:
    """Returns what values carry of a seed that the plugin has encrypted.

    Raises:
        UnusableAnswer
    """
    wrong = _key_id_mistakes(key_id)
    if not ciphertext:
        wrong.append("failed to validate encrypted DEK source: encrypted DEK source is empty")
    if len(ciphertext) > _SOURCE_BYTES_MAX:
        wrong.append(
            f"failed to validate encrypted DEK source: encrypted DEK source is {len(ciphertext)} bytes, which exceeds"
            f" the max size of {_SOURCE_BYTES_MAX}"
        )
    for key in annotations:
        if errors := subdomain_errors(key) or ([] if "." in key else ["should be a domain with at least two segments"]):
            wrong.append(f'failed to validate annotations: annotations: Invalid value: "{key}": {errors[0]}')
    size = sum(len(key) + len(value) for key, value in annotations.items())
    if size > _ANNOTATIONS_BYTES_MAX:
        wrong.append(
            f"failed to validate annotations: total size of annotations is {size}, which exceeds the max size of"
            f" {_ANNOTATIONS_BYTES_MAX}"
        )
    if key_id != wanted_key_id:
        wrong.append("failed to rotate DEK: the key of Encrypt is not that of Status")
    if wrong:
        raise UnusableAnswer("; ".join(wrong))
    return Envelope(data=b"", key_id=key_id, source=ciphertext, annotations=tuple(sorted(annotations.items())))


def _key_id_mistakes(key_id: str) -> list[str]:
    if not key_id:
        return ["failed to validate key id: keyID is empty"]
    size = len(key_id.encode())
    if size > _KEY_ID_BYTES_MAX:
        return [f"failed to validate key id: keyID is {size} bytes, which exceeds the max size of {_KEY_ID_BYTES_MAX}"]
    return []


# ---- the stored form, a protobuf message `EncryptedObject`

_DATA, _KEY_ID, _SOURCE, _ANNOTATION, _KIND = 0x0A, 0x12, 0x1A, 0x22, 0x28


def encode(data: bytes, writer: Envelope) -> bytes:
    """The message for a value that the writer's seed has encrypted."""
    rows = [_field(_DATA, data), _field(_KEY_ID, writer.key_id.encode()), _field(_SOURCE, writer.source)]
    for key, value in writer.annotations:
        rows.append(_field(_ANNOTATION, _field(_DATA, key.encode()) + _field(_KEY_ID, value)))
    return b"".join(rows) + bytes((_KIND, 1))


def decode(message: bytes) -> Envelope:
    """Reads a message; raises CannotDecrypt."""
    data, key_id, source, kind = b"", b"", b"", 0
    annotations: dict[str, bytes] = {}
    try:
        for tag, value in _fields(message):
            match tag:
                case 0x0A:
                    data = bytes(value)
                case 0x12:
                    key_id = bytes(value)
                case 0x1A:
                    source = bytes(value)
                case 0x22:
                    row = dict(_fields(value))
                    annotations[bytes(row.get(_DATA, b"")).decode()] = bytes(row.get(_KEY_ID, b""))
                case 0x28:
                    kind = int.from_bytes(value, "big")
        return Envelope(
            data=data, key_id=key_id.decode(), source=source, annotations=tuple(sorted(annotations.items())),
            derived=kind == 1,
        )  # fmt: skip
    except (IndexError, ValueError):
        raise CannotDecrypt("the stored data is no encrypted object") from None


def _field(tag: int, data: bytes) -> bytes:
    return bytes((tag,)) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields tag and bytes of each field; of a number its bytes in network order. Raises IndexError, ValueError."""
    at = 0
    while at < len(message):
        tag, at = message[at], at + 1
        number, shift = 0, 0
        while True:
            byte, at = message[at], at + 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift > 63:
                raise ValueError("a number is too long")
        if tag & 7 == 0:
            yield tag, number.to_bytes(10, "big")
        elif tag & 7 == 2 and at + number <= len(message):
            yield tag, message[at : at + number]
            at += number
        else:
            raise ValueError("a field is of another form")
