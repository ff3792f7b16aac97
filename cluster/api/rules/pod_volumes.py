"""Rules of a pod's volumes.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steersman.cluster.api.rules.containers import validate_field_ref, validate_resource_ref
from steersman.cluster.api.rules.fields import bad, bad_all, duplicate, forbidden, required, unsupported
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import parse

_FIELD_PATHS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
_HOST_PATH_TYPES = (
    "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket",
)  # fmt: skip


def validate_volumes(path: str, volumes: Sequence[Obj]) -> tuple[list[Cause], Mapping[str, Obj]]:
    """Returns every broken rule, and the volumes by name."""
    causes: list[Cause] = []
    found: dict[str, Obj] = {}
    for index, volume in enumerate(volumes):
        where = f"{path}[{index}]"
        name = volume.get("name", "")
        if not name:
            causes.append(required(f"{where}.name"))
        else:
            causes += bad_all(f"{where}.name", name, label_1123_errors(name))
            if name in found:
                causes.append(duplicate(f"{where}.name", name))
            found[name] = volume
        causes += _source(where, volume)
    return causes, found


def _source(path: str, volume: Obj) -> list[Cause]:
    kinds = [key for key in volume if key != "name"]
    if not kinds:
        return [required(path, "must specify a volume type")]
    causes: list[Cause] = []
    for extra in kinds[1:]:
        causes.append(forbidden(f"{path}.{extra}", "may not specify more than 1 volume type"))
    kind = kinds[0]
    source: Any = volume[kind]
    where = f"{path}.{kind}"
    match kind:
        case "emptyDir":
            if source.get("sizeLimit") is not None and parse(source["sizeLimit"]) < 0:
                causes.append(forbidden(f"{where}.sizeLimit", "SizeLimit field must be a valid resource quantity"))
        case "hostPath":
            causes += _host_path(where, source)
        case "secret":
            if not source.get("secretName"):
                causes.append(required(f"{where}.secretName"))
            causes += _files(where, source)
        case "configMap":
            if not source.get("name"):
                causes.append(required(f"{where}.name"))
            causes += _files(where, source)
        case "downwardAPI":
            causes += _mode(f"{where}.defaultMode", source.get("defaultMode"))
            causes += _downward(where, source.get("items") or ())
        case "projected":
            causes += _projected(where, source)
        case "persistentVolumeClaim":
            if not source.get("claimName"):
                causes.append(required(f"{where}.claimName"))
            else:
                causes += bad_all(f"{where}.claimName", source["claimName"], subdomain_errors(source["claimName"]))
        case "nfs":
            for key in ("server", "path"):
                if not source.get(key):
                    causes.append(required(f"{where}.{key}"))
        case "csi":
            if not source.get("driver"):
                causes.append(required(f"{where}.driver"))
    return causes


def _host_path(path: str, source: Obj) -> list[Cause]:
    found = source.get("path", "")
    if not found:
        return [required(f"{path}.path")]
    causes = []
    if ".." in found.split("/"):
        causes.append(bad(f"{path}.path", found, "must not contain '..'"))
    if source.get("type", "") not in _HOST_PATH_TYPES:
        causes.append(unsupported(f"{path}.type", source["type"], _HOST_PATH_TYPES))
    return causes


def _mode(path: str, mode: int | None) -> list[Cause]:
    if mode is None or 0 <= mode <= 0o777:
        return []
    return [bad(path, mode, "must be a number between 0 and 0777 (octal), both inclusive")]


def _files(path: str, source: Obj) -> list[Cause]:
    causes = _mode(f"{path}.defaultMode", source.get("defaultMode"))
    for index, item in enumerate(source.get("items") or ()):
        where = f"{path}.items[{index}]"
        if not item.get("key"):
            causes.append(required(f"{where}.key"))
        causes += _relative(f"{where}.path", item.get("path", ""))
        causes += _mode(f"{where}.mode", item.get("mode"))
    return causes


def _relative(path: str, found: str) -> list[Cause]:
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
        causes += _relative(f"{where}.path", item.get("path", ""))
        causes += _mode(f"{where}.mode", item.get("mode"))
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
    causes = _mode(f"{path}.defaultMode", source.get("defaultMode"))
    for index, projection in enumerate(source.get("sources") or ()):
        where = f"{path}.sources[{index}]"
        kinds = list(projection)
        for extra in kinds[1:]:
            causes.append(forbidden(f"{where}.{extra}", "may not specify more than 1 volume type per source"))
        if not kinds:
            causes.append(required(where, "must specify at least one projection"))
        if "secret" in projection or "configMap" in projection:
            key = "secret" if "secret" in projection else "configMap"
            if not projection[key].get("name"):
                causes.append(required(f"{where}.{key}.name"))
            causes += _files(f"{where}.{key}", projection[key])
        elif "downwardAPI" in projection:
            causes += _downward(f"{where}.downwardAPI", projection["downwardAPI"].get("items") or ())
        elif "serviceAccountToken" in projection:
            causes += _token(f"{where}.serviceAccountToken", projection["serviceAccountToken"])
    return causes


def _token(path: str, token: Obj) -> list[Cause]:
    causes = []
    seconds = token.get("expirationSeconds", 3600)
    if seconds < 600:
        causes.append(bad(f"{path}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes"))
    elif seconds > 2**32:
        causes.append(bad(f"{path}.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds"))
    return causes + _relative(f"{path}.path", token.get("path", ""))
