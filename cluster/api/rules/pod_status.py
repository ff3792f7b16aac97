"""Rules of a pod's status: what its node and others may say of it.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go (ValidatePodStatusUpdate)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.rules.fields import IP_DETAIL, bad, bad_all, duplicate, forbidden, ip_family
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj

_SYSTEM_CONDITIONS = ("PodScheduled", "Ready", "Initialized")
_ID_MAX = 2**31 - 1
#: field of the containers' statuses to that of the containers
_STATUSES = (
    ("containerStatuses", "containers"), ("initContainerStatuses", "initContainers"),
    ("ephemeralContainerStatuses", "ephemeralContainers"),
)  # fmt: skip


def prepare_part(new: Obj, old: Obj, _ctx: WriteContext) -> None:
    """The class of a pod's quality is said when it is made; who leaves it out of a status keeps it."""
    before = (old.get("status") or {}).get("qosClass")
    if before:
        new.setdefault("status", {}).setdefault("qosClass", before)


def validate_status(new: Obj, old: Obj) -> list[Cause]:
    """Every rule that a change through `/status` breaks."""
    status, before, spec = new.get("status") or {}, old.get("status") or {}, new.get("spec") or {}
    if status == before:
        return []
    causes = _conditions(status.get("conditions") or ())
    nominated = status.get("nominatedNodeName", "")
    if nominated and nominated != before.get("nominatedNodeName"):
        causes += bad_all("status.nominatedNodeName", nominated, subdomain_errors(nominated))
    if status.get("qosClass") != before.get("qosClass") and before.get("qosClass"):
        causes.append(bad("status.qosClass", status.get("qosClass", ""), "field is immutable"))
    for key, containers in _STATUSES:
        rows = status.get(key) or ()
        if rows != (before.get(key) or ()):
            causes += _restarts(key, rows, before.get(key) or (), spec, containers)
            causes += _users(f"status.{key}", rows)
    causes += _claims(status.get("resourceClaimStatuses") or (), spec)
    return causes + _addresses(status, before)


def _conditions(rows: Sequence[Obj]) -> list[Cause]:
    causes: list[Cause] = []
    for index, row in enumerate(rows):
        path, kind = f"metadata.conditions[{index}]", row.get("type", "")  # so Kubernetes calls their place
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


def _users(path: str, rows: Iterable[Obj]) -> list[Cause]:
    causes: list[Cause] = []
    for index, row in enumerate(rows):
        linux = (row.get("user") or {}).get("linux") or {}
        where = f"{path}[{index}].user.linux"
        ids = [(key, linux.get(key, 0)) for key in ("uid", "gid")]
        ids += [(f"supplementalGroups[{n}]", gid) for n, gid in enumerate(linux.get("supplementalGroups") or ())]
        detail = f"must be between 0 and {_ID_MAX}, inclusive"
        causes += [bad(f"{where}.{key}", value, detail) for key, value in ids if not 0 <= value <= _ID_MAX]
    return causes


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
            causes += bad_all(path, claim, subdomain_errors(claim))
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
