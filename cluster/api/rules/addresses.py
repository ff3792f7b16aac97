"""Rules of IPAddress and ServiceCIDR: which cluster addresses there are, and who holds one.

Source: k8s.io/kubernetes/pkg/apis/networking/validation/validation.go
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from steersman.cluster.api.row import meta_fields
from steersman.cluster.api.rules.fields import bad, bad_all, cidr, immutable, is_ip, required, segments
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import path_segment_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj

_NOT_CANONICAL = 'must be in canonical form ("{}")'
_IP_DETAIL = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"


def ip_name_errors(name: str) -> list[str]:
    """What breaks the rule that an IPAddress is named by its address in canonical form."""
    if not is_ip(name):
        return [_IP_DETAIL]
    plain = str(ip_address(name))
    return [] if name == plain else [_NOT_CANONICAL.format(plain)]


def address_fields(obj: Obj) -> dict[str, str]:
    parent = (obj.get("spec") or {}).get("parentRef") or {}
    named = {f"spec.parentRef.{key}": parent.get(key, "") for key in ("group", "resource", "namespace", "name")}
    return {**meta_fields(obj), **named}


def validate_address(obj: Obj) -> list[Cause]:
    path, parent = "spec.parentRef", (obj.get("spec") or {}).get("parentRef")
    if parent is None:
        return [required(path)]
    causes: list[Cause] = []
    if parent.get("group"):
        causes += bad_all(f"{path}.group", parent["group"], subdomain_errors(parent["group"]))
    causes += segments(path, parent, ("resource", "name"))
    if parent.get("namespace"):
        causes += bad_all(f"{path}.namespace", parent["namespace"], path_segment_errors(parent["namespace"]))
    return causes


def validate_address_update(new: Obj, old: Obj) -> list[Cause]:
    before, after = ((side.get("spec") or {}).get("parentRef") for side in (old, new))
    return immutable("spec.parentRef", after, before)


def validate_range(obj: Obj) -> list[Cause]:
    path, found = "spec.cidrs", (obj.get("spec") or {}).get("cidrs") or []
    if not found:
        return [required(path, "at least one CIDR required")]
    if len(found) > 2:
        return [bad(path, obj["spec"], "may only hold up to 2 values")]
    causes: list[Cause] = []
    for index, text in enumerate(found):
        wrong = cidr(f"{path}[{index}]", text)
        if not wrong and str(ip_network(text, strict=False)) != text:
            wrong = [bad(f"{path}[{index}]", text, _NOT_CANONICAL.format(ip_network(text, strict=False)))]
        causes += wrong
    if len(found) == 2 and not causes and _family(found[0]) == _family(found[1]):
        detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
        causes.append(bad(path, found, detail))
    return causes


def _family(text: str) -> int:
    return ip_network(text, strict=False).version


def validate_range_update(new: Obj, old: Obj) -> list[Cause]:
    """A range stays; one of the other family may join it."""
    before, after = ((side.get("spec") or {}).get("cidrs") or [] for side in (old, new))
    if len(before) != len(after) and (len(before), len(after)) != (1, 2):
        return [bad("spec.cidrs", after, "field is immutable")]
    causes: list[Cause] = []
    for index, text in enumerate(before):
        causes += immutable(f"spec.cidrs[{index}]", after[index], text)
    return causes
