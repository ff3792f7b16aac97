"""Who is asked whether something is allowed, in which order: an `AuthorizationConfiguration` as values.

A webhook is asked by a SubjectAccessReview when all its match conditions hold. Refuses to know how it is reached.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authorization/#using-configuration-file-for-authorization
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steersman.cluster.auth.attributes import Attributes, Verdict
from steersman.cluster.meta.configfile import Compile, Expression, Mistakes, read_tree
from steersman.cluster.meta.names import subdomain_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.selectors import Requirement
from steersman.cluster.meta.times import duration_s

_VERSIONS = ("v1", "v1beta1")
ALWAYS_ALLOW, ALWAYS_DENY, NODE, RBAC, WEBHOOK = "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"
_TYPES = (ALWAYS_ALLOW, ALWAYS_DENY, NODE, RBAC, WEBHOOK)
_CONDITIONS_MAX = 64
_TIMEOUT_MAX_S = 30.0
#: attributes of more characters are not remembered: who asks could fill the memory with them
_REMEMBERED_CHARS_MAX = 10_000
_FIELDS = frozenset(
    {
        "timeout", "authorizedTTL", "unauthorizedTTL", "cacheAuthorizedRequests", "cacheUnauthorizedRequests",
        "subjectAccessReviewVersion", "matchConditionSubjectAccessReviewVersion", "failurePolicy", "connectionInfo",
        "matchConditions",
    }
)  # fmt: skip


class InvalidAuthorization(ValueError):
    """The text is no AuthorizationConfiguration; the message names every mistake with its field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A server that is asked.

    Args:
        kubeconfig: path of the file that says where it is.
        allowed_s, refused_s: how long its answers count; 0 for this time only.
        version: of the review that it gets.
        denies_on_error: a failure forbids the action; else others are asked.
        conditions: it is asked only where all of them hold.
    """

    kubeconfig: str
    timeout_s: float
    allowed_s: float
    refused_s: float
    version: str
    denies_on_error: bool
    conditions: tuple[Expression, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """One of those who are asked. Args: type: `Node`, `RBAC`, `Webhook`, ...; webhook: of a `Webhook`."""

    type: str
    name: str
    webhook: Webhook | None = None


#: who is asked unless a file says otherwise
DEFAULT = (Mode(type=NODE, name="node"), Mode(type=RBAC, name="rbac"))


def refused(verdicts: Iterable[Verdict]) -> Verdict:
    """The refusal of an action that nobody allows and nobody forbids, with what all had to say."""
    rows = list(verdicts)
    failures = list(dict.fromkeys(row.error for row in rows if row.error))
    error = failures[0] if len(failures) == 1 else f"[{', '.join(failures)}]" if failures else ""
    return Verdict(False, "\n".join(row.reason for row in rows if row.reason), error=error)


# ---- what a webhook is asked, and what it says


def review_spec(
    name: str, groups: Sequence[str], uid: str, extra: Mapping[str, Sequence[str]], about: Attributes
) -> Obj:
    """The spec of the SubjectAccessReview about an action."""
    spec: Obj = {"user": name, "groups": list(groups), "uid": uid, "extra": {k: list(v) for k, v in extra.items()}}
    if about.is_resource:
        row: Obj = {
            "namespace": about.namespace, "verb": about.verb, "group": about.group, "version": about.version,
            "resource": about.resource, "subresource": about.subresource, "name": about.name,
        }  # fmt: skip
        for field, rows in (("fieldSelector", about.fields), ("labelSelector", about.labels)):
            if rows:
                row[field] = {"requirements": [_requirement(one) for one in rows]}
        spec["resourceAttributes"] = row
    else:
        spec["nonResourceAttributes"] = {"path": about.path, "verb": about.verb}
    return spec


def _requirement(row: Requirement) -> Obj:
    return {"key": row.key, "operator": row.operator, "values": list(row.values)}


def review(spec: Obj, version: str) -> Obj:
    """The SubjectAccessReview that goes to the webhook: empty fields are left out."""
    sent: Obj = {}
    for key, value in spec.items():
        kept = {k: v for k, v in value.items() if v} if key.endswith("ttributes") else value
        if kept:
            sent["group" if key == "groups" and version == "v1beta1" else key] = kept
    return {
        "apiVersion": f"authorization.k8s.io/{version}",
        "kind": "SubjectAccessReview",
        "metadata": {"creationTimestamp": None},
        "spec": sent,
        "status": {"allowed": False},
    }


def is_remembered(about: Attributes) -> bool:
    """Whether an answer about an action may be kept."""
    parts = (
        about.namespace, about.verb, about.group, about.version, about.resource, about.subresource, about.name,
        about.path,
    )  # fmt: skip
    return sum(map(len, parts)) < _REMEMBERED_CHARS_MAX


def concerns(webhook: Webhook, spec: Obj) -> Verdict | None:
    """None when the webhook is to be asked; else what follows from its match conditions alone."""
    failures = []
    for condition in webhook.conditions:
        try:
            if condition(spec) is not True:
                return Verdict(False)
        except ValueError as error:
            text = f"cel evaluation error: expression '{condition.source}' resulted in error: {error}"
            failures.append(text)
    if not failures:
        return None
    return failed(webhook, failures[0] if len(failures) == 1 else f"[{', '.join(failures)}]")


def failed(webhook: Webhook, error: str) -> Verdict:
    """The verdict of a webhook that could not be asked."""
    return Verdict(False, denied=webhook.denies_on_error, error=error)


def verdict_of(webhook: Webhook, answer: Any) -> Verdict:
    """What the answer of a webhook means."""
    status = answer.get("status") if isinstance(answer, dict) else None
    if not isinstance(status, dict):
        return failed(webhook, "the answer of the webhook is no SubjectAccessReview with a status")
    allowed, denied, reason = status.get("allowed") is True, status.get("denied") is True, str(status.get("reason", ""))
    if allowed and denied:
        error = "webhook subject access review returned both allow and deny response"
        return Verdict(False, reason, denied=True, error=error)
    return Verdict(allowed, reason, denied=denied)


# ---- the configuration


def read_authorization(text: str, compiled: Compile, unusable: Callable[[str], str]) -> tuple[Mode, ...]:
    """Returns who is asked, in this order, by an `AuthorizationConfiguration`.

    Args:
        unusable: says why a path is of no kubeconfig that can be used; empty when it is of one.

    Raises:
        InvalidAuthorization
    """
    try:
        tree = read_tree(text, "AuthorizationConfiguration", _VERSIONS)
    except ValueError as error:
        raise InvalidAuthorization(str(error)) from None
    mistakes = Mistakes()
    mistakes.unknown(tree, ("apiVersion", "kind", "authorizers"), "")
    rows = mistakes.rows(tree.get("authorizers"), "authorizers")
    if not rows:
        mistakes.required("authorizers", "at least one authorization mode must be defined")
    reader = _Reader(compiled, unusable, mistakes)
    modes = [mode for at, row in enumerate(rows) if (mode := reader.mode(row, f"authorizers[{at}]")) is not None]
    if mistakes:
        raise InvalidAuthorization("; ".join(mistakes))
    return tuple(modes)


class _Reader:
    """Reads authorizers and collects what is wrong with them."""

    def __init__(self, compiled: Compile, unusable: Callable[[str], str], mistakes: Mistakes) -> None:
        self._compiled = compiled
        self._unusable = unusable
        self._mistakes = mistakes
        self._types: set[str] = set()
        self._names: set[str] = set()

    def mode(self, row: Any, path: str) -> Mode | None:
        mistakes = self._mistakes
        row = mistakes.mapping(row, path, ("type", "name", "webhook"))
        kind, name = row.get("type") or "", str(row.get("name") or "")
        if not kind:
            mistakes.required(f"{path}.type")
        elif kind not in _TYPES:
            mistakes.unsupported(f"{path}.type", kind, _TYPES)
        elif kind in self._types and kind != WEBHOOK:
            mistakes.duplicate(f"{path}.type", kind)
        else:
            self._types.add(kind)
            self._name(name, f"{path}.name")
            settings = row.get("webhook")
            if kind != WEBHOOK:
                if settings is not None:
                    mistakes.invalid(f"{path}.webhook", "non-null", "may only be specified when type=Webhook")
                return Mode(type=kind, name=name)
            if settings is None:
                mistakes.required(f"{path}.webhook", "required when type=Webhook")
                return None
            return Mode(type=kind, name=name, webhook=self._webhook(settings, path))
        return None

    def _name(self, name: str, path: str) -> None:
        if not name:
            self._mistakes.required(path)
        elif name in self._names:
            self._mistakes.duplicate(path, name)
        elif errors := subdomain_errors(name):
            self._mistakes.invalid(path, name, f"authorizer name is invalid: {', '.join(errors)}")
        self._names.add(name)

    def _webhook(self, settings: Any, path: str) -> Webhook:
        mistakes = self._mistakes
        # the fields of a webhook are named as if they were the authorizer's own, as Kubernetes does
        row = mistakes.mapping(settings, f"{path}.webhook", _FIELDS)
        timeout_s = self._seconds(row, "timeout", path, "must be > 0s and <= 30s", most=_TIMEOUT_MAX_S)
        allowed_s = self._seconds(row, "authorizedTTL", path, "must be > 0s", default="5m")
        refused_s = self._seconds(row, "unauthorizedTTL", path, "must be > 0s", default="30s")
        version = self._choice(row, "subjectAccessReviewVersion", path, ("v1", "v1beta1"))
        conditions = mistakes.rows(row.get("matchConditions"), f"{path}.matchConditions")
        field = "matchConditionSubjectAccessReviewVersion"
        if row.get(field):
            self._choice(row, field, path, ("v1",))
        elif conditions:
            mistakes.required(f"{path}.{field}", "required if match conditions are specified")
        policy = self._choice(row, "failurePolicy", path, ("NoOpinion", "Deny"))
        return Webhook(
            kubeconfig=self._connection(row.get("connectionInfo"), f"{path}.connectionInfo"),
            timeout_s=timeout_s,
            allowed_s=allowed_s if row.get("cacheAuthorizedRequests", True) else 0.0,
            refused_s=refused_s if row.get("cacheUnauthorizedRequests", True) else 0.0,
            version=version,
            denies_on_error=policy == "Deny",
            conditions=self._conditions(conditions, f"{path}.matchConditions"),
        )

    def _seconds(
        self, row: Mapping[str, Any], field: str, path: str, detail: str, *, default: str = "", most: float = 1e12
    ) -> float:
        text = str(row.get(field) or default)
        try:
            seconds = duration_s(text) if text else 0.0
        except ValueError as error:
            self._mistakes.append(f"{path}.{field}: {error}")
            return 0.0
        if not seconds:
            self._mistakes.required(f"{path}.{field}")
        elif not 0 < seconds <= most:
            self._mistakes.invalid(f"{path}.{field}", text, detail)
        return seconds

    def _choice(self, row: Mapping[str, Any], field: str, path: str, known: Sequence[str]) -> str:
        value = row.get(field) or ""
        if not value:
            self._mistakes.required(f"{path}.{field}")
        elif value not in known:
            self._mistakes.unsupported(f"{path}.{field}", value, known)
        return str(value)

    def _connection(self, info: Any, path: str) -> str:
        row = self._mistakes.mapping(info, path, ("type", "kubeConfigFile"))
        kind, file = row.get("type") or "", str(row.get("kubeConfigFile") or "")
        where = f"{path}.kubeConfigFile"
        if not kind:
            self._mistakes.required(f"{path}.type")
        elif kind == "InClusterConfig":
            self._mistakes.invalid(f"{path}.type", kind, "this mode is not allowed for kube-apiserver")
        elif kind != "KubeConfigFile":
            self._mistakes.unsupported(f"{path}.type", kind, ("InClusterConfig", "KubeConfigFile"))
        elif not file:
            self._mistakes.required(where)
        elif not file.startswith("/"):
            self._mistakes.invalid(where, file, "must be an absolute path")
        elif why := self._unusable(file):
            self._mistakes.invalid(where, file, why)
        return file

    def _conditions(self, rows: Sequence[Any], path: str) -> tuple[Expression, ...]:
        if len(rows) > _CONDITIONS_MAX:
            self._mistakes.too_many(path, len(rows), _CONDITIONS_MAX)
            return ()
        found: dict[str, Expression] = {}
        for at, row in enumerate(rows):
            where = f"{path}[{at}].expression"
            source = str(self._mistakes.mapping(row, f"{path}[{at}]", ("expression",)).get("expression") or "")
            if not source.strip():
                self._mistakes.required(where)
            elif source in found:
                self._mistakes.duplicate(where, source)
            else:
                try:
                    found[source] = self._compiled(source, "request", True)
                except ValueError as error:
                    self._mistakes.invalid(where, source, str(error))
        return tuple(found.values())
