"""Rules of IPAddress and ServiceCIDR: which cluster addresses there are, and who holds one.

Source: k8s.io/kubernetes/pkg/apis/networking/validation/validation.go
"""

from __future__ import annotations

from steersman.cluster.api.row import meta_fields
from steersman.cluster.api.rules.fields import (
    as_struct,
    bad,
    bad_all,
    base_of,
    canonical_cidr,
    canonical_ip_errors,
    immutable,
    required,
    segments,
)
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import path_segment_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj


def ip_name_errors(name: str) -> list[str]:
    """What breaks the rule that an IPAddress is named by its address in canonical form."""
    return canonical_ip_errors(name)


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
    if after == before:
        return []
    shown = as_struct(after, Group="group", Resource="resource", Namespace="namespace", Name="name")
    return [bad("spec.parentRef", shown, "field is immutable")]


def validate_range(obj: Obj) -> list[Cause]:
    path, found = "spec.cidrs", (obj.get("spec") or {}).get("cidrs") or []
    if not found:
        return [required(path, "at least one CIDR required")]
    if len(found) > 2:
        return [bad(path, obj["spec"], "may only hold up to 2 values")]
    causes: list[Cause] = []
    for index, text in enumerate(found):
        causes += canonical_cidr(f"{path}[{index}]", text)
    if len(found) == 2 and _version(found[0]) == _version(found[1]) != 0:
        detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
        causes.append(bad(path, found, detail))
    return causes


def _version(cidr: str) -> int:
    """4, 6, or 0 of what is no range."""
    base = base_of(cidr)
    return 0 if base is None else base.version


def validate_range_update(new: Obj, old: Obj) -> list[Cause]:
    """A range stays; one of the other family may join it."""
    before, after = ((side.get("spec") or {}).get("cidrs") or [] for side in (old, new))
    if len(before) != len(after) and (len(before), len(after)) != (1, 2):
        return [bad("spec.cidrs", after, "field is immutable")]
    causes: list[Cause] = []
    for index, text in enumerate(before):
        causes += immutable(f"spec.cidrs[{index}]", after[index], text)
    return causes + (validate_range(new) if len(before) < len(after) else [])
