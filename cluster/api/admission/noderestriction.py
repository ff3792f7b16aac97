"""NodeRestriction: what a node may write of itself, its pods and their claims, of all that it may touch.

What a node's identity may touch at all is the node authorizer's business.

Source: k8s.io/kubernetes/plugin/pkg/admission/noderestriction/admission.go
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from steersman.cluster.api.admission.attempt import CONNECT, CREATE, DELETE, UPDATE, Attempt
from steersman.cluster.api.cel import Question
from steersman.cluster.api.context import WriteContext
from steersman.cluster.meta import errors
from steersman.cluster.meta.objects import Obj, labels_of
from steersman.cluster.meta.resources import CSI_DRIVERS, NODES, PERSISTENT_VOLUMES, PODS
from steersman.cluster.meta.resources import PERSISTENT_VOLUME_CLAIMS as CLAIMS

_USER, _GROUP = "system:node:", "system:nodes"
_MIRROR = "kubernetes.io/config.mirror"
_LEASES = "kube-node-lease"
#: labels of Kubernetes' own that a node may set
_OWN = frozenset(
    {
        "kubernetes.io/hostname", "topology.kubernetes.io/zone", "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region",
        "node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type", "kubernetes.io/os",
        "beta.kubernetes.io/os", "kubernetes.io/arch", "beta.kubernetes.io/arch", "node.kubernetes.io/windows-build",
    }
)  # fmt: skip
_OWN_SPACES = ("kubelet.kubernetes.io", "node.kubernetes.io")
#: of the status of a claim what a node may change
_CLAIM_STATUS = ("capacity", "conditions", "allocatedResources", "allocatedResourceStatuses")


def admit(attempt: Attempt, ctx: WriteContext) -> None:
    """Refuses what a node may not write.

    Raises:
        Forbidden, NotFound
    """
    if not ctx.user.startswith(_USER) or _GROUP not in ctx.groups or attempt.operation == CONNECT:
        return
    node = ctx.user.removeprefix(_USER)
    if not node:
        raise attempt.forbidden(f'could not determine node from user "{ctx.user}"')
    rule = _RULES.get(attempt.resource)
    if rule is not None:
        rule(node, attempt, ctx)


# ---- pods


def _pods(node: str, attempt: Attempt, ctx: WriteContext) -> None:
    match attempt.subresource, attempt.operation:
        case "", "CREATE":
            _mirror_pod(node, attempt, ctx)
        case "", "DELETE":
            if _node_of(_pod(attempt, ctx, attempt.name)) != node:
                raise attempt.forbidden(f'node "{node}" can only delete pods with spec.nodeName set to itself')
        case "", operation:
            text = f'unexpected operation "{operation}", node "{node}" can only create and delete mirror pods'
            raise attempt.forbidden(text)
        case "status", _:
            _pod_status(node, attempt)
        case "eviction", _:
            name = attempt.name or ((attempt.obj or {}).get("metadata") or {}).get("name", "")
            if _node_of(_pod(attempt, ctx, name)) != node:
                raise attempt.forbidden(f"node {node} can only evict pods with spec.nodeName set to itself")
        case below, _:
            text = f"unexpected pod subresource \"{below}\", only 'status' and 'eviction' are allowed"
            raise attempt.forbidden(text)


def _pod(attempt: Attempt, ctx: WriteContext, name: str) -> Obj:
    found = ctx.lookup(PODS, attempt.namespace, name)
    if found is None:
        raise errors.not_found(PODS.plural, name)
    return found


def _node_of(pod: Obj) -> str:
    return str((pod.get("spec") or {}).get("nodeName", ""))


def _mirror_pod(node: str, attempt: Attempt, ctx: WriteContext) -> None:
    pod = attempt.obj or {}
    meta, spec = pod.get("metadata") or {}, pod.get("spec") or {}
    if _MIRROR not in (meta.get("annotations") or {}):
        text = f'pod does not have "{_MIRROR}" annotation, node "{node}" can only create mirror pods'
        raise attempt.forbidden(text)
    if _node_of(pod) != node:
        raise attempt.forbidden(f'node "{node}" can only create pods with spec.nodeName set to itself')
    if wrong := _wrong_owner(node, meta.get("ownerReferences") or []):
        raise attempt.forbidden(wrong)
    owner, own = meta["ownerReferences"][0], ctx.lookup(NODES, "", node)
    if own is None:
        raise errors.not_found(NODES.plural, node)
    if owner.get("uid") != own["metadata"].get("uid"):
        found = owner.get("uid", "")
        raise attempt.forbidden(f"node {node} UID mismatch: expected {found} got {own['metadata'].get('uid', '')}")
    if spec.get("serviceAccountName"):
        raise attempt.forbidden(f'node "{node}" can not create pods that reference a service account')
    for what, uses in references(spec):
        if uses:
            raise attempt.forbidden(f'node "{node}" can not create pods that reference {what}')


def _wrong_owner(node: str, owners: list[Obj]) -> str:
    if len(owners) > 1:
        return f'node "{node}" can only create pods with a single owner reference set to itself'
    itself = f'node "{node}" can only create pods with an owner reference set to itself'
    if not owners:
        return itself
    (owner,) = owners
    if (owner.get("apiVersion"), owner.get("kind"), owner.get("name")) != ("v1", "Node", node):
        return itself
    if not owner.get("controller"):
        return f'node "{node}" can only create pods with a controller owner reference set to itself'
    if owner.get("blockOwnerDeletion"):
        return f'node "{node}" must not set blockOwnerDeletion on an owner reference'
    return ""


def references(spec: Obj) -> Iterable[tuple[str, bool]]:
    volumes = spec.get("volumes") or []
    sources = [*volumes, *(row for volume in volumes for row in (volume.get("projected") or {}).get("sources") or ())]
    fields = ("initContainers", "containers", "ephemeralContainers")
    containers = [row for field in fields for row in spec.get(field) or ()]
    given = [row for container in containers for row in container.get("envFrom") or ()]
    values = [row.get("valueFrom") or {} for container in containers for row in container.get("env") or ()]

    def used(source: str, *references: str) -> bool:
        rows = [row.get(source) for row in sources]
        return any(rows) or any(row.get(reference) for row in (*given, *values) for reference in references)

    pulls = bool(spec.get("imagePullSecrets"))
    yield "secrets", pulls or used("secret", "secretRef", "secretKeyRef")
    yield "configmaps", used("configMap", "configMapRef", "configMapKeyRef")
    yield "clustertrustbundles", any(row.get("clusterTrustBundle") for row in sources)
    yield "resourceclaims", bool(spec.get("resourceClaims"))
    yield "persistentvolumeclaims", any(row.get("persistentVolumeClaim") for row in volumes)


def _pod_status(node: str, attempt: Attempt) -> None:
    if attempt.operation != UPDATE:
        raise attempt.forbidden(f'unexpected operation "{attempt.operation}"')
    new, old = attempt.obj or {}, attempt.old or {}
    if _node_of(old) != node:
        text = f'node "{node}" can only update pod status for pods with spec.nodeName set to itself'
        raise attempt.forbidden(text)
    if labels_of(old) != labels_of(new):
        raise attempt.forbidden(f'node "{node}" cannot update labels through pod status')
    if _claims_of(old) != _claims_of(new):
        raise attempt.forbidden(f'node "{node}" cannot update resource claim statues')


def _claims_of(pod: Obj) -> list[tuple[str, str | None]]:
    rows = (pod.get("status") or {}).get("resourceClaimStatuses") or ()
    return [(row.get("name", ""), row.get("resourceClaimName")) for row in rows]


# ---- the node itself


def _nodes(node: str, attempt: Attempt, _ctx: WriteContext) -> None:
    new, old = attempt.obj or {}, attempt.old or {}
    name = attempt.name or (new.get("metadata") or {}).get("name", "")
    if name != node:
        raise attempt.forbidden(f'node "{node}" is not allowed to modify node "{name}"')
    if attempt.operation == CREATE:
        if (new.get("spec") or {}).get("configSource") is not None:
            raise attempt.forbidden(f'node "{node}" is not allowed to create pods with a non-nil configSource')
        if wrong := _restricted(labels_of(new)):
            text = f'node "{node}" is not allowed to set the following labels: {", ".join(wrong)}'
            raise attempt.forbidden(text)
    if attempt.operation != UPDATE:
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
    return key not in _OWN and _is_under(space, ("kubernetes.io", "k8s.io")) and not _is_under(space, _OWN_SPACES)


def _is_under(space: str, domains: tuple[str, ...]) -> bool:
    return any(space == domain or space.endswith(f".{domain}") for domain in domains)


# ---- the rest


def _claims(node: str, attempt: Attempt, _ctx: WriteContext) -> None:
    if attempt.subresource != "status":
        raise attempt.forbidden("may only update PVC status")
    if attempt.operation != UPDATE:
        raise attempt.forbidden(f'unexpected operation "{attempt.operation}"')
    if _fixed(attempt.obj or {}) != _fixed(attempt.old or {}):
        text = f'node "{node}" is not allowed to update fields other than status.capacity and status.conditions'
        raise attempt.forbidden(text)


def _fixed(claim: Obj) -> Obj:
    meta = {k: v for k, v in (claim.get("metadata") or {}).items() if k not in ("resourceVersion", "managedFields")}
    status = {key: value for key, value in (claim.get("status") or {}).items() if key not in _CLAIM_STATUS}
    return {**claim, "metadata": meta, "status": status}


def _accounts(node: str, attempt: Attempt, ctx: WriteContext) -> None:
    if attempt.operation != CREATE or attempt.subresource != "token":
        return
    bound = ((attempt.obj or {}).get("spec") or {}).get("boundObjectRef") or {}
    name, uid = bound.get("name", ""), bound.get("uid", "")
    if (bound.get("apiVersion"), bound.get("kind")) != ("v1", "Pod") or not name:
        raise attempt.forbidden("node requested token not bound to a pod")
    if not uid:
        raise attempt.forbidden("node requested token with a pod binding without a uid")
    pod = _pod(attempt, ctx, name)
    if uid != pod["metadata"].get("uid"):
        raise attempt.forbidden(
            f"the UID in the bound object reference ({uid}) does not match the UID in record. The object might have"
            " been deleted and then recreated"
        )
    if _node_of(pod) != node:
        raise attempt.forbidden("node requested token bound to a pod scheduled on a different node")
    if wrong := _wrong_audience(node, attempt, pod, ctx):
        raise attempt.forbidden(wrong)


def _wrong_audience(node: str, attempt: Attempt, pod: Obj, ctx: WriteContext) -> str:
    """A node gets tokens for whom the pod's volumes are to show them to, or for whom it may ask all the same."""
    audiences = ((attempt.obj or {}).get("spec") or {}).get("audiences") or [""]
    if len(audiences) > 1:
        return "node may only request 0 or 1 audiences"
    (audience,) = audiences
    if audience in _audiences_of(pod, attempt.namespace, ctx):
        return ""
    question = Question(
        verb="request-serviceaccounts-token-audience", resource=audience, namespace=attempt.namespace, name=attempt.name
    )
    if ctx.authorize(question).allowed:
        return ""
    return (
        f'audience "{audience}" not found in pod spec volume, {_USER}{node} is not authorized to request tokens for'
        " this audience"
    )


def _audiences_of(pod: Obj, namespace: str, ctx: WriteContext) -> Iterator[str]:
    """For whom the volumes of a pod need tokens; empty for the API server."""
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        for source in (volume.get("projected") or {}).get("sources") or ():
            if (token := source.get("serviceAccountToken")) is not None:
                yield token.get("audience", "")
        driver = ctx.lookup(CSI_DRIVERS, "", name) if (name := _driver_of(volume, pod, namespace, ctx)) else None
        for row in ((driver or {}).get("spec") or {}).get("tokenRequests") or ():
            yield row.get("audience", "")


def _driver_of(volume: Obj, pod: Obj, namespace: str, ctx: WriteContext) -> str:
    """The CSI driver of a volume, be it the pod's own, a claim's or that of an ephemeral claim."""
    if inline := volume.get("csi"):
        return str(inline.get("driver", ""))
    claim = (volume.get("persistentVolumeClaim") or {}).get("claimName", "")
    if volume.get("ephemeral"):
        claim = f"{pod['metadata']['name']}-{volume.get('name', '')}"
    bound = ((ctx.lookup(CLAIMS, namespace, claim) or {}).get("spec") or {}).get("volumeName", "") if claim else ""
    found = ctx.lookup(PERSISTENT_VOLUMES, "", bound) if bound else None
    return str((((found or {}).get("spec") or {}).get("csi") or {}).get("driver", ""))


def _leases(node: str, attempt: Attempt, _ctx: WriteContext) -> None:
    if attempt.namespace != _LEASES:
        raise attempt.forbidden(f'can only access leases in the "{_LEASES}" system namespace')
    if _name_of(attempt) != node:
        raise attempt.forbidden("can only access node lease with the same name as the requesting node")


def _csi_nodes(node: str, attempt: Attempt, _ctx: WriteContext) -> None:
    if _name_of(attempt) != node:
        raise attempt.forbidden("can only access CSINode with the same name as the requesting node")


def _slices(node: str, attempt: Attempt, _ctx: WriteContext) -> None:
    obj = attempt.old if attempt.operation == DELETE else attempt.obj
    if attempt.operation in (CREATE, DELETE) and _node_of(obj or {}) != node:
        text = f"can only {attempt.operation.lower()} ResourceSlice with the same NodeName as the requesting node"
        raise attempt.forbidden(text)


def _name_of(attempt: Attempt) -> str:
    """The name of the object, also of one that is to be created."""
    meta = ((attempt.obj if attempt.operation != DELETE else attempt.old) or {}).get("metadata") or {}
    return str(meta.get("name") or attempt.name)


_RULES: dict[tuple[str, str], Callable[[str, Attempt, WriteContext], None]] = {
    ("", "pods"): _pods,
    ("", "nodes"): _nodes,
    ("", "persistentvolumeclaims"): _claims,
    ("", "serviceaccounts"): _accounts,
    ("coordination.k8s.io", "leases"): _leases,
    ("storage.k8s.io", "csinodes"): _csi_nodes,
    ("resource.k8s.io", "resourceslices"): _slices,
}
