"""The one way in which objects come to be and change: REST and gRPC alike call these functions.

Order as in Kubernetes: defaults, admission that changes, what the server decides itself, validation, addresses and
ports, field ownership, admission that only looks. Nothing here reads a clock, draws a number or waits; what a write
needs is in its `WriteContext`, whom it has to ask it yields (`Steps`), and what is to be stored is returned.

Source: k8s.io/apiserver/pkg/registry/rest/{create,update}.go
"""

from __future__ import annotations

import orjson
from msgspec.structs import replace

from steersman.cluster.api import patch as patches
from steersman.cluster.api import ssa
from steersman.cluster.api.admission import chain
from steersman.cluster.api.admission import warnings as sentences
from steersman.cluster.api.admission.attempt import CREATE, UPDATE, Attempt
from steersman.cluster.api.allocate import Reservations, allocate, reallocate, releases_of
from steersman.cluster.api.context import ApiSettings, Deletion, WriteContext, Written
from steersman.cluster.api.custom.conversion import ConversionFailed
from steersman.cluster.api.decode import LARGE_BYTES, as_json, decode, media_type, reads_slowly, takes_long
from steersman.cluster.api.fieldset import Ambiguous
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.managed import with_entries
from steersman.cluster.api.patching import (
    APPLY_PATCH,
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_PATCH,
    configuration,
    patched,
)
from steersman.cluster.api.removal import delete, is_done
from steersman.cluster.api.row import Kind
from steersman.cluster.api.rules import options
from steersman.cluster.api.rules.fields import bad
from steersman.cluster.api.rules.metadata import (
    DUPLICATE_OWNERS,
    DUPLICATE_OWNERS_AFTER_ADMISSION,
    IMMUTABLE,
    dedupe_owners,
    validate_metadata,
    validate_metadata_update,
)
from steersman.cluster.api.scale import check_replicas, scale_of, scaled_configuration, with_scale
from steersman.cluster.api.steps import Steps
from steersman.cluster.api.typed import refusal
from steersman.cluster.api.versions import in_versions
from steersman.cluster.meta import errors
from steersman.cluster.meta.errors import BadRequest, Cause
from steersman.cluster.meta.names import generated_name
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.times import format_time

__all__ = [
    "LARGE_BYTES",
    "ApiSettings",
    "Deletion",
    "WriteContext",
    "Written",
    "admit",
    "as_json",
    "check_name",
    "check_patch_type",
    "check_uid",
    "create",
    "decode",
    "delete",
    "options_of",
    "patch",
    "reads_slowly",
    "representation",
    "takes_long",
    "update",
]  # fmt: skip

_STALE = "the object has been modified; please apply your changes to the latest version and try again"
#: who owns the fields of what the server makes beside an object
_SERVER = "steersman-apiserver"
#: groups whose kinds Kubernetes keeps by it, and kinds that it keeps by other names
_GROUPS_IN_KEYS = ("apiextensions.k8s.io", "apiregistration.k8s.io")
_PLACES = {
    "endpoints": "services/endpoints", "ingresses": "ingress", "nodes": "minions",
    "replicationcontrollers": "controllers", "services": "services/specs",
}  # fmt: skip
#: metadata that only the server writes
_SERVER_KEYS = (
    "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink",
    "generation",
)  # fmt: skip
#: of these, what validation refuses where the object has none, instead of leaving it out
_IMMUTABLE_KEYS = ("deletionTimestamp", "deletionGracePeriodSeconds")


def create(registry: Registry, kind: Kind, obj: Obj, ctx: WriteContext, namespace: str = "") -> Steps[Written]:
    """Makes a new object of what the client sent; `obj` is taken over and changed.

    Raises:
        BadRequest, Invalid, Forbidden, NotFound (its namespace does not exist), ...
    """
    _name_owners_once(obj.get("metadata") or {}, ctx, DUPLICATE_OWNERS)
    return _create(registry, kind, obj, ctx, namespace, track=True)


def _create(
    registry: Registry, kind: Kind, obj: Obj, ctx: WriteContext, namespace: str, *, track: bool
) -> Steps[Written]:
    meta = _place(kind, obj, namespace)
    kind.defaults(obj)
    if track:
        obj = _tracked(registry, kind, obj, ctx)
        meta = obj["metadata"]
    attempt = Attempt(
        operation=CREATE, kind=kind, namespace=meta.get("namespace", ""), name=meta.get("name", ""), obj=obj,
        options=options_of(ctx),
    )  # fmt: skip
    yield from chain.mutate(registry, attempt, ctx)
    if attempt.changed:
        assert attempt.obj is not None
        obj = attempt.obj
        meta = _place(kind, obj, namespace)
    _name_owners_once(meta, ctx, DUPLICATE_OWNERS_AFTER_ADMISSION)
    if not meta.get("name") and meta.get("generateName"):
        meta["name"] = attempt.name = generated_name(meta["generateName"], ctx.random_suffix())
    for key in _SERVER_KEYS:
        meta.pop(key, None)
    meta["uid"] = ctx.new_uid()
    meta["creationTimestamp"] = format_time(ctx.now)
    if kind.has_generation:
        meta["generation"] = 1
    if kind.new_status is not None:
        obj["status"] = patches.copied(kind.new_status)
    kind.prepare_create(obj, ctx)
    causes = _metadata_causes(kind, meta)
    causes += kind.validate(obj) + kind.validate_create(obj)
    _refuse(kind, meta.get("name", ""), causes, ctx)
    if kind.observe is not None:
        kind.observe(registry, obj)
    reservations = _owned(registry, allocate(kind, obj, ctx), ctx)
    attempt.obj = obj
    yield from chain.validate(registry, attempt, ctx)
    return Written(obj=obj, warnings=tuple(sentences.of(kind, obj)), reservations=reservations)


def _tracked(registry: Registry, kind: Kind, obj: Obj, ctx: WriteContext) -> Obj:
    """The new object with who owns its fields: what the server adds from here on, and its status, belong to nobody."""
    own = {key: value for key, value in obj.items() if key != "status"} if "status" in kind.subresources else obj
    found = ssa.track_update(
        registry.schema(kind), None, own, manager=ctx.field_manager, api_version=kind.api_version, now=ctx.now,
        only=kind.owned.get("", ()),
    )  # fmt: skip
    return {**obj, "metadata": found["metadata"]}


def _owned(registry: Registry, reservations: Reservations, ctx: WriteContext) -> Reservations:
    """What is reserved, with the server as the owner of its objects' fields."""
    found = dict(reservations)
    for key, obj in reservations.items():
        kind = None if obj is None else registry.by_kind(obj["apiVersion"], obj["kind"])
        if kind is not None and obj is not None and registry.defines(kind):
            found[key] = _tracked(registry, kind, obj, replace(ctx, field_manager=_SERVER))
    return found


def admit(registry: Registry, attempt: Attempt, ctx: WriteContext) -> Steps[None]:
    """The admission of what makes no object: a delete, a connection, an action on another object.

    Raises:
        ApiError: somebody refuses.
    """
    yield from chain.mutate(registry, attempt, ctx)
    yield from chain.validate(registry, attempt, ctx)


def options_of(ctx: WriteContext) -> Obj:
    """The options of a write as webhooks are shown them."""
    options: Obj = {"fieldManager": ctx.field_manager, "fieldValidation": ctx.field_validation}
    if ctx.dry_run:
        options["dryRun"] = ["All"]
    return options


def _place(kind: Kind, obj: Obj, namespace: str) -> Obj:
    meta: Obj = obj.setdefault("metadata", {})
    _check_namespace(kind, meta, namespace)
    if kind.resource.namespaced and namespace:
        meta["namespace"] = namespace
    if meta.pop("resourceVersion", "") not in ("", "0", None):
        raise errors.BadRequest("resourceVersion should not be set on objects to be created")
    return meta


#: of groups whose rules do not ask finalizers for a domain
_PLAIN_GROUPS = frozenset(("admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io"))


def _metadata_causes(kind: Kind, meta: Obj) -> list[Cause]:
    plain = kind.is_custom or kind.resource.group in _PLAIN_GROUPS
    return validate_metadata(meta, kind.resource.namespaced, kind.name_errors, plain_finalizers=plain)


def _check_namespace(kind: Kind, meta: Obj, namespace: str) -> None:
    """Refuses an object of another namespace; what is in none forgets that one was named."""
    if not kind.resource.namespaced:
        meta.pop("namespace", None)
    elif meta.get("namespace") and namespace and meta["namespace"] != namespace:
        raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")


def _refuse(kind: Kind, name: str, causes: list[Cause], ctx: WriteContext) -> None:
    """Refuses what is wrong; warns of what has been wrong before."""
    for cause in causes:
        if cause.forgiven:
            ctx.warn(f"{cause.field}: {cause.message}")
    if wrong := [cause for cause in causes if not cause.forgiven]:
        raise errors.invalid(kind.resource.kind, name, wrong, kind.resource.group)


def update(registry: Registry, kind: Kind, new: Obj, old: Obj, subresource: str, ctx: WriteContext) -> Steps[Written]:
    """Makes the next state of an object from what the client sent; `new` is taken over, `old` is left alone.

    Args:
        subresource: empty, `status`, `scale` (then `new` is a Scale) or one of the kind's parts: what else in `new`
            differs from `old` is put back.

    Raises:
        Conflict (stale), BadRequest, Invalid, Forbidden, ...
    """
    check_uid(kind, new, old["metadata"].get("namespace", ""), old["metadata"]["name"], old["metadata"].get("uid", ""))
    _name_owners_once(new.get("metadata") or {}, ctx, DUPLICATE_OWNERS)
    return _update(registry, kind, new, old, subresource, ctx, track=True)


def _update(
    registry: Registry, kind: Kind, new: Obj, old: Obj, subresource: str, ctx: WriteContext, *, track: bool
) -> Steps[Written]:
    attempt = Attempt(
        operation=UPDATE, kind=kind, subresource=subresource, namespace=old["metadata"].get("namespace", ""),
        name=old["metadata"]["name"], obj=new, old=old, options=options_of(ctx),
    )  # fmt: skip
    if subresource == "scale":
        base = old
        if not track:  # an apply has made the whole object of the Scale already
            base, attempt.obj = new, scale_of(kind, new)
        attempt.old = scale_of(kind, old)
        yield from chain.mutate(registry, attempt, ctx)
        assert attempt.obj is not None
        new = with_scale(kind, base, attempt.obj)
    meta = _rebase(kind, new, old)
    new = _only_its_part(kind, new, old, subresource)
    kind.defaults(new)
    if track:
        new = yield from _tracked_update(registry, kind, new, old, subresource, ctx)
        meta = new["metadata"]
    if subresource != "scale":
        attempt.obj = new
        yield from chain.mutate(registry, attempt, ctx)
        if attempt.changed:
            meta = _rebase(kind, attempt.obj, old)
            new = _only_its_part(kind, attempt.obj, old, subresource)
    _name_owners_once(meta, ctx, DUPLICATE_OWNERS_AFTER_ADMISSION)
    if subresource in ("", "scale"):
        kind.prepare_update(new, old, ctx)
    else:
        kind.prepare_part(new, old, ctx)
    if kind.has_generation:
        bump = subresource != "status" and _counted_change(kind, new, old)
        meta["generation"] = old["metadata"].get("generation", 1) + bump
    causes: list[Cause] = []
    parts = ("labels", "annotations", "finalizers")
    if subresource != "status" or any(meta.get(key) != old["metadata"].get(key) for key in parts):
        causes += _metadata_causes(kind, meta)
    causes += validate_metadata_update(meta, old["metadata"]) + _causes_of_change(kind, new, old, subresource)
    _refuse(kind, meta["name"], causes, ctx)
    if kind.observe is not None and meta.get("generation") != old["metadata"].get("generation"):
        kind.observe(registry, new)
    reservations, releases = reallocate(kind, new, old, ctx)
    attempt.obj = scale_of(kind, new) if subresource == "scale" else new
    yield from chain.validate(registry, attempt, ctx)
    warnings = sentences.of_status(kind, new) if subresource == "status" else sentences.of(kind, new, old)
    remove = is_done(kind, new, old)
    return Written(
        obj=new, warnings=tuple(warnings), reservations={} if remove else _owned(registry, reservations, ctx),
        releases=releases_of(kind, old) if remove else releases, changed=not _equal(new, old), remove=remove,
    )  # fmt: skip


def _causes_of_change(kind: Kind, new: Obj, old: Obj, subresource: str) -> list[Cause]:
    """Every rule that a change breaks, beside those of metadata."""
    if subresource == "status":
        return kind.validate_status(new, old)
    if subresource in kind.validate_parts:
        return kind.validate(new) + kind.validate_parts[subresource](new, old)
    if kind.validate_change is not None:
        return kind.validate_change(new, old)
    return kind.validate(new) + kind.validate_update(new, old)


def _tracked_update(
    registry: Registry, kind: Kind, new: Obj, old: Obj, subresource: str, ctx: WriteContext
) -> Steps[Obj]:
    """The object with who owns its fields now; nobody, when the webhook of its kind cannot say what has changed."""

    def track(other: ssa.Versions) -> Obj:
        return ssa.track_update(
            registry.schema(kind), old, new, manager=ctx.field_manager, api_version=kind.api_version, now=ctx.now,
            subresource=subresource, other=other, may_regrain=kind.is_custom, only=kind.owned.get(subresource, ()),
        )  # fmt: skip

    try:
        return (yield from in_versions(registry, kind, ctx.new_uid, track))
    except ConversionFailed:
        return with_entries(new, {})


def check_name(obj: Obj, name: str) -> None:
    """Refuses an object of another name than the one on the URL; raises BadRequest."""
    meta = obj.get("metadata") or {}
    if not meta.get("name"):
        raise BadRequest(f"the name of the object ({name} based on URL) was undeterminable: name must be provided")
    if meta["name"] != name:
        raise BadRequest(f"the name of the object ({meta['name']}) does not match the name on the URL ({name})")


def _rebase(kind: Kind, new: Obj, old: Obj) -> Obj:
    """Checks the preconditions in `new`'s metadata and gives it what only the server writes."""
    meta: Obj = new.setdefault("metadata", {})
    before = old["metadata"]
    resource = kind.resource
    check_name(new, before["name"])
    _check_namespace(kind, meta, before.get("namespace", ""))
    if resource.namespaced:
        meta["namespace"] = before["namespace"]
    version = meta.get("resourceVersion") or "0"
    if not version.isdecimal():
        detail = f'strconv.ParseUint: parsing "{version}": invalid syntax'
        raise BadRequest(f'metadata.resourceVersion: Invalid value: "{version}": {detail}')
    if version != "0" and version != before.get("resourceVersion"):
        raise errors.conflict(resource.plural, before["name"], _STALE, resource.group)
    if version == "0" and not kind.allows_unconditional_update:
        cause = Cause("metadata.resourceVersion", "Invalid value: 0: must be specified for an update")
        raise errors.invalid(resource.plural, before["name"], [cause], resource.group)
    for key in _SERVER_KEYS:
        if key == "uid" and meta.get(key):  # validation tells when it is another one
            continue
        if key in before:
            meta[key] = before[key]
        elif key not in _IMMUTABLE_KEYS:
            meta.pop(key, None)
    return meta


def check_uid(kind: Kind, new: Obj, namespace: str, name: str, uid: str) -> None:
    """Refuses what is sent for an object of another uid; `uid` is empty where there is no object any more.

    Raises:
        Conflict
    """
    wanted = (new.get("metadata") or {}).get("uid")
    if wanted and wanted != uid:
        failed = f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
        key = _key_in_etcd(kind, namespace, name)
        detail = f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: {failed}"
        raise errors.conflict(kind.resource.plural, name, detail, kind.resource.group)


def _key_in_etcd(kind: Kind, namespace: str, name: str) -> str:
    """Where Kubernetes keeps an object: most built-in kinds without their group.

    Source: SpecialDefaultResourcePrefixes of pkg/kubeapiserver/default_storage_factory_builder.go
    """
    group, plural = kind.resource.group, kind.resource.plural
    place = f"{group}/{plural}" if kind.is_custom or group in _GROUPS_IN_KEYS else _PLACES.get(plural, plural)
    return "/".join(("/registry", place, *((namespace,) if kind.resource.namespaced else ()), name))


def _name_owners_once(meta: Obj, ctx: WriteContext, sentence: str) -> None:
    if repeated := dedupe_owners(meta):
        ctx.warn(sentence.format(", ".join(repeated)))


def _only_its_part(kind: Kind, new: Obj, old: Obj, subresource: str) -> Obj:
    """Puts back what the subresource (or the main resource) may not change."""
    for key in kind.kept.get(subresource, ()):
        if key in old["metadata"]:
            new["metadata"][key] = old["metadata"][key]
        else:
            new["metadata"].pop(key, None)
    if subresource == "status":
        for key in old:
            if key not in ("status", "metadata", "kind", "apiVersion"):
                new[key] = old[key]
        for key in [key for key in new if key not in old and key not in ("status", "metadata")]:
            del new[key]
        return new
    if subresource in kind.parts:
        return {**kind.parts[subresource](new, old), "metadata": new["metadata"]}
    if "status" in kind.subresources:
        if "status" in old:
            new["status"] = old["status"]
        else:
            new.pop("status", None)
    return new


def _counted_change(kind: Kind, new: Obj, old: Obj) -> bool:
    """Whether a change moves the generation on."""
    if kind.counted is None:
        return False
    if any((new["metadata"].get(key) or {}) != (old["metadata"].get(key) or {}) for key in kind.counted):
        return True
    apart = ("metadata", "status", "kind", "apiVersion")
    return any(new.get(key) != old.get(key) for key in {**new, **old} if key not in apart)


def _equal(new: Obj, old: Obj) -> bool:
    if new.keys() != old.keys() or any(new[key] != old[key] for key in new if key != "metadata"):
        return False
    left, right = new["metadata"], old["metadata"]
    keys = {**left, **right}
    if any(left.get(key) != right.get(key) for key in keys if key != "managedFields"):
        return False
    return _owners(left) == _owners(right)


def _owners(meta: Obj) -> list[Obj]:
    return [{key: value for key, value in row.items() if key != "time"} for row in meta.get("managedFields") or ()]


def check_patch_type(kind: Kind, content_type: str) -> str:
    """The media type of a patch; raises UnsupportedMediaType when the kind takes no such patches."""
    media = media_type(content_type)
    accepted = [JSON_PATCH, MERGE_PATCH, *([] if kind.is_custom else [STRATEGIC_PATCH]), APPLY_PATCH]
    if media not in accepted:
        raise errors.UnsupportedMediaType(
            f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
        )
    return media


def patch(
    registry: Registry,
    kind: Kind,
    old: Obj | None,
    patch_type: str,
    body: bytes,
    subresource: str,
    ctx: WriteContext,
    force: bool = False,
    namespace: str = "",
    name: str = "",
) -> Steps[Written]:
    """Applies a patch of one of the four types.

    Args:
        old: the object as it is; None (only an apply can do with that) creates it in `namespace` under `name`.
        patch_type: the media type of the request.
        force: of an apply: take over fields that others own.

    Raises:
        BadRequest, Invalid, Conflict (also of fields' owners), UnsupportedMediaType, NotFound, ...
    """
    media = check_patch_type(kind, patch_type)
    if media == APPLY_PATCH:
        return (yield from _apply(registry, kind, old, body, subresource, ctx, force, namespace, name))
    if old is None:
        raise errors.not_found(kind.resource.plural, name, kind.resource.group)
    before = scale_of(kind, old) if subresource == "scale" else old
    body_kind = registry.body_kind(kind, subresource)
    tree, warnings = patched(registry, body_kind, before, media, body, ctx.field_validation)
    if subresource == "scale":
        check_replicas(kind, old, tree)
    written = yield from _update(registry, kind, tree, old, subresource, ctx, track=True)
    return _with_warnings(written, warnings)


def _apply(
    registry: Registry, kind: Kind, old: Obj | None, body: bytes, subresource: str, ctx: WriteContext, force: bool,
    namespace: str, name: str,
) -> Steps[Written]:  # fmt: skip
    options.check("PatchOptions", manager=ctx.field_manager, applies=True)
    body_kind = registry.body_kind(kind, subresource)
    applied, warnings = configuration(registry, body_kind, body, ctx.field_validation)
    meta = applied.setdefault("metadata", {})
    wanted_name = old["metadata"]["name"] if old else name
    if old is None and meta.get("uid"):
        detail = f"uid mismatch: the provided object specified uid {meta['uid']}, and no existing object was found"
        raise errors.conflict(kind.resource.plural, name, detail, kind.resource.group)
    if old is None or meta.get("name"):
        check_name(applied, wanted_name)
    _check_namespace(kind, meta, namespace)
    if old is not None and meta.get("uid", uid := old["metadata"].get("uid")) != uid:
        raise errors.invalid(
            kind.resource.kind, wanted_name, [bad("metadata.uid", meta["uid"], IMMUTABLE)], kind.resource.group
        )
    if subresource == "scale":
        if old is not None:
            check_replicas(kind, old, applied)
        applied = scaled_configuration(kind, applied)
    else:
        applied = _own_part(kind, applied, subresource)

    def applied_over(other: ssa.Versions) -> Obj:
        return ssa.apply(
            registry.schema(kind), old, applied, manager=ctx.field_manager, force=force, api_version=kind.api_version,
            now=ctx.now, subresource=subresource, other=other, only=kind.owned.get(subresource, ()),
            part=lambda obj: obj if subresource == "scale" else _own_part(kind, obj, subresource),
        )  # fmt: skip

    try:
        merged = yield from in_versions(registry, kind, ctx.new_uid, applied_over)
    except Ambiguous:
        raise refusal(registry.schema(kind), applied) from None
    fresh = orjson.loads(orjson.dumps(merged))
    registry.compiled(kind).trim(fresh)
    version = meta.get("resourceVersion")
    if version and version != (old["metadata"].get("resourceVersion") if old else None):
        raise errors.conflict(kind.resource.plural, wanted_name, _STALE, kind.resource.group)
    if old is None:
        written = yield from _create(registry, kind, fresh, ctx, namespace, track=False)
    else:
        written = yield from _update(registry, kind, fresh, old, subresource, ctx, track=False)
    return _with_warnings(written, warnings)


def _own_part(kind: Kind, applied: Obj, subresource: str) -> Obj:
    """The configuration without what this part of the object cannot write: nobody comes to own that.

    Source: the strategies' GetResetFields
    """
    if not subresource and "status" not in kind.subresources:
        return applied
    if subresource == "status":
        part = {key: value for key, value in applied.items() if key in ("apiVersion", "kind", "metadata", "status")}
    else:
        part = {key: value for key, value in applied.items() if key != "status" or subresource in kind.parts}
    kept = kind.kept.get(subresource, ())
    return {**part, "metadata": {key: value for key, value in applied["metadata"].items() if key not in kept}}


def _with_warnings(written: Written, warnings: list[str]) -> Written:
    if not warnings:
        return written
    return Written(
        obj=written.obj, warnings=(*warnings, *written.warnings), reservations=written.reservations,
        releases=written.releases, changed=written.changed, remove=written.remove,
    )  # fmt: skip


def representation(kind: Kind, obj: Obj, subresource: str = "") -> Obj:
    """Returns what a get or the answer to a write of a subresource shows of a stored object."""
    return scale_of(kind, obj) if subresource == "scale" else obj
