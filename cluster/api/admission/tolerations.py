"""DefaultTolerationSeconds and TaintNodesByCondition: how long pods bear a lost node, and how new nodes begin.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
"""

from __future__ import annotations

from steersman.cluster.api.context import WriteContext
from steersman.cluster.meta.objects import Obj

_NOT_READY = "node.kubernetes.io/not-ready"
_UNREACHABLE = "node.kubernetes.io/unreachable"


def admit_pod(pod: Obj, ctx: WriteContext) -> None:
    """Adds the tolerations that every pod has for nodes that are not ready or not reachable."""
    spec = pod["spec"]
    found = spec.get("tolerations") or []
    wanted = [key for key in (_NOT_READY, _UNREACHABLE) if not (found and any(_tolerates(row, key) for row in found))]
    added = [
        {
            "key": key,
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": ctx.settings.default_toleration_s,
        }
        for key in wanted
    ]
    if added:
        spec["tolerations"] = [*found, *added]


def admit_pod_update(new: Obj, _old: Obj, ctx: WriteContext) -> None:
    """The same for a pod that is written anew."""
    admit_pod(new, ctx)


def _tolerates(row: Obj, key: str) -> bool:
    return (not row.get("key") or row["key"] == key) and row.get("effect") in (None, "", "NoExecute")


def admit_node(node: Obj, _ctx: WriteContext) -> None:
    """A new node begins tainted as not ready; its lifecycle controller takes the taint off."""
    spec = node.setdefault("spec", {})
    taints = spec.get("taints") or []
    if not any((row.get("key"), row.get("effect")) == (_NOT_READY, "NoSchedule") for row in taints):
        spec["taints"] = [*taints, {"key": _NOT_READY, "effect": "NoSchedule"}]
