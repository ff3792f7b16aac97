"""The texts every pod finds in /etc: hosts and resolv.conf.

Source: https://kubernetes.io/docs/tasks/network/customize-hosts-file-for-pods/, resolv.conf(5)
"""

from __future__ import annotations

from steersman.cluster.node.values import SandboxSpec

_STANDARD = """\
# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""


def hosts(spec: SandboxSpec, ips: tuple[str, ...], host_file: str) -> str:
    """Returns /etc/hosts: with the host's network the host's own, else the pod's; aliases come after."""
    if spec.host_network:
        text = f"# Kubernetes-managed hosts file (host network).\n{host_file}"
    else:
        short = spec.fqdn.partition(".")[0]
        names = f"{spec.fqdn}\t{short}" if short else spec.hostname
        text = _STANDARD + "".join(f"{ip}\t{names}\n" for ip in ips)
    if spec.host_aliases:
        text += "\n# Entries added by HostAliases.\n"
        text += "".join(f"{ip}\t" + "\t".join(names) + "\n" for ip, names in spec.host_aliases)
    return text


def resolv_conf(spec: SandboxSpec, host_file: str) -> str:
    """Returns /etc/resolv.conf; without a DNS configuration the host's own."""
    dns = spec.dns
    if not (dns.servers or dns.searches or dns.options):
        return host_file
    lines = [f"nameserver {server}" for server in dns.servers]
    if dns.searches:
        lines.append("search " + " ".join(dns.searches))
    if dns.options:
        lines.append("options " + " ".join(dns.options))
    return "\n".join(lines) + "\n"
