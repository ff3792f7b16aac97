"""Rules of a container's environment, and of what its variables and files may refer to.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from steersman.cluster.api.rules.config import key_errors
from steersman.cluster.api.rules.fields import bad, bad_all, required, unsupported
from steersman.cluster.api.rules.security import descending
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import qualified_name_errors
from steersman.cluster.meta.objects import Obj

_FIELD_PATHS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP",
    "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
#: everything of a pod that may be told to its containers somewhere
_DOWNWARD = (
    *_FIELD_PATHS, "metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName",
    "status.phase",
)  # fmt: skip
_SUBSCRIPT = re.compile(r"(metadata\.(?:annotations|labels))\['(.*)'\]\Z")
_ENV_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_ENV_NAME = re.compile(r"^[ -<>-~]*\Z")
_ENV_NAME_DETAIL = "a valid environment variable name must consist only of printable ASCII characters other than '='"


def env_name_errors(name: str) -> list[str]:
    """What breaks the rule of an environment variable's name; empty when nothing does."""
    return [] if _ENV_NAME.match(name) else [_ENV_NAME_DETAIL]


def validate_env(path: str, rows: Sequence[Obj]) -> list[Cause]:
    causes: list[Cause] = []
    for index, row in enumerate(rows):
        name, source = row.get("name", ""), row.get("valueFrom")
        if not name:
            causes.append(required(f"{path}[{index}].name"))
        elif not _ENV_NAME.match(name):
            causes += bad_all(f"{path}[{index}].name", name, env_name_errors(name))
        if source is None:
            continue
        where = f"{path}[{index}]"
        found = [key for key in _ENV_SOURCES if key in source]
        if not found:
            detail = (
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
            )
            causes.append(bad(f"{where}.valueFrom", "", detail))
        elif len(found) > 1:
            causes.append(bad(f"{where}.valueFrom", "", "may not have more than one field specified at a time"))
        elif row.get("value"):
            causes.append(bad(f"{where}.valueFrom", "", "may not be specified when `value` is not empty"))
        causes += _env_source(f"{where}.valueFrom", source)
    return causes


def _env_source(path: str, source: Obj) -> list[Cause]:
    causes = []
    for key in ("configMapKeyRef", "secretKeyRef"):
        if key in source:
            name, entry = source[key].get("name", ""), source[key].get("key", "")
            if not name:
                causes.append(required(f"{path}.{key}.name"))
            causes += (
                bad_all(f"{path}.{key}.key", entry, key_errors(entry)) if entry else [required(f"{path}.{key}.key")]
            )
    if "fieldRef" in source:
        causes += validate_field_ref(f"{path}.fieldRef", source["fieldRef"], _FIELD_PATHS)
    if "resourceFieldRef" in source:
        causes += validate_resource_ref(f"{path}.resourceFieldRef", source["resourceFieldRef"], in_volume=False)
    if "fileKeyRef" in source:
        file = source["fileKeyRef"]
        causes += [required(f"{path}.fileKeyRef.{key}") for key in ("volumeName", "path", "key") if not file.get(key)]
        causes += descending(f"{path}.fileKeyRef.path", file.get("path", ""))
    return causes


def validate_field_ref(path: str, reference: Obj, supported: Sequence[str]) -> list[Cause]:
    found = reference.get("fieldPath", "")
    if found in supported:
        return []
    if not found:
        return [required(f"{path}.fieldPath")]
    match = _SUBSCRIPT.match(found)
    if match:
        key = match[2] if match[1].endswith("labels") else match[2].lower()
        return bad_all(path, match[2], qualified_name_errors(key))
    if found not in _DOWNWARD:
        detail = f"error converting fieldPath: field label not supported: {found}"
        return [bad(f"{path}.fieldPath", found, detail)]
    return [unsupported(f"{path}.fieldPath", found, supported)]


def validate_resource_ref(path: str, reference: Obj, *, in_volume: bool) -> list[Cause]:
    causes = []
    if in_volume and not reference.get("containerName"):
        causes.append(required(f"{path}.containerName"))
    found = reference.get("resource", "")
    names = ("cpu", "ephemeral-storage", "memory")
    supported = [f"{side}.{name}" for side in ("limits", "requests") for name in names]
    if not found:
        causes.append(required(f"{path}.resource"))
    elif found not in supported and ".hugepages-" not in found:
        causes.append(unsupported(f"{path}.resource", found, supported))
    return causes


def validate_env_from(path: str, rows: Sequence[Obj]) -> list[Cause]:
    causes: list[Cause] = []
    for index, row in enumerate(rows):
        where = f"{path}[{index}]"
        if row.get("prefix"):
            causes += bad_all(f"{where}.prefix", row["prefix"], env_name_errors(row["prefix"]))
        found = [key for key in ("configMapRef", "secretRef") if key in row]
        if not found:
            causes.append(bad(where, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(found) > 1:
            causes.append(bad(where, "", "may not have more than one field specified at a time"))
        for key in found:
            if not row[key].get("name"):
                causes.append(required(f"{where}.{key}.name"))
    return causes
