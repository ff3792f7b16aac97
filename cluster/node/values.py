"""What a node agent asks of a container runtime, and what the runtime shows: the CRI's ideas as frozen values.

Source: https://github.com/kubernetes/cri-api/blob/master/pkg/apis/runtime/v1/api.proto
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class ContainerState(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A host path shown in a container.

    Args:
        propagation: `None`, `HostToContainer` or `Bidirectional`.
    """

    host_path: str
    container_path: str
    read_only: bool = False
    propagation: str = "None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Limits of a container or pod; 0 means none.

    Args:
        cpu_shares: relative weight (cgroup v1 shares; 1024 for one CPU).
        cpu_quota_us: time per period of 100,000 µs.
        memory_limit_bytes: the OOM killer's line.
        oom_score_adj: -1000..1000.
    """

    cpu_shares: int = 2
    cpu_quota_us: int = 0
    memory_limit_bytes: int = 0
    memory_request_bytes: int = 0
    pids_limit: int = 0
    oom_score_adj: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityContext:
    """Who the process is and what it may do; None leaves a choice to the image."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    privileged: bool = False
    read_only_root: bool = False
    no_new_privileges: bool = False
    capabilities_add: tuple[str, ...] = ()
    capabilities_drop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PortMapping:
    """Args: protocol: `TCP` or `UDP`; host_ip: empty for every address."""

    container_port: int
    host_port: int
    protocol: str = "TCP"
    host_ip: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsConfig:
    """The lines of the pod's resolv.conf."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """A pod's shell: its namespaces, address and cgroup.

    Args:
        attempt: counts sandboxes of this pod uid, from 0.
        qos_class: `Guaranteed`, `Burstable` or `BestEffort`: decides the parent cgroup.
        fqdn: the full name that cluster DNS answers for, empty when it has none.
        host_aliases: (ip, hostnames) lines for /etc/hosts.
    """

    pod_uid: str
    name: str
    namespace: str
    attempt: int = 0
    hostname: str
    fqdn: str = ""
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    share_process_namespace: bool = False
    dns: DnsConfig = field(default_factory=DnsConfig)
    host_aliases: tuple[tuple[str, tuple[str, ...]], ...] = ()
    port_mappings: tuple[PortMapping, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    qos_class: str = "BestEffort"
    resources: Resources = field(default_factory=Resources)
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxStatus:
    """Args: ready: its namespaces stand; ips: the pod's addresses, the primary first; created_at: Unix seconds."""

    id: str
    pod_uid: str
    name: str
    namespace: str
    attempt: int
    ready: bool
    ips: tuple[str, ...] = ()
    created_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """A container to create in a sandbox.

    Args:
        attempt: counts containers of this name in this pod, from 0: the restart count.
        image: an image id (`sha256:...`) that `pull` or `image` returned.
        command: the entrypoint, empty for the image's own; args: its arguments, empty for the image's own unless
            `command` is given.
        target: id of a running container of the sandbox whose processes this one sees as its own; empty for none.
        spec_hash: of the container's spec in the pod; kept and shown again in `ContainerStatus`.
    """

    pod_uid: str
    pod_name: str
    namespace: str
    name: str
    attempt: int = 0
    image: str
    image_ref: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    mounts: tuple[Mount, ...] = ()
    resources: Resources = field(default_factory=Resources)
    security: SecurityContext = field(default_factory=SecurityContext)
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    target: str = ""
    spec_hash: str = ""
    simulation: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerStatus:
    """One container as the runtime shows it; times are Unix seconds, 0 when not reached.

    Args:
        reason: `Completed`, `Error`, `OOMKilled`, `ContainerCannotRun` or `StartError` when exited.
        message: more about a failure; the termination message is the agent's to read.
    """

    id: str
    sandbox_id: str
    pod_uid: str
    pod_name: str
    namespace: str
    name: str
    attempt: int
    state: ContainerState
    image: str = ""
    image_ref: str = ""
    created_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    spec_hash: str = ""
    log_path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    exit_code: int
    stdout: bytes = b""
    stderr: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerStats:
    """Args: cpu_usage_ns: since the container's start; memory_working_set_bytes: usage less inactive file pages."""

    id: str
    pod_uid: str
    pod_name: str
    namespace: str
    name: str
    timestamp: float
    cpu_usage_ns: int = 0
    memory_usage_bytes: int = 0
    memory_working_set_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Args: id: `sha256:...` of its configuration; names: references, tagged and by digest; user: of its config."""

    id: str
    names: tuple[str, ...]
    size_bytes: int = 0
    user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryAuth:
    username: str = ""
    password: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeInfo:
    """What a node's runtime is and what it cannot do.

    Args:
        name: `oci`, `process`, `simulated`, or the CRI runtime's own, as `containerd`; version: of the engine beneath,
            as `crun 1.8`.
        pod_network: `bridge` (an address in a namespace per pod), `loopback` (an address of 127/8 per pod, no
            namespace) or `simulated`.
        reduced: sentences that say what is missing here and why, for `steer status`.
    """

    name: str
    version: str
    pod_network: str
    isolation: bool
    reduced: tuple[str, ...] = ()


class RuntimeFailure(Exception):
    """The runtime refused or failed.

    Args:
        reason: as shown in a container's waiting state: `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName`,
            `CreateContainerError`, `RunContainerError`, `CreateContainerConfigError`, `FailedCreatePodSandBox`,
            `NotFound`, ...
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
