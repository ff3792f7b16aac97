"""The pod's shell: host name, resolv.conf, host aliases, ports, namespaces.

Source: https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/
and k8s.io/kubernetes/pkg/kubelet/network/dns/dns.go
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steersman.cluster.meta.objects import annotations_of, labels_of
from steersman.cluster.node.config import NodeConfig
from steersman.cluster.node.resources import pod_resources, qos_class
from steersman.cluster.node.values import DnsConfig, PortMapping, SandboxSpec

SEARCHES_MAX = 32
SERVERS_MAX = 3
HOSTNAME_MAX = 63


def hostname(pod: Mapping[str, Any], config: NodeConfig) -> str:
    """Returns the pod's host name: its own field, the node's on the host's network, or its name cut to 63."""
    spec = pod["spec"]
    if override := spec.get("hostnameOverride"):
        return str(override)
    if spec.get("hostNetwork"):
        return config.hostname or config.name
    if spec.get("setHostnameAsFQDN") and (full := fqdn(pod, config)):
        return full
    return _short_name(pod)


def fqdn(pod: Mapping[str, Any], config: NodeConfig) -> str:
    """Returns the pod's full name below its subdomain; empty without one or on the host's network."""
    spec = pod["spec"]
    if not spec.get("subdomain") or spec.get("hostNetwork") or spec.get("hostnameOverride"):
        return ""
    domain = f"{spec['subdomain']}.{pod['metadata'].get('namespace', '')}.svc.{config.cluster_domain}"
    return f"{_short_name(pod)}.{domain}"


def _short_name(pod: Mapping[str, Any]) -> str:
    name = str(pod["spec"].get("hostname") or pod["metadata"]["name"])
    return name[:HOSTNAME_MAX].rstrip("-.")


def dns_config(pod: Mapping[str, Any], config: NodeConfig) -> DnsConfig:
    """Returns the lines of the pod's resolv.conf by its `dnsPolicy` and `dnsConfig`."""
    spec = pod["spec"]
    policy = spec.get("dnsPolicy") or "ClusterFirst"
    if policy == "ClusterFirst" and spec.get("hostNetwork"):
        policy = "Default"
    base = config.host_dns
    if policy == "None":
        base = DnsConfig()
    elif policy in ("ClusterFirst", "ClusterFirstWithHostNet") and config.cluster_dns:
        zone = config.cluster_domain
        searches = (f"{pod['metadata'].get('namespace', '')}.svc.{zone}", f"svc.{zone}", zone)
        base = DnsConfig(servers=config.cluster_dns, searches=(*searches, *base.searches), options=("ndots:5",))
    custom = spec.get("dnsConfig") or {}
    options = {text.partition(":")[0]: text for text in base.options}
    for row in custom.get("options") or ():
        value = row.get("value")
        options[row["name"]] = f"{row['name']}:{value}" if value not in (None, "") else row["name"]
    return DnsConfig(
        servers=tuple(dict.fromkeys((*base.servers, *(custom.get("nameservers") or ()))))[:SERVERS_MAX],
        searches=tuple(dict.fromkeys((*base.searches, *(custom.get("searches") or ()))))[:SEARCHES_MAX],
        options=tuple(options.values()),
    )


def port_mappings(pod: Mapping[str, Any]) -> tuple[PortMapping, ...]:
    """Returns the host ports to open; on the host's network there is nothing to map."""
    spec = pod["spec"]
    if spec.get("hostNetwork"):
        return ()
    rows = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    return tuple(
        PortMapping(
            container_port=port["containerPort"],
            host_port=port["hostPort"],
            protocol=port.get("protocol") or "TCP",
            host_ip=port.get("hostIP") or "",
        )
        for container in rows
        for port in container.get("ports") or ()
        if port.get("hostPort")
    )


def sandbox_spec(pod: Mapping[str, Any], config: NodeConfig, attempt: int) -> SandboxSpec:
    """Returns everything the runtime needs for the pod's sandbox."""
    spec, meta = pod["spec"], pod["metadata"]
    security = spec.get("securityContext") or {}
    return SandboxSpec(
        pod_uid=meta["uid"],
        name=meta["name"],
        namespace=meta.get("namespace", ""),
        attempt=attempt,
        hostname=hostname(pod, config),
        fqdn=fqdn(pod, config),
        host_network=bool(spec.get("hostNetwork")),
        host_pid=bool(spec.get("hostPID")),
        host_ipc=bool(spec.get("hostIPC")),
        share_process_namespace=bool(spec.get("shareProcessNamespace")),
        dns=dns_config(pod, config),
        host_aliases=host_aliases(pod),
        port_mappings=port_mappings(pod),
        sysctls=tuple((row["name"], row["value"]) for row in security.get("sysctls") or ()),
        qos_class=qos_class(pod),
        resources=pod_resources(pod),
        labels=tuple(labels_of(pod).items()),
        annotations=tuple(annotations_of(pod).items()),
    )


def host_aliases(pod: Mapping[str, Any]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Returns the (ip, names) lines of the pod's /etc/hosts beyond its own."""
    return tuple((row["ip"], tuple(row.get("hostnames") or ())) for row in pod["spec"].get("hostAliases") or ())
