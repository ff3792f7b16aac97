"""Which resources are encrypted in the store, with which keys: an `EncryptionConfiguration` as a function of bytes.

The first key of the first provider writes, every key reads. Refuses to know where values are stored, which key a file
holds, and how the plugins are reached that keep the keys of KMS providers.

Source: https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from steersman.cluster.auth.ciphers import (
    ENCRYPTED,
    AesCbc,
    AesGcm,
    CannotDecrypt,
    Chance,
    Identity,
    Key,
    SecretBox,
)
from steersman.cluster.auth.envelope import Kms
from steersman.cluster.meta.times import duration_s

_PROVIDERS: dict[str, type[AesGcm | AesCbc | SecretBox]] = {"aesgcm": AesGcm, "aescbc": AesCbc, "secretbox": SecretBox}
_ROOT = b"/registry/"
_PLUGIN_TIMEOUT = "3s"
#: kinds of places remembered with their keys
_PLACES_MAX = 4096


class InvalidEncryption(ValueError):
    """The text is no EncryptionConfiguration; the message names every mistake with its field, and no key."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Resources (`secrets`, `deployments.apps`, `*.apps`, `*.`, `*.*`) and the keys of their values, writer first."""

    resources: frozenset[str]
    keys: tuple[Key, ...]

    def covers(self, group: str, plural: str) -> bool:
        own = f"{plural}.{group}" if group else plural
        return own in self.resources or f"*.{group}" in self.resources or "*.*" in self.resources


class Sealer:
    """Turns values into what is stored and back, by the rules of a configuration; the first rule that fits counts."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        self._found: dict[bytes, tuple[Key, ...]] = {}

    def places(self) -> list[bytes]:
        """The prefixes below which the store may hold sealed values."""
        names = sorted({name for rule in self._rules for name in rule.resources})
        if any("*" in name for name in names):
            return [_ROOT]
        parted = [name.partition(".") for name in names]
        return [_ROOT + f"{group or 'core'}/{plural}/".encode() for plural, _, group in parted]

    def keys(self, place: bytes) -> tuple[Key, ...]:
        """The keys of a place in the store (`/registry/core/secrets/default/a`); none where nothing is encrypted."""
        end = place.find(b"/", place.find(b"/", len(_ROOT)) + 1)
        kind = place[:end]
        found = self._found.get(kind)
        if found is None:
            _, _, group, plural = (kind.decode(errors="replace").split("/") + [""] * 4)[:4]
            group = "" if group == "core" else group
            found = next((rule.keys for rule in self._rules if plural and rule.covers(group, plural)), ())
            if len(self._found) >= _PLACES_MAX:
                self._found.clear()
            self._found[kind] = found
        return found

    def plugins(self) -> list[Kms]:
        """The keys that plugins keep."""
        return [key for rule in self._rules for key in rule.keys if isinstance(key, Kms)]

    def writes(self, place: bytes) -> bytes:
        """The mark of values that are written to a place now; empty for plain ones."""
        keys = self.keys(place)
        return keys[0].mark if keys else b""

    def seal(self, place: bytes, value: bytes, chance: Chance) -> bytes:
        """Returns what is to be stored; raises CannotEncrypt."""
        keys = self.keys(place)
        return keys[0].seal(place, value, chance) if keys else value

    def open(self, place: bytes, stored: bytes) -> tuple[bytes, bytes]:
        """Returns the value, and the mark that it was written with.

        Raises:
            CannotDecrypt: no key of the configuration opens it. Locked: a plugin has to be asked first.
        """
        if not stored.startswith(ENCRYPTED):
            return stored, b""
        why = "no matching prefix found"
        for key in self.keys(place):
            if key.prefix and stored.startswith(key.prefix):
                try:
                    return key.open(place, stored), key.mark_of(stored)
                except CannotDecrypt as error:
                    why = str(error)
        raise CannotDecrypt(f'unable to transform key "{place.decode(errors="replace")}": {why}')


def read_encryption(text: str) -> Sealer:
    """Compiles an `EncryptionConfiguration` of `apiserver.config.k8s.io/v1`.

    Raises:
        InvalidEncryption
    """
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError:  # its message would quote the file
        raise InvalidEncryption("not valid YAML") from None
    if not isinstance(tree, dict) or tree.get("kind") != "EncryptionConfiguration":
        raise InvalidEncryption("kind: must be EncryptionConfiguration")
    if tree.get("apiVersion") != "apiserver.config.k8s.io/v1":
        raise InvalidEncryption("apiVersion: must be apiserver.config.k8s.io/v1")
    mistakes: list[str] = []
    rows = tree.get("resources")
    rules = [_rule(row, f"resources[{at}]", mistakes) for at, row in enumerate(rows)] if isinstance(rows, list) else []
    names = [key.name for rule in rules for key in rule.keys if isinstance(key, Kms)]
    for name in sorted({name for name in names if names.count(name) > 1}):
        mistakes.append(f'kms.name: Invalid value: "{name}": duplicate KMS provider name {name}, names must be unique')
    if not rules:
        mistakes.append("resources: Required value: at least one resources is required")
    if mistakes:
        raise InvalidEncryption("; ".join(mistakes))
    return Sealer(rules)


def _rule(row: Any, path: str, mistakes: list[str]) -> Rule:
    row = row if isinstance(row, dict) else {}
    names = [name for name in row.get("resources") or () if isinstance(name, str)]
    if not names:
        mistakes.append(f"{path}.resources: Required value: at least one resources is required")
    for at, name in enumerate(names):
        if name != name.lower() or name == "*" or "/" in name:
            text = "resource name should not contain capital letters, subresources or a `*` that stands alone"
            mistakes.append(f"{path}.resources[{at}]: Invalid value: {name!r}: {text}")
    providers = row.get("providers") or []
    if not providers:
        mistakes.append(f"{path}.providers: Required value: at least one provider is required")
    keys = [key for at, one in enumerate(providers) for key in _keys(one, f"{path}.providers[{at}]", mistakes)]
    return Rule(frozenset(names), tuple(keys))


def _keys(provider: Any, path: str, mistakes: list[str]) -> Iterator[Key]:
    if not isinstance(provider, dict) or not provider:
        text = "provider does not contain any of the expected providers: AESGCM, AESCBC, Secretbox, KMS, Identity"
        mistakes.append(f"{path}: Required value: {text}")
        return
    if len(provider) > 1:
        text = "more than one provider specified in a single element, should split into different list elements"
        mistakes.append(f"{path}: Invalid value: {text}")
        return
    ((name, settings),) = provider.items()
    if name == "identity":
        yield Identity()
    elif name == "kms":
        if (plugin := _plugin(settings, f"{path}.kms", mistakes)) is not None:
            yield plugin
    elif name not in _PROVIDERS:
        mistakes.append(f"{path}.{name}: Invalid value: unknown provider")
    else:
        rows = (settings or {}).get("keys") if isinstance(settings, dict) else None
        if not rows:
            mistakes.append(f"{path}.{name}.keys: Required value: at least one key is required")
        for at, row in enumerate(rows or ()):
            key = _key(name, row, f"{path}.{name}.keys[{at}]", mistakes)
            if key is not None:
                yield key


def _plugin(settings: Any, path: str, mistakes: list[str]) -> Kms | None:
    row = settings if isinstance(settings, dict) else {}
    name, endpoint, version = (str(row.get(key) or "") for key in ("name", "endpoint", "apiVersion"))
    before = len(mistakes)
    if version == "v2":
        if row.get("cachesize") is not None:
            mistakes.append(f"{path}.cachesize: Invalid value: {row['cachesize']}: cachesize is not supported in v2")
    elif version in ("", "v1"):
        text = "KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead."
        mistakes.append(f'{path}.apiVersion: Invalid value: "v1": {text}')
    else:
        text = f"unsupported apiVersion {version} for KMS provider, only v1 and v2 are supported"
        mistakes.append(f'{path}.apiVersion: Invalid value: "{version}": {text}')
    if not name:
        mistakes.append(f"{path}.name: Required value: name is a mandatory field for a provider")
    elif ":" in name:
        text = f"invalid KMS provider name {name}, must not contain ':'"
        mistakes.append(f'{path}.name: Invalid value: "{name}": {text}')
    scheme = endpoint.partition("://")[0]
    if not endpoint:
        mistakes.append(f"{path}.endpoint: Required value: endpoint is a mandatory field for a kms")
    elif scheme != "unix":
        text = f'unsupported scheme "{scheme}" for KMS provider, only unix is supported'
        mistakes.append(f'{path}.endpoint: Invalid value: "{endpoint}": {text}')
    timeout_s = 0.0
    try:
        timeout_s = duration_s(str(row.get("timeout") or _PLUGIN_TIMEOUT))
        if timeout_s <= 0:
            mistakes.append(f'{path}.timeout: Invalid value: "{row["timeout"]}": timeout should be a positive value')
    except ValueError as error:
        mistakes.append(f"{path}.timeout: {error}")
    return Kms(name, endpoint, timeout_s) if len(mistakes) == before else None


def _key(provider: str, row: Any, path: str, mistakes: list[str]) -> Key | None:
    row = row if isinstance(row, dict) else {}
    name, secret, make = str(row.get("name") or ""), row.get("secret"), _PROVIDERS[provider]
    if not name or ":" in name:
        mistakes.append(f"{path}.name: Required value: a name without colons is required")
    if not isinstance(secret, str) or not secret:
        mistakes.append(f"{path}.secret: Required value: secret is required")
        return None
    try:
        data = base64.b64decode(secret, validate=True)
    except (binascii.Error, ValueError):
        mistakes.append(f"{path}.secret: Invalid value: REDACTED: secrets must be base64 encoded")
        return None
    if len(data) not in make.sizes:
        sizes = " ".join(str(size) for size in make.sizes)
        text = f"secret is not of the expected length, got {len(data)}, expected one of [{sizes}]"
        mistakes.append(f"{path}.secret: Invalid value: REDACTED: {text}")
        return None
    return make(name, data)


def render_encryption(name: str, secret: bytes) -> str:
    """A configuration that encrypts Secrets with one new key, and still reads those stored before in the clear."""
    return (
        "# The keys of the Secrets in the store. Without this file a backup's Secrets cannot be read: keep it.\n"
        "# To change the key: add a second one below it, wait until every API server has read this file (10 s), move\n"
        "# it to the first place, write all Secrets anew (kubectl get secrets -A -o json | kubectl replace -f -), and\n"
        "# remove the former one.\n"
        "apiVersion: apiserver.config.k8s.io/v1\n"
        "kind: EncryptionConfiguration\n"
        "resources:\n"
        "- resources: [secrets]\n"
        "  providers:\n"
        "  - secretbox:\n"
        "      keys:\n"
        f"      - {{name: {name}, secret: {base64.b64encode(secret).decode()}}}\n"
        "  - identity: {}\n"
    )
