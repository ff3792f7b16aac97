"""Rules of network policies.

Source: k8s.io/kubernetes/pkg/apis/networking/{v1/defaults.go,validation/validation.go}
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from steersman.cluster.api.rules.fields import (
    bad,
    cidr,
    forbidden,
    label_selector,
    network_of,
    required,
    selects_no_label,
    unsupported,
)
from steersman.cluster.api.rules.ports import port_number, port_or_name
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj

_PROTOCOLS = ("TCP", "UDP", "SCTP")
_TYPES = ("Ingress", "Egress")
_SIDES = (("ingress", "from"), ("egress", "to"))


def default_network_policy(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for key in ("ingress", "egress"):
        for rule in spec.get(key) or ():
            for port in rule.get("ports") or ():
                port.setdefault("protocol", "TCP")


def validate_network_policy(obj: Obj) -> list[Cause]:
    return _policy(obj, _Before())


def validate_network_policy_change(new: Obj, old: Obj) -> list[Cause]:
    """As of a new policy, but ranges stay as they are written, and values of selectors where one was wrong before."""
    spec = old.get("spec") or {}
    blocks = [
        peer["ipBlock"]
        for key, side in _SIDES
        for rule in spec.get(key) or ()
        for peer in rule.get(side) or ()
        if peer.get("ipBlock")
    ]
    known = {text for block in blocks for text in (block.get("cidr", ""), *(block.get("except") or ()))}
    return _policy(new, _Before(known, any_values=selects_no_label(spec.get("podSelector"))))


@dataclass(frozen=True, slots=True)
class _Before:
    """What has been taken before and may stay: ranges, and values in selectors that no label has."""

    ranges: Set[str] = frozenset()
    any_values: bool = False


def _policy(obj: Obj, before: _Before) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = label_selector("spec.podSelector", spec.get("podSelector"), any_values=before.any_values)
    for key, side in _SIDES:
        for index, rule in enumerate(spec.get(key) or ()):
            path = f"spec.{key}[{index}]"
            for place, port in enumerate(rule.get("ports") or ()):
                causes += _port(f"{path}.ports[{place}]", port)
            for place, peer in enumerate(rule.get(side) or ()):
                causes += _peer(f"{path}.{side}[{place}]", peer, before)
    types = spec.get("policyTypes") or []
    if len(types) > len(_TYPES):
        return [*causes, bad("spec.policyTypes", types, "may not specify more than two policyTypes")]
    for index, kind in enumerate(types):
        if kind not in _TYPES:
            causes.append(unsupported(f"spec.policyTypes[{index}]", kind, _TYPES, in_order=True))
    return causes


def _port(path: str, port: Obj) -> list[Cause]:
    protocol, number, end = port.get("protocol"), port.get("port"), port.get("endPort")
    causes: list[Cause] = []
    if protocol is not None and protocol not in _PROTOCOLS:
        causes.append(unsupported(f"{path}.protocol", protocol, _PROTOCOLS, in_order=True))
    if number is not None:
        causes += port_or_name(f"{path}.port", number)
    if end is None:
        return causes
    if number is None:
        causes.append(bad(f"{path}.endPort", end, "may not be specified when `port` is not specified"))
    elif isinstance(number, str):
        causes.append(bad(f"{path}.endPort", end, "may not be specified when `port` is non-numeric"))
    else:
        if end < number:
            causes.append(bad(f"{path}.endPort", end, "must be greater than or equal to `port`"))
        causes += port_number(f"{path}.endPort", end)
    return causes


def _peer(path: str, peer: Obj, before: _Before) -> list[Cause]:
    selectors = [key for key in ("podSelector", "namespaceSelector") if peer.get(key) is not None]
    block = peer.get("ipBlock")
    if not selectors and block is None:
        return [required(path, "must specify a peer")]
    causes: list[Cause] = []
    for key in selectors:
        causes += label_selector(f"{path}.{key}", peer[key], any_values=before.any_values)
    if block is not None:
        causes += _block(f"{path}.ipBlock", block, before.ranges)
        if selectors:
            causes.append(forbidden(path, "may not specify both ipBlock and another peer"))
    return causes


def _block(path: str, block: Obj, known: Set[str]) -> list[Cause]:
    text = block.get("cidr", "")
    if not text:
        return [required(f"{path}.cidr")]
    if causes := cidr(f"{path}.cidr", text, known):
        return causes
    whole = network_of(text)
    for index, inner in enumerate(block.get("except") or ()):
        where = f"{path}.except[{index}]"
        if wrong := cidr(where, inner, known):
            causes += wrong
            continue
        part = network_of(inner)
        if part.version != whole.version or part == whole or not part.subnet_of(whole):  # type: ignore[arg-type]
            causes.append(bad(where, inner, "must be a strict subset of `cidr`"))
    return causes
