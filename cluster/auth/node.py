"""What a node's own identity may do: see the cluster's network, and touch only itself and its pods.

It is asked beside RBAC: either may allow.

Source: https://kubernetes.io/docs/reference/access-authn-authz/node/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from steersman.cluster.auth.attributes import ALLOWED, NO_OPINION, Attributes, Verdict
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import PERSISTENT_VOLUMES, RESOURCE_SLICES, VOLUME_ATTACHMENTS, Resource

NODES_GROUP = "system:nodes"
_PREFIX = "system:node:"
_LEASE_NAMESPACE = "kube-node-lease"
_MIRROR = "kubernetes.io/config.mirror"
#: volumes that name a secret in a field of their own
_SECRET_FIELDS = (
    ("azureFile", "secretName"), ("cephfs", "secretRef"), ("cinder", "secretRef"), ("csi", "nodePublishSecretRef"),
    ("flexVolume", "secretRef"), ("iscsi", "secretRef"), ("rbd", "secretRef"), ("scaleIO", "secretRef"),
    ("storageos", "secretRef"),
)  # fmt: skip

_READ = frozenset({"get", "list", "watch"})
#: what any node may do: (group, resource) to verbs; a subresource is part of the resource
_COMMON: dict[tuple[str, str], frozenset[str]] = {
    ("", "services"): _READ,
    ("", "endpoints"): _READ,
    ("", "namespaces"): _READ,
    ("", "events"): frozenset({"create", "patch", "update"}),
    ("events.k8s.io", "events"): frozenset({"create", "patch", "update"}),
    ("discovery.k8s.io", "endpointslices"): _READ,
    ("networking.k8s.io", "networkpolicies"): _READ,
    ("node.k8s.io", "runtimeclasses"): _READ,
    ("storage.k8s.io", "csidrivers"): _READ,
    ("authentication.k8s.io", "tokenreviews"): frozenset({"create"}),
    ("authorization.k8s.io", "subjectaccessreviews"): frozenset({"create"}),
    ("authorization.k8s.io", "localsubjectaccessreviews"): frozenset({"create"}),
    ("certificates.k8s.io", "certificatesigningrequests"): frozenset({"create", "get", "list", "watch"}),
    ("certificates.k8s.io", "clustertrustbundles"): _READ,
}
#: what a node may do with any pod and its own admission looks at closer, by subresource
_PODS = {
    "": frozenset({"create", "delete"}), "status": frozenset({"update", "patch"}), "eviction": frozenset({"create"}),
}  # fmt: skip
_NODES = {"": frozenset({"create", "update", "patch"}), "status": frozenset({"update", "patch"})}
_OWN_OBJECT = frozenset({"get", "create", "update", "patch", "delete"})
_OWN_OBJECT_TEXT = "can only get, create, update, patch, or delete a"
_SLICE_VERBS = ("get", "watch", "list", "create", "update", "patch", "delete", "deletecollection")

#: finds an object by (resource, namespace, name)
Find = Callable[[Resource, str, str], Obj | None]


def node_of(user: str, groups: Sequence[str]) -> str:
    """The node that a user is; empty when it is none."""
    return user[len(_PREFIX) :] if user.startswith(_PREFIX) and NODES_GROUP in groups else ""


def judge(node: str, attributes: Attributes, pods_on: Callable[[str], Iterable[Obj]], find: Find) -> Verdict:
    """Whether a node may do this, as far as it can be told without the object; or why it may not.

    Args:
        pods_on: the pods bound to a node.
    """
    resource, subresource, verb = attributes.resource, attributes.subresource, attributes.verb
    if not subresource and verb in _COMMON.get((attributes.group, resource), ()):
        return ALLOWED
    match attributes.group, resource:
        case "", "nodes":
            return _node(node, attributes)
        case "", "pods":
            return _pod(node, attributes, pods_on)
        case "coordination.k8s.io", "leases":
            if verb not in _OWN_OBJECT:
                return Verdict(False, f"{_OWN_OBJECT_TEXT} node lease")
            if attributes.namespace != _LEASE_NAMESPACE:
                return Verdict(False, f'can only access leases in the "{_LEASE_NAMESPACE}" system namespace')
            own = verb == "create" or attributes.name == node
            return _when(own, "can only access node lease with the same name as the requesting node")
        case "storage.k8s.io", "csinodes":
            if subresource:
                return Verdict(False, "cannot authorize CSINode subresources")
            if verb not in _OWN_OBJECT:
                return Verdict(False, f"{_OWN_OBJECT_TEXT} CSINode")
            own = verb == "create" or attributes.name == node
            return _when(own, "can only access CSINode with the same name as the requesting node")
        case "resource.k8s.io", "resourceslices":
            return _slice(node, attributes, find)
        case "", "serviceaccounts":
            return _account_of(node, attributes, pods_on)
        case group, resource if (group, resource) in _READ_BY_USE:
            return _read_by_use(node, attributes, pods_on, find)
    return NO_OPINION


#: what a node reads only while a pod on it uses it, and how
_READ_BY_USE = {
    ("", "secrets"): _READ,
    ("", "configmaps"): _READ,
    ("", "persistentvolumeclaims"): frozenset({"get"}),
    ("", "persistentvolumes"): frozenset({"get"}),
    ("storage.k8s.io", "volumeattachments"): frozenset({"get"}),
    ("resource.k8s.io", "resourceclaims"): frozenset({"get"}),
}


def _when(fits: bool, why: str) -> Verdict:
    return ALLOWED if fits else Verdict(False, why)


def _related(node: str, fits: bool) -> Verdict:
    return _when(fits, f"no relationship found between node '{node}' and this object")


def _node(node: str, attributes: Attributes) -> Verdict:
    verb, subresource = attributes.verb, attributes.subresource
    if verb in _NODES.get(subresource, ()):
        return ALLOWED
    if subresource or verb not in _READ:
        return NO_OPINION
    what = f"'{attributes.name}'" if attributes.name else "all nodes"
    return _when(attributes.name == node, f"node '{node}' cannot read {what}, only its own Node object")


def _pod(node: str, attributes: Attributes, pods_on: Callable[[str], Iterable[Obj]]) -> Verdict:
    verb, subresource = attributes.verb, attributes.subresource
    if verb in _PODS.get(subresource, ()):
        return ALLOWED
    if subresource or verb not in _READ:
        return NO_OPINION
    if verb != "get":
        if ("spec.nodeName", node) in attributes.selected:
            return ALLOWED
        if not attributes.name:
            return Verdict(False, "can only list/watch pods with spec.nodeName field selector")
    return _related(node, any(_is(pod, attributes) for pod in pods_on(node)))


def _account_of(node: str, attributes: Attributes, pods_on: Callable[[str], Iterable[Obj]]) -> Verdict:
    """Of the service accounts of its pods a node reads the object and asks for tokens."""
    if (attributes.verb, attributes.subresource) != ("get", ""):
        if attributes.verb != "create" or not attributes.name:
            return Verdict(False, "can only create tokens for individual service accounts")
        if attributes.subresource != "token":
            return Verdict(False, "can only create token subresource of service account")
    here = _in_namespace(node, attributes.namespace, pods_on)
    return _related(node, any(_account(pod) == attributes.name for pod in here))


def _slice(node: str, attributes: Attributes, find: Find) -> Verdict:
    verb = attributes.verb
    if attributes.subresource:
        return Verdict(False, "cannot authorize ResourceSlice subresources")
    if verb not in _SLICE_VERBS:
        return Verdict(False, f"only the following verbs are allowed for a ResourceSlice: {', '.join(_SLICE_VERBS)}")
    if verb in ("list", "watch", "deletecollection"):
        own = ("spec.nodeName", node) in attributes.selected
        return _when(own, "can only list/watch/deletecollection resourceslices with spec.nodeName field selector")
    if verb == "create":
        return ALLOWED
    found = find(RESOURCE_SLICES, "", attributes.name) or {}
    return _related(node, (found.get("spec") or {}).get("nodeName") == node)


def _read_by_use(node: str, attributes: Attributes, pods_on: Callable[[str], Iterable[Obj]], find: Find) -> Verdict:
    namespace, name, resource, verb = attributes.namespace, attributes.name, attributes.resource, attributes.verb
    verbs, below = _READ_BY_USE[attributes.group, resource], attributes.subresource
    if resource == "persistentvolumeclaims" and below == "status":
        if verb not in ("update", "patch"):
            return Verdict(False, "can only get/update/patch this type")
    elif verb not in verbs:
        what = "read resources" if len(verbs) > 1 else "get individual resources"
        return Verdict(False, f"can only {what} of this type")
    elif below:
        return Verdict(False, f"cannot {'read' if len(verbs) > 1 else 'get'} subresource")
    elif len(verbs) > 1 and not namespace:
        return Verdict(False, "can only read namespaced object of this type")
    if not name:
        return Verdict(False, "No Object name found")
    if resource == "volumeattachments":
        found = find(VOLUME_ATTACHMENTS, "", name)
        return _related(node, found is not None and (found.get("spec") or {}).get("nodeName") == node)
    if resource == "persistentvolumes":
        claim = ((find(PERSISTENT_VOLUMES, "", name) or {}).get("spec") or {}).get("claimRef") or {}
        namespace, name, resource = claim.get("namespace", ""), claim.get("name", ""), "persistentvolumeclaims"
    wanted = (resource, name)
    return _related(node, any(wanted in references(pod) for pod in _in_namespace(node, namespace, pods_on)))


def _is(pod: Obj, attributes: Attributes) -> bool:
    meta = pod["metadata"]
    return bool(meta["name"] == attributes.name and meta["namespace"] == attributes.namespace)


def _account(pod: Obj) -> str:
    return str(pod["spec"].get("serviceAccountName", "default"))


def _in_namespace(node: str, namespace: str, pods_on: Callable[[str], Iterable[Obj]]) -> Iterator[Obj]:
    return (pod for pod in pods_on(node) if pod["metadata"]["namespace"] == namespace)


def references(pod: Obj) -> set[tuple[str, str]]:
    """The secrets, config maps and claims that a pod uses: (plural, name); none of one that only mirrors another."""
    if _MIRROR in ((pod.get("metadata") or {}).get("annotations") or {}):
        return set()
    spec = pod.get("spec") or {}
    pod_name = (pod.get("metadata") or {}).get("name", "")
    found = {("secrets", row.get("name", "")) for row in spec.get("imagePullSecrets") or ()}
    claims = [*(spec.get("resourceClaims") or ()), *((pod.get("status") or {}).get("resourceClaimStatuses") or ())]
    found |= {("resourceclaims", row["resourceClaimName"]) for row in claims if row.get("resourceClaimName")}
    for volume in spec.get("volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            found.add(("persistentvolumeclaims", claim.get("claimName", "")))
        if volume.get("ephemeral"):
            found.add(("persistentvolumeclaims", f"{pod_name}-{volume.get('name', '')}"))
        for kind, field in _SECRET_FIELDS:
            named = (volume.get(kind) or {}).get(field)
            if named:
                found.add(("secrets", named if isinstance(named, str) else named.get("name", "")))
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
