"""PodSecurity: the labels of a namespace say which standards its pods must keep, and which they are warned about.

Source: https://kubernetes.io/docs/concepts/security/pod-security-admission/ and k8s.io/pod-security-admission/admission
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from steersman.cluster.api.admission.attempt import CREATE, UPDATE, Attempt, aggregated
from steersman.cluster.api.admission.podchecks import BASELINE, OVERRIDDEN, RESTRICTED, Finding, Subject
from steersman.cluster.api.context import WriteContext
from steersman.cluster.meta.errors import Cause, invalid
from steersman.cluster.meta.objects import Obj, controller_of, labels_of
from steersman.cluster.meta.resources import NAMESPACES, PODS

PREFIX = "pod-security.kubernetes.io/"
_ENFORCED, _EXEMPT = f"{PREFIX}enforce-policy", f"{PREFIX}exempt"
_NOTHING: Mapping[str, str] = {}
_MODES = ("enforce", "audit", "warn")
LEVELS = ("privileged", "baseline", "restricted")
VERSION = re.compile(r"^v1\.(0|[1-9][0-9]{0,3})$")
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
#: below pods what holds no pod, or can change nothing that standards look at
_IGNORED = frozenset({"exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"})
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
    settings = ctx.settings.admission.pod_security
    if attempt.namespace in settings.namespaces or ctx.user in settings.users:
        ctx.annotate(_EXEMPT, "namespace" if attempt.namespace in settings.namespaces else "user")
        return
    namespace = ctx.lookup(NAMESPACES, "", attempt.namespace)
    labels = labels_of(namespace) if namespace is not None else {}
    if not settings.defaults and not any(key.startswith(PREFIX) for key in labels):
        if is_pod:
            ctx.annotate(_ENFORCED, "privileged:latest")
        return
    template: Obj | None = attempt.obj
    for key in path or ():
        template = (template or {}).get(key)
    if template is None:
        return
    if (template.get("spec") or {}).get("runtimeClassName") in settings.runtime_classes:
        ctx.annotate(_EXEMPT, "runtimeClass")
        return
    _pod(attempt, template, labels, ctx, enforces=is_pod)


def _counts(attempt: Attempt) -> bool:
    """Whether something that standards look at can have changed: images, and which containers there are."""
    if attempt.subresource in _IGNORED:
        return False
    if attempt.operation == CREATE:
        return True
    new, old = (_images(obj or {}) for obj in (attempt.obj, attempt.old))
    return new[:2] != old[:2] or any(old[2].get(name) != image for name, image in new[2].items())


def _images(pod: Obj) -> tuple[list[str], list[str], dict[str, str]]:
    """The images of containers and init containers in order, and of ephemeral ones by name."""
    fields = ("containers", "initContainers", "ephemeralContainers")
    rows, starts, extra = ((pod.get("spec") or {}).get(field) or () for field in fields)
    ephemeral = {row.get("name", ""): row.get("image", "") for row in extra}
    return [row.get("image", "") for row in rows], [row.get("image", "") for row in starts], ephemeral


def _pod(attempt: Attempt, pod: Obj, labels: Mapping[str, str], ctx: WriteContext, *, enforces: bool) -> None:
    if causes := _errors_of(labels):
        texts = [f"{cause.field}: {cause.message}" for cause in causes]
        ctx.annotate(f"{PREFIX}error", f"Failed to parse policy: {aggregated(texts)}")
    defaults = ctx.settings.admission.pod_security.defaults
    if enforces:
        level = level_of(labels, "enforce", defaults)
        ctx.annotate(_ENFORCED, str(level))
        if wrong := violations(pod, level):
            raise attempt.forbidden(f'violates PodSecurity "{level}": {_detailed(wrong)}')
    level = level_of(labels, "audit", defaults)
    if wrong := violations(pod, level):
        ctx.annotate(f"{PREFIX}audit-violations", f'would violate PodSecurity "{level}": {_detailed(wrong)}')
    level = level_of(labels, "warn", defaults)
    if wrong := violations(pod, level):
        ctx.warn(f'would violate PodSecurity "{level}": {_detailed(wrong)}')


def _detailed(findings: list[tuple[str, str]]) -> str:
    return ", ".join(f"{reason} ({detail})" if detail else reason for reason, detail in findings)


def level_of(labels: Mapping[str, str], mode: str, defaults: Mapping[str, str] = _NOTHING) -> Level:
    """The standard of a mode (`enforce`, `audit`, `warn`).

    A name that cannot be read enforces the strictest one, and asks for neither audit nor warnings. Where nothing says
    of what to warn, it is what would be enforced, if that is stricter.

    Args:
        defaults: by mode, and by mode and `-version`, what counts where labels say nothing.
    """
    name, version = labels.get(PREFIX + mode), labels.get(f"{PREFIX}{mode}-version")
    usual = defaults.get(mode, "privileged")
    minor = _minor(defaults.get(f"{mode}-version") if version is None else version)
    if name is not None:
        strictest = "restricted" if mode == "enforce" else "privileged"
        return Level(name if name in LEVELS else strictest, minor)
    if mode == "warn" and PREFIX + "enforce" in labels:
        enforced = level_of(labels, "enforce", defaults)
        if LEVELS.index(enforced.name) > LEVELS.index(usual):
            return enforced if version is None else Level(enforced.name, minor)
    return Level(usual, minor)


def _minor(version: str | None) -> int:
    match = VERSION.match(version or "")
    return int(match[1]) if match else _LATEST


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
    causes = _errors_of(labels)
    if causes and (old is None or causes != _errors_of(labels_of(old))):
        raise invalid("Namespace", name, causes)
    settings = ctx.settings.admission.pod_security
    if name in settings.namespaces:
        _warn_of_exemption(name, labels, None if old is None else labels_of(old), ctx)
        return
    if old is None:
        return
    level, before = (level_of(row, "enforce", settings.defaults) for row in (labels, labels_of(old)))
    is_relaxed = level.minor == before.minor and LEVELS.index(level.name) <= LEVELS.index(before.name)
    if level.name != "privileged" and not is_relaxed:
        _warn_of_pods(name, level, ctx)


def _warn_of_exemption(
    name: str, labels: Mapping[str, str], before: Mapping[str, str] | None, ctx: WriteContext
) -> None:
    """Tells who sets standards for a namespace that they do not concern."""
    defaults = ctx.settings.admission.pod_security.defaults

    def policy(of: Mapping[str, str]) -> dict[str, str]:
        levels = {mode: level_of(of, mode, defaults) for mode in _MODES}
        return {mode: str(level) for mode, level in levels.items() if level.name != "privileged"}

    asked = policy(labels)
    if asked and asked != policy({}) and (before is None or asked != policy(before)):
        text = ", ".join(f"{mode}={level}" for mode, level in asked.items())
        ctx.warn(f'namespace "{name}" is exempt from Pod Security, and the policy ({text}) will be ignored')


def _errors_of(labels: Mapping[str, str]) -> list[Cause]:
    return [cause for mode in _MODES for cause in _label_errors(labels, mode)]


def _label_errors(labels: Mapping[str, str], mode: str) -> list[Cause]:
    found = []
    level, version = labels.get(PREFIX + mode), labels.get(f"{PREFIX}{mode}-version")
    if level is not None and level not in LEVELS:
        text = f'Invalid value: "{level}": must be one of {", ".join(LEVELS)}'
        found.append(Cause(f"metadata.labels[{PREFIX}{mode}]", text))
    if version is not None and version != "latest" and not VERSION.match(version):
        text = f'Invalid value: "{version}": must be "latest" or "v1.x"'
        found.append(Cause(f"metadata.labels[{PREFIX}{mode}-version]", text))
    return found


def _warn_of_pods(name: str, level: Level, ctx: WriteContext) -> None:
    """Tells which pods that are there already would be refused now, those for the same reasons together."""
    groups: dict[str, list[str]] = {}
    pods = _unlike_first(ctx.list(PODS, name))
    exempt = ctx.settings.admission.pod_security.runtime_classes
    for pod in pods[:_PODS_MAX]:
        if (pod.get("spec") or {}).get("runtimeClassName") in exempt:
            continue
        if wrong := violations(pod, level):
            groups.setdefault(", ".join(reason for reason, _ in wrong), []).append(pod["metadata"]["name"])
    if len(pods) > _PODS_MAX:
        counted = f"the first {_PODS_MAX} of {len(pods)} existing pods"
        ctx.warn(f"new PodSecurity enforce level only checked against {counted}")
    if groups:
        ctx.warn(f'existing pods in namespace "{name}" violate the new PodSecurity enforce level "{level}"')
    texts = []
    for reasons, names in groups.items():
        others = len(names) - 1
        more = f" (and {others} other pod{'s' if others > 1 else ''})" if others else ""
        texts.append(f"{min(names)}{more}: {reasons}")
    for text in sorted(texts):
        ctx.warn(text)


def _unlike_first(pods: Iterable[Obj]) -> list[Obj]:
    """Pods, those at the end of whose controller there is another one before them: they are alike."""
    first: list[Obj] = []
    rest: list[Obj] = []
    seen: set[str] = set()
    for pod in pods:
        owner = (controller_of(pod) or {}).get("uid", "")
        (rest if owner in seen else first).append(pod)
        seen |= {owner} if owner else set()
    return [*first, *rest]
