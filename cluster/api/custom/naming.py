"""Names, conditions and defaults of a definition.

A definition is established at once: its names are taken or refused in the write itself, so that nobody waits for a
controller to serve it. A name that becomes free is given by a later write of the definition that wants it; the server
writes those that lack one again when another definition of their group gives one up.

Source: k8s.io/apiextensions-apiserver/pkg/controller/{status/naming,apiapproval/apiapproval}_controller.go
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from steersman.cluster.api.context import WriteContext
from steersman.cluster.meta.objects import Obj, condition, with_condition
from steersman.cluster.meta.resources import CUSTOM_RESOURCE_DEFINITIONS

APPROVAL = "api-approved.kubernetes.io"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
_SEE = "see https://github.com/kubernetes/enhancements/pull/1111"


def default_crd(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    names = spec.setdefault("names", {})
    kind = names.get("kind", "")
    if not names.get("singular"):
        names["singular"] = kind.lower()
    if not names.get("listKind") and kind:
        names["listKind"] = f"{kind}List"
    conversion = spec.setdefault("conversion", {})
    if not conversion.get("strategy"):
        conversion["strategy"] = "None"
    service = ((conversion.get("webhook") or {}).get("clientConfig") or {}).get("service")
    if service is not None:
        service.setdefault("port", 443)


def establish(obj: Obj, ctx: WriteContext) -> None:
    """Accepts (or refuses) the names of a new definition and says so in its status."""
    obj["status"] = {
        "conditions": [],
        "acceptedNames": {"plural": "", "kind": ""},
        "storedVersions": _storage(obj["spec"]),
    }
    _accept(obj, ctx)


def establish_update(new: Obj, old: Obj, ctx: WriteContext) -> None:
    status = new["status"] = {**(old.get("status") or {})}
    stored = list(status.get("storedVersions") or ())
    status["storedVersions"] = stored + [name for name in _storage(new["spec"]) if name not in stored]
    _accept(new, ctx)


def _storage(spec: Obj) -> list[str]:
    return [row.get("name", "") for row in spec.get("versions") or () if row.get("storage")]


def _accept(obj: Obj, ctx: WriteContext) -> None:
    status = obj["status"]
    names, clash = _taken(obj, ctx)
    status["acceptedNames"] = {key: value for key, value in names.items() if value or key in ("plural", "kind")}
    conditions = status.get("conditions") or []
    if clash:
        conditions = with_condition(conditions, "NamesAccepted", "False", ctx.now, reason=clash[0], message=clash[1])
        if not any(row["type"] == "Established" for row in conditions):
            conditions = with_condition(
                conditions, "Established", "False", ctx.now, reason="NotAccepted", message="not all names are accepted"
            )
    else:
        conditions = with_condition(
            conditions, "NamesAccepted", "True", ctx.now, reason="NoConflicts", message="no conflicts found"
        )
        if not any(row["type"] == "Established" and row["status"] == "True" for row in conditions):
            conditions = with_condition(
                conditions, "Established", "True", ctx.now, reason="InitialNamesAccepted",
                message="the initial names have been accepted",
            )  # fmt: skip
    status["conditions"] = _approved(obj, conditions, ctx.now)


def _taken(obj: Obj, ctx: WriteContext) -> tuple[Obj, tuple[str, str] | None]:
    """The names that the definition gets, and (reason, message) of the last conflict."""
    spec, own = obj["spec"], obj["metadata"].get("name")
    plurals: set[str] = set()
    kinds: set[str] = set()
    for other in ctx.list(CUSTOM_RESOURCE_DEFINITIONS, None):
        if other["metadata"]["name"] == own or other["spec"].get("group") != spec.get("group"):
            continue
        held = (other.get("status") or {}).get("acceptedNames") or {}
        plurals |= {held.get("plural", ""), held.get("singular", ""), *(held.get("shortNames") or ())}
        kinds |= {held.get("kind", ""), held.get("listKind", "")}
    names = spec["names"]
    accepted = dict(obj["status"].get("acceptedNames") or {})
    clash: tuple[str, str] | None = None
    for key, taken in (("plural", plurals), ("singular", plurals), ("shortNames", plurals), ("kind", kinds),
                       ("listKind", kinds)):  # fmt: skip
        wanted = names.get(key)
        held_names = _each(accepted.get(key))
        used = [name for name in _each(wanted) if name in taken and name not in held_names]
        if used:
            shown = ", ".join(f'"{name}" is already in use' for name in used)
            reason = f"{key[0].upper()}{key[1:]}Conflict"
            clash = reason, f"[{shown}]" if len(used) > 1 else shown
        else:
            accepted[key] = wanted
    accepted["categories"] = names.get("categories")
    return accepted, clash


def _each(names: Any) -> list[str]:
    return list(names) if isinstance(names, list) else [names] if names else []


def names_of(crd: Obj) -> set[str]:
    """The names that a definition holds."""
    held = (crd.get("status") or {}).get("acceptedNames") or {}
    return {name for key, names in held.items() if key != "categories" for name in _each(names)}


def is_established(crd: Obj) -> bool:
    row = condition(crd, "Established")
    return row is not None and row.get("status") == "True"


def is_accepted(crd: Obj) -> bool:
    """Whether the definition has all the names it wants."""
    row = condition(crd, "NamesAccepted")
    return row is None or row.get("status") == "True"


def prepare_delete(crd: Obj, ctx: WriteContext) -> None:
    """Keeps a definition until its objects are gone."""
    meta = crd["metadata"]
    if meta.get("deletionTimestamp"):
        return
    meta["finalizers"] = [*(item for item in meta.get("finalizers") or () if item != CLEANUP), CLEANUP]
    what = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"
    crd["status"] = terminating(crd, ctx.now, "InstanceDeletionPending", what)["status"]


def terminating(crd: Obj, now: float, reason: str, message: str) -> Obj:
    """Returns a definition that says that it is being deleted."""
    status = crd.get("status") or {}
    conditions = with_condition(
        status.get("conditions") or [], "Terminating", "True", now, reason=reason, message=message
    )
    return {**crd, "status": {**status, "conditions": conditions}}


# ---- the groups that the community keeps


def approval(crd: Obj) -> tuple[str, str] | None:
    """Returns (`Approved`, `Bypassed`, `Missing` or `Invalid`, why); None for a group that needs no approval."""
    group = crd["spec"].get("group", "")
    if not any(group == name or group.endswith(f".{name}") for name in ("k8s.io", "kubernetes.io")):
        return None
    found = (crd["metadata"].get("annotations") or {}).get(APPROVAL)
    if not found:
        return "Missing", f'protected groups must have approval annotation "{APPROVAL}", {_SEE}'
    if found.startswith("unapproved"):
        return "Bypassed", f'not approved: "{found}"'
    parts = urlsplit(found)
    if parts.scheme and parts.netloc:
        return "Approved", f"approved in {found}"
    detail = f'with either a URL or a reason starting with "unapproved", {_SEE}'
    return "Invalid", f'protected groups must have approval annotation "{APPROVAL}" {detail}'


def _approved(crd: Obj, conditions: list[Obj], now: float) -> list[Obj]:
    kind = "KubernetesAPIApprovalPolicyConformant"
    state = approval(crd)
    if state is None or state[0] not in ("Approved", "Bypassed"):
        return conditions
    good = state[0] == "Approved"
    reason = "ApprovedAnnotation" if good else "UnapprovedAnnotation"
    return with_condition(conditions, kind, "True" if good else "False", now, reason=reason, message=state[1])
