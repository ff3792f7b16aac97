"""NodeRestriction: what a node may say of itself; and PodTopologyLabels: what a pod learns of its node.

What a node's identity may touch at all is the node authorizer's business.

Source: k8s.io/kubernetes/plugin/pkg/admission/{noderestriction,podtopologylabels}
"""

from __future__ import annotations

from collections.abc import Iterable

from steersman.cluster.api.admission.attempt import CREATE, Attempt
from steersman.cluster.api.context import WriteContext
from steersman.cluster.meta.objects import Obj, labels_of
from steersman.cluster.meta.resources import NODES

_USER, _GROUP = "system:node:", "system:nodes"
#: labels of Kubernetes' own that a node may set; the agent on the head's machine says itself which one it is
_OWN = frozenset(
    {
        "kubernetes.io/hostname", "topology.kubernetes.io/zone", "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region",
        "node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type", "kubernetes.io/os",
        "beta.kubernetes.io/os", "kubernetes.io/arch", "node-role.kubernetes.io/control-plane",
        "beta.kubernetes.io/arch", "node.kubernetes.io/windows-build",
    }
)  # fmt: skip
_OWN_SPACES = ("kubelet.kubernetes.io", "node.kubernetes.io")
_TOPOLOGY = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")


def admit_node(attempt: Attempt, ctx: WriteContext) -> None:
    """Refuses labels and taints that a node may not give itself."""
    node = ctx.user.removeprefix(_USER)
    if node == ctx.user or _GROUP not in ctx.groups:
        return
    new, old = attempt.obj or {}, attempt.old or {}
    if attempt.operation == CREATE:
        if (new.get("spec") or {}).get("configSource") is not None:
            raise attempt.forbidden(f'node "{node}" is not allowed to create pods with a non-nil configSource')
        if wrong := _restricted(labels_of(new)):
            text = f'node "{node}" is not allowed to set the following labels: {", ".join(wrong)}'
            raise attempt.forbidden(text)
        return
    if (new.get("spec") or {}).get("taints") != (old.get("spec") or {}).get("taints"):
        raise attempt.forbidden(f'node "{node}" is not allowed to modify taints')
    before, after = labels_of(old), labels_of(new)
    changed = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    if wrong := _restricted(changed):
        raise attempt.forbidden(f"is not allowed to modify labels: {', '.join(wrong)}")
    if new["metadata"].get("ownerReferences") != old["metadata"].get("ownerReferences"):
        raise attempt.forbidden(f'node "{node}" is not allowed to modify ownerReferences')


def _restricted(keys: Iterable[str]) -> list[str]:
    return sorted(key for key in keys if _is_restricted(key))


def _is_restricted(key: str) -> bool:
    space = key.partition("/")[0] if "/" in key else ""
    if _is_under(space, ("node-restriction.kubernetes.io",)):
        return True
    return key not in _OWN and _is_kubernetes(space) and not _is_under(space, _OWN_SPACES)


def _is_kubernetes(space: str) -> bool:
    return _is_under(space, ("kubernetes.io", "k8s.io"))


def _is_under(space: str, domains: tuple[str, ...]) -> bool:
    return any(space == domain or space.endswith(f".{domain}") for domain in domains)


def admit_binding(attempt: Attempt, ctx: WriteContext) -> None:
    """Gives a pod the zone and region of the node to which it is bound."""
    binding: Obj = attempt.obj or {}
    target = binding.get("target") or {}
    node = ctx.lookup(NODES, "", target.get("name", "")) if target.get("kind") in (None, "", "Node") else None
    found = {key: value for key, value in labels_of(node or {"metadata": {}}).items() if key in _TOPOLOGY}
    if found:
        meta = binding.setdefault("metadata", {})
        meta["labels"] = {**(meta.get("labels") or {}), **found}
