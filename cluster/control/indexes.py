"""How watched objects can be looked up: each index has one meaning everywhere, so that controllers share them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from steersman.cluster.meta.objects import Obj, labels_of, namespace, owner_references

SERVICE_NAME = "kubernetes.io/service-name"
JOB_NAME = "batch.kubernetes.io/job-name"
JOB_TRACKING = "batch.kubernetes.io/job-tracking"


def controller(obj: Obj) -> Iterable[str]:
    """The uid of the object's controller."""
    return [reference["uid"] for reference in owner_references(obj) if reference.get("controller")]


def owner(obj: Obj) -> Iterable[str]:
    """The uids of all owners."""
    return [reference["uid"] for reference in owner_references(obj)]


def orphan(obj: Obj) -> Iterable[str]:
    """The namespace, for objects that nobody controls."""
    return () if any(reference.get("controller") for reference in owner_references(obj)) else (namespace(obj),)


def tracked(obj: Obj) -> Iterable[str]:
    """`namespace/job` of a pod that its Job still has to count before it may go."""
    if JOB_TRACKING not in (obj["metadata"].get("finalizers") or ()):
        return ()
    jobs = [row["name"] for row in owner_references(obj) if row.get("controller") and row["kind"] == "Job"]
    names = jobs or [labels_of(obj).get(JOB_NAME, "")]
    return (f"{namespace(obj)}/{names[0]}",)


def claim(obj: Obj) -> Iterable[str]:
    """`namespace/claim` of each claim that a pod's volumes name, or that is made for one of them."""
    found = []
    for volume in (obj.get("spec") or {}).get("volumes") or ():
        if "persistentVolumeClaim" in volume:
            found.append(f"{namespace(obj)}/{volume['persistentVolumeClaim'].get('claimName', '')}")
        elif "ephemeral" in volume:
            found.append(f"{namespace(obj)}/{obj['metadata']['name']}-{volume['name']}")
    return found


def attributes(obj: Obj) -> Iterable[str]:
    """The classes of attributes that a volume or a claim has, or is to have."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    target = (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName")
    names = (spec.get("volumeAttributesClassName"), status.get("currentVolumeAttributesClassName"), target)
    return {name for name in names if name}


def in_namespace(obj: Obj) -> Iterable[str]:
    """The namespace; empty for cluster-scoped objects."""
    return (namespace(obj),)


def label(obj: Obj) -> Iterable[str]:
    """`namespace/key=value` for each label."""
    space = namespace(obj)
    return [f"{space}/{key}={value}" for key, value in labels_of(obj).items()]


def selector(obj: Obj) -> Iterable[str]:
    """`namespace/key=value` for the first pair of a service's selector; nothing for one without a selector."""
    wanted = (obj.get("spec") or {}).get("selector")
    if not wanted:
        return ()
    key = min(wanted)
    return (f"{namespace(obj)}/{key}={wanted[key]}",)


def service(obj: Obj) -> Iterable[str]:
    """`namespace/service` of an endpoint slice."""
    found = labels_of(obj).get(SERVICE_NAME)
    return (f"{namespace(obj)}/{found}",) if found else ()


def node(obj: Obj) -> Iterable[str]:
    """The node a pod is bound to; empty for one that is bound to none."""
    return ((obj.get("spec") or {}).get("nodeName") or "",)


def pod_cidr(obj: Obj) -> Iterable[str]:
    """The pod ranges of a node."""
    spec = obj.get("spec") or {}
    return spec.get("podCIDRs") or ((spec["podCIDR"],) if spec.get("podCIDR") else ())


def phase(obj: Obj) -> Iterable[str]:
    """A pod's phase."""
    return ((obj.get("status") or {}).get("phase") or "",)


def aggregating(obj: Obj) -> Iterable[str]:
    """The empty text, for cluster roles that gather others."""
    return ("",) if obj.get("aggregationRule") else ()


def uid(obj: Obj) -> Iterable[str]:
    return (obj["metadata"].get("uid", ""),)


INDEXES: Mapping[str, Callable[[Obj], Iterable[str]]] = {
    "controller": controller,
    "owner": owner,
    "orphan": orphan,
    "tracked": tracked,
    "namespace": in_namespace,
    "label": label,
    "selector": selector,
    "service": service,
    "node": node,
    "pod-cidr": pod_cidr,
    "phase": phase,
    "uid": uid,
    "aggregating": aggregating,
    "claim": claim,
    "attributes": attributes,
}
