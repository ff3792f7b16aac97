"""Rules of a pod's status: what its node and others may say of it.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go (ValidatePodStatusUpdate)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.rules.fields import IP_DETAIL, bad, bad_all, duplicate, forbidden, ip_family, unsupported
from steersman.cluster.api.rules.pod_marks import validate_annotations_update
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj, annotations_of

_SYSTEM_CONDITIONS = ("PodScheduled", "Ready", "Initialized")
_ID_MAX = 2**31 - 1
_HEALTH = ("Healthy", "Unhealthy", "Unknown")
#: of what a change of the status keeps: what counts as left out when it is empty
_NEVER_EMPTY = ("qosClass", "observedGeneration")
#: field of the containers' statuses to that of the containers
_STATUSES = (
    ("containerStatuses", "containers"), ("initContainerStatuses", "initContainers"),
    ("ephemeralContainerStatuses", "ephemeralContainers"),
)  # fmt: skip


def prepare_part(new: Obj, old: Obj, _ctx: WriteContext) -> None:
    """Who leaves out of a status what others say there, such as the class of the pod's quality, keeps it."""
    status, before = new.setdefault("status", {}), old.get("status") or {}
    for key in ("qosClass", "observedGeneration", "resourceClaimStatuses", "extendedResourceClaimStatus"):
        if before.get(key):
            status[key] = status.get(key) or before[key] if key in _NEVER_EMPTY else status.get(key, before[key])
    had: dict[str, list[int]] = {}
    for row in before.get("conditions") or ():
        had.setdefault(row.get("type", ""), []).append(row.get("observedGeneration", 0))
    for row in status.get("conditions") or ():
        left = had.get(row.get("type", ""))
        generation = left.pop(0) if left else 0
        if generation and not row.get("observedGeneration"):
            row["observedGeneration"] = generation


def validate_status(new: Obj, old: Obj) -> list[Cause]:
    """Every rule that a change through `/status` breaks."""
    status, before, spec = new.get("status") or {}, old.get("status") or {}, new.get("spec") or {}
    causes = validate_annotations_update(annotations_of(new), annotations_of(old))
    if status == before:
        return causes
    causes += _conditions(status.get("conditions") or ())
    causes += _nominated(status.get("nominatedNodeName", ""), before.get("nominatedNodeName", ""), spec)
    if status.get("observedGeneration", 0) < 0:
        causes.append(bad("status.observedGeneration", status["observedGeneration"], "must be a non-negative integer"))
    if status.get("qosClass") != before.get("qosClass") and before.get("qosClass"):
        causes.append(bad("status.qosClass", status.get("qosClass", ""), "field is immutable"))
    for key, containers in _STATUSES:
        if (status.get(key) or ()) != (before.get(key) or ()) and not _all_begin_again(spec):
            causes += _restarts(key, status.get(key) or (), before.get(key) or (), spec, containers)
    causes += _claims(status.get("resourceClaimStatuses") or (), spec) + _addresses(status, before)
    is_windows = (spec.get("os") or {}).get("name") == "windows"
    for key, _ in _STATUSES:
        causes += _users(f"status.{key}", status.get(key) or (), is_windows=is_windows)
    for key, containers in _STATUSES:
        causes += _allocated(f"status.{key}", status.get(key) or (), spec.get(containers) or ())
    return causes


def _nominated(name: str, before: str, spec: Obj) -> list[Cause]:
    if not name or name == before:
        return []
    path = "status.nominatedNodeName"
    causes = bad_all(path, name, subdomain_errors(name))
    if spec.get("nodeName"):
        causes.append(forbidden(path, "may not be set on pods that are already bound to a node"))
    return causes


def _all_begin_again(spec: Obj) -> bool:
    """Whether the end of some container may let all of a pod's containers begin again."""
    return any(
        rule.get("action") == "RestartAllContainers"
        for key in ("initContainers", "containers")
        for one in spec.get(key) or ()
        for rule in one.get("restartPolicyRules") or ()
    )


def _conditions(rows: Sequence[Obj]) -> list[Cause]:
    causes: list[Cause] = []
    for index, row in enumerate(rows):
        path, kind = f"status.conditions[{index}]", row.get("type", "")
        if (row.get("observedGeneration") or 0) < 0:
            causes.append(
                bad(f"{path}.observedGeneration", row["observedGeneration"], "must be a non-negative integer")
            )
        if kind not in _SYSTEM_CONDITIONS:
            causes += bad_all(f"{path}.Type", kind, qualified_name_errors(kind))
    return causes


def _restarts(key: str, rows: Iterable[Obj], before: Sequence[Obj], spec: Obj, containers: str) -> list[Cause]:
    """What has ended stays so, unless its container is one that begins again."""
    causes: list[Cause] = []
    now = {row.get("name"): row for row in rows}
    known = {one.get("name"): one for one in spec.get(containers) or ()}
    for index, row in enumerate(before):
        ended = (row.get("state") or {}).get("terminated")
        found = now.get(row.get("name"))
        if ended is None or found is None or (found.get("state") or {}).get("terminated") is not None:
            continue
        container = known.get(row.get("name"))
        again = containers != "ephemeralContainers" and container is not None
        if not (again and _begins_again(container or {}, spec, ended.get("exitCode", 0))):
            detail = "may not be transitioned to non-terminated state"
            causes.append(forbidden(f"status.{key}[{index}].state", detail))
    return causes


def _begins_again(container: Obj, spec: Obj, code: int) -> bool:
    policy = container.get("restartPolicy")
    for rule in container.get("restartPolicyRules") or () if policy else ():
        codes = rule.get("exitCodes") or {}
        if (code in (codes.get("values") or ())) is (codes.get("operator") == "In"):
            if rule.get("action") == "Restart":
                return True
            break
    policy = policy or spec.get("restartPolicy") or "Always"
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def _users(path: str, rows: Iterable[Obj], *, is_windows: bool) -> list[Cause]:
    causes: list[Cause] = []
    for index, row in enumerate(rows):
        linux, where = (row.get("user") or {}).get("linux"), f"{path}[{index}].user.linux"
        if linux is None:
            continue
        if is_windows:
            causes.append(forbidden(where, "cannot be set for a windows pod"))
            continue
        ids = [(key, linux.get(key, 0)) for key in ("uid", "gid")]
        ids += [(f"supplementalGroups[{n}]", gid) for n, gid in enumerate(linux.get("supplementalGroups") or ())]
        detail = f"must be between 0 and {_ID_MAX}, inclusive"
        causes += [bad(f"{where}.{key}", value, detail) for key, value in ids if not 0 <= value <= _ID_MAX]
    return causes


def _allocated(path: str, rows: Iterable[Obj], containers: Iterable[Obj]) -> list[Cause]:
    """The rules of the health of what containers were given."""
    causes: list[Cause] = []
    for index, row in enumerate(rows):
        found, where = row.get("allocatedResourcesStatus") or (), f"{path}[{index}].allocatedResourcesStatus"
        if found and path.endswith("ephemeralContainerStatuses"):
            causes.append(forbidden(where, "must not be specified in container status"))
            continue
        container = next((one for one in containers if one.get("name") == row.get("name")), None)
        for place, given in enumerate(found):
            if container is not None:
                causes += _given(f"{where}[{place}].name", given.get("name", ""), container.get("resources") or {})
            seen: set[str] = set()
            for number, one in enumerate(given.get("resources") or ()):
                at, name = f"{where}[{place}].resources[{number}]", one.get("resourceID", "")
                if one.get("health", "") not in _HEALTH:
                    causes.append(unsupported(f"{at}.health", one.get("health", ""), _HEALTH))
                if name in seen:
                    causes.append(duplicate(f"{at}.resourceID", name))
                seen.add(name)
    return causes


def _given(path: str, name: str, resources: Obj) -> list[Cause]:
    if not name.startswith("claim:"):
        is_asked = name in (resources.get("requests") or {})
        return [] if is_asked else [bad(path, name, "must match one of the container's resource requests")]
    for claim in resources.get("claims") or ():
        if name in (f"claim:{claim.get('name')}", f"claim:{claim.get('name')}/{claim.get('request')}"):
            return []
    detail = (
        "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or "
        "'claim:<claimName>' if request is empty"
    )
    return [bad(path, name, detail)]


def _claims(rows: Sequence[Obj], spec: Obj) -> list[Cause]:
    known = {row.get("name") for row in spec.get("resourceClaims") or ()} if rows else set()
    causes: list[Cause] = []
    seen: set[Any] = set()
    for index, row in enumerate(rows):
        path, name = f"status.resourceClaimStatuses[{index}].name", row.get("name", "")
        if name not in known:
            causes.append(bad(path, name, "must match the name of an entry in `spec.resourceClaims`"))
        if name in seen:
            causes.append(duplicate(path, name))
        seen.add(name)
        if claim := row.get("resourceClaimName"):
            causes += bad_all(
                f"status.resourceClaimStatuses[{index}].resourceClaimName", claim, subdomain_errors(claim)
            )
    return causes


def _addresses(status: Obj, before: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for key in ("podIPs", "hostIPs"):
        rows, path = status.get(key) or [], f"status.{key}"
        if rows and key == "hostIPs" and status.get("hostIP", "") != rows[0].get("ip", ""):
            causes.append(bad(f"{path}[0].ip", rows[0].get("ip", ""), "must be equal to `hostIP`"))
        if rows == (before.get(key) or []):
            continue
        old = {row.get("ip") for row in before.get(key) or ()}
        families = []
        for index, row in enumerate(rows):
            text = row.get("ip", "")
            families.append(ip_family(text))
            if families[-1] is None and text not in old:
                causes.append(bad(f"{path}[{index}]", text, IP_DETAIL))
        if len(rows) > 1 and sorted(map(str, families)) != ["IPv4", "IPv6"]:
            shown = [{"IP": row.get("ip", "")} for row in rows]
            causes.append(bad(path, shown, "may specify no more than one IP for each IP family"))
    return causes
