"""What a delete comes to: gone at once, or marked and waiting for a grace period or for finalizers.

Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/ and
k8s.io/apiserver/pkg/registry/{rest/delete.go,generic/registry/store.go}
"""

from __future__ import annotations

import re

from steersman.cluster.api.allocate import releases_of
from steersman.cluster.api.context import Deletion, WriteContext
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind
from steersman.cluster.api.rules.fields import bad, unsupported
from steersman.cluster.api.rules.options import dry_run
from steersman.cluster.meta import errors
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.gotext import quoted
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.times import format_time, parse_time

_POLICIES = ("Foreground", "Background", "Orphan")
_PRECONDITIONS = (
    ("uid", "UID", "The object might have been deleted and then recreated"),
    ("resourceVersion", "ResourceVersion", "The object might have been modified"),
)
_ORPHAN, _FOREGROUND = "orphan", "foregroundDeletion"
#: longer than any cluster lives, short enough for a timestamp
_GRACE_S_MAX = 2**31 - 1
_INTEGER = re.compile(r"[+-]?[0-9]{1,100}", re.ASCII)
_ORPHANED_BY_DEFAULT = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set "
    "propagationPolicy=Orphan to suppress this warning"
)


def read_grace(text: str) -> int:
    """The grace period that a query asks for, in seconds; negative ones mean the shortest; raises BadRequest."""
    if not _INTEGER.fullmatch(text):
        raise errors.BadRequest(f"strconv.ParseInt: parsing {quoted(text)}: invalid syntax")
    if not -(2**63) <= (grace := int(text)) < 2**63:
        raise errors.BadRequest(f"strconv.ParseInt: parsing {quoted(text)}: value out of range")
    return grace


def delete(registry: Registry, kind: Kind, old: Obj, options: Obj | None, ctx: WriteContext) -> Deletion:
    """Decides what deleting an object means now.

    Args:
        options: the `DeleteOptions` of the request, or None.

    Raises:
        Conflict: a precondition does not hold. Invalid: options that make no sense. Forbidden: protected objects.
    """
    options = options or {}
    check_options(options)
    _check_preconditions(kind, old, options)
    if kind.resource.plural == "namespaces" and not kind.resource.group:
        _protect_namespace(old)
    marked: Obj = {**old, "metadata": dict(old["metadata"])}
    kind.prepare_delete(marked, ctx)
    meta = marked["metadata"]
    finalizers = _finalizers(kind, meta, options)
    pending = bool(finalizers) or bool(_spec_finalizers(kind, old))
    grace = _grace_s(kind, old, options)
    warnings = _warnings(kind, options)
    changed = _mark(meta, grace, options, ctx.now)
    if finalizers != (old["metadata"].get("finalizers") or []):
        changed = True
        if finalizers:
            meta["finalizers"] = finalizers
        else:
            meta.pop("finalizers", None)
    if not pending and not meta.get("deletionGracePeriodSeconds"):
        return Deletion(remove=True, obj=marked, releases=releases_of(kind, old), warnings=warnings)
    if kind.resource.plural == "namespaces" and not kind.resource.group:
        status = {**(old.get("status") or {}), "phase": "Terminating"}
        changed = changed or status != old.get("status")
        marked["status"] = status
    return Deletion(remove=False, obj=marked, changed=changed, warnings=warnings)


def _mark(meta: Obj, grace: int, options: Obj, now: float) -> bool:
    """Sets the deletion timestamp, or brings it forward; returns whether anything changed."""
    if not meta.get("deletionTimestamp"):
        meta["deletionTimestamp"] = format_time(now + grace)
        meta["deletionGracePeriodSeconds"] = grace
        if meta.get("generation"):
            meta["generation"] += 1
        return True
    before = meta.get("deletionGracePeriodSeconds") or 0
    if options.get("gracePeriodSeconds") is None or grace >= before:
        return False
    meta["deletionTimestamp"] = format_time(parse_time(meta["deletionTimestamp"]) - before + grace)
    meta["deletionGracePeriodSeconds"] = grace
    return True


def _grace_s(kind: Kind, old: Obj, options: Obj) -> int:
    """Only pods wait: those that are on a node and not finished."""
    if kind.resource.plural != "pods" or kind.resource.group:
        return 0
    spec = old.get("spec") or {}
    if not spec.get("nodeName") or (old.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    asked = options.get("gracePeriodSeconds")
    grace = spec.get("terminationGracePeriodSeconds", 30) if asked is None else asked
    return min(int(grace), _GRACE_S_MAX) if grace >= 0 else 1


def _finalizers(kind: Kind, meta: Obj, options: Obj) -> list[str]:
    policy = options.get("propagationPolicy")
    if policy is None and options.get("orphanDependents") is not None:
        policy = "Orphan" if options["orphanDependents"] else "Background"
    found: list[str] = list(meta.get("finalizers") or ())
    if policy is None:
        if _ORPHAN in found or _FOREGROUND in found:
            return found
        policy = kind.default_propagation
    kept = [item for item in found if item not in (_ORPHAN, _FOREGROUND)]
    if policy == "Orphan":
        kept.append(_ORPHAN)
    elif policy == "Foreground":
        kept.append(_FOREGROUND)
    return kept


def _warnings(kind: Kind, options: Obj) -> tuple[str, ...]:
    unsaid = options.get("propagationPolicy") is None and options.get("orphanDependents") is None
    if unsaid and kind.default_propagation == "Orphan" and kind.resource.plural == "jobs":
        return (_ORPHANED_BY_DEFAULT,)
    return ()


def check_options(options: Obj) -> None:
    """Refuses `DeleteOptions` that make no sense, whatever they are about; raises Invalid."""
    causes: list[Cause] = []
    policy = options.get("propagationPolicy")
    if policy is not None and policy not in _POLICIES:
        causes.append(unsupported("propagationPolicy", policy, (*_POLICIES, "nil"), in_order=True))
    if policy is not None and options.get("orphanDependents") is not None:
        detail = "orphanDependents and deletionPropagation cannot be both set"
        causes.append(bad("propagationPolicy", policy, detail))
    causes += dry_run(options.get("dryRun") or ())
    if causes:
        raise errors.invalid("DeleteOptions", "", causes, "meta.k8s.io")


def _check_preconditions(kind: Kind, old: Obj, options: Obj) -> None:
    wanted, meta = options.get("preconditions") or {}, old["metadata"]
    for key, title, then in _PRECONDITIONS:
        asked, found = wanted.get(key), meta.get(key)
        if asked is None or asked == found:
            continue
        if kind.resource.kind == "Namespace":
            detail = f"Precondition failed: {title} in precondition: {asked}, {title} in object meta: {found}"
            raise errors.conflict(kind.resource.plural, meta["name"], detail)
        detail = f"the {title} in the precondition ({asked}) does not match the {title} in record ({found}). {then}"
        raise errors.conflict(kind.resource.kind, meta["name"], detail, kind.resource.group)


def _protect_namespace(old: Obj) -> None:
    name = old["metadata"]["name"]
    if name in ("default", "kube-system", "kube-public"):
        detail = f'namespaces "{name}" is forbidden: this namespace may not be deleted'
        raise errors.Forbidden(detail, kind="namespaces", name=name)


def _spec_finalizers(kind: Kind, obj: Obj) -> list[str]:
    if kind.resource.plural != "namespaces" or kind.resource.group:
        return []
    return (obj.get("spec") or {}).get("finalizers") or []


def is_done(kind: Kind, new: Obj, old: Obj) -> bool:
    """Whether an update took away the last thing that an object being deleted was waiting for."""
    meta = new["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("deletionGracePeriodSeconds"):
        return False
    if meta.get("finalizers") or _spec_finalizers(kind, new):
        return False
    return bool(old["metadata"].get("finalizers") or _spec_finalizers(kind, old))
