"""Rules of a Service's cluster addresses, their families, and how they may change.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go, pkg/registry/core/service/storage/alloc.go
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from steersman.cluster.api.rules.fields import bad, duplicate, ip, parsed_ip, required, unsupported
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj

_FAMILIES = ("IPv4", "IPv6")
_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
_PATH = "spec.clusterIPs"


def is_headless(spec: Obj) -> bool:
    return bool(spec.get("clusterIPs") == ["None"])


def validate_addresses(spec: Obj, known: Container[str] = ()) -> list[Cause]:
    """Every broken rule of the addresses of a Service that has some, of which those `known` were there before."""
    addresses, families = spec.get("clusterIPs") or [], spec.get("ipFamilies") or []
    causes = _agree(spec.get("clusterIP", ""), addresses)
    for index, family in enumerate(families):
        where = f"spec.ipFamilies[{index}]"
        causes += [unsupported(where, family, _FAMILIES)] if family not in _FAMILIES else []
        causes += [duplicate(where, family)] if family in families[:index] else []
    policy = spec.get("ipFamilyPolicy")
    if policy is not None and policy not in _POLICIES:
        causes.append(unsupported("spec.ipFamilyPolicy", policy, _POLICIES))
    wrong = _each(addresses, known)
    if len(addresses) > 2:
        causes.append(bad(_PATH, addresses, "may only hold up to 2 values"))
    if wrong:
        return causes + wrong
    if len(addresses) > 1 and len({_family(text) for text in addresses}) < 2:
        causes.append(bad(_PATH, addresses, "may specify no more than one IP for each IP family"))
    return causes or _as_indicated(addresses, families) or _single(spec)


def _agree(address: str, addresses: list[str]) -> list[Cause]:
    """The rule that the one address is the first of many."""
    if not address:
        return [bad(_PATH, addresses, "must be empty when `clusterIP` is not specified")] if addresses else []
    if not addresses:
        return [required(_PATH)]
    return [] if addresses[0] == address else [bad(_PATH, addresses, "first value must match `clusterIP`")]


def _each(addresses: list[str], known: Container[str]) -> list[Cause]:
    causes: list[Cause] = []
    for index, text in enumerate(addresses):
        if index or text != "None":
            causes += ip(f"{_PATH}[{index}]", text, known)
        elif len(addresses) > 1:
            causes.append(bad(_PATH, addresses, "'None' must be the first and only value"))
    return causes


def _family(text: str) -> str:
    found = parsed_ip(text)
    return f"IPv{found.version}" if found is not None else ""


def _as_indicated(addresses: list[str], families: list[str]) -> list[Cause]:
    causes: list[Cause] = []
    for index, (text, family) in enumerate(zip(addresses, families, strict=False)):
        if text != "None" and _family(text) != family:
            detail = f"expected an {family} value as indicated by `ipFamilies[{index}]`"
            causes.append(bad(f"{_PATH}[{index}]", text, detail))
    return causes


def _single(spec: Obj) -> list[Cause]:
    """The rules of a cluster with one family of addresses."""
    policy, path = spec.get("ipFamilyPolicy"), "spec.ipFamilyPolicy"
    if policy in (None, "SingleStack"):
        detail = "must be RequireDualStack or PreferDualStack when multiple {} are specified"
        return [
            bad(path, policy, detail.format(key))
            for key in ("clusterIPs", "ipFamilies")
            if len(spec.get(key) or ()) > 1
        ]
    if policy == "RequireDualStack":
        return [bad(path, policy, "this cluster is not configured for dual-stack services")]
    return []


def validate_addresses_update(spec: Obj, before: Obj) -> list[Cause]:
    """Every rule that a change breaks: the first address and the first family stay."""
    if "ExternalName" in (spec.get("type"), before.get("type")) or (is_headless(spec) and is_headless(before)):
        return []
    return _stays(spec, before, "clusterIPs", "clusterIP") + _stays(spec, before, "ipFamilies", "ipFamily")


def _stays(spec: Obj, before: Obj, key: str, one: str) -> list[Cause]:
    old, new, path = before.get(key) or [], spec.get(key) or [], f"spec.{key}"
    shown: Any = new or None
    if len(old) == len(new):
        changed = [index for index, text in enumerate(old) if text != new[index]]
        return [bad(f"{path}[{index}]", shown, "may not change once set") for index in changed]
    if not old:
        return []
    if not new:
        return [bad(f"{path}[0]", shown, f"primary {one} can not be unset")]
    causes = [bad(f"{path}[0]", shown, "may not change once set")] if new[0] != old[0] else []
    if len(new) < len(old) and spec.get("ipFamilyPolicy") != "SingleStack":
        detail = f"must be set to 'SingleStack' when releasing the secondary {one}"
        causes.append(bad("spec.ipFamilyPolicy", spec.get("ipFamilyPolicy"), detail))
    return causes
