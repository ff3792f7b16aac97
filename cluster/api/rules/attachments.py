"""Rules of VolumeAttachments: that a volume is to be attached to a node.

Source: k8s.io/kubernetes/pkg/apis/storage/validation/validation.go, ValidatePersistentVolumeSpec of core
"""

from __future__ import annotations

from steersman.cluster.api.rules.csi import PARAMETERS_BYTES_MAX, driver_name
from steersman.cluster.api.rules.defaults import volume_source
from steersman.cluster.api.rules.fields import bad, bad_all, forbidden, required, too_long
from steersman.cluster.api.rules.volumes import made_of, used_as
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import subdomain_errors
from steersman.cluster.meta.objects import Obj

_ERROR_BYTES_MAX = 1024
_INLINE = "in the context of inline volumes"
_NOT_INLINE = f"may not be specified {_INLINE}"


def default_attachment(obj: Obj) -> None:
    inline = ((obj.get("spec") or {}).get("source") or {}).get("inlineVolumeSpec")
    if inline is not None:
        volume_source(inline)


def validate_attachment(obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    attacher, source, node = spec.get("attacher", ""), spec.get("source") or {}, spec.get("nodeName", "")
    volume, inline, path = source.get("persistentVolumeName"), source.get("inlineVolumeSpec"), "spec.source"
    causes = [] if attacher else [required("spec.attacher")]
    one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
    if inline is None and volume is None:
        causes.append(required(path, one))
    elif inline is not None and volume is not None:
        causes.append(forbidden(path, one))
    elif volume == "":
        causes.append(required(f"{path}.persistentVolumeName", "must specify non empty persistentVolumeName"))
    elif inline is not None:
        causes += _inline(f"{path}.inlineVolumeSpec", inline)
    return causes + bad_all("spec.nodeName", node, subdomain_errors(node))


def _inline(path: str, spec: Obj) -> list[Cause]:
    """The rules of a volume that is told whole, for it stands in a pod: it has no life of its own."""
    causes = [forbidden(f"{path}.{key}", _NOT_INLINE) for key in ("claimRef", "capacity") if spec.get(key) is not None]
    if "csi" not in spec:
        causes.append(required(f"{path}.csi", f"has to be specified {_INLINE}"))
    causes += used_as(path, spec)
    if spec.get("persistentVolumeReclaimPolicy", "Retain") != "Retain":
        causes.append(forbidden(f"{path}.persistentVolumeReclaimPolicy", f"may only be Retain {_INLINE}"))
    if "nodeAffinity" in spec:
        causes.append(forbidden(f"{path}.nodeAffinity", _NOT_INLINE))
    causes += made_of(path, spec, "")
    if spec.get("storageClassName"):
        causes.append(forbidden(f"{path}.storageClassName", _NOT_INLINE))
    if spec.get("volumeMode", "Filesystem") != "Filesystem":
        causes.append(forbidden(f"{path}.volumeMode", f"may not specify volumeMode other than Filesystem {_INLINE}"))
    return causes


def validate_new_attachment(obj: Obj) -> list[Cause]:
    """What only a new attachment can break: the older version took any name."""
    spec = obj.get("spec") or {}
    causes = driver_name("spec.attacher", spec.get("attacher", ""))
    volume = (spec.get("source") or {}).get("persistentVolumeName")
    if volume is None:
        return causes
    return causes + bad_all("spec.source.persistentVolumeName", volume, subdomain_errors(volume))


def validate_attachment_update(new: Obj, old: Obj) -> list[Cause]:
    spec = new.get("spec") or {}
    if spec == old.get("spec"):
        return []
    source = spec.get("source") or {}
    parts = {
        "PersistentVolumeName": source.get("persistentVolumeName"),
        "InlineVolumeSpec": source.get("inlineVolumeSpec"),
    }
    shown = {"Attacher": spec.get("attacher", ""), "Source": parts, "NodeName": spec.get("nodeName", "")}
    return [bad("spec", shown, "field is immutable")]


def validate_attachment_status(new: Obj, _old: Obj) -> list[Cause]:
    status = new.get("status") or {}
    metadata = status.get("attachmentMetadata") or {}
    causes: list[Cause] = []
    if sum(len(key) + len(value) for key, value in metadata.items()) > PARAMETERS_BYTES_MAX:
        causes.append(too_long("status.attachmentMetadata", PARAMETERS_BYTES_MAX))
    for key in ("attachError", "detachError"):
        error = status.get(key) or {}
        if len(error.get("message", "")) > _ERROR_BYTES_MAX:
            causes.append(too_long(f"status.{key}.message", PARAMETERS_BYTES_MAX))  # Kubernetes names this limit
        if error.get("errorCode", 0) < 0:
            detail = f"must be between 0 and {2**31 - 1}, inclusive"
            causes.append(bad(f"status.{key}.errorCode", error["errorCode"], detail))
    return causes
