"""The cluster's configuration: one YAML file, every field with a default, every mistake with its line.

The models say what may be configured; `parse` turns text into a configuration or into a list of mistakes, and
`render` prints the effective configuration with a comment per field. Files are read elsewhere.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from steersman.cluster.meta.names import label_1123_errors, label_value_errors, qualified_name_errors
from steersman.cluster.meta.quantity import canonical


def _is_name(text: str) -> str:
    if errors := label_1123_errors(text):
        raise ValueError(errors[0])
    return text


def _is_network(text: str) -> str:
    return str(ipaddress.ip_network(text))


def _is_quantity(text: str) -> str:
    return canonical(text)


Name = Annotated[str, AfterValidator(_is_name)]
Network = Annotated[str, AfterValidator(_is_network)]
Quantity = Annotated[str, AfterValidator(_is_quantity)]
Port = Annotated[int, Field(ge=0, le=65535)]


#: admission plugins in Kubernetes' order: those that are off, and on, unless the cluster says otherwise
OptionalPlugin = Literal[
    "NamespaceExists", "LimitPodHardAntiAffinityTopology", "AlwaysPullImages", "PodNodeSelector",
    "PodTolerationRestriction", "EventRateLimit", "ExtendedResourceToleration", "OwnerReferencesPermissionEnforcement",
    "DenyServiceExternalIPs",
]  # fmt: skip
UsualPlugin = Literal[
    "NamespaceLifecycle", "LimitRanger", "ServiceAccount", "NodeRestriction", "TaintNodesByCondition", "PodSecurity",
    "Priority", "DefaultTolerationSeconds", "DefaultStorageClass", "StorageObjectInUseProtection",
    "PersistentVolumeClaimResize", "RuntimeClass", "CertificateApproval", "CertificateSigning",
    "CertificateSubjectRestriction", "DefaultIngressClass", "PodTopologyLabels", "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook", "ValidatingAdmissionPolicy", "ValidatingAdmissionWebhook", "ResourceQuota",
]  # fmt: skip


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ControlPlane(_Section):
    replicas: Literal[1, 3, 5] = Field(1, description="members of the store's Raft group")
    api_servers: int = Field(1, ge=1, le=9, description="API servers; any number may serve at once")
    requests_in_flight: int = Field(
        600, ge=10, description="requests that each API server works on at once, shared out by priority"
    )
    admission_plugins: list[OptionalPlugin] = Field(
        [], description="admission plugins beside those that are on by themselves"
    )
    admission_plugins_off: list[UsualPlugin] = Field([], description="admission plugins that are switched off")
    controllers: Literal["each", "grouped", "packed"] = Field(
        "each",
        description="actors that run controllers: one each, one for those that watch the same things, or one for all",
    )
    snapshot_every: int = Field(10_000, ge=100, description="store entries between two snapshots")
    reads: Literal["read-index", "lease"] = Field(
        "read-index",
        description="how the store's leader proves that it leads before it answers a read: read-index asks a majority;"
        " lease is faster and trusts the machines' clocks",
    )


class Ports(_Section):
    base: Annotated[int, Field(ge=1024, le=65000)] = Field(
        6440, description="ports that are 0 below follow from this one"
    )
    api: Port = Field(0, description="Kubernetes REST API over TLS (base + 3)")
    grpc: Port = Field(0, description="native gRPC API over TLS, for callers with a client certificate (base + 4)")
    grpc_token: Port = Field(0, description="the same for callers with a bearer token (base + 5)")
    store: Port = Field(0, description="etcd v3 API of store member 0 (base + 20), the next members follow")
    node_agent: Port = Field(0, description="node agent: logs, exec, port-forward (base + 10)")
    dns: Port = Field(0, description="cluster DNS on each node (base + 11)")
    ray: Port = Field(0, description="Ray's global control store (base + 12)")
    status: Port = Field(0, description="first of the actors' status ports (base + 100), the next actors follow")

    def resolved(self) -> Ports:
        """Returns the ports with every 0 replaced by the one that follows from `base`."""
        offsets = {
            "api": 3, "grpc": 4, "grpc_token": 5, "node_agent": 10, "dns": 11, "ray": 12,
            "store": 20, "status": 100,
        }  # fmt: skip
        return self.model_copy(
            update={name: getattr(self, name) or self.base + offset for name, offset in offsets.items()}
        )


class Networking(_Section):
    mode: Literal["auto", "bridge", "loopback"] = Field(
        "auto", description="bridge: a network namespace per pod; loopback: pods on 127/8, no rights needed"
    )
    pod_cidr: Network = Field("10.244.0.0/16", description="range of pod addresses; each node gets a /24 of it")
    service_cidr: Network = Field("10.96.0.0/16", description="range of Service addresses")
    node_ports: str = Field("30000-32767", description="range of NodePorts")
    cluster_domain: str = Field("cluster.local", description="DNS domain of the cluster")
    proxy: Literal["auto", "nftables", "userspace"] = Field("auto", description="how Services reach their pods")

    @model_validator(mode="after")
    def _ranges_fit(self) -> Networking:
        pods, services = ipaddress.ip_network(self.pod_cidr), ipaddress.ip_network(self.service_cidr)
        if pods.overlaps(services):
            raise ValueError(f"pod_cidr {pods} and service_cidr {services} overlap")
        match = re.fullmatch(r"(\d+)-(\d+)", self.node_ports)
        if match is None or not 1 <= int(match[1]) <= int(match[2]) <= 65535:
            raise ValueError("node_ports must be two ports with a dash between, as 30000-32767")
        return self


class Node(_Section):
    name: str = Field("", description="name of this machine's Node; empty: its host name")
    runtime: Literal["auto", "oci", "cri", "process", "simulated", "none"] = Field(
        "auto",
        description="oci: containers by crun or runc; cri: by containerd or CRI-O; process: plain processes; none: no"
        " pods here",
    )
    engine: str = Field("", description="path of crun or runc; empty: the first one found")
    cri_endpoint: str = Field(
        "unix:///run/containerd/containerd.sock", description="socket of containerd or CRI-O, for the runtime cri"
    )
    labels: dict[str, str] = Field(default_factory=dict, description="labels of the Node")
    taints: list[str] = Field(default_factory=list, description="taints of the Node, as key=value:NoSchedule")
    max_pods: int = Field(110, ge=1, le=1000, description="pods that the node takes at most")
    insecure_registries: list[str] = Field(
        default_factory=list, description="registries (host:port) spoken to over plain HTTP; loopback ones always are"
    )

    @model_validator(mode="after")
    def _labels_fit(self) -> Node:
        if self.name:
            _is_name(self.name)
        for key, value in self.labels.items():
            if errors := qualified_name_errors(key) + label_value_errors(value):
                raise ValueError(f"label {key}={value}: {errors[0]}")
        for taint in self.taints:
            if not re.fullmatch(r"[^=:\s]+(=[^:\s]*)?:(NoSchedule|PreferNoSchedule|NoExecute)", taint):
                raise ValueError(f"taint {taint!r} is not of the form key=value:Effect")
        return self


class SimulatedNodes(_Section):
    count: int = Field(0, ge=0, le=20_000, description="nodes without containers, for scale")
    cpu: Quantity = Field("32", description="CPUs of each")
    memory: Quantity = Field("256Gi", description="memory of each")
    pods: int = Field(110, ge=1, description="pods that each takes at most")


class RayOptions(_Section):
    address: str = Field(
        "",
        pattern=r"^(\S+:\d+)?$",
        description="use the Ray that somebody else runs here (host:port); empty: start one",
    )
    object_store_memory_bytes: int = Field(80_000_000, ge=75_000_000, description="Ray's object store on each host")


class Security(_Section):
    encryption: str = Field(
        "",
        description="file of the EncryptionConfiguration by which the API servers encrypt what they store; empty: one"
        " in the directory pki that encrypts Secrets, made at the first `up`; none: nothing is encrypted",
    )
    service_account_keys: list[str] = Field(
        default_factory=list,
        description="files of further keys whose service account tokens are accepted: former ones, after pki/sa.key has"
        " been replaced",
    )
    authentication: str = Field(
        "",
        description="file of the AuthenticationConfiguration: whose tokens (OpenID Connect) are accepted, and what may"
        " be asked anonymously; empty: nobody's, and health and version",
    )
    authorization: str = Field(
        "",
        description="file of the AuthorizationConfiguration: who is asked whether something is allowed (Node, RBAC,"
        " Webhook), in which order; empty: the node authorizer and RBAC",
    )
    admission: str = Field(
        "",
        description="file of the AdmissionConfiguration: what admission plugins are told (PodSecurity, ResourceQuota,"
        " EventRateLimit, ...); empty: nothing",
    )
    token_webhook: str = Field("", description="kubeconfig of a server that is asked whose other tokens are")
    audit_policy: str = Field("", description="file of the audit policy (audit.k8s.io/v1); empty: nothing is audited")
    audit_log: str = Field("", description="file of audit events; empty: logs/audit.log; none: no file")
    audit_log_size_mb: int = Field(100, ge=0, description="size at which that file is put aside; 0: never")
    audit_log_backups: int = Field(10, ge=0, description="files put aside that are kept; 0: all")
    audit_log_age_days: int = Field(30, ge=0, description="days that files put aside are kept; 0: for ever")
    audit_webhook: str = Field("", description="kubeconfig of a server that gets audit events in batches")


class ClusterConfig(_Section):
    """Everything that can be said about a cluster."""

    name: Name = Field("default", description="name of the cluster; several may live on one machine")
    data_dir: str = Field("", description="where state lives; empty: ~/.steersman/NAME")
    host: str = Field("127.0.0.1", description="address that other machines and clients reach this one at")
    kubernetes_version: str = Field(
        "1.36", pattern=r"^1\.\d+$", description="Kubernetes minor version whose API is served"
    )
    head: bool = Field(False, description="let other machines join: listen on this machine's own address")
    embedded: bool = Field(False, description="run every component in one process, without Ray")
    control_plane: ControlPlane = Field(default_factory=ControlPlane, description="store and API servers")
    ports: Ports = Field(default_factory=Ports, description="ports listened on")
    networking: Networking = Field(default_factory=Networking, description="pod and Service networks")
    node: Node = Field(default_factory=Node, description="this machine as a Node")
    simulated_nodes: SimulatedNodes = Field(default_factory=SimulatedNodes, description="Nodes that only pretend")
    security: Security = Field(default_factory=Security, description="who may come in, encryption at rest, audit")
    ray: RayOptions = Field(default_factory=RayOptions, description="the Ray cluster beneath")

    @model_validator(mode="after")
    def _ray_fits(self) -> ClusterConfig:
        if self.ray.address and self.head:
            raise ValueError("ray.address: others can join only a cluster whose Ray Steersman starts itself")
        return self


@dataclass(frozen=True, slots=True)
class Mistake:
    """One error of a configuration file: where it stands and what is wrong. Line 0 is the whole file."""

    line: int
    field: str
    message: str


class ConfigError(ValueError):
    """The text is no valid configuration; `mistakes` lists every error found."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("; ".join(f"line {m.line}: {m.field}: {m.message}" for m in mistakes))
        self.mistakes = mistakes


def parse(text: str, overrides: Mapping[str, Any] | None = None) -> ClusterConfig:
    """Returns the configuration in a YAML text, with `overrides` (a nested mapping) laid over it.

    Raises:
        ConfigError: the text is no YAML, or fields are unknown, of the wrong type or out of range.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise ConfigError([Mistake(mark.line + 1 if mark else 0, "", str(problem))]) from error
    if not isinstance(tree, dict):
        raise ConfigError([Mistake(1, "", "the file must hold a mapping of fields")])
    try:
        return ClusterConfig.model_validate(_merged(tree, overrides or {}))
    except ValidationError as error:
        raise ConfigError([_mistake(row, node) for row in error.errors()]) from error


def _merged(tree: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(tree)
    for key, value in overrides.items():
        below = merged.get(key)
        merged[key] = _merged(below if isinstance(below, dict) else {}, value) if isinstance(value, Mapping) else value
    return merged


def _mistake(row: Any, root: yaml.Node | None) -> Mistake:
    location = tuple(str(part) for part in row["loc"])
    message = str(row["msg"]).removeprefix("Value error, ")
    if row["type"] == "extra_forbidden":
        message = "unknown field"
    return Mistake(_line_of(root, location), ".".join(location), message)


def _line_of(node: yaml.Node | None, location: tuple[str, ...]) -> int:
    line = node.start_mark.line + 1 if node is not None else 0
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == part), None)
            if found is None:
                return line
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
    return line


def render(config: ClusterConfig) -> str:
    """Returns the configuration as YAML with a comment per field; `parse` reads it back to an equal value."""
    return "\n".join(_lines(config, "")) + "\n"


def _lines(section: BaseModel, indent: str) -> Iterator[str]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:  # {field.description}"
            yield from _lines(value, indent + "  ")
        else:
            text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()
            yield f"{indent}{name}: {text}  # {field.description}"
