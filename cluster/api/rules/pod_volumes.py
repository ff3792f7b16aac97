"""Rules of a pod's volumes.

Files that volumes hold, and the sources of projected ones, have a file of their own.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steersman.cluster.api.rules.fields import bad, bad_all, duplicate, forbidden, labels, one_of, required
from steersman.cluster.api.rules.known import is_known_right
from steersman.cluster.api.rules.metadata import validate_annotations
from steersman.cluster.api.rules.projections import file_mode, validate_downward, validate_items, validate_projections
from steersman.cluster.api.rules.volume_claims import validate_claim_spec
from steersman.cluster.api.rules.volume_sources import NAME_AND_PORTAL, NAME_AND_PORTAL_CHARS_MAX, needed, one_source
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import parse

#: the order in which a volume's types are looked at
_TYPES = (
    "emptyDir", "hostPath", "gitRepo", "gcePersistentDisk", "awsElasticBlockStore", "secret", "nfs", "iscsi",
    "glusterfs", "flocker", "persistentVolumeClaim", "rbd", "cinder", "cephfs", "quobyte", "downwardAPI", "fc",
    "flexVolume", "configMap", "azureFile", "vsphereVolume", "photonPersistentDisk", "portworxVolume", "azureDisk",
    "storageos", "projected", "scaleIO", "csi", "ephemeral", "image",
)  # fmt: skip


def validate_volumes(path: str, volumes: Sequence[Obj], pod_name: str = "") -> tuple[list[Cause], Mapping[str, Obj]]:
    """Returns every broken rule, and by name the volumes that are right.

    Args:
        pod_name: of the pod whose volumes they are; empty for those of a template.
    """
    causes: list[Cause] = []
    found: dict[str, Obj] = {}
    made = {f"{pod_name}-{volume.get('name', '')}" for volume in volumes if pod_name and "ephemeral" in volume}
    for index, volume in enumerate(volumes):
        where, name = f"{path}[{index}]", volume.get("name", "")
        sources = {key: value for key, value in volume.items() if key != "name"}
        wrong = [] if is_known_right(_sources, sources) else _sources(where, sources)
        wrong += _named(f"{where}.name", name, sources, pod_name)
        if name in found:
            wrong.append(duplicate(f"{where}.name", name))
        if not wrong:
            found[name] = volume
        causes += wrong
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim in made:
            detail = "must not reference a PVC that gets created for an ephemeral volume"
            causes.append(bad(f"{where}.persistentVolumeClaim.claimName", claim, detail))
    return causes, found


def _named(path: str, name: str, sources: Obj, pod_name: str) -> list[Cause]:
    """The rules of a volume's name, of which other names are made."""
    causes: list[Cause] = []
    portal = (sources.get("iscsi") or {}).get("targetPortal", "")
    if "initiatorName" in (sources.get("iscsi") or {}) and len(f"{name}:{portal}") > NAME_AND_PORTAL_CHARS_MAX:
        causes.append(bad(path, name, NAME_AND_PORTAL))
    if pod_name and name and "ephemeral" in sources:
        claim = f"{pod_name}-{name}"
        causes += [bad(path, name, f'PVC name "{claim}": {error}') for error in subdomain_errors(claim)]
    if not name:
        return [*causes, required(path)]
    return causes + bad_all(path, name, label_1123_errors(name))


def _sources(path: str, sources: Obj) -> list[Cause]:
    return one_source(path, sources, _TYPES, _source)


def _source(path: str, kind: str, source: Any) -> list[Cause]:
    match kind:
        case "emptyDir":
            if source.get("sizeLimit") is not None and parse(source["sizeLimit"]) < 0:
                return [forbidden(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")]
            return []
        case "secret":
            return _files(path, source, "secretName")
        case "configMap":
            return _files(path, source, "name")
        case "downwardAPI":
            return file_mode(path, source, "defaultMode") + [
                cause for item in source.get("items") or () for cause in validate_downward(path, item)
            ]
        case "projected":
            return file_mode(path, source, "defaultMode") + validate_projections(path, source.get("sources") or ())
        case "persistentVolumeClaim":
            return [] if source.get("claimName") else [required(f"{path}.claimName")]
        case "ephemeral":
            return _ephemeral(f"{path}.volumeClaimTemplate", source.get("volumeClaimTemplate"))
        case "image":
            missing = [] if source.get("reference") else [required(f"{path}.reference")]
            return missing + one_of(f"{path}.pullPolicy", source.get("pullPolicy"), ("Always", "IfNotPresent", "Never"))
    return needed(path, kind, source)


def _files(path: str, source: Obj, name: str) -> list[Cause]:
    missing = [] if source.get(name) else [required(f"{path}.{name}")]
    return missing + file_mode(path, source, "defaultMode") + validate_items(f"{path}.items", source.get("items") or ())


def _ephemeral(path: str, template: Obj | None) -> list[Cause]:
    if template is None:
        return [required(path)]
    meta = template.get("metadata") or {}
    causes = validate_annotations(f"{path}.metadata.annotations", meta.get("annotations") or {})
    causes += labels(f"{path}.metadata.labels", meta.get("labels") or {})
    for key in meta:
        if key not in ("labels", "annotations") and meta[key]:
            causes.append(forbidden(f"{path}.metadata.{key}", "cannot be set"))
    return causes + validate_claim_spec(f"{path}.spec", template.get("spec") or {})
