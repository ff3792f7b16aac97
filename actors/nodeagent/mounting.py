"""Makes the volumes of a pod, and the mounts of its containers from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from steersman.actors.nodeagent.host import Host
from steersman.cluster.meta.objects import Obj
from steersman.cluster.node.containers import TERMINATION_MESSAGE_PATH, termination_path
from steersman.cluster.node.values import Mount, RuntimeFailure
from steersman.cluster.node.volumes import (
    EmptyDir,
    HostPath,
    Payload,
    Volume,
    mount_failure,
    mount_plans,
    payload_files,
    plan,
    tokens_of,
    wanted,
)


async def mount_volumes(host: Host, pod: Obj, newer_than: float, *, payloads_only: bool = False) -> dict[str, str]:
    """Makes the pod's volumes; returns their host paths by name.

    Args:
        newer_than: configuration read before this moment is read again.
        payloads_only: swap the contents of those that carry configuration, leave the others.

    Raises:
        RuntimeFailure: `FailedMount`.
    """
    volumes = plan(pod)
    try:
        configuration = await host.materials.configuration(pod["metadata"]["namespace"], wanted(volumes), newer_than)
    except RuntimeFailure as failure:
        first = next(row.volume for row in volumes if isinstance(row, Payload))
        raise mount_failure(first, failure.message) from failure
    paths = {}
    for volume in volumes:
        if payloads_only and not isinstance(volume, Payload):
            continue
        try:
            paths[volume.volume] = await _mount(host, pod, volume, configuration)
        except RuntimeFailure as failure:
            if failure.message.startswith("MountVolume"):
                raise
            raise mount_failure(volume.volume, failure.message) from failure
    return paths


async def _mount(host: Host, pod: Obj, volume: Volume, configuration: Mapping[tuple[str, str], Obj | None]) -> str:
    uid = pod["metadata"]["uid"]
    group: int | None = (pod["spec"].get("securityContext") or {}).get("fsGroup")
    match volume:
        case EmptyDir():
            return await host.volumes.empty_dir(
                uid, volume.volume, in_memory=volume.in_memory, size_bytes_max=volume.size_bytes_max, gid=group
            )
        case HostPath():
            return await host.volumes.host_path(volume.path, volume.kind)
        case Payload():
            tokens = await host.materials.tokens(pod, tokens_of([volume]))
            files = payload_files(
                pod,
                volume,
                configuration,
                tokens,
                ips=(),
                host_ip=host.config.address,
                allocatable=host.config.allocatable(),
            )
            return await host.volumes.payload(uid, volume.volume, files, in_memory=volume.in_memory, gid=group)


async def container_mounts(
    host: Host,
    pod: Obj,
    container: Mapping[str, Any],
    attempt: int,
    *,
    paths: Mapping[str, str],
    environment: Iterable[tuple[str, str]],
) -> tuple[Mount, ...]:
    """Returns what the container sees of the pod's volumes, and the file for its termination message.

    Raises:
        RuntimeFailure: `CreateContainerConfigError`.
    """
    uid = pod["metadata"]["uid"]
    mounts = []
    for row in mount_plans(pod, container, dict(environment)):
        path = paths[row.volume]
        if row.sub_path:
            try:
                path = await host.volumes.sub_path(uid, path, row.sub_path)
            except RuntimeFailure as failure:
                message = f'failed to prepare subPath for volumeMount "{row.volume}" of container "{container["name"]}"'
                raise RuntimeFailure("CreateContainerConfigError", f"{message}: {failure.message}") from failure
        mounts.append(
            Mount(
                host_path=path,
                container_path=row.container_path,
                read_only=row.read_only,
                propagation=row.propagation,
            )
        )
    told = await host.volumes.pod_file(uid, termination_path(container["name"], attempt), b"", 0o666)
    mounts.append(
        Mount(host_path=told, container_path=container.get("terminationMessagePath") or TERMINATION_MESSAGE_PATH)
    )
    return tuple(mounts)
