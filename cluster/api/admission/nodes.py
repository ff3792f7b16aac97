"""PodTopologyLabels: what a pod learns of its node.

Source: k8s.io/kubernetes/plugin/pkg/admission/podtopologylabels
"""

from __future__ import annotations

from steersman.cluster.api.admission.attempt import Attempt
from steersman.cluster.api.context import WriteContext
from steersman.cluster.meta.objects import Obj, labels_of
from steersman.cluster.meta.resources import NODES

_TOPOLOGY = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")


def admit_binding(attempt: Attempt, ctx: WriteContext) -> None:
    """Gives a pod the zone and region of the node to which it is bound."""
    binding: Obj = attempt.obj or {}
    target = binding.get("target") or {}
    node = ctx.lookup(NODES, "", target.get("name", "")) if target.get("kind") in (None, "", "Node") else None
    found = {key: value for key, value in labels_of(node or {"metadata": {}}).items() if key in _TOPOLOGY}
    if found:
        meta = binding.setdefault("metadata", {})
        meta["labels"] = {**(meta.get("labels") or {}), **found}
