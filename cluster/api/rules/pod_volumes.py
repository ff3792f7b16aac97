"""Rules of a pod's volumes.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steersman.cluster.api.rules.environment import validate_field_ref, validate_resource_ref
from steersman.cluster.api.rules.fields import bad, bad_all, duplicate, forbidden, labels, required, unsupported
from steersman.cluster.api.rules.known import is_known_right
from steersman.cluster.api.rules.metadata import validate_annotations
from steersman.cluster.api.rules.volume_claims import validate_claim_spec
from steersman.cluster.api.rules.volume_sources import needed, one_source
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import parse

_FIELD_PATHS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")


def validate_volumes(
    path: str, volumes: Sequence[Obj], *, is_pod: bool = False
) -> tuple[list[Cause], Mapping[str, Obj]]:
    """Returns every broken rule, and the volumes by name."""
    causes: list[Cause] = []
    found: dict[str, Obj] = {}
    rules = _of_pod if is_pod else _of_template
    for index, volume in enumerate(volumes):
        where = f"{path}[{index}]"
        name = volume.get("name", "")
        if not name:
            causes.append(required(f"{where}.name"))
        else:
            if errors := label_1123_errors(name):
                causes += bad_all(f"{where}.name", name, errors)
            if name in found:
                causes.append(duplicate(f"{where}.name", name))
            found[name] = volume
        sources = {key: value for key, value in volume.items() if key != "name"}
        if not is_known_right(rules, sources):
            causes += rules(where, sources)
    return causes, found


def _of_pod(path: str, sources: Obj) -> list[Cause]:
    kinds = list(sources)
    causes = one_source(path, kinds)
    return causes + _source(f"{path}.{kinds[0]}", kinds[0], sources[kinds[0]], is_pod=True) if kinds else causes


def _of_template(path: str, sources: Obj) -> list[Cause]:
    kinds = list(sources)
    causes = one_source(path, kinds)
    return causes + _source(f"{path}.{kinds[0]}", kinds[0], sources[kinds[0]], is_pod=False) if kinds else causes


def _source(path: str, kind: str, source: Any, *, is_pod: bool) -> list[Cause]:
    match kind:
        case "emptyDir":
            if source.get("sizeLimit") is not None and parse(source["sizeLimit"]) < 0:
                return [forbidden(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")]
            return []
        case "secret":
            missing = [] if source.get("secretName") else [required(f"{path}.secretName")]
            return missing + _files(path, source)
        case "configMap":
            missing = [] if source.get("name") else [required(f"{path}.name")]
            return missing + _files(path, source)
        case "downwardAPI":
            causes = _mode(path, source, "defaultMode")
            return causes + _downward(path, source.get("items") or ())
        case "projected":
            return _projected(path, source)
        case "persistentVolumeClaim":
            return [] if source.get("claimName") else [required(f"{path}.claimName")]
        case "ephemeral":
            return _ephemeral(f"{path}.volumeClaimTemplate", source.get("volumeClaimTemplate"))
        case "image":
            return _image(path, source, is_pod=is_pod)
    return needed(path, kind, source)


def _ephemeral(path: str, template: Obj | None) -> list[Cause]:
    if template is None:
        return [required(path)]
    meta = template.get("metadata") or {}
    causes = labels(f"{path}.metadata.labels", meta.get("labels") or {})
    causes += validate_annotations(f"{path}.metadata.annotations", meta.get("annotations") or {})
    for key in meta:
        if key not in ("labels", "annotations") and meta[key]:
            causes.append(forbidden(f"{path}.metadata.{key}", "cannot be set for an ephemeral volume"))
    return causes + validate_claim_spec(f"{path}.spec", template.get("spec") or {})


def _image(path: str, source: Obj, *, is_pod: bool) -> list[Cause]:
    causes = [required(f"{path}.reference")] if is_pod and not source.get("reference") else []
    policies = ("Always", "IfNotPresent", "Never")
    if source.get("pullPolicy") and source["pullPolicy"] not in policies:
        causes.append(unsupported(f"{path}.pullPolicy", source["pullPolicy"], policies))
    return causes


def _mode(path: str, source: Obj, key: str = "mode") -> list[Cause]:
    mode = source.get(key)
    if mode is None or 0 <= mode <= 0o777:
        return []
    return [bad(f"{path}.{key}", mode, "must be a number between 0 and 0777 (octal), both inclusive")]


def _files(path: str, source: Obj) -> list[Cause]:
    causes = _mode(path, source, "defaultMode")
    for index, item in enumerate(source.get("items") or ()):
        where = f"{path}.items[{index}]"
        if not item.get("key"):
            causes.append(required(f"{where}.key"))
        causes += _relative(where, item)
        causes += _mode(where, item)
    return causes


def _relative(path: str, source: Obj) -> list[Cause]:
    found, path = source.get("path", ""), f"{path}.path"
    if not found:
        return [required(path)]
    causes = []
    if found.startswith("/"):
        causes.append(bad(path, found, "must be a relative path"))
    if ".." in found.split("/"):
        causes.append(bad(path, found, "must not contain '..'"))
    elif found.startswith(".."):
        causes.append(bad(path, found, "must not start with '..'"))
    return causes


def _downward(path: str, items: Sequence[Obj]) -> list[Cause]:
    causes: list[Cause] = []
    for index, item in enumerate(items):
        where = f"{path}.items[{index}]"
        causes += _relative(where, item)
        causes += _mode(where, item)
        if "fieldRef" in item:
            causes += validate_field_ref(f"{where}.fieldRef", item["fieldRef"], _FIELD_PATHS)
            if "resourceFieldRef" in item:
                causes.append(
                    bad(where, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
                )
        elif "resourceFieldRef" in item:
            causes += validate_resource_ref(f"{where}.resourceFieldRef", item["resourceFieldRef"], in_volume=True)
        else:
            causes.append(required(f"{where}.fieldRef", "one of fieldRef and resourceFieldRef is required"))
    return causes


def _projected(path: str, source: Obj) -> list[Cause]:
    causes = _mode(path, source, "defaultMode")
    places: set[str] = set()
    for index, projection in enumerate(source.get("sources") or ()):
        where = f"{path}.sources[{index}]"
        kinds = list(projection)
        for extra in kinds[1:]:
            causes.append(forbidden(f"{where}.{extra}", "may not specify more than 1 volume type per source"))
        if not kinds:
            causes.append(required(where, "must specify at least one volume type"))
            continue
        kind, found = kinds[0], projection[kinds[0]]
        causes += _projection(f"{where}.{kind}", kind, found)
        for place in [item.get("path", "") for item in found.get("items") or ()] or [found.get("path", "")]:
            if place and place in places:
                causes.append(bad(path, found.get("name") or place, "conflicting duplicate paths"))
            places.add(place)
    return causes


def _projection(path: str, kind: str, found: Obj) -> list[Cause]:
    match kind:
        case "secret" | "configMap":
            missing = [] if found.get("name") else [required(f"{path}.name")]
            return missing + _files(path, found)
        case "downwardAPI":
            return _downward(path, found.get("items") or ())
        case "serviceAccountToken":
            return _token(path, found)
        case "clusterTrustBundle":
            return _trust(path, found)
        case "podCertificate":
            return [required(f"{path}.{key}") for key in ("signerName", "keyType") if not found.get(key)]
    return []


def _trust(path: str, found: Obj) -> list[Cause]:
    name, signer = found.get("name"), found.get("signerName")
    if name is None and signer is None:
        return [required(path, "either name or signerName must be specified")]
    if name is not None and signer is not None:
        return [bad(path, found, "only one of name and signerName may be used")]
    return _relative(path, found)


def _token(path: str, token: Obj) -> list[Cause]:
    causes = []
    seconds = token.get("expirationSeconds", 3600)
    if seconds < 600:
        causes.append(bad(f"{path}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes"))
    elif seconds > 2**32:
        causes.append(bad(f"{path}.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds"))
    return causes + _relative(path, token)
