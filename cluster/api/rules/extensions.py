"""Rules of webhook configurations.

Source: k8s.io/kubernetes/pkg/apis/admissionregistration/{v1/defaults.go,validation/validation.go}
"""

from __future__ import annotations

from steersman.cluster.api.rules.fields import bad, duplicate, one_of, required
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj


def default_webhooks(obj: Obj) -> None:
    """Defaults of webhooks of both sorts."""
    for hook in obj.get("webhooks") or ():
        hook.setdefault("failurePolicy", "Fail")
        hook.setdefault("matchPolicy", "Equivalent")
        hook.setdefault("namespaceSelector", {})
        hook.setdefault("objectSelector", {})
        hook.setdefault("timeoutSeconds", 10)
        service = (hook.get("clientConfig") or {}).get("service")
        if service is not None:
            service.setdefault("port", 443)
        for rule in hook.get("rules") or ():
            rule.setdefault("scope", "*")


def default_mutating(obj: Obj) -> None:
    default_webhooks(obj)
    for hook in obj.get("webhooks") or ():
        hook.setdefault("reinvocationPolicy", "Never")


def validate_webhooks(obj: Obj) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, hook in enumerate(obj.get("webhooks") or ()):
        path = f"webhooks[{index}]"
        name = hook.get("name", "")
        if len(name.split(".")) < 3:
            causes.append(
                bad(f"{path}.name", name, "should be a domain with at least three segments separated by dots")
            )
        if name in seen:
            causes.append(duplicate(f"{path}.name", name))
        seen.add(name)
        config = hook.get("clientConfig") or {}
        if ("url" in config) == ("service" in config):
            causes.append(required(f"{path}.clientConfig", "exactly one of url or service is required"))
        if not hook.get("admissionReviewVersions"):
            causes.append(required(f"{path}.admissionReviewVersions", "must specify one of v1, v1beta1"))
        causes += one_of(f"{path}.sideEffects", hook.get("sideEffects"), ("None", "NoneOnDryRun"))
        if not 1 <= hook["timeoutSeconds"] <= 30:
            causes.append(
                bad(
                    f"{path}.timeoutSeconds",
                    hook["timeoutSeconds"],
                    "the timeout value must be between 1 and 30 seconds",
                )
            )
    return causes
