"""Who a pod of a StatefulSet is: its name, host name and labels, and the claims that are its own.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#pod-identity and
#persistentvolumeclaim-retention
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping

from steersman.cluster.control.history import HASH_LABEL
from steersman.cluster.control.plan import Patch, patch
from steersman.cluster.control.pods import from_template
from steersman.cluster.meta.objects import Obj, controller_reference, name, namespace, owner_references, uid
from steersman.cluster.meta.resources import PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS

_ORDINAL = re.compile(r"(.*)-([0-9]+)\Z")


def ordinal_of(stateful_set: Obj, pod_name: str) -> int | None:
    """The number in the name of a pod of the set; None for another's."""
    found = _ORDINAL.match(pod_name)
    return int(found[2]) if found is not None and found[1] == name(stateful_set) else None


def pod_of(stateful_set: Obj, ordinal: int, template: Obj, revision: str) -> Obj:
    """Returns the pod of an ordinal, made from a revision's template."""
    pod_name = f"{name(stateful_set)}-{ordinal}"
    pod = from_template(template, stateful_set, STATEFUL_SETS, pod_name)
    pod["metadata"]["labels"] = {
        **(pod["metadata"].get("labels") or {}),
        "statefulset.kubernetes.io/pod-name": pod_name,
        "apps.kubernetes.io/pod-index": str(ordinal),
        HASH_LABEL: revision,
    }
    spec = {**pod["spec"], "hostname": pod_name}
    if stateful_set["spec"].get("serviceName"):
        spec["subdomain"] = stateful_set["spec"]["serviceName"]
    claims = {row["metadata"]["name"] for row in stateful_set["spec"].get("volumeClaimTemplates") or ()}
    if claims:
        own = [
            {"name": row, "persistentVolumeClaim": {"claimName": f"{row}-{pod_name}", "readOnly": False}}
            for row in sorted(claims)
        ]
        spec["volumes"] = own + [row for row in spec.get("volumes") or () if row["name"] not in claims]
    pod["spec"] = spec
    return pod


def claims_of(stateful_set: Obj, ordinal: int) -> dict[str, Obj]:
    """Returns the claims of an ordinal's pod by name, as they are to be made."""
    found: dict[str, Obj] = {}
    matched = (stateful_set["spec"].get("selector") or {}).get("matchLabels") or {}
    for row in stateful_set["spec"].get("volumeClaimTemplates") or ():
        claim_name = f"{row['metadata']['name']}-{name(stateful_set)}-{ordinal}"
        meta = {key: value for key, value in row["metadata"].items() if key in ("annotations", "finalizers")}
        meta |= {"name": claim_name, "namespace": namespace(stateful_set)}
        meta["labels"] = {**(row["metadata"].get("labels") or {}), **matched}
        if _retention(stateful_set, "whenDeleted") == "Delete":
            meta["ownerReferences"] = [_reference(stateful_set)]
        found[claim_name] = {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": row.get("spec") or {},
        }  # fmt: skip
    return found


def claim_changes(
    stateful_set: Obj, claims: Iterable[Obj], pods: Mapping[int, Obj], wanted: Container[int]
) -> list[Patch]:
    """What makes the claims' owners true: who goes takes a claim along, as the set's retention policy says."""
    present = {name(row): row for row in claims}
    found: list[Patch] = []
    for ordinal, pod in pods.items():
        owners = []
        if ordinal not in wanted and _retention(stateful_set, "whenScaled") == "Delete":
            owners = [{"apiVersion": "v1", "kind": PODS.kind, "name": name(pod), "uid": uid(pod)}]
        elif _retention(stateful_set, "whenDeleted") == "Delete":
            owners = [_reference(stateful_set)]
        for claim_name in claims_of(stateful_set, ordinal):
            claim = present.get(claim_name)
            if claim is None:
                continue
            ours = (uid(stateful_set), uid(pod))
            old = owner_references(claim)
            kept = [row for row in old if row["uid"] not in ours]
            if [row["uid"] for row in old] != [row["uid"] for row in (*kept, *owners)]:
                changes = {"metadata": {"ownerReferences": [*kept, *owners] or None}}
                found.append(patch(PERSISTENT_VOLUME_CLAIMS, claim, changes))
    return found


def _retention(stateful_set: Obj, when: str) -> str:
    policy: Obj = stateful_set["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    return str(policy.get(when) or "Retain")


def _reference(stateful_set: Obj) -> Obj:
    return controller_reference(stateful_set, STATEFUL_SETS.api_version, STATEFUL_SETS.kind)
