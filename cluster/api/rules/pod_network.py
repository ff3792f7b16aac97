"""Rules of how a pod is found and finds others: host names, aliases, DNS, the host's network.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from steersman.cluster.api.rules.fields import bad, bad_all, forbidden, ip, one_of, required, too_long
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import subdomain_errors
from steersman.cluster.meta.objects import Obj

_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_SERVERS_MAX = 3
_SEARCHES_MAX = 32
_SEARCH_CHARS_MAX = 2048
_OVERRIDE_BYTES_MAX = 64
_SEARCH_LABEL = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SEARCH = re.compile(rf"{_SEARCH_LABEL}(\.{_SEARCH_LABEL})*\Z")
_SEARCH_DETAIL = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must "
    f"start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    f"'{_SEARCH_LABEL}(\\.{_SEARCH_LABEL})*')"
)


def validate_dns_policy(path: str, policy: str) -> list[Cause]:
    return one_of(path, policy, _POLICIES, in_order=True)


def validate_dns(path: str, config: Obj | None, policy: str) -> list[Cause]:
    """Every broken rule of how a pod resolves names; `policy` is its DNS policy."""
    if policy == "None" and config is None:
        return [required(path, "must provide `dnsConfig` when `dnsPolicy` is None")]
    if config is None:
        return []
    servers, searches = config.get("nameservers") or [], config.get("searches") or []
    if policy == "None" and not servers:
        detail = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        return [required(f"{path}.nameservers", detail)]
    causes: list[Cause] = []
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
            causes += bad_all(f"{path}.searches[{index}]", plain, _search_errors(plain))
    for index, row in enumerate(config.get("options") or ()):
        if not row.get("name"):
            causes.append(required(f"{path}.options[{index}]", "must not be empty"))
    return causes


def _search_errors(search: str) -> list[str]:
    errors = ["must be no more than 253 characters"] if len(search) > 253 else []
    return errors if _SEARCH.match(search) else [*errors, _SEARCH_DETAIL]


def validate_aliases(path: str, rows: Sequence[Obj]) -> list[Cause]:
    causes: list[Cause] = []
    for index, row in enumerate(rows):
        causes += ip(f"{path}[{index}].ip", row.get("ip", ""))
        for place, host in enumerate(row.get("hostnames") or ()):
            causes += bad_all(f"{path}[{index}].hostnames[{place}]", host, subdomain_errors(host))
    return causes


def validate_host_ports(path: str, containers: Sequence[Obj], *, is_pod: bool) -> list[Cause]:
    """The rules of ports on the host's network; a template may leave to its pods what a pod must say."""
    causes = []
    for index, one in enumerate(containers):
        for place, port in enumerate(one.get("ports") or ()):
            asked = port.get("hostPort", 0)
            if (is_pod or asked) and asked != port.get("containerPort", 0):
                detail = "must match `containerPort` when `hostNetwork` is true"
                causes.append(bad(f"{path}[{index}].ports[{place}].hostPort", asked, detail))
    return causes


def validate_override(path: str, spec: Obj) -> list[Cause]:
    """The rules of a host name that is not the pod's name."""
    name, causes = spec["hostnameOverride"], []
    if spec.get("setHostnameAsFQDN"):
        causes.append(forbidden(path, "may not be specified when setHostnameAsFQDN is true"))
    if spec.get("hostNetwork"):
        causes.append(forbidden(path, "may not be specified when hostNetwork is true"))
    if len(name) > _OVERRIDE_BYTES_MAX:
        causes.append(too_long(path, _OVERRIDE_BYTES_MAX))
    return causes + bad_all(path, name, subdomain_errors(name))
