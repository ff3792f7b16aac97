"""PodTolerationRestriction: the pods of a namespace have its tolerations, and no others than it may have.

Source: plugin/pkg/admission/podtolerationrestriction/admission.go and pkg/util/tolerations/tolerations.go
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import orjson

from steersman.cluster.api.admission.attempt import CREATE, Attempt
from steersman.cluster.api.context import WriteContext
from steersman.cluster.meta.objects import Obj, annotations_of
from steersman.cluster.meta.quotas import is_best_effort
from steersman.cluster.meta.resources import NAMESPACES

#: on a namespace, as JSON: what its pods have, and all that they may have
_DEFAULTS = "scheduler.alpha.kubernetes.io/defaultTolerations"
_ALLOWED = "scheduler.alpha.kubernetes.io/tolerationsWhitelist"
_MEMORY: Obj = {"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"}


def admit_pod(attempt: Attempt, ctx: WriteContext) -> None:
    """Gives a new pod the tolerations of its namespace; any that asks for something bears pressure of memory."""
    assert attempt.obj is not None
    spec = attempt.obj["spec"]
    found: list[Obj] = list(spec.get("tolerations") or ())
    if attempt.operation == CREATE:
        own = _of_namespace(attempt, _DEFAULTS, ctx)
        found = merged([*(ctx.settings.admission.tolerations if own is None else own), *found])
    if not is_best_effort(spec):
        found = merged([*found, _MEMORY])
    if found:
        spec["tolerations"] = found


def validate_pod(attempt: Attempt, ctx: WriteContext) -> None:
    """Refuses a pod with a toleration that its namespace may not have, or the cluster where that says nothing."""
    found = ((attempt.obj or {}).get("spec") or {}).get("tolerations") or ()
    own = _of_namespace(attempt, _ALLOWED, ctx)
    scope, allowed = ("cluster", ctx.settings.admission.tolerable) if own is None else ("namespace", own)
    if allowed and not all(any(_covers(row, one) for row in allowed) for one in found):
        raise attempt.forbidden(
            f"pod tolerations (possibly merged with namespace default tolerations) conflict with its {scope} whitelist"
        )


def _of_namespace(attempt: Attempt, annotation: str, ctx: WriteContext) -> Sequence[Obj] | None:
    """The tolerations in an annotation of a namespace; None when it says nothing, Forbidden when it makes no sense."""
    namespace = ctx.lookup(NAMESPACES, "", attempt.namespace)
    text = annotations_of(namespace).get(annotation) if namespace is not None else None
    if not text:
        return None
    try:
        rows = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise attempt.forbidden(f"the annotation {annotation} of its namespace: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise attempt.forbidden(f"the annotation {annotation} of its namespace: must be a list of tolerations")
    return rows


def merged(rows: Sequence[Obj]) -> list[Obj]:
    """Tolerations without those that others cover; of equal ones the first stays."""
    kept: list[Obj] = []
    for at, row in enumerate(rows):
        later = (other for other in rows[at + 1 :] if other != row)
        if not _covered(row, kept) and not _covered(row, later):
            kept.append(row)
    return kept


def _covered(row: Obj, others: Iterable[Obj]) -> bool:
    return any(_covers(other, row) for other in others)


def _covers(wide: Obj, row: Obj) -> bool:
    """Whether whatever one toleration bears the other, wider one bears as well."""
    if wide == row:
        return True
    operator = wide.get("operator") or "Equal"
    if row.get("key", "") != wide.get("key", "") and not (not wide.get("key") and operator == "Exists"):
        return False
    if wide.get("effect") and row.get("effect") != wide["effect"]:
        return False
    if wide.get("effect") == "NoExecute" and (most := wide.get("tolerationSeconds")) is not None:
        asked = row.get("tolerationSeconds")
        if asked is None or asked > most:
            return False
    same = (row.get("operator") or "Equal") == operator and row.get("value", "") == wide.get("value", "")
    return operator == "Exists" or (operator == "Equal" and same)
