"""PodSecurity: the labels of a namespace say which standards its pods must keep, and which they are warned about.

Source: https://kubernetes.io/docs/concepts/security/pod-security-admission/ and k8s.io/pod-security-admission/admission
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from steersman.cluster.api.admission.attempt import CREATE, UPDATE, Attempt
from steersman.cluster.api.admission.podchecks import BASELINE, OVERRIDDEN, RESTRICTED, Finding, Subject
from steersman.cluster.api.context import WriteContext
from steersman.cluster.meta.errors import Cause, invalid
from steersman.cluster.meta.objects import Obj, labels_of
from steersman.cluster.meta.resources import NAMESPACES, PODS

PREFIX = "pod-security.kubernetes.io/"
_LEVELS = ("privileged", "baseline", "restricted")
_VERSION = re.compile(r"^v1\.(0|[1-9][0-9]{0,3})$")
#: newer than every version
_LATEST = 10_000
#: where objects that make pods keep their template
_TEMPLATES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("", "podtemplates"): ("template",),
    ("", "replicationcontrollers"): ("spec", "template"),
    ("apps", "daemonsets"): ("spec", "template"),
    ("apps", "deployments"): ("spec", "template"),
    ("apps", "replicasets"): ("spec", "template"),
    ("apps", "statefulsets"): ("spec", "template"),
    ("batch", "jobs"): ("spec", "template"),
    ("batch", "cronjobs"): ("spec", "jobTemplate", "spec", "template"),
}
#: pods looked at when a namespace becomes stricter
_PODS_MAX = 3000


@dataclass(frozen=True, slots=True)
class Level:
    """A standard in one version, as `restricted:latest`."""

    name: str
    minor: int

    def __str__(self) -> str:
        return f"{self.name}:{'latest' if self.minor == _LATEST else f'v1.{self.minor}'}"


def validate(attempt: Attempt, ctx: WriteContext) -> None:
    """Refuses a pod below the standard that its namespace enforces; warns and notes where that is asked for.

    Raises:
        Forbidden: the pod. Invalid: labels of a namespace that make no sense.
    """
    if attempt.operation not in (CREATE, UPDATE) or attempt.obj is None:
        return
    if attempt.resource == ("", "namespaces"):
        if not attempt.subresource:
            _namespace(attempt.obj, attempt.old, ctx)
        return
    is_pod = attempt.resource == ("", "pods")
    if is_pod and not _counts(attempt):
        return
    path = _TEMPLATES.get(attempt.resource)
    if not is_pod and (path is None or attempt.subresource):
        return
    namespace = ctx.lookup(NAMESPACES, "", attempt.namespace)
    labels = labels_of(namespace) if namespace is not None else {}
    if not any(key.startswith(PREFIX) for key in labels):
        return
    template: Obj | None = attempt.obj
    for key in path or ():
        template = (template or {}).get(key)
    if template is not None:
        _pod(attempt, template, labels, ctx, enforces=is_pod)


def _counts(attempt: Attempt) -> bool:
    """Whether something that standards look at can have changed."""
    if attempt.operation == CREATE:
        return not attempt.subresource
    return attempt.subresource == "ephemeralcontainers"


def _pod(attempt: Attempt, pod: Obj, labels: Mapping[str, str], ctx: WriteContext, *, enforces: bool) -> None:
    if enforces:
        level = level_of(labels, "enforce")
        ctx.annotate(f"{PREFIX}enforce-policy", str(level))
        if wrong := violations(pod, level):
            raise attempt.forbidden(f'violates PodSecurity "{level}": {_detailed(wrong)}')
    level = level_of(labels, "audit")
    if wrong := violations(pod, level):
        ctx.annotate(f"{PREFIX}audit-violations", f'would violate PodSecurity "{level}": {_detailed(wrong)}')
    level = level_of(labels, "warn")
    if wrong := violations(pod, level):
        ctx.warn(f'would violate PodSecurity "{level}": {_detailed(wrong)}')


def _detailed(findings: list[tuple[str, str]]) -> str:
    return ", ".join(f"{reason} ({detail})" if detail else reason for reason, detail in findings)


def level_of(labels: Mapping[str, str], mode: str) -> Level:
    """The standard of a mode (`enforce`, `audit`, `warn`); what cannot be read counts as the strictest."""
    name, version = labels.get(PREFIX + mode, "privileged"), labels.get(f"{PREFIX}{mode}-version", "latest")
    match = _VERSION.match(version)
    return Level(name if name in _LEVELS else "restricted", int(match[1]) if match else _LATEST)


def violations(pod: Obj, level: Level) -> list[tuple[str, str]]:
    """Reason and detail of everything in which a pod (or template) falls short of a standard."""
    if level.name == "privileged":
        return []
    subject = Subject(pod.get("metadata") or {}, pod.get("spec") or {}, level.minor)
    if level.name == "baseline":
        found: list[Finding] = [check(subject) for check in BASELINE.values()]
    else:
        found = [check(subject) for name, check in BASELINE.items() if name not in OVERRIDDEN]
        found += [check(subject) for check in RESTRICTED]
    return [finding for finding in found if finding is not None]


# ---- namespaces


def _namespace(namespace: Obj, old: Obj | None, ctx: WriteContext) -> None:
    labels, name = labels_of(namespace), namespace["metadata"].get("name", "")
    causes = [cause for mode in ("enforce", "audit", "warn") for cause in _label_errors(labels, mode)]
    if causes:
        raise invalid("Namespace", name, causes)
    if old is None:
        return
    level, before = level_of(labels, "enforce"), level_of(labels_of(old), "enforce")
    if level != before and _LEVELS.index(level.name) >= _LEVELS.index(before.name):
        _warn_of_pods(name, level, ctx)


def _label_errors(labels: Mapping[str, str], mode: str) -> list[Cause]:
    found = []
    level, version = labels.get(PREFIX + mode), labels.get(f"{PREFIX}{mode}-version")
    if level is not None and level not in _LEVELS:
        text = f'Invalid value: "{level}": must be one of {", ".join(_LEVELS)}'
        found.append(Cause(f"metadata.labels[{PREFIX}{mode}]", text))
    if version is not None and version != "latest" and not _VERSION.match(version):
        text = f'Invalid value: "{version}": must be "latest" or "v1.x"'
        found.append(Cause(f"metadata.labels[{PREFIX}{mode}-version]", text))
    return found


def _warn_of_pods(name: str, level: Level, ctx: WriteContext) -> None:
    """Tells which pods that are there already would be refused now, those for the same reasons together."""
    groups: dict[str, list[str]] = {}
    for index, pod in enumerate(ctx.list(PODS, name)):
        if index >= _PODS_MAX:
            ctx.warn(f"new PodSecurity enforce level only checked against the first {_PODS_MAX} existing pods")
            break
        if wrong := violations(pod, level):
            groups.setdefault(", ".join(reason for reason, _ in wrong), []).append(pod["metadata"]["name"])
    if groups:
        ctx.warn(f'existing pods in namespace "{name}" violate the new PodSecurity enforce level "{level}"')
    for reasons, pods in groups.items():
        others = len(pods) - 1
        more = f" (and {others} other pod{'s' if others > 1 else ''})" if others else ""
        ctx.warn(f"{pods[0]}{more}: {reasons}")
