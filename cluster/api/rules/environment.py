"""Rules of a container's environment, and of what its variables and files may refer to.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from steersman.cluster.api.rules.config import key_errors
from steersman.cluster.api.rules.fields import bad, bad_all, masked, not_found, required, unsupported
from steersman.cluster.api.rules.security import steps_back
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import canonical

_FIELD_PATHS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP",
    "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
#: everything of a pod that may be told to its containers somewhere
_DOWNWARD = (
    *_FIELD_PATHS, "metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName",
    "status.phase",
)  # fmt: skip
_SUBSCRIPT = re.compile(r"(.+?)\['(.*)'\]\Z", re.DOTALL)
_WITH_SUBSCRIPT = ("metadata.annotations", "metadata.labels")
_ENV_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_NO_SOURCE = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
_ENV_NAME = re.compile(r"^[ -<>-~]*\Z")
_ENV_NAME_DETAIL = "a valid environment variable name must consist only of printable ASCII characters other than '='"
_RESOURCES = tuple(
    f"{side}.{name}" for side in ("limits", "requests") for name in ("cpu", "ephemeral-storage", "memory")
)
_HUGE_PAGES = ("limits.hugepages-", "requests.hugepages-")
_UNITS = ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")
#: of a resource that is reported in units: how the refusal of another unit names it
_IN_UNITS = {"memory": "memory", "ephemeral-storage": "local ephemeral storage"}


def env_name_errors(name: str) -> list[str]:
    """What breaks the rule of an environment variable's name; empty when nothing does."""
    return [] if _ENV_NAME.match(name) else [_ENV_NAME_DETAIL]


def validate_env(path: str, rows: Sequence[Obj]) -> list[Cause]:
    causes: list[Cause] = []
    for index, row in enumerate(rows):
        name, where = row.get("name", ""), f"{path}[{index}]"
        if not name:
            causes.append(required(f"{where}.name"))
        elif not _ENV_NAME.match(name):
            causes += bad_all(f"{where}.name", name, env_name_errors(name))
        source = row.get("valueFrom")
        if source is not None:
            causes += _value_from(f"{where}.valueFrom", source, row.get("value", ""))
    return causes


def _value_from(path: str, source: Obj, value: str) -> list[Cause]:
    causes: list[Cause] = []
    if "fieldRef" in source:
        causes += validate_field_ref(f"{path}.fieldRef", source["fieldRef"], _FIELD_PATHS)
    if "resourceFieldRef" in source:
        causes += validate_resource_ref(f"{path}.resourceFieldRef", source["resourceFieldRef"], in_volume=False)
    for key in ("configMapKeyRef", "secretKeyRef"):
        if key in source:
            name, entry = source[key].get("name", ""), source[key].get("key", "")
            causes += bad_all(f"{path}.{key}.name", name, subdomain_errors(name))
            where = f"{path}.{key}.key"
            causes += bad_all(where, entry, key_errors(entry)) if entry else [required(where)]
    if "fileKeyRef" in source:
        causes += _file_key(f"{path}.fileKeyRef", source["fileKeyRef"])
    given = sum(key in source for key in _ENV_SOURCES)
    if not given:
        causes.append(bad(path, "", _NO_SOURCE))
    elif value:
        causes.append(bad(path, "", "may not be specified when `value` is not empty"))
    elif given > 1:
        causes.append(bad(path, "", "may not have more than one field specified at a time"))
    return causes


def _file_key(path: str, found: Obj) -> list[Cause]:
    key, volume, place = found.get("key", ""), found.get("volumeName", ""), found.get("path", "")
    causes = bad_all(f"{path}.key", key, env_name_errors(key)) if key else [required(f"{path}.key")]
    where = f"{path}.volumeName"
    causes += bad_all(where, volume, label_1123_errors(volume)) if volume else [required(where)]
    return causes + (steps_back(f"{path}.path", place) if place else [required(f"{path}.path")])


def validate_field_ref(path: str, reference: Obj, supported: Sequence[str]) -> list[Cause]:
    found, version, where = reference.get("fieldPath", ""), reference.get("apiVersion", "v1"), f"{path}.fieldPath"
    if found in supported and version == "v1":
        return []
    if not version:
        return [required(f"{path}.apiVersion")]
    if not found:
        return [required(where)]
    if version != "v1":
        return [bad(where, found, f"error converting fieldPath: unsupported pod version: {version}")]
    if match := _SUBSCRIPT.match(found):
        if match[1] not in _WITH_SUBSCRIPT:
            return [bad(where, found, f"error converting fieldPath: field label does not support subscript: {found}")]
        key = match[2] if match[1].endswith("labels") else match[2].lower()
        return bad_all(path, key, qualified_name_errors(key))
    known = "spec.nodeName" if found == "spec.host" else found
    if known not in _DOWNWARD:
        return [bad(where, found, f"error converting fieldPath: field label not supported: {found}")]
    return [] if known in supported else [unsupported(where, known, supported)]


def validate_resource_ref(path: str, reference: Obj, *, in_volume: bool) -> list[Cause]:
    found = reference.get("resource", "")
    causes: list[Cause] = []
    if in_volume and not reference.get("containerName"):
        causes.append(required(f"{path}.containerName"))
    elif not found:
        causes.append(required(f"{path}.resource"))
    elif found not in _RESOURCES and not found.startswith(_HUGE_PAGES):
        causes.append(unsupported(f"{path}.resource", found, _RESOURCES))
    return causes + _divisor(f"{path}.divisor", found, canonical(reference.get("divisor") or "0"))


def _divisor(path: str, resource: str, divisor: str) -> list[Cause]:
    name = resource.partition(".")[2]
    if divisor == "0":
        return []
    if name == "cpu" and resource in _RESOURCES:
        detail = "only divisor's values 1m and 1 are supported with the cpu resource"
        return [] if divisor in ("1m", "1") else [bad(path, resource, detail)]
    word = "hugepages" if resource.startswith(_HUGE_PAGES) else _IN_UNITS.get(name) if resource in _RESOURCES else None
    if word is None or divisor in _UNITS:
        return []
    listed = ", ".join(_UNITS)
    return [bad(path, resource, f"only divisor's values {listed} are supported with the {word} resource")]


def validate_env_from(path: str, rows: Sequence[Obj]) -> list[Cause]:
    causes: list[Cause] = []
    for index, row in enumerate(rows):
        where = f"{path}[{index}]"
        if row.get("prefix"):
            causes += bad_all(f"{where}.prefix", row["prefix"], env_name_errors(row["prefix"]))
        found = [key for key in ("configMapRef", "secretRef") if key in row]
        for key in found:
            name, place = row[key].get("name", ""), f"{where}.{key}.name"
            causes += bad_all(place, name, subdomain_errors(masked(name))) if name else [required(place)]
        # Kubernetes says of the list what is wrong with one of its rows
        if not found:
            causes.append(bad(path, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(found) > 1:
            causes.append(bad(path, "", "may not have more than one field specified at a time"))
    return causes


def validate_file_keys(path: str, spec: Obj) -> list[Cause]:
    """The rules of variables that files of volumes hold: only an emptyDir's can."""
    sources = {volume.get("name"): volume for volume in spec.get("volumes") or ()}
    causes: list[Cause] = []
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for index, one in enumerate(spec.get(key) or ()):
            for place, row in enumerate(one.get("env") or ()):
                reference = (row.get("valueFrom") or {}).get("fileKeyRef")
                if reference is None:
                    continue
                where = f"{path}.{key}[{index}].env[{place}].valueFrom.fileKeyRef.volumeName"
                name = reference.get("volumeName", "")
                if name not in sources:
                    causes.append(not_found(where, name))
                elif "emptyDir" not in sources[name]:
                    causes.append(bad(where, name, "referenced volume must be of type emptyDir"))
    return causes
