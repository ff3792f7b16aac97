"""Rules of what volumes are made of, alike in pods and in persistent volumes.

Most sources have only fields that must be there; a table says which.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from steersman.cluster.api.rules.csi import driver_name
from steersman.cluster.api.rules.fields import bad, forbidden, required, unsupported
from steersman.cluster.meta.errors import Cause

Source = Mapping[str, Any]

_HOST_PATH_TYPES = (
    "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket",
)  # fmt: skip
#: type of a volume to the fields it cannot do without
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "awsElasticBlockStore": ("volumeID",),
    "azureDisk": ("diskName", "diskURI"),
    "azureFile": ("secretName", "shareName"),
    "cephfs": ("monitors",),
    "cinder": ("volumeID",),
    "flexVolume": ("driver",),
    "gcePersistentDisk": ("pdName",),
    "gitRepo": ("repository",),
    "glusterfs": ("endpoints", "path"),
    "iscsi": ("targetPortal", "iqn"),
    "nfs": ("server", "path"),
    "portworxVolume": ("volumeID",),
    "quobyte": ("registry", "volume"),
    "rbd": ("monitors", "image"),
    "scaleIO": ("gateway", "system", "volumeName"),
    "vsphereVolume": ("volumePath",),
}
_PARTITIONED = ("awsElasticBlockStore", "gcePersistentDisk")
_IQN = re.compile(r"iqn\.\d{4}-\d{2}\.[A-Za-z0-9.-]+(:[^,;*&$|\s]+)?\Z")


def needed(path: str, kind: str, source: Source) -> list[Cause]:
    """Every broken rule of a source by its table and by what its type asks beyond that."""
    causes = [required(f"{path}.{key}") for key in _NEEDS.get(kind, ()) if not source.get(key)]
    if kind in _PARTITIONED and not 0 <= source.get("partition", 0) <= 255:
        causes.append(bad(f"{path}.partition", source["partition"], "must be between 0 and 255, inclusive"))
    rule = _RULES.get(kind)
    return causes + rule(path, source) if rule is not None else causes


def _host_path(path: str, source: Source) -> list[Cause]:
    found, kind = source.get("path", ""), source.get("type", "")
    if not found:
        return [required(f"{path}.path")]
    causes = [bad(f"{path}.path", found, "must not contain '..'")] if ".." in found.split("/") else []
    if kind not in _HOST_PATH_TYPES:
        causes.append(unsupported(f"{path}.type", kind, _HOST_PATH_TYPES))
    return causes


def _nfs(path: str, source: Source) -> list[Cause]:
    found = source.get("path", "")
    if not found or found.startswith("/"):
        return []
    return [bad(f"{path}.path", found, "must be an absolute path")]


def _iscsi(path: str, source: Source) -> list[Cause]:
    causes: list[Cause] = []
    iqn, lun = source.get("iqn", ""), source.get("lun", 0)
    if iqn and not iqn.startswith(("iqn", "eui", "naa")):
        causes.append(bad(f"{path}.iqn", iqn, "must be valid format starting with iqn, eui, or naa"))
    elif iqn.startswith("iqn") and not _IQN.match(iqn):
        causes.append(bad(f"{path}.iqn", iqn, "must be valid format"))
    if not 0 <= lun <= 255:
        causes.append(bad(f"{path}.lun", lun, "must be between 0 and 255, inclusive"))
    if (source.get("chapAuthDiscovery") or source.get("chapAuthSession")) and source.get("secretRef") is None:
        causes.append(required(f"{path}.secretRef"))
    return causes


def _fc(path: str, source: Source) -> list[Cause]:
    names, ids, lun = source.get("targetWWNs"), source.get("wwids"), source.get("lun")
    if not names and not ids:
        return [required(f"{path}.targetWWNs", "must specify either targetWWNs or wwids, but not both")]
    if names and ids:
        return [bad(f"{path}.targetWWNs", names, "targetWWNs and wwids can not be specified simultaneously")]
    if names and lun is None:
        return [required(f"{path}.lun", "lun is required if targetWWNs is specified")]
    if names and not 0 <= (lun or 0) <= 255:
        return [bad(f"{path}.lun", lun, "must be between 0 and 255, inclusive")]
    return []


def _azure_disk(path: str, source: Source) -> list[Cause]:
    causes: list[Cause] = []
    modes, kinds, kind = ("None", "ReadOnly", "ReadWrite"), ("Dedicated", "Managed", "Shared"), source.get("kind")
    if source.get("cachingMode") is not None and source["cachingMode"] not in modes:
        causes.append(unsupported(f"{path}.cachingMode", source["cachingMode"], modes))
    if kind is not None and kind not in kinds:
        causes.append(unsupported(f"{path}.kind", kind, kinds))
    uri, form = source.get("diskURI", ""), "/subscriptions/{sub-id}/resourcegroups/{group-name}/"
    if kind == "Managed" and not uri.startswith("/subscriptions/"):
        causes.append(unsupported(f"{path}.diskURI", uri, (f"{form}providers/microsoft.compute/disks/{{disk-id}}",)))
    if kind not in (None, "Managed") and not uri.startswith("https://"):
        allowed = ("https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd",)
        causes.append(unsupported(f"{path}.diskURI", uri, allowed))
    return causes


def _csi(path: str, source: Source) -> list[Cause]:
    causes = driver_name(f"{path}.driver", source.get("driver", ""))
    secret = source.get("nodePublishSecretRef")
    if secret is not None and not secret.get("name"):
        causes.append(required(f"{path}.nodePublishSecretRef.name"))
    return causes


def _git(path: str, source: Source) -> list[Cause]:
    where = source.get("directory", "")
    causes = [bad(f"{path}.directory", where, "must be a relative path")] if where.startswith("/") else []
    return causes + ([bad(f"{path}.directory", where, "must not contain '..'")] if ".." in where.split("/") else [])


_RULES: Mapping[str, Callable[[str, Source], list[Cause]]] = {
    "azureDisk": _azure_disk,
    "csi": _csi,
    "fc": _fc,
    "gitRepo": _git,
    "hostPath": _host_path,
    "iscsi": _iscsi,
    "nfs": _nfs,
}


def one_source(path: str, kinds: list[str]) -> list[Cause]:
    """The rules of how many types a volume has."""
    if not kinds:
        return [required(path, "must specify a volume type")]
    return [forbidden(f"{path}.{extra}", "may not specify more than 1 volume type") for extra in kinds[1:]]
