"""Rules of how a pod is found and finds others: host names, aliases, DNS, the host's network.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

from collections.abc import Sequence

from steersman.cluster.api.rules.fields import bad, bad_all, forbidden, ip, one_of, required
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj

_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
_SERVERS_MAX = 3
_SEARCHES_MAX = 32
_SEARCH_CHARS_MAX = 2048
_OVERRIDE_CHARS_MAX = 64


def validate_network(path: str, spec: Obj, *, is_pod: bool) -> list[Cause]:
    """Every broken rule; a template may leave to its pods what a pod must say."""
    causes = one_of(f"{path}.dnsPolicy", spec.get("dnsPolicy"), _POLICIES)
    if spec.get("dnsConfig") is not None or spec.get("dnsPolicy") == "None":
        causes += _dns(f"{path}.dnsConfig", spec)
    for key in ("hostname", "subdomain"):
        if spec.get(key):
            causes += bad_all(f"{path}.{key}", spec[key], label_1123_errors(spec[key]))
    if spec.get("hostAliases"):
        causes += _aliases(f"{path}.hostAliases", spec["hostAliases"])
    if spec.get("hostNetwork"):
        causes += _host_ports(f"{path}.containers", spec.get("containers") or (), is_pod=is_pod)
    if spec.get("hostnameOverride"):
        causes += _override(path, spec)
    return causes


def _dns(path: str, spec: Obj) -> list[Cause]:
    config = spec.get("dnsConfig")
    if config is None:
        return [required(path, "must provide `dnsConfig` when `dnsPolicy` is None")]
    servers, searches = config.get("nameservers") or [], config.get("searches") or []
    causes: list[Cause] = []
    if spec.get("dnsPolicy") == "None" and not servers:
        detail = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        causes.append(required(f"{path}.nameservers", detail))
    if len(servers) > _SERVERS_MAX:
        causes.append(bad(f"{path}.nameservers", servers, f"must not have more than {_SERVERS_MAX} nameservers"))
    for index, server in enumerate(servers):
        causes += ip(f"{path}.nameservers[{index}]", server)
    if len(searches) > _SEARCHES_MAX:
        causes.append(bad(f"{path}.searches", searches, f"must not have more than {_SEARCHES_MAX} search paths"))
    if len(" ".join(searches)) > _SEARCH_CHARS_MAX:
        detail = f"must not have more than {_SEARCH_CHARS_MAX} characters (including spaces) in the search list"
        causes.append(bad(f"{path}.searches", searches, detail))
    for index, search in enumerate(searches):
        if search != ".":
            plain = search.removesuffix(".")
            causes += bad_all(f"{path}.searches[{index}]", plain, subdomain_errors(plain.replace("_", "a")))
    for index, row in enumerate(config.get("options") or ()):
        if not row.get("name"):
            causes.append(required(f"{path}.options[{index}]", "must not be empty"))
    return causes


def _aliases(path: str, rows: Sequence[Obj]) -> list[Cause]:
    causes: list[Cause] = []
    for index, row in enumerate(rows):
        causes += ip(f"{path}[{index}].ip", row.get("ip", ""))
        for host in row.get("hostnames") or ():
            causes += bad_all(f"{path}[{index}].hostnames", host, subdomain_errors(host))
    return causes


def _host_ports(path: str, containers: Sequence[Obj], *, is_pod: bool) -> list[Cause]:
    causes = []
    for index, one in enumerate(containers):
        for place, port in enumerate(one.get("ports") or ()):
            asked = port.get("hostPort", 0)
            if (is_pod or asked) and asked != port.get("containerPort", 0):
                detail = "must match `containerPort` when `hostNetwork` is true"
                causes.append(bad(f"{path}[{index}].ports[{place}].hostPort", asked, detail))
    return causes


def _override(path: str, spec: Obj) -> list[Cause]:
    name, where = spec["hostnameOverride"], f"{path}.hostnameOverride"
    causes = bad_all(where, name, subdomain_errors(name))
    if len(name) > _OVERRIDE_CHARS_MAX:
        causes.append(bad(where, name, f"must be no more than {_OVERRIDE_CHARS_MAX} characters"))
    if spec.get("setHostnameAsFQDN"):
        causes.append(forbidden(where, "may not be specified when `setHostnameAsFQDN` is true"))
    if spec.get("hostNetwork"):
        causes.append(forbidden(where, "may not be specified when `hostNetwork` is true"))
    return causes
