"""Pods and containers in the CRI's words, and the CRI's words about them as values. Functions of values only.

What the CRI has no field for travels in annotations, which a runtime must give back unchanged: a restarted agent needs
no records of its own.
Source: https://github.com/kubernetes/cri-api/blob/master/pkg/apis/runtime/v1/api.proto
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from steersman.cluster.node.values import (
    ContainerSpec,
    ContainerState,
    ContainerStats,
    ContainerStatus,
    Image,
    Mount,
    SandboxSpec,
    SandboxStatus,
)
from steersman.pb import cri_pb2
from steersman.runtime.cgroups import CPU_PERIOD_US
from steersman.runtime.oci_spec import MASKED_PATHS, READ_ONLY_PATHS

#: names the data directory whose agent a sandbox or container belongs to
OWNER_LABEL = "steersman.io/owner"
_SPEC = "steersman.io/spec"
_POD_UID, _POD_NAME = "io.kubernetes.pod.uid", "io.kubernetes.pod.name"
_POD_NAMESPACE, _CONTAINER_NAME = "io.kubernetes.pod.namespace", "io.kubernetes.container.name"

_STATES = {
    cri_pb2.CONTAINER_CREATED: ContainerState.CREATED,
    cri_pb2.CONTAINER_RUNNING: ContainerState.RUNNING,
    cri_pb2.CONTAINER_EXITED: ContainerState.EXITED,
}
_PROPAGATION = {
    "HostToContainer": cri_pb2.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": cri_pb2.PROPAGATION_BIDIRECTIONAL,
}
_PROTOCOLS = {"TCP": cri_pb2.TCP, "UDP": cri_pb2.UDP, "SCTP": cri_pb2.SCTP}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is kept with a container. Args: log: path of its log below the pod's log directory."""

    image: str
    image_ref: str
    spec_hash: str
    log: str


# --- towards the runtime


def sandbox_config(
    spec: SandboxSpec, *, owner: str, log_directory: str, cgroup_parent: str, privileged: bool = False
) -> cri_pb2.PodSandboxConfig:
    """Args: privileged: whether a container of it may be."""
    kept = msgspec.json.encode(replace(spec, labels=(), annotations=())).decode()
    profile = cri_pb2.SecurityProfile.Unconfined if privileged else cri_pb2.SecurityProfile.RuntimeDefault
    return cri_pb2.PodSandboxConfig(
        metadata=cri_pb2.PodSandboxMetadata(
            name=spec.name, uid=spec.pod_uid, namespace=spec.namespace, attempt=spec.attempt
        ),
        hostname="" if spec.host_network else spec.hostname,
        log_directory=log_directory,
        dns_config=_dns(spec),
        port_mappings=[
            cri_pb2.PortMapping(
                protocol=_PROTOCOLS.get(port.protocol, cri_pb2.TCP),
                container_port=port.container_port,
                host_port=port.host_port,
                host_ip=port.host_ip,
            )
            for port in spec.port_mappings
        ],
        labels=dict(spec.labels) | _labels(spec.pod_uid, spec.name, spec.namespace, owner),
        annotations=dict(spec.annotations) | {_SPEC: kept},
        linux=cri_pb2.LinuxPodSandboxConfig(
            cgroup_parent=cgroup_parent,
            sysctls=dict(spec.sysctls),
            security_context=cri_pb2.LinuxSandboxSecurityContext(
                namespace_options=_namespaces(spec),
                privileged=privileged,
                seccomp=cri_pb2.SecurityProfile(profile_type=profile),
            ),
        ),
    )


def _dns(spec: SandboxSpec) -> cri_pb2.DNSConfig | None:
    """None leaves a pod the host's own resolv.conf."""
    dns = spec.dns
    if not (dns.servers or dns.searches or dns.options):
        return None
    return cri_pb2.DNSConfig(servers=dns.servers, searches=dns.searches, options=dns.options)


def _labels(uid: str, name: str, namespace: str, owner: str) -> dict[str, str]:
    return {_POD_UID: uid, _POD_NAME: name, _POD_NAMESPACE: namespace, OWNER_LABEL: owner}


def _namespaces(spec: SandboxSpec) -> cri_pb2.NamespaceOption:
    pid = cri_pb2.POD if spec.share_process_namespace else cri_pb2.CONTAINER
    return cri_pb2.NamespaceOption(
        network=cri_pb2.NODE if spec.host_network else cri_pb2.POD,
        pid=cri_pb2.NODE if spec.host_pid else pid,
        ipc=cri_pb2.NODE if spec.host_ipc else cri_pb2.POD,
    )


def container_config(
    spec: ContainerSpec, sandbox: SandboxSpec, *, owner: str, image_user: str, log: str, hosts: str
) -> cri_pb2.ContainerConfig:
    """Args: hosts: host path of the pod's /etc/hosts; image_user: what the image runs as."""
    kept = Kept(image=spec.image, image_ref=spec.image_ref, spec_hash=spec.spec_hash, log=log)
    mounts = list(spec.mounts)
    if all(mount.container_path.rstrip("/") != "/etc/hosts" for mount in mounts):
        read_only = spec.security.read_only_root
        mounts.append(Mount(host_path=hosts, container_path="/etc/hosts", read_only=read_only))
    labels = _labels(spec.pod_uid, spec.pod_name, spec.namespace, owner)
    return cri_pb2.ContainerConfig(
        metadata=cri_pb2.ContainerMetadata(name=spec.name, attempt=spec.attempt),
        image=cri_pb2.ImageSpec(image=spec.image),
        command=spec.command,
        args=spec.args,
        working_dir=spec.working_dir,
        envs=[cri_pb2.KeyValue(key=name, value=value) for name, value in spec.env],
        mounts=[
            cri_pb2.Mount(
                container_path=mount.container_path,
                host_path=mount.host_path,
                readonly=mount.read_only,
                propagation=_PROPAGATION.get(mount.propagation, cri_pb2.PROPAGATION_PRIVATE),
            )
            for mount in mounts
        ],
        labels=labels | {_CONTAINER_NAME: spec.name},
        annotations={_SPEC: msgspec.json.encode(kept).decode()},
        log_path=log,
        stdin=spec.stdin,
        stdin_once=spec.stdin_once,
        tty=spec.tty,
        linux=cri_pb2.LinuxContainerConfig(
            resources=_resources(spec), security_context=_security(spec, sandbox, image_user)
        ),
    )


def _resources(spec: ContainerSpec) -> cri_pb2.LinuxContainerResources:
    limits = spec.resources
    return cri_pb2.LinuxContainerResources(
        cpu_period=CPU_PERIOD_US if limits.cpu_quota_us else 0,
        cpu_quota=limits.cpu_quota_us,
        cpu_shares=max(2, limits.cpu_shares),
        memory_limit_in_bytes=limits.memory_limit_bytes,
        oom_score_adj=limits.oom_score_adj,
    )


def _security(spec: ContainerSpec, sandbox: SandboxSpec, image_user: str) -> cri_pb2.LinuxContainerSecurityContext:
    security, namespaces = spec.security, _namespaces(sandbox)
    if spec.target:
        namespaces.pid, namespaces.target_id = cri_pb2.TARGET, spec.target
    profile = cri_pb2.SecurityProfile.Unconfined if security.privileged else cri_pb2.SecurityProfile.RuntimeDefault
    found = cri_pb2.LinuxContainerSecurityContext(
        capabilities=cri_pb2.Capability(
            add_capabilities=security.capabilities_add, drop_capabilities=security.capabilities_drop
        ),
        privileged=security.privileged,
        namespace_options=namespaces,
        readonly_rootfs=security.read_only_root,
        supplemental_groups=security.supplemental_groups,
        no_new_privs=security.no_new_privileges,
        masked_paths=() if security.privileged else MASKED_PATHS,
        readonly_paths=() if security.privileged else READ_ONLY_PATHS,
        seccomp=cri_pb2.SecurityProfile(profile_type=profile),
    )
    if security.run_as_user is not None:
        found.run_as_user.value = security.run_as_user
    if security.run_as_group is not None:
        found.run_as_group.value = security.run_as_group
        if security.run_as_user is None:
            # the CRI refuses a group without a user
            user = image_user.partition(":")[0] or "0"
            if user.isdigit():
                found.run_as_user.value = int(user)
            else:
                found.run_as_username = user
    return found


# --- from the runtime


def spec_of(status: cri_pb2.PodSandboxStatus) -> SandboxSpec:
    return msgspec.json.decode(status.annotations[_SPEC], type=SandboxSpec)


def kept_of(container: cri_pb2.Container | cri_pb2.ContainerStatus) -> Kept:
    return msgspec.json.decode(container.annotations[_SPEC], type=Kept)


def pod_uid_of(container: cri_pb2.Container) -> str:
    return container.labels[_POD_UID]


def state_of(container: cri_pb2.Container) -> ContainerState:
    return _STATES.get(container.state, ContainerState.UNKNOWN)


def sandbox_status(found: cri_pb2.PodSandbox | cri_pb2.PodSandboxStatus, ips: tuple[str, ...]) -> SandboxStatus:
    return SandboxStatus(
        id=found.id,
        pod_uid=found.metadata.uid,
        name=found.metadata.name,
        namespace=found.metadata.namespace,
        attempt=found.metadata.attempt,
        ready=found.state == cri_pb2.SANDBOX_READY,
        ips=ips,
        created_at=found.created_at / 1e9,
    )


def ips_of(status: cri_pb2.PodSandboxStatus) -> tuple[str, ...]:
    found = (status.network.ip, *(row.ip for row in status.network.additional_ips))
    return tuple(ip for ip in found if ip)


def container_status(row: cri_pb2.Container, status: cri_pb2.ContainerStatus, log_directory: str) -> ContainerStatus:
    kept, labels = kept_of(row), row.labels
    ended = status.state == cri_pb2.CONTAINER_EXITED
    return ContainerStatus(
        id=row.id,
        sandbox_id=row.pod_sandbox_id,
        pod_uid=labels[_POD_UID],
        pod_name=labels[_POD_NAME],
        namespace=labels[_POD_NAMESPACE],
        name=row.metadata.name,
        attempt=row.metadata.attempt,
        state=_STATES.get(status.state, ContainerState.UNKNOWN),
        image=kept.image,
        image_ref=kept.image_ref,
        created_at=status.created_at / 1e9,
        started_at=max(0, status.started_at) / 1e9,
        finished_at=max(0, status.finished_at) / 1e9 if ended else 0.0,
        exit_code=status.exit_code,
        reason=status.reason if ended else "",
        message=status.message,
        spec_hash=kept.spec_hash,
        log_path=f"{log_directory}/{kept.log}",
    )


def stats_of(row: cri_pb2.ContainerStats, now: float) -> ContainerStats:
    labels = row.attributes.labels
    return ContainerStats(
        id=row.attributes.id,
        pod_uid=labels[_POD_UID],
        pod_name=labels[_POD_NAME],
        namespace=labels[_POD_NAMESPACE],
        name=row.attributes.metadata.name,
        timestamp=row.cpu.timestamp / 1e9 or now,
        cpu_usage_ns=row.cpu.usage_core_nano_seconds.value,
        # runtimes that tell only the working set leave the rest at 0
        memory_usage_bytes=max(row.memory.usage_bytes.value, row.memory.working_set_bytes.value),
        memory_working_set_bytes=row.memory.working_set_bytes.value,
    )


def image_of(found: cri_pb2.Image) -> Image:
    user = str(found.uid.value) if found.HasField("uid") else found.username
    return Image(
        id=found.id,
        names=tuple(sorted((*found.repo_tags, *found.repo_digests))),
        size_bytes=found.size,
        user="" if user == "0" else user,
    )
