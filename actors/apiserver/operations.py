"""From a request that writes to the operation it asks for: reads its body and its query, and decides nothing."""

from __future__ import annotations

from collections.abc import Callable

from steersman.actors.apiserver.access import Authorizer
from steersman.actors.apiserver.bodies import read_body
from steersman.actors.apiserver.call import Call
from steersman.actors.apiserver.entry import Entry
from steersman.actors.apiserver.writes import Operation, Writer
from steersman.cluster.api import write as pipeline
from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.removal import check_options, read_grace
from steersman.cluster.api.row import Kind
from steersman.cluster.meta.errors import MethodNotAllowed
from steersman.cluster.meta.objects import Obj

_APPLY = "application/apply-patch"


class Operations:
    """Makes operations of requests."""

    def __init__(self, registry: Registry, writer: Writer, authorizer: Authorizer) -> None:
        self._registry = registry
        self._writer = writer
        self._authorizer = authorizer

    def __call__(self, call: Call, kind: Kind) -> tuple[Operation, bool]:
        """Returns the operation of a request that stores something, and whether it is only to be tried.

        Raises:
            ApiError: the request's parameters make no sense.
        """
        attributes = call.attributes
        match attributes.verb:
            case "create":
                call.check_options("CreateOptions")
                return self._create(call, kind), call.query.dry_run()
            case "update":
                call.check_options("UpdateOptions")
                return self._update(call, kind), call.query.dry_run()
            case "patch":
                return self._patch(call, kind), call.query.dry_run()
        raise MethodNotAllowed("the server does not allow this method on the requested resource")

    def _check(self, call: Call) -> Callable[[Kind, Obj, Entry | None], None]:
        return lambda kind, obj, old: self._authorizer.check_write(call.user, kind, obj, old)

    def _reading(self, call: Call, kind: Kind) -> Callable[[], tuple[Obj, list[str]]]:
        body, media = call.request.body, call.header.get("content-type", "")
        validation = call.query.field_validation()
        return lambda: pipeline.decode(self._registry, kind, body, media, validation)

    def _context(self, call: Call, manager: str) -> WriteContext:
        query = call.query
        return self._writer.context(call.user, manager, query.field_validation(), dry_run=query.dry_run(), call=call)

    def _create(self, call: Call, kind: Kind) -> Operation:
        context = self._context(call, call.field_manager())
        read = self._reading(call, kind)
        return self._writer.create(
            kind, call.attributes.namespace, read, context, self._check(call), takes_long=_takes_long(call)
        )

    def _update(self, call: Call, kind: Kind) -> Operation:
        attributes = call.attributes
        context = self._context(call, call.field_manager())
        read = self._reading(call, self._registry.body_kind(kind, attributes.subresource))
        return self._writer.update(
            kind, attributes.namespace, attributes.name, attributes.subresource, read, context, self._check(call),
            takes_long=_takes_long(call),
        )  # fmt: skip

    def _patch(self, call: Call, kind: Kind) -> Operation:
        attributes, query = call.attributes, call.query
        media = pipeline.check_patch_type(kind, call.header.get("content-type", ""))
        applies = media.startswith(_APPLY)
        call.check_options("PatchOptions", applies=applies)
        manager = query.get("fieldManager", "") if applies else call.field_manager()
        return self._writer.patch(
            kind,
            attributes.namespace,
            attributes.name,
            attributes.subresource,
            media,
            call.request.body,
            self._context(call, manager),
            force=query.flag("force"),
            check=self._check(call),
        )

    async def removal(self, call: Call, kind: Kind) -> tuple[Operation, bool]:
        """As calling this, of a request that deletes an object."""
        options = await self.delete_options(call)
        operation = self.delete(call, kind, call.attributes.namespace, call.attributes.name, options)
        return operation, bool(options.get("dryRun"))

    def delete(self, call: Call, kind: Kind, namespace: str, name: str, options: Obj) -> Operation:
        context = self._writer.context(call.user, call.field_manager(), dry_run=bool(options.get("dryRun")), call=call)
        return self._writer.delete(kind, namespace, name, options, context)

    async def delete_options(self, call: Call) -> Obj:
        """The DeleteOptions of a request: its body, else its query; raises BadRequest, Invalid."""
        query = call.query
        options: Obj = {}
        if call.request.body:
            kind = self._registry.by_kind("v1", "DeleteOptions")
            assert kind is not None
            options = await read_body(self._registry, call, kind, "Ignore")
        if grace := query.get("gracePeriodSeconds", ""):
            options.setdefault("gracePeriodSeconds", read_grace(grace))
        if policy := query.get("propagationPolicy", ""):
            options.setdefault("propagationPolicy", policy)
        if "orphanDependents" in query:
            options.setdefault("orphanDependents", query.flag("orphanDependents"))
        if dry := query.every("dryRun"):
            options["dryRun"] = dry
        check_options(options)
        return options


def _takes_long(call: Call) -> bool:
    return pipeline.takes_long(call.request.body, call.header.get("content-type", ""))
