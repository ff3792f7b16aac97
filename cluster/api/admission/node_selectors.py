"""PodNodeSelector: the pods of a namespace run on the nodes that it is meant for.

Source: plugin/pkg/admission/podnodeselector/admission.go
"""

from __future__ import annotations

from collections.abc import Mapping

from steersman.cluster.api.admission.attempt import Attempt
from steersman.cluster.api.context import WriteContext
from steersman.cluster.meta.names import label_value_errors, qualified_name_errors
from steersman.cluster.meta.objects import annotations_of
from steersman.cluster.meta.resources import NAMESPACES

#: on a namespace: what its pods ask for
_ANNOTATION = "scheduler.alpha.kubernetes.io/node-selector"


def labels_in(text: str) -> dict[str, str]:
    """The labels in a text like `a=b,c=d`; raises ValueError."""
    found = {}
    for part in text.split(",") if text else ():
        key, equals, value = part.partition("=")
        key, value = key.strip(), value.strip()
        if not equals:
            raise ValueError(f"invalid selector: [{part}]")
        if errors := qualified_name_errors(key) + label_value_errors(value):
            raise ValueError(f"invalid label {key}={value}: {'; '.join(errors)}")
        found[key] = value
    return found


def admit_pod(attempt: Attempt, ctx: WriteContext) -> None:
    """Makes a pod ask for what its namespace says, or the cluster where that says nothing."""
    assert attempt.obj is not None
    own = attempt.obj["spec"].get("nodeSelector") or {}
    if wanted := _agreed(attempt, own, ctx):
        attempt.obj["spec"]["nodeSelector"] = {**wanted, **own}


def validate_pod(attempt: Attempt, ctx: WriteContext) -> None:
    """Refuses a pod that asks for what its namespace may not have."""
    own = ((attempt.obj or {}).get("spec") or {}).get("nodeSelector") or {}
    _agreed(attempt, own, ctx)
    allowed = ctx.settings.admission.node_selectors.get(attempt.namespace)
    if allowed and any(allowed.get(key) != value for key, value in own.items()):
        raise attempt.forbidden("pod node label selector labels conflict with its namespace whitelist")


def _agreed(attempt: Attempt, own: Mapping[str, str], ctx: WriteContext) -> Mapping[str, str]:
    """What a pod's namespace asks for; raises Forbidden when the pod asks for something else."""
    namespace = ctx.lookup(NAMESPACES, "", attempt.namespace)
    text = annotations_of(namespace).get(_ANNOTATION) if namespace is not None else None
    try:
        wanted = ctx.settings.admission.node_selectors.get("", {}) if text is None else labels_in(text)
    except ValueError as error:
        raise attempt.forbidden(f"the annotation {_ANNOTATION} of its namespace: {error}") from None
    if any(own.get(key, value) != value for key, value in wanted.items()):
        raise attempt.forbidden("pod node label selector conflicts with its namespace node label selector")
    return wanted
