"""Rules of annotations that pods understand: what they may say, and that they agree with the fields that replaced them.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from steersman.cluster.api.rules.fields import bad, forbidden
from steersman.cluster.api.rules.security import descending
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj

MIRROR = "kubernetes.io/config.mirror"
SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"
APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_COST = re.compile(r"(0|-[0-9]+|[1-9][0-9]*)\Z")
_LOCAL = "localhost/"
_LISTS = ("initContainers", "containers", "ephemeralContainers")
#: type of a profile to what its annotation may say
_SECCOMP = {"Unconfined": ("unconfined",), "RuntimeDefault": ("runtime/default", "docker/default")}
_APPARMOR = {"Unconfined": ("unconfined",), "RuntimeDefault": ("runtime/default",)}


def _containers(path: str, spec: Obj) -> Iterator[tuple[str, Obj]]:
    for key in _LISTS:
        for index, one in enumerate(spec.get(key) or ()):
            yield f"{path}.{key}[{index}]", one


def validate_pod_annotations(path: str, found: Mapping[str, str], spec: Obj) -> list[Cause]:
    """Every broken rule of what annotations say of a pod, or of a template's pods."""
    causes: list[Cause] = []
    if not found:
        return causes
    if MIRROR in found and not spec.get("nodeName"):
        detail = "must set spec.nodeName if mirror pod annotation is set"
        causes.append(bad(f"{path}[{MIRROR}]", found[MIRROR], detail))
    cost = found.get(_DELETION_COST)
    if cost is not None and not (_COST.match(cost) and -(2**31) <= int(cost) < 2**31):
        causes.append(bad(f"{path}[{_DELETION_COST}]", cost, "must be a 32bit integer"))
    for key, value in found.items():
        if key == SECCOMP_POD or key.startswith(SECCOMP_CONTAINER):
            causes += _seccomp(f"{path}.{key}", value)
    for key, value in found.items():
        if key.startswith(APPARMOR):
            name = key.removeprefix(APPARMOR)
            if all(one.get("name") != name for _, one in _containers("", spec)):
                causes.append(bad(f"{path}[{key}]", name, "container not found"))
            if value not in ("", "runtime/default", "unconfined") and not value.startswith(_LOCAL):
                causes.append(bad(f"{path}[{key}]", value, f'invalid AppArmor profile name: "{value}"'))
    return causes


def _seccomp(path: str, profile: str) -> list[Cause]:
    if profile.startswith(_LOCAL):
        return descending(path, profile.removeprefix(_LOCAL))
    known = (*_SECCOMP["Unconfined"], *_SECCOMP["RuntimeDefault"])
    return [] if profile in known else [bad(path, profile, "must be a valid seccomp profile")]


def validate_profiles_match(path: str, spec: Obj, found: Mapping[str, str]) -> list[Cause]:
    """The rules of profiles that a new pod says twice, by annotations and by fields."""
    if not found:
        return []
    whole = spec.get("securityContext") or {}
    causes = _match(f"{path}.securityContext.seccompProfile", "seccomp", whole, found.get(SECCOMP_POD))
    for where, one in _containers(path, spec):
        own, mark = one.get("securityContext") or {}, found.get(f"{SECCOMP_CONTAINER}{one.get('name', '')}")
        causes += _match(f"{where}.securityContext.seccompProfile", "seccomp", own, mark)
    if (spec.get("os") or {}).get("name") == "windows":
        return causes
    for where, one in _containers(path, spec):
        own, mark = one.get("securityContext") or {}, found.get(f"{APPARMOR}{one.get('name', '')}")
        context = own if own.get("appArmorProfile") else whole
        causes += _match(f"{where}.securityContext.appArmorProfile", "apparmor", context, mark)
    return causes


def _match(path: str, word: str, security: Obj, mark: str | None) -> list[Cause]:
    profile = security.get("seccompProfile" if word == "seccomp" else "appArmorProfile")
    if profile is None or mark is None:
        return []
    kind, said = profile.get("type", ""), _SECCOMP if word == "seccomp" else _APPARMOR
    wrong_type = [forbidden(f"{path}.type", f"{word} type in annotation and field must match")]
    if kind == "Localhost":
        if not mark.startswith(_LOCAL):
            return wrong_type
        if mark.removeprefix(_LOCAL) == profile.get("localhostProfile"):
            return []
        return [forbidden(f"{path}.localhostProfile", f"{word} profile in annotation and field must match")]
    return wrong_type if mark not in said.get(kind, (mark,)) else []


def validate_annotations_update(new: Mapping[str, str], old: Mapping[str, str]) -> list[Cause]:
    """The rules of annotations that a pod keeps."""
    causes: list[Cause] = []
    for key in (*old, *(key for key in new if key not in old)):
        where, verb = f"metadata.annotations[{key}]", "remove or update" if key in old else "add"
        if new.get(key) == old.get(key):
            continue
        if key.startswith(APPARMOR):
            causes.append(forbidden(where, f"may not {verb} AppArmor annotations"))
        if key == MIRROR:
            causes.append(forbidden(where, f"may not {verb} mirror pod annotation"))
    return causes
