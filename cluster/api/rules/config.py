"""Rules of ConfigMaps, Secrets and ServiceAccounts.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.jsonfaults import fault
from steersman.cluster.api.row import meta_fields
from steersman.cluster.api.rules.fields import bad, bad_all, forbidden, immutable, required, too_long
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj

DATA_BYTES_MAX = 1024 * 1024
_KEY = re.compile(r"^[-._a-zA-Z0-9]+\Z")
_KEY_DETAIL = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
    "'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
_IMMUTABLE = "field is immutable when `immutable` is set"
_REDACTED = "<secret contents redacted>"
_GO_KINDS: Mapping[type, str] = {list: "array", str: "string", bool: "bool", int: "number", float: "number"}
_REQUIRED_KEYS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def key_errors(key: str) -> list[str]:
    """What breaks the rule of a data key; empty when nothing does."""
    errors = []
    if len(key) > 253:
        errors.append("must be no more than 253 characters")
    if not _KEY.match(key):
        errors.append(_KEY_DETAIL)
    if key == ".":
        errors.append("must not be '.'")
    elif key == "..":
        errors.append("must not be '..'")
    elif key.startswith(".."):
        errors.append("must not start with '..'")
    return errors


def validate_config_map(obj: Obj) -> list[Cause]:
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    causes: list[Cause] = []
    size = 0
    for key, value in data.items():
        causes += bad_all(f"data[{key}]", key, key_errors(key))
        if key in binary:
            causes.append(bad(f"data[{key}]", key, "duplicate of key present in binaryData"))
        size += len(value.encode())
    for key, value in binary.items():
        causes += bad_all(f"binaryData[{key}]", key, key_errors(key))
        size += len(value) * 3 // 4
    if size > DATA_BYTES_MAX:
        causes.append(too_long("[]", DATA_BYTES_MAX))  # as Kubernetes spells the path of the whole
    return causes


def validate_config_map_change(new: Obj, old: Obj) -> list[Cause]:
    return _frozen(new, old, ("data", "binaryData")) + validate_config_map(new)


def _frozen(new: Obj, old: Obj, keys: Sequence[str]) -> list[Cause]:
    """The rules of what has been made immutable."""
    if not old.get("immutable"):
        return []
    causes = [] if new.get("immutable") else [forbidden("immutable", _IMMUTABLE)]
    return causes + [forbidden(key, _IMMUTABLE) for key in keys if (new.get(key) or {}) != (old.get(key) or {})]


def default_secret(obj: Obj) -> None:
    """Turns `stringData` into data and fills in the type."""
    if not obj.get("type"):
        obj["type"] = "Opaque"
    plain = obj.pop("stringData", None)
    if plain:
        data = obj.setdefault("data", {})
        for key, value in plain.items():
            data[key] = base64.b64encode(value.encode()).decode()


def secret_fields(obj: Obj) -> dict[str, str]:
    return {**meta_fields(obj), "type": obj.get("type", "")}


def validate_secret(obj: Obj) -> list[Cause]:
    data, kind = obj.get("data") or {}, obj.get("type", "")
    causes: list[Cause] = []
    size = 0
    for key, value in data.items():
        causes += bad_all(f"data[{key}]", key, key_errors(key))
        size += len(value) * 3 // 4
    if size > DATA_BYTES_MAX:
        causes.append(too_long("data", DATA_BYTES_MAX))
    for key in _REQUIRED_KEYS.get(kind, ()):
        if key not in data:
            causes.append(required(f"data[{key}]"))
    if kind == "kubernetes.io/ssh-auth" and not data.get("ssh-privatekey"):
        causes.append(required("data[ssh-privatekey]"))
    if kind in ("kubernetes.io/dockercfg", "kubernetes.io/dockerconfigjson"):
        causes += _docker(_REQUIRED_KEYS[kind][0], data)
    if kind == "kubernetes.io/basic-auth" and "username" not in data and "password" not in data:
        causes += [required("data[username]"), required("data[password]")]
    if kind == "kubernetes.io/service-account-token":
        account = (obj["metadata"].get("annotations") or {}).get("kubernetes.io/service-account.name", "")
        if not account:
            causes.append(required("metadata.annotations[kubernetes.io/service-account.name]"))
    return causes


def _docker(key: str, data: Obj) -> list[Cause]:
    if key not in data:
        return []
    text = b""
    try:
        text = base64.b64decode(data[key])
        found = json.loads(text)
    except ValueError as error:
        return [bad(f"data[{key}]", _REDACTED, fault(text) or str(error))]
    if found is None or isinstance(found, dict):
        return []
    detail = f"json: cannot unmarshal {_GO_KINDS[type(found)]} into Go value of type map[string]interface {{}}"
    return [bad(f"data[{key}]", _REDACTED, detail)]


def validate_secret_change(new: Obj, old: Obj) -> list[Cause]:
    return immutable("type", new.get("type"), old.get("type")) + _frozen(new, old, ("data",)) + validate_secret(new)


def prepare_account(obj: Obj, _ctx: WriteContext) -> None:
    """An account names secrets of its own namespace: nothing else is kept of them."""
    if obj.get("secrets"):
        obj["secrets"] = [{"name": row["name"]} if row.get("name") else {} for row in obj["secrets"]]


def prepare_account_update(new: Obj, _old: Obj, ctx: WriteContext) -> None:
    prepare_account(new, ctx)
