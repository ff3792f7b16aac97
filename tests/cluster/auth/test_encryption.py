"""Encryption at rest: the layout of stored values, which key writes and which read, and mistakes in a configuration."""

from __future__ import annotations

import base64
import os
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from steersman.cluster.auth.ciphers import CannotDecrypt
from steersman.cluster.auth.encryption import InvalidEncryption, Sealer, read_encryption, render_encryption

PLACE = b"/registry/core/secrets/default/a"
SECRET = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(range(32, 64))).decode()
KMS = {"apiVersion": "v2", "name": "plug", "endpoint": "unix:///run/kms.sock"}


def config(*providers: Any, resources: tuple[str, ...] = ("secrets",)) -> str:
    rows = [{"resources": list(resources), "providers": list(providers)}]
    return yaml.safe_dump(
        {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": rows}
    )


def keys(provider: str, **named: str) -> dict[str, Any]:
    return {provider: {"keys": [{"name": name, "secret": secret} for name, secret in named.items()]}}


def sealer(*providers: Any, **more: Any) -> Sealer:
    return read_encryption(config(*providers, **more))


@pytest.mark.parametrize("provider", ["aesgcm", "aescbc", "secretbox"])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 4000])
def test_what_is_sealed_opens_again(provider: str, size: int) -> None:
    seals, value = sealer(keys(provider, k1=SECRET)), os.urandom(size)
    stored = seals.seal(PLACE, value, os.urandom)
    assert stored.startswith(f"k8s:enc:{provider}:v1:k1:".encode()) and (size < 15 or value not in stored)
    assert seals.open(PLACE, stored) == (value, f"k8s:enc:{provider}:v1:k1:".encode())
    assert seals.seal(PLACE, value, os.urandom) != stored, "no two writes are alike"


@pytest.mark.parametrize("provider", ["aesgcm", "secretbox"])
def test_a_value_that_was_tampered_with_does_not_open(provider: str) -> None:
    seals = sealer(keys(provider, k1=SECRET))
    stored = bytearray(seals.seal(PLACE, b"value", os.urandom))
    stored[-1] ^= 1
    with pytest.raises(CannotDecrypt, match="/registry/core/secrets/default/a"):
        seals.open(PLACE, bytes(stored))


def test_aesgcm_binds_a_value_to_its_place_as_kubernetes_does() -> None:
    seals = sealer(keys("aesgcm", k1=SECRET))
    stored = seals.seal(PLACE, b"value", os.urandom)
    body = stored.removeprefix(b"k8s:enc:aesgcm:v1:k1:")
    assert AESGCM(bytes(range(32))).decrypt(body[:12], body[12:], PLACE) == b"value"
    with pytest.raises(CannotDecrypt):
        seals.open(b"/registry/core/secrets/default/b", stored)


def test_the_first_key_writes_and_every_key_reads() -> None:
    old = sealer(keys("aescbc", k1=SECRET), {"identity": {}})
    stored = old.seal(PLACE, b"value", os.urandom)
    new = sealer(keys("secretbox", k2=OTHER), keys("aescbc", k1=SECRET), {"identity": {}})
    assert new.open(PLACE, stored) == (b"value", b"k8s:enc:aescbc:v1:k1:")
    assert new.open(PLACE, b'{"plain":1}') == (b'{"plain":1}', b"")
    assert new.writes(PLACE) == b"k8s:enc:secretbox:v1:k2:"
    with pytest.raises(CannotDecrypt, match="no matching prefix found"):
        old.open(PLACE, new.seal(PLACE, b"value", os.urandom))


@pytest.mark.parametrize(
    ("resources", "place", "covered"),
    [
        (("secrets",), PLACE, True),
        (("secrets",), b"/registry/core/configmaps/default/a", False),
        (("deployments.apps",), b"/registry/apps/deployments/default/a", True),
        (("*.apps",), b"/registry/apps/replicasets/default/a", True),
        (("*.apps",), b"/registry/batch/jobs/default/a", False),
        (("*.",), b"/registry/core/configmaps/default/a", True),
        (("*.",), b"/registry/apps/replicasets/default/a", False),
        (("*.*",), b"/registry/example.com/widgets/default/a", True),
    ],
)
def test_resources_are_chosen_by_name_and_group(resources: tuple[str, ...], place: bytes, covered: bool) -> None:
    seals = sealer(keys("aesgcm", k1=SECRET), resources=resources)
    assert seals.seal(place, b"value", os.urandom).startswith(b"k8s:enc:") is covered


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("kind: Pod", "kind: must be EncryptionConfiguration"),
        (config(), "resources[0].providers: Required value"),
        (config({"identity": {}}, resources=()), "resources[0].resources: Required value"),
        (config({}), "provider does not contain any of the expected providers"),
        (config({"identity": {}, "kms": {}}), "more than one provider specified in a single element"),
        (config({"kms": {**KMS, "apiVersion": "v1"}}), "KMSv1 is deprecated and will only receive security updates"),
        (config({"kms": {"name": "x"}}), "kms.endpoint: Required value: endpoint is a mandatory field for a kms"),
        (
            config({"kms": {**KMS, "apiVersion": "v3"}}),
            "unsupported apiVersion v3 for KMS provider, only v1 and v2 are",
        ),
        (config({"kms": {**KMS, "name": ""}}), "kms.name: Required value: name is a mandatory field for a provider"),
        (config({"kms": {**KMS, "name": "a:b"}}), "invalid KMS provider name a:b, must not contain ':'"),
        (config({"kms": {**KMS, "endpoint": "tcp://a:1"}}), 'unsupported scheme "tcp" for KMS provider, only unix is'),
        (config({"kms": {**KMS, "cachesize": 5}}), "cachesize is not supported in v2"),
        (config({"kms": {**KMS, "timeout": "-1s"}}), "timeout should be a positive value"),
        (config({"kms": KMS}, {"kms": KMS}), "duplicate KMS provider name plug, names must be unique"),
        (config({"rot13": {}}), "resources[0].providers[0].rot13: Invalid value: unknown provider"),
        (config({"aesgcm": {}}), "resources[0].providers[0].aesgcm.keys: Required value"),
        (config(keys("aesgcm", k1="?")), "keys[0].secret: Invalid value: REDACTED: secrets must be base64 encoded"),
        (config(keys("secretbox", k1="YWJj")), "expected length, got 3, expected one of [32]"),
        (config(keys("aescbc", k1="")), "keys[0].secret: Required value"),
    ],
)
def test_a_mistake_in_a_configuration_is_named_and_no_key_is_told(text: str, message: str) -> None:
    with pytest.raises(InvalidEncryption) as caught:
        read_encryption(text)
    assert message in str(caught.value)


def test_the_configuration_made_at_first_encrypts_secrets_and_reads_older_ones() -> None:
    seals = read_encryption(render_encryption("key1", bytes(32)))
    assert seals.writes(PLACE) == b"k8s:enc:secretbox:v1:key1:"
    assert seals.open(PLACE, b"{}") == (b"{}", b"")
    assert seals.writes(b"/registry/core/configmaps/default/a") == b""
