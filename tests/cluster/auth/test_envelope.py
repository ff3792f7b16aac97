"""Envelope encryption: the stored message, seeds that a plugin has to open, and what a plugin may not answer."""

from __future__ import annotations

import os
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from steersman.cluster.auth import envelope
from steersman.cluster.auth.ciphers import CannotDecrypt, CannotEncrypt
from steersman.cluster.auth.envelope import Kms, Locked, UnusableAnswer, check_status, sealed_seed

PLACE = b"/registry/core/secrets/default/a"
SEED = bytes(range(32))


def writing(key_id: str = "k1", now: float = 0) -> Kms:
    key = Kms("plug", "unix:///run/kms.sock", 3)
    key.write_with(SEED, sealed_seed(b"sealed", key_id, {"a.example": b"x"}, key_id), now)
    return key


def test_a_value_opens_once_its_seed_is_known() -> None:
    writer, reader = writing(), Kms("plug", "unix:///run/kms.sock", 3)
    stored = writer.seal(PLACE, b"value", os.urandom)
    assert stored.startswith(b"k8s:enc:kms:v2:plug:") and writer.open(PLACE, stored) == b"value"
    assert stored != writer.seal(PLACE, b"value", os.urandom)
    with pytest.raises(Locked) as caught:
        reader.open(PLACE, stored)
    needed = caught.value.envelope
    assert (needed.source, needed.key_id, needed.annotations) == (b"sealed", "k1", (("a.example", b"x"),))
    reader.unlock(needed, SEED)
    assert reader.open(PLACE, stored) == b"value"
    with pytest.raises(CannotDecrypt, match="message authentication failed"):
        reader.open(b"/registry/core/secrets/default/b", stored)


def test_the_stored_message_is_what_protobuf_makes_of_it() -> None:
    """Its fields as protoc's own decoder would print them: number, wire type, bytes."""
    stored = writing().seal(PLACE, b"v", lambda count: bytes(count))
    message = stored.removeprefix(b"k8s:enc:kms:v2:plug:")
    info, nonce = bytes(32), bytes(12)
    body = info + nonce + AESGCM(envelope._derived(SEED, info)).encrypt(nonce, b"v", PLACE)
    expected = b"\x0a" + bytes((len(body),)) + body + b"\x12\x02k1" + b"\x1a\x06sealed"
    assert message == expected + b"\x22\x0e\x0a\x09a.example\x12\x01x" + b"\x28\x01"


def test_a_value_whose_key_is_not_derived_opens_too() -> None:
    nonce = os.urandom(12)
    data = nonce + AESGCM(SEED).encrypt(nonce, b"old", PLACE)
    message = (
        b"\x0a" + bytes((len(data),)) + data + b"\x12\x02k1" + b"\x1a\x06sealed" + b"\x22\x0e\x0a\x09a.example\x12\x01x"
    )
    assert writing().open(PLACE, b"k8s:enc:kms:v2:plug:" + message) == b"old"


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_broken_message_does_not_open(cut: int) -> None:
    stored = writing().seal(PLACE, b"value", os.urandom)
    with pytest.raises((CannotDecrypt, Locked)):
        writing().open(PLACE, stored[:-cut])


def test_the_mark_of_a_value_tells_the_key_of_the_plugin() -> None:
    key = writing()
    stored = key.seal(PLACE, b"value", os.urandom)
    assert key.mark_of(stored) == key.mark
    assert key.writes_with("k1", 5) and not key.writes_with("k2", 5)
    key.write_with(bytes(32), sealed_seed(b"other", "k2", {}, "k2"), 5)
    assert key.mark_of(stored) != key.mark and key.open(PLACE, stored) == b"value"


def test_nothing_is_written_when_the_plugin_has_been_silent_for_long() -> None:
    key = writing(now=1000)
    key.expire(1180)
    key.seal(PLACE, b"value", os.urandom)
    key.expire(1181)
    with pytest.raises(CannotEncrypt, match="the KMS plugin plug is not healthy"):
        key.seal(PLACE, b"value", os.urandom)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (("v2", "broken", "k1"), "got unexpected healthz status: broken"),
        (("v1beta1", "ok", "k1"), "expected KMSv2 API version v2, got v1beta1"),
        (("v2", "ok", ""), "keyID is empty"),
        (("v2", "ok", "k" * 1025), "keyID is 1025 bytes, which exceeds the max size of 1024"),
    ],
)
def test_a_plugin_that_is_not_well_is_told(status: Any, message: str) -> None:
    with pytest.raises(UnusableAnswer) as caught:
        check_status(*status)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((b"", "k1", {}), "encrypted DEK source is empty"),
        ((bytes(1025), "k1", {}), "encrypted DEK source is 1025 bytes, which exceeds the max size of 1024"),
        ((b"x", "k2", {}), "the key of Encrypt is not that of Status"),
        ((b"x", "k1", {"nodots": b""}), "should be a domain with at least two segments"),
        ((b"x", "k1", {"a.b": bytes(33000)}), "total size of annotations is 33003"),
    ],
)
def test_a_seed_that_breaks_the_contract_is_not_used(answer: Any, message: str) -> None:
    with pytest.raises(UnusableAnswer) as caught:
        sealed_seed(*answer, "k1")
    assert message in str(caught.value)
