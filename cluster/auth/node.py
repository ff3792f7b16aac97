"""What a node's own identity may do: see the cluster's network, and touch only itself and its pods.

`allows` is asked beside RBAC (either may allow); `refusal` afterwards, before a node's write, with the object at hand.

Source: https://kubernetes.io/docs/reference/access-authn-authz/node/ and the NodeRestriction admission plugin
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from steersman.cluster.auth.attributes import Attributes
from steersman.cluster.meta.objects import Obj

NODES_GROUP = "system:nodes"
_PREFIX = "system:node:"
_LEASE_NAMESPACE = "kube-node-lease"

_READ = frozenset({"get", "list", "watch"})
#: what any node may do: (group, resource) to verbs; a subresource is part of the resource
_COMMON: dict[tuple[str, str], frozenset[str]] = {
    ("", "services"): _READ,
    ("", "endpoints"): _READ,
    ("", "namespaces"): _READ,
    ("", "nodes"): _READ | {"create"},
    ("", "pods"): _READ | {"create"},
    ("", "events"): frozenset({"create", "patch", "update"}),
    ("events.k8s.io", "events"): frozenset({"create", "patch", "update"}),
    ("discovery.k8s.io", "endpointslices"): _READ,
    ("networking.k8s.io", "networkpolicies"): _READ,
    ("node.k8s.io", "runtimeclasses"): _READ,
    ("storage.k8s.io", "csidrivers"): _READ,
    ("", "persistentvolumes"): frozenset({"get"}),
    ("", "persistentvolumeclaims"): frozenset({"get"}),
    ("authentication.k8s.io", "tokenreviews"): frozenset({"create"}),
    ("authorization.k8s.io", "subjectaccessreviews"): frozenset({"create"}),
    ("certificates.k8s.io", "certificatesigningrequests"): frozenset({"create", "get", "list", "watch"}),
}
#: what a node may do with pods bound to it
_OWN_POD = {"": frozenset({"delete"}), "status": frozenset({"update", "patch"}), "eviction": frozenset({"create"})}


def node_of(user: str, groups: Sequence[str]) -> str:
    """The node that a user is; empty when it is none."""
    return user[len(_PREFIX) :] if user.startswith(_PREFIX) and NODES_GROUP in groups else ""


def allows(node: str, attributes: Attributes, pods_on: Callable[[str], Iterable[Obj]]) -> bool:
    """Whether a node may do this, as far as it can be told without the object.

    Args:
        pods_on: the pods bound to a node.
    """
    resource, subresource, verb = attributes.resource, attributes.subresource, attributes.verb
    if not subresource and verb in _COMMON.get((attributes.group, resource), ()):
        return True
    match attributes.group, resource:
        case "", "nodes":
            return attributes.name == node and subresource in ("", "status") and verb in ("get", "update", "patch")
        case "", "pods":
            return verb in _OWN_POD.get(subresource, ()) and _is_here(node, attributes, pods_on)
        case "coordination.k8s.io", "leases":
            own = attributes.namespace == _LEASE_NAMESPACE and attributes.name in (node, "")
            return own and verb in ("get", "create", "update", "patch", "delete")
        case "", "secrets" | "configmaps":
            one = verb in _READ and bool(attributes.name) and not subresource
            return one and _is_used(node, attributes, pods_on)
        case "", "serviceaccounts":
            if subresource == "token":
                return verb == "create" and _uses_account(node, attributes, pods_on)
            return verb == "get" and not subresource and _uses_account(node, attributes, pods_on)
    return False


def _is_here(node: str, attributes: Attributes, pods_on: Callable[[str], Iterable[Obj]]) -> bool:
    return any(
        pod["metadata"]["name"] == attributes.name and pod["metadata"]["namespace"] == attributes.namespace
        for pod in pods_on(node)
    )


def _in_namespace(node: str, namespace: str, pods_on: Callable[[str], Iterable[Obj]]) -> Iterator[Obj]:
    return (pod for pod in pods_on(node) if pod["metadata"]["namespace"] == namespace)


def _is_used(node: str, attributes: Attributes, pods_on: Callable[[str], Iterable[Obj]]) -> bool:
    wanted = (attributes.resource, attributes.name)
    return any(wanted in references(pod) for pod in _in_namespace(node, attributes.namespace, pods_on))


def _uses_account(node: str, attributes: Attributes, pods_on: Callable[[str], Iterable[Obj]]) -> bool:
    return any(
        pod["spec"].get("serviceAccountName", "default") == attributes.name
        for pod in _in_namespace(node, attributes.namespace, pods_on)
    )


def references(pod: Obj) -> set[tuple[str, str]]:
    """The secrets and config maps that a pod names: (plural, name)."""
    spec = pod.get("spec") or {}
    found = {("secrets", row.get("name", "")) for row in spec.get("imagePullSecrets") or ()}
    for volume in spec.get("volumes") or ():
        sources = [volume, *((volume.get("projected") or {}).get("sources") or ())]
        for source in sources:
            if secret := source.get("secret"):
                found.add(("secrets", secret.get("secretName") or secret.get("name", "")))
            if config_map := source.get("configMap"):
                found.add(("configmaps", config_map.get("name", "")))
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(field) or ():
            for source in container.get("envFrom") or ():
                _add(found, source.get("secretRef"), source.get("configMapRef"))
            for variable in container.get("env") or ():
                value = variable.get("valueFrom") or {}
                _add(found, value.get("secretKeyRef"), value.get("configMapKeyRef"))
    return found


def _add(found: set[tuple[str, str]], secret: Obj | None, config_map: Obj | None) -> None:
    if secret:
        found.add(("secrets", secret.get("name", "")))
    if config_map:
        found.add(("configmaps", config_map.get("name", "")))


def refusal(node: str, attributes: Attributes, obj: Obj) -> str:
    """Why a node may not write this object; empty when it may."""
    name = (obj.get("metadata") or {}).get("name", "")
    if attributes.group == "" and attributes.resource == "nodes" and name != node:
        return f'node "{node}" is not allowed to modify node "{name}"'
    if attributes.group == "" and attributes.resource == "pods" and attributes.verb == "create":
        if not attributes.subresource and (obj.get("spec") or {}).get("nodeName") != node:
            return f'node "{node}" can only create pods with spec.nodeName set to itself'
        if not attributes.subresource and references(obj):
            return f'node "{node}" can not create pods that reference secrets or configmaps'
    if attributes.group == "coordination.k8s.io" and name != node:
        return f'node "{node}" can only access node lease with the same name as the requesting node'
    if attributes.subresource == "token":
        bound = (obj.get("spec") or {}).get("boundObjectRef") or {}
        if bound.get("kind") != "Pod":
            return f'node "{node}" can only create tokens bound to a pod on it'
    return ""
