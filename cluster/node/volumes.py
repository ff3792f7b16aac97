"""Which directories a pod needs, what stands in those that carry configuration, and where containers see them.

Refuses to know host paths and the API: the shell makes the directories and hands in the objects.

Source: https://kubernetes.io/docs/concepts/storage/volumes/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from steersman.cluster.meta import quantity
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.objects import namespace as namespace_of
from steersman.cluster.node.downward import field_text, resource_text
from steersman.cluster.node.environment import Configuration, content_of
from steersman.cluster.node.expansion import expand_strict
from steersman.cluster.node.values import RuntimeFailure

DEFAULT_MODE = 0o644
TOKEN_EXPIRATION_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class EmptyDir:
    volume: str
    in_memory: bool = False
    size_bytes_max: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPath:
    volume: str
    path: str
    kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectSource:
    """Files from a ConfigMap or Secret; items: (key, path, mode), empty for every key under its own name."""

    kind: str
    name: str
    items: tuple[tuple[str, str, int | None], ...] = ()
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DownwardSource:
    """Files from the pod's own fields; items: rows of `DownwardAPIVolumeFile`."""

    items: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSource:
    """A bound service-account token; audience: empty for the API server's own."""

    path: str
    audience: str = ""
    expiration_s: int = TOKEN_EXPIRATION_S


Source = ObjectSource | DownwardSource | TokenSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A directory of files that are swapped all at once when a source changes."""

    volume: str
    sources: tuple[Source, ...]
    default_mode: int = DEFAULT_MODE
    in_memory: bool = False


Volume = EmptyDir | HostPath | Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class MountPlan:
    """A volume's place in a container; sub_path: below the volume's root, empty for the root itself."""

    volume: str
    container_path: str
    sub_path: str = ""
    read_only: bool = False
    propagation: str = "None"


def mount_failure(volume: str, detail: str) -> RuntimeFailure:
    return RuntimeFailure("FailedMount", f'MountVolume.SetUp failed for volume "{volume}" : {detail}')


def plan(pod: Mapping[str, Any]) -> tuple[Volume, ...]:
    """Returns the pod's volumes in their order.

    Raises:
        RuntimeFailure: `FailedMount`: a volume's type is not one that this node can make.
    """
    return tuple(_volume(row) for row in pod["spec"].get("volumes") or ())


def _volume(row: Mapping[str, Any]) -> Volume:
    name = row["name"]
    if "hostPath" in row:
        return HostPath(volume=name, path=row["hostPath"]["path"], kind=row["hostPath"].get("type") or "")
    if "configMap" in row:
        return _object_volume(name, "ConfigMap", row["configMap"], row["configMap"].get("name", ""))
    if "secret" in row:
        return _object_volume(name, "Secret", row["secret"], row["secret"].get("secretName", ""))
    if "downwardAPI" in row:
        source = row["downwardAPI"]
        sources = (DownwardSource(items=tuple(source.get("items") or ())),)
        return Payload(volume=name, sources=sources, default_mode=_mode(source), in_memory=True)
    if "projected" in row:
        source = row["projected"]
        sources_of = tuple(_projection(name, part) for part in source.get("sources") or ())
        return Payload(volume=name, sources=sources_of, default_mode=_mode(source), in_memory=True)
    if "emptyDir" in row or set(row) == {"name"}:
        source = row.get("emptyDir") or {}
        limit = source.get("sizeLimit")
        return EmptyDir(
            volume=name,
            in_memory=source.get("medium") == "Memory",
            size_bytes_max=quantity.whole(limit) if limit else 0,
        )
    kinds = ", ".join(sorted(key for key in row if key != "name"))
    raise mount_failure(name, f"no volume plugin matched: {kinds} volumes are not supported on this node")


def _mode(source: Mapping[str, Any]) -> int:
    mode = source.get("defaultMode")
    return DEFAULT_MODE if mode is None else int(mode)


def _items(source: Mapping[str, Any]) -> tuple[tuple[str, str, int | None], ...]:
    return tuple((item["key"], item["path"], item.get("mode")) for item in source.get("items") or ())


def _object_volume(name: str, kind: str, source: Mapping[str, Any], target: str) -> Payload:
    part = ObjectSource(kind=kind, name=target, items=_items(source), optional=bool(source.get("optional")))
    return Payload(volume=name, sources=(part,), default_mode=_mode(source), in_memory=kind == "Secret")


def _projection(volume: str, part: Mapping[str, Any]) -> Source:
    for kind, key in (("ConfigMap", "configMap"), ("Secret", "secret")):
        if source := part.get(key):
            return ObjectSource(
                kind=kind, name=source.get("name", ""), items=_items(source), optional=bool(source.get("optional"))
            )
    if source := part.get("downwardAPI"):
        return DownwardSource(items=tuple(source.get("items") or ()))
    if source := part.get("serviceAccountToken"):
        return TokenSource(
            path=source["path"],
            audience=source.get("audience") or "",
            expiration_s=int(source.get("expirationSeconds") or TOKEN_EXPIRATION_S),
        )
    raise mount_failure(volume, f"projection of {', '.join(sorted(part))} is not supported on this node")


def wanted(volumes: Iterable[Volume]) -> list[tuple[str, str]]:
    """Returns the (kind, name) of each ConfigMap and Secret that the volumes show."""
    found = {
        (source.kind, source.name): None
        for volume in volumes
        if isinstance(volume, Payload)
        for source in volume.sources
        if isinstance(source, ObjectSource)
    }
    return list(found)


def tokens_of(volumes: Iterable[Volume]) -> list[TokenSource]:
    """Returns the service-account tokens that the volumes show."""
    return [
        source
        for volume in volumes
        if isinstance(volume, Payload)
        for source in volume.sources
        if isinstance(source, TokenSource)
    ]


def payload_files(
    pod: Mapping[str, Any],
    payload: Payload,
    configuration: Configuration,
    tokens: Mapping[TokenSource, str],
    *,
    ips: tuple[str, ...],
    host_ip: str,
    allocatable: Mapping[str, str],
) -> dict[str, tuple[bytes, int]]:
    """Returns the files of a payload volume: relative path to (content, mode).

    Raises:
        RuntimeFailure: `FailedMount`: an object or key is missing and not optional.
    """
    files: dict[str, tuple[bytes, int]] = {}
    for source in payload.sources:
        match source:
            case ObjectSource():
                files |= _object_files(pod, payload, source, configuration)
            case DownwardSource():
                for item in source.items:
                    text = _downward_text(pod, payload, item, ips=ips, host_ip=host_ip, allocatable=allocatable)
                    files[item["path"]] = (text.encode(), _mode_of(item.get("mode"), payload))
            case TokenSource():
                files[source.path] = (tokens[source].encode(), payload.default_mode)
    return files


def _mode_of(mode: int | None, payload: Payload) -> int:
    return payload.default_mode if mode is None else mode


def _object_files(
    pod: Mapping[str, Any], payload: Payload, source: ObjectSource, configuration: Configuration
) -> dict[str, tuple[bytes, int]]:
    obj = configuration.get((source.kind, source.name))
    if obj is None:
        if source.optional:
            return {}
        raise mount_failure(payload.volume, f'{source.kind.lower()} "{source.name}" not found')
    content = content_of(obj, source.kind)
    if not source.items:
        return {key: (value, payload.default_mode) for key, value in content.items()}
    files = {}
    for key, path, mode in source.items:
        if key in content:
            files[path] = (content[key], _mode_of(mode, payload))
        elif not source.optional:
            raise mount_failure(
                payload.volume,
                f"references non-existent {source.kind.lower()} key: {key} in {namespace_of(pod)}/{source.name}",
            )
    return files


def _downward_text(
    pod: Mapping[str, Any],
    payload: Payload,
    item: Mapping[str, Any],
    *,
    ips: tuple[str, ...],
    host_ip: str,
    allocatable: Mapping[str, str],
) -> str:
    try:
        if ref := item.get("fieldRef"):
            return field_text(pod, ref["fieldPath"], ips=ips, host_ip=host_ip)
        return resource_text(pod, {}, item.get("resourceFieldRef") or {}, allocatable)
    except RuntimeFailure as failure:
        raise mount_failure(payload.volume, failure.message) from failure


def mount_plans(
    pod: Mapping[str, Any], container: Mapping[str, Any], variables: Mapping[str, str]
) -> tuple[MountPlan, ...]:
    """Returns where the container sees which volume.

    Raises:
        RuntimeFailure: `CreateContainerConfigError`: a `subPathExpr` names an unknown variable, or a mount an unknown
            volume.
    """
    rows: dict[str, Obj] = {row["name"]: row for row in pod["spec"].get("volumes") or ()}
    plans = []
    for mount in container.get("volumeMounts") or ():
        volume = rows.get(mount["name"])
        if volume is None:
            raise RuntimeFailure(
                "CreateContainerConfigError", f'cannot find volume "{mount["name"]}" to mount into container'
            )
        sub_path = mount.get("subPath") or ""
        if mount.get("subPathExpr"):
            try:
                sub_path = expand_strict(mount["subPathExpr"], variables)
            except KeyError as unknown:
                raise RuntimeFailure(
                    "CreateContainerConfigError", f"missing value for {unknown.args[0]!r} in subPathExpr"
                ) from unknown
        read_only = bool(mount.get("readOnly")) or any(
            kind in volume for kind in ("configMap", "secret", "projected", "downwardAPI")
        )
        plans.append(
            MountPlan(
                volume=mount["name"],
                container_path=mount["mountPath"],
                sub_path=sub_path,
                read_only=read_only,
                propagation=mount.get("mountPropagation") or "None",
            )
        )
    return tuple(plans)
