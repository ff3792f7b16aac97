"""Rules of what volumes are made of, alike in pods and in persistent volumes.

Most sources have only fields that must be there; a table says which.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from steersman.cluster.api.rules.csi import driver_name
from steersman.cluster.api.rules.fields import bad, bad_all, forbidden, required, unsupported
from steersman.cluster.api.rules.security import descending, steps_back
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, subdomain_errors

Source = Mapping[str, Any]
#: every broken rule of a source, given its path, its type and itself
SourceRule = Callable[[str, str, Any], list[Cause]]

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
    "photonPersistentDisk": ("pdID",),
    "portworxVolume": ("volumeID",),
    "rbd": ("monitors", "image"),
    "scaleIO": ("gateway", "system", "volumeName"),
    "vsphereVolume": ("volumePath",),
}
#: types whose fields, and types whose superfluousness, Kubernetes puts in another place
_PLACES = {"gcePersistentDisk": "persistentDisk"}
_PLACES_OF_MORE = {"cephfs": "cephFS", "downwardAPI": "downwarAPI"}
#: type of a volume to the secret it names, whole in a persistent volume
_SECRETS = {"cinder": "secretRef", "storageos": "secretRef", "iscsi": "secretRef"}
_PARTITIONED = ("awsElasticBlockStore", "gcePersistentDisk")
_INITIATORS = {
    "iqn": re.compile(r"iqn\.\d{4}-\d{2}\.([A-Za-z0-9.-]+)(:[^,;*&$|\s]+)\Z"),
    "eui": re.compile(r"eui.[A-Za-z0-9]{16}\Z"),
    "naa": re.compile(r"naa.[A-Za-z0-9]{32}\Z"),
}
NAME_AND_PORTAL_CHARS_MAX = 64
NAME_AND_PORTAL = (
    f"Total length of <volume name>:<iscsi.targetPortal> must be under {NAME_AND_PORTAL_CHARS_MAX} characters if "
    "iscsi.initiatorName is specified."
)
_PAIRS = "must be a host:port pair or multiple pairs separated by commas"
_TENANT_CHARS_MAX = 64


def one_source(path: str, sources: Source, types: Sequence[str], rule: SourceRule) -> list[Cause]:
    """Every broken rule of a volume's sources, of which it has one: the first of `types` counts."""
    kinds = sorted(sources, key=types.index) if len(sources) > 1 else list(sources)
    if not kinds:
        return [required(path, "must specify a volume type")]
    causes = rule(f"{path}.{_PLACES.get(kinds[0], kinds[0])}", kinds[0], sources[kinds[0]])
    for extra in kinds[1:]:
        where = f"{path}.{_PLACES_OF_MORE.get(extra, extra)}"
        causes.append(forbidden(where, "may not specify more than 1 volume type"))
    return causes


def needed(path: str, kind: str, source: Source, *, is_persistent: bool = False) -> list[Cause]:
    """Every broken rule of a source by its table and by what its type asks beyond that."""
    causes = [required(f"{path}.{key}") for key in _NEEDS.get(kind, ()) if not source.get(key)]
    if kind in _PARTITIONED and not 0 <= source.get("partition", 0) <= 255:
        causes.append(bad(f"{path}.partition", source["partition"], "must be between 0 and 255, inclusive"))
    rule = _RULES.get(kind)
    causes += rule(path, source) if rule is not None else []
    secret = source.get(_SECRETS.get(kind, ""))
    if secret is not None and (is_persistent or kind != "iscsi"):
        parts = ("name", "namespace") if is_persistent and kind != "iscsi" else ("name",)
        causes += [required(f"{path}.secretRef.{part}") for part in parts if not secret.get(part)]
    return causes


def _host_path(path: str, source: Source) -> list[Cause]:
    found, kind = source.get("path", ""), source.get("type", "")
    if not found:
        return [required(f"{path}.path")]
    causes = steps_back(f"{path}.path", found)
    if kind not in _HOST_PATH_TYPES:
        causes.append(unsupported(f"{path}.type", kind, _HOST_PATH_TYPES))
    return causes


def _nfs(path: str, source: Source) -> list[Cause]:
    found = source.get("path", "")
    return [] if found.startswith("/") else [bad(f"{path}.path", found, "must be an absolute path")]


def _initiator(path: str, name: str) -> list[Cause]:
    form = _INITIATORS.get(name[:3])
    if form is None:
        return [bad(path, name, "must be valid format starting with iqn, eui, or naa")]
    return [] if form.match(name) else [bad(path, name, "must be valid format")]


def _iscsi(path: str, source: Source) -> list[Cause]:
    iqn, lun, initiator = source.get("iqn", ""), source.get("lun", 0), source.get("initiatorName")
    causes = _initiator(f"{path}.iqn", iqn) if iqn else []
    if not 0 <= lun <= 255:
        causes.append(bad(f"{path}.lun", lun, "must be between 0 and 255, inclusive"))
    if (source.get("chapAuthDiscovery") or source.get("chapAuthSession")) and source.get("secretRef") is None:
        causes.append(required(f"{path}.secretRef"))
    return causes if initiator is None else causes + _initiator(f"{path}.initiatorname", initiator)


def _fc(path: str, source: Source) -> list[Cause]:
    names, ids, lun = source.get("targetWWNs"), source.get("wwids"), source.get("lun")
    if not names and not ids:
        return [required(f"{path}.targetWWNs", "must specify either targetWWNs or wwids, but not both")]
    causes: list[Cause] = []
    if names and ids:
        causes.append(bad(f"{path}.targetWWNs", names, "targetWWNs and wwids can not be specified simultaneously"))
    if names and lun is None:
        causes.append(required(f"{path}.lun", "lun is required if targetWWNs is specified"))
    elif names and not 0 <= (lun or 0) <= 255:
        causes.append(bad(f"{path}.lun", lun, "must be between 0 and 255, inclusive"))
    return causes


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


def _azure_file(path: str, source: Source) -> list[Cause]:
    return [required(f"{path}.secretNamespace")] if source.get("secretNamespace") == "" else []


def _csi(path: str, source: Source) -> list[Cause]:
    causes = driver_name(f"{path}.driver", source.get("driver", ""))
    secret = source.get("nodePublishSecretRef")
    if secret is None:
        return causes
    name = secret.get("name", "")
    if not name:
        return [*causes, required(f"{path}.nodePublishSecretRef.name")]
    return causes + bad_all(f"{path}.name", name, subdomain_errors(name))


def _git(path: str, source: Source) -> list[Cause]:
    return descending(f"{path}.directory", source.get("directory", ""))


def _gluster(path: str, source: Source) -> list[Cause]:
    namespace, where = source.get("endpointsNamespace"), f"{path}.endpointsNamespace"
    if namespace == "":
        return [bad(where, namespace, "if the endpointnamespace is set, it must be a valid namespace name")]
    return [] if namespace is None else bad_all(where, namespace, label_1123_errors(namespace))


def _flocker(path: str, source: Source) -> list[Cause]:
    name, uuid = source.get("datasetName", ""), source.get("datasetUUID", "")
    causes: list[Cause] = []
    if not name and not uuid:
        causes.append(required(path, "one of datasetName and datasetUUID is required"))
    if name and uuid:
        detail = "datasetName and datasetUUID can not be specified simultaneously"
        causes.append(bad(path, "resource", detail))
    if "/" in name:
        causes.append(bad(f"{path}.datasetName", name, "must not contain '/'"))
    return causes


def _flex(path: str, source: Source) -> list[Cause]:
    return [
        bad(f"{path}.options[{key}]", key, "kubernetes.io and k8s.io namespaces are reserved")
        for key in source.get("options") or ()
        if f".{key.partition('/')[0].lower()}".endswith((".kubernetes.io", ".k8s.io"))
    ]


def _quobyte(path: str, source: Source) -> list[Cause]:
    registry, where = source.get("registry", ""), f"{path}.registry"
    causes: list[Cause] = []
    if not registry:
        causes.append(required(where, _PAIRS))
    elif len(source.get("tenant", "")) > _TENANT_CHARS_MAX:
        detail = f"must be a UUID and may not exceed a length of {_TENANT_CHARS_MAX} characters"
        causes.append(required(f"{path}.tenant", detail))
    else:
        causes += [bad(where, registry, _PAIRS) for pair in registry.split(",") if pair.count(":") != 1]
    return causes if source.get("volume") else [*causes, required(f"{path}.volume")]


def _storageos(path: str, source: Source) -> list[Cause]:
    name, namespace, where = source.get("volumeName", ""), source.get("volumeNamespace", ""), f"{path}.volumeName"
    causes = bad_all(where, name, label_1123_errors(name)) if name else [required(where)]
    return causes + (bad_all(f"{path}.volumeNamespace", namespace, label_1123_errors(namespace)) if namespace else [])


_RULES: Mapping[str, Callable[[str, Source], list[Cause]]] = {
    "azureDisk": _azure_disk,
    "azureFile": _azure_file,
    "csi": _csi,
    "fc": _fc,
    "flexVolume": _flex,
    "flocker": _flocker,
    "gitRepo": _git,
    "glusterfs": _gluster,
    "hostPath": _host_path,
    "iscsi": _iscsi,
    "nfs": _nfs,
    "quobyte": _quobyte,
    "storageos": _storageos,
}
