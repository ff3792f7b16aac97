"""Leaves out of an object what is empty, as Kubernetes does when it encodes what it decoded.

Its types mark optional fields `omitempty`: a list or a map without elements is not told from one that was never
given, nor are the zero values of many scalars. Structures stay: `emptyDir: {}` says something.

Source: https://pkg.go.dev/encoding/json#Marshal, the tags of k8s.io/api/*/types.go
"""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.schema.node import SchemaNode
from steersman.cluster.api.schema.steps import Step, each, each_value
from steersman.cluster.api.schema.zeros import ZERO_MEANS_ABSENT

_API = "io.k8s.api."
_CRD_STATUS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionStatus"
#: optional lists that are written even when they are empty, or refused then
_WRITTEN = frozenset(
    {
        (f"{_API}authentication.v1.TokenRequestSpec", "audiences"),
        (f"{_API}autoscaling.v2.HPAScalingRules", "policies"),
        (f"{_API}autoscaling.v2.HorizontalPodAutoscalerStatus", "currentMetrics"),
        (f"{_API}core.v1.ContainerImage", "names"),
        (f"{_API}core.v1.ProjectedVolumeSource", "sources"),
        (f"{_API}discovery.v1.EndpointSlice", "endpoints"),
        (f"{_API}discovery.v1.EndpointSlice", "ports"),
        (f"{_API}flowcontrol.v1.ResourcePolicyRule", "namespaces"),
        (f"{_API}rbac.v1.ClusterRole", "rules"),
        (f"{_API}rbac.v1.Role", "rules"),
        (f"{_API}resource.v1.DeviceClaim", "requests"),
        (f"{_API}storage.v1.CSINodeDriver", "topologyKeys"),
        (_CRD_STATUS, "conditions"),
        (_CRD_STATUS, "storedVersions"),
    }
)


def trimmer(node: SchemaNode) -> Step:
    """Returns what leaves out of an object of this schema what is empty there."""
    return _Sites().step(node) or (lambda _tree: None)


def trimmer_of_metadata(node: SchemaNode) -> Step:
    """Returns the same for a custom resource, of which only the metadata has a type of Kubernetes'."""
    below = trimmer(node.properties["metadata"])
    return lambda tree: below(tree.get("metadata") or {})


class _Sites:
    def __init__(self) -> None:
        self._found: dict[str, Step | None] = {}
        self._open: set[str] = set()

    def step(self, node: SchemaNode) -> Step | None:
        name = node.definition
        if not name:
            return self._build(node)
        if name in self._open:
            return lambda value: self._again(name, value)
        if name not in self._found:
            self._open.add(name)
            self._found[name] = self._build(node)
            self._open.remove(name)
        return self._found[name]

    def _again(self, name: str, value: Any) -> None:
        if (step := self._found[name]) is not None:
            step(value)

    def _build(self, node: SchemaNode) -> Step | None:
        if node.type == "array":
            return each(self.step(node.items)) if node.items is not None else None
        if node.type != "object":
            return None
        if node.additional is not None:
            return each_value(self.step(node.additional))
        omitted, deeper = [], []
        zeros = ZERO_MEANS_ABSENT.get(node.definition, frozenset())
        for name, child in node.properties.items():
            if name not in node.required and (name in zeros or _is_omitted(node, name, child)):
                omitted.append(name)
            if (below := self.step(child)) is not None:
                deeper.append((name, below))
        return _object(tuple(omitted), tuple(deeper)) if omitted or deeper else None


def _is_omitted(node: SchemaNode, name: str, child: SchemaNode) -> bool:
    is_collection = child.type == "array" or (child.type == "object" and child.additional is not None)
    return is_collection and (node.definition, name) not in _WRITTEN


def _object(omitted: tuple[str, ...], deeper: tuple[tuple[str, Step], ...]) -> Step:
    below = dict(deeper)
    leaves = frozenset(omitted)

    def run(value: dict[str, Any]) -> None:
        gone = None
        for name, inner in value.items():
            if not inner:
                if inner is not None and name in leaves:
                    gone = [*gone, name] if gone else [name]
            elif (step := below.get(name)) is not None:
                step(inner)
        for name in gone or ():
            del value[name]

    return run
