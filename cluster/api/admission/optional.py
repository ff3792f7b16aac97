"""Plugins that are off unless the cluster's configuration names them, and that need no configuration of their own.

    AlwaysPullImages                       nobody runs an image without being allowed to pull it
    DenyServiceExternalIPs                 nobody draws traffic to addresses that are not theirs
    ExtendedResourceToleration             who asks for a special device tolerates the taint of its name
    LimitPodHardAntiAffinityTopology       nobody keeps others off more than single nodes
    OwnerReferencesPermissionEnforcement   nobody binds the life of objects that they may not delete

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

from __future__ import annotations

from steersman.cluster.api.admission.attempt import CREATE, Attempt, aggregated
from steersman.cluster.api.cel import Decision, Question
from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.rules.resources import is_extended
from steersman.cluster.meta.objects import Obj, owner_references

_HOST = "kubernetes.io/hostname"
_ALWAYS = "Always"
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")


def pull_images(attempt: Attempt, _ctx: WriteContext) -> None:
    """Makes every container and every volume of a pod pull its image; one that gets no new images stays as it is."""
    if not _has_new_images(attempt):
        return
    for _, container in _containers(attempt.obj):
        container["imagePullPolicy"] = _ALWAYS
    for _, image in _image_volumes(attempt.obj):
        image["pullPolicy"] = _ALWAYS


def validate_pulls(attempt: Attempt, _ctx: WriteContext) -> None:
    """Refuses a pod that somebody has let go without pulling after all."""
    if not _has_new_images(attempt):
        return
    policies = [(f"{path}.imagePullPolicy", row.get("imagePullPolicy", "")) for path, row in _containers(attempt.obj)]
    policies += [(f"{path}.pullPolicy", image.get("pullPolicy", "")) for path, image in _image_volumes(attempt.obj)]
    wrong = [
        f'{path}: Unsupported value: "{policy}": supported values: "{_ALWAYS}"'
        for path, policy in policies
        if policy != _ALWAYS
    ]
    if wrong:
        raise attempt.forbidden(aggregated(wrong))


def _has_new_images(attempt: Attempt) -> bool:
    old = {row.get("image") for _, row in _containers(attempt.old)}
    return attempt.old is None or any(row.get("image") not in old for _, row in _containers(attempt.obj))


def _containers(pod: Obj | None) -> list[tuple[str, Obj]]:
    """Every container of a pod, with its path."""
    spec = (pod or {}).get("spec") or {}
    return [(f"spec.{field}[{at}]", row) for field in _CONTAINERS for at, row in enumerate(spec.get(field) or ())]


def _image_volumes(pod: Obj | None) -> list[tuple[str, Obj]]:
    """The images that are volumes of a pod, with their paths."""
    volumes = ((pod or {}).get("spec") or {}).get("volumes") or ()
    return [(f"spec.volumes[{at}].image", row["image"]) for at, row in enumerate(volumes) if row.get("image")]


def tolerate_devices(attempt: Attempt, _ctx: WriteContext) -> None:
    """Makes a pod tolerate the taints that keep others off the nodes with the devices it asks for."""
    spec = (attempt.obj or {}).get("spec") or {}
    containers = [row for field in ("containers", "initContainers") for row in spec.get(field) or ()]
    names = {name for row in containers for name in (row.get("resources") or {}).get("requests") or ()}
    for name in sorted(names):
        row = {"key": name, "operator": "Exists", "effect": "NoSchedule"}
        if is_extended(name) and row not in (spec.get("tolerations") or ()):
            spec["tolerations"] = [*(spec.get("tolerations") or ()), row]


def validate_affinity(attempt: Attempt, _ctx: WriteContext) -> None:
    """Refuses a pod that must not be where others are in any other sense than on the same node."""
    affinity = ((attempt.obj or {}).get("spec") or {}).get("affinity") or {}
    for term in (affinity.get("podAntiAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution") or ():
        if (key := term.get("topologyKey", "")) != _HOST:
            raise attempt.forbidden(
                f"affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {_HOST} is "
                "allowed"
            )


def validate_addresses(attempt: Attempt, _ctx: WriteContext) -> None:
    """Refuses a Service with external addresses that it has not had."""
    new, old = (set(((obj or {}).get("spec") or {}).get("externalIPs") or ()) for obj in (attempt.obj, attempt.old))
    if new - old:
        raise attempt.forbidden("Use of external IPs is denied by admission control")


def validate_owners(attempt: Attempt, ctx: WriteContext) -> None:
    """Refuses owner references by somebody who may not delete the object, or block the deletion of its owners.

    Who makes an object may say whose it is.
    """
    obj, old = attempt.obj, attempt.old
    if obj is None or "metadata" not in obj or (attempt.resource, attempt.subresource) == (("", "pods"), "status"):
        return
    before = owner_references(old) if old is not None else []
    if owner_references(obj) == before:
        return
    if attempt.operation != CREATE:
        _check_delete(attempt, ctx)
    blocked = {row["uid"] for row in before if row.get("blockOwnerDeletion")}
    for row in owner_references(obj):
        if row.get("blockOwnerDeletion") and row.get("uid") not in blocked:
            _check_owner(attempt, row, ctx)


def _check_delete(attempt: Attempt, ctx: WriteContext) -> None:
    resource = attempt.kind.resource
    verdict: Decision = ctx.authorize(
        Question(
            verb="delete", group=resource.group, resource=resource.plural, subresource=attempt.subresource,
            namespace=attempt.namespace, name=attempt.name,
        )
    )  # fmt: skip
    if not verdict.allowed:
        detail = f"cannot set an ownerRef on a resource you can't delete: {verdict.reason}, <nil>"
        raise attempt.forbidden(detail)


def _check_owner(attempt: Attempt, reference: Obj, ctx: WriteContext) -> None:
    version, name = reference.get("apiVersion", ""), reference.get("kind", "")
    owner = ctx.by_kind(version, name)
    if owner is None:
        raise attempt.forbidden(
            f"cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {version} "
            f'Kind {name}: no matches for kind "{name}" in version "{version}"'
        )
    verdict: Decision = ctx.authorize(
        Question(
            verb="update", group=owner.resource.group, resource=owner.resource.plural, subresource="finalizers",
            namespace=attempt.namespace if owner.resource.namespaced else "", name=reference.get("name", ""),
        )
    )  # fmt: skip
    if not verdict.allowed:
        raise attempt.forbidden(
            "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: "
            f"{verdict.reason}, <nil>"
        )
