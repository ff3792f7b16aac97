"""Rules of files that volumes hold, and of volumes that several sources make together.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

from collections.abc import Sequence

from steersman.cluster.api.rules.certificates import validate_signer
from steersman.cluster.api.rules.environment import validate_field_ref, validate_resource_ref
from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    forbidden,
    key_errors,
    label_selector,
    required,
    unsupported,
)
from steersman.cluster.api.rules.security import local_path
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import subdomain_errors
from steersman.cluster.meta.objects import Obj

_FIELD_PATHS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
_TOKEN_S_MIN, _TOKEN_S_MAX = 600, 2**32
_CERTIFICATE_S_MIN, _CERTIFICATE_S_MAX, _OWN_CERTIFICATE_S_MAX = 3600, 91 * 86400, 86400
_KEY_TYPES = ("RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519")
_TWICE = "conflicting duplicate paths"


def file_mode(path: str, source: Obj, key: str = "mode") -> list[Cause]:
    """The rules of a file's mode."""
    mode = source.get(key)
    if mode is None or 0 <= mode <= 0o777:
        return []
    return [bad(f"{path}.{key}", mode, "must be a number between 0 and 0777 (octal), both inclusive")]


def validate_items(path: str, items: Sequence[Obj]) -> list[Cause]:
    """Every broken rule of keys that become files."""
    causes: list[Cause] = []
    for index, item in enumerate(items):
        where = f"{path}[{index}]"
        if not item.get("key"):
            causes.append(required(f"{where}.key"))
        causes += _place(f"{where}.path", item.get("path", "")) + file_mode(where, item)
    return causes


def _place(path: str, found: str) -> list[Cause]:
    return local_path(path, found) if found else [required(path)]


def validate_downward(path: str, item: Obj) -> list[Cause]:
    """Every broken rule of a file that tells something of its pod; `path` is that of all of them."""
    causes = _place(f"{path}.path", item.get("path", ""))
    if "fieldRef" in item:
        causes += validate_field_ref(f"{path}.fieldRef", item["fieldRef"], _FIELD_PATHS)
        if "resourceFieldRef" in item:
            detail = "fieldRef and resourceFieldRef can not be specified simultaneously"
            causes.append(bad(path, "resource", detail))
    elif "resourceFieldRef" in item:
        causes += validate_resource_ref(f"{path}.resourceFieldRef", item["resourceFieldRef"], in_volume=True)
    else:
        causes.append(required(path, "one of fieldRef and resourceFieldRef is required"))
    return causes + file_mode(path, item)


def validate_projections(path: str, sources: Sequence[Obj]) -> list[Cause]:
    """Every broken rule of the sources of a projected volume."""
    causes: list[Cause] = []
    places: set[str] = set()
    for index, source in enumerate(sources):
        where = f"{path}.sources[{index}]"
        for kind in ("secret", "configMap"):
            if kind in source:
                causes += _keys(path, f"{where}.{kind}", source[kind], places)
        for item in (source.get("downwardAPI") or {}).get("items") or ():
            causes += validate_downward(f"{where}.downwardAPI", item)
            causes += _once(path, item.get("path", ""), places)
        if "serviceAccountToken" in source:
            causes += _token(path, f"{where}.serviceAccountToken", source["serviceAccountToken"])
        if "clusterTrustBundle" in source:
            causes += _trust(f"{where}.clusterTrustBundle", source["clusterTrustBundle"])
            causes += _once(path, source["clusterTrustBundle"].get("path", ""), places)
        if "podCertificate" in source:
            causes += _certificate(path, f"{where}.podCertificate", source["podCertificate"], places)
        if len(source) > 1:
            causes.append(forbidden(where, "may not specify more than 1 volume type per source"))
    return causes


def _once(path: str, place: str, places: set[str], shown: str | None = None) -> list[Cause]:
    """The rule that no two sources make the same file. Args: shown: what the refusal names instead of the file."""
    if not place:
        return []
    if place in places:
        return [bad(path, place if shown is None else shown, _TWICE)]
    places.add(place)
    return []


def _keys(volume: str, path: str, source: Obj, places: set[str]) -> list[Cause]:
    name, items = source.get("name", ""), source.get("items") or ()
    causes = [] if name else [required(f"{path}.name")]
    causes += validate_items(f"{path}.items", items)
    for item in items:
        causes += _once(volume, item.get("path", ""), places, name)
    return causes


def _token(volume: str, path: str, token: Obj) -> list[Cause]:
    """The rules of a token's file, of whose place Kubernetes speaks as the volume's."""
    seconds, where = token.get("expirationSeconds", 3600), f"{path}.expirationSeconds"
    causes: list[Cause] = []
    if seconds < _TOKEN_S_MIN:
        causes.append(bad(where, seconds, "may not specify a duration less than 10 minutes"))
    if seconds > _TOKEN_S_MAX:
        causes.append(bad(where, seconds, "may not specify a duration larger than 2^32 seconds"))
    return causes + _place(f"{volume}.path", token.get("path", ""))


def _trust(path: str, found: Obj) -> list[Cause]:
    name, signer = found.get("name"), found.get("signerName")
    causes: list[Cause] = []
    if name is not None and signer is not None:
        causes.append(bad(path, found, "only one of name and signerName may be used"))
    elif name is not None:
        where = f"{path}.name"
        if not name:
            causes.append(required(where, "must be a valid object name"))
        causes += [bad(where, name, f"not a valid clustertrustbundlename: {e}") for e in _bundle_errors(name)]
        if found.get("labelSelector") is not None:
            detail = "labelSelector must be unset if name is specified"
            causes.append(bad(f"{path}.labelSelector", found["labelSelector"], detail))
    elif signer is not None:
        if not signer:
            causes.append(required(f"{path}.signerName", "must be a valid signer name"))
        causes += validate_signer(f"{path}.signerName", signer)
        causes += label_selector(f"{path}.labelSelector", found.get("labelSelector"))
    else:
        causes.append(required(path, "either name or signerName must be specified"))
    return causes + _place(f"{path}.path", found.get("path", ""))


def _bundle_errors(name: str) -> list[str]:
    """What breaks the rule of a trust bundle's name, which says its signer if it has one."""
    parts = name.split(":", 2)
    if len(parts) == 3:
        return subdomain_errors(parts[2])
    if len(parts) == 2:
        return ['ClusterTrustBundle without signer name must not have ":" in its name']
    return subdomain_errors(name)


def _certificate(volume: str, path: str, found: Obj, places: set[str]) -> list[Cause]:
    signer, kind, seconds = found.get("signerName", ""), found.get("keyType", ""), found.get("maxExpirationSeconds")
    causes = validate_signer(f"{path}.signerName", signer)
    for key in found.get("userAnnotations") or ():
        where = f"{path}.userAnnotations"
        causes += bad_all(where, key, key_errors(key)) or (
            [] if "/" in key else [bad(where, key, 'must be a domain-prefixed key (such as "acme.io/foo")')]
        )
    if kind not in _KEY_TYPES:
        causes.append(unsupported(f"{path}.keyType", kind, _KEY_TYPES, in_order=True))
    is_own = f".{signer.partition('/')[0]}".endswith(".kubernetes.io")
    most = _OWN_CERTIFICATE_S_MAX if is_own else _CERTIFICATE_S_MAX
    where = f"{path}.maxExpirationSeconds"
    if seconds is not None and seconds < _CERTIFICATE_S_MIN:
        causes.append(bad(where, seconds, f"if provided, maxExpirationSeconds must be >= {_CERTIFICATE_S_MIN}"))
    if seconds is not None and seconds > most:
        causes.append(bad(where, seconds, f"if provided, maxExpirationSeconds must be <= {most}"))
    files = [key for key in ("credentialBundlePath", "keyPath", "certificateChainPath") if found.get(key)]
    for key in files:
        causes += local_path(f"{path}.{key}", found[key]) + _once(volume, found[key], places)
    if not files:
        detail = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath"
        causes.append(required(path, detail))
    return causes
