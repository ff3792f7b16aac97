"""Requests for objects: from (verb, kind, subresource) to a read, a write, a review or a conversation.

There is no handler per kind: what a kind can do stands in its row.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import orjson

from steersman.actors.apiserver.access import Authorizer
from steersman.actors.apiserver.actions import Actions
from steersman.actors.apiserver.call import Call
from steersman.actors.apiserver.forms import JSON_HEADERS
from steersman.actors.apiserver.reads import Reader
from steersman.actors.apiserver.reviews import Reviews
from steersman.actors.apiserver.streams import Streams
from steersman.actors.apiserver.writes import Outcome, Writer
from steersman.actors.http.messages import Response
from steersman.cluster.api import write as pipeline
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind
from steersman.cluster.meta import errors
from steersman.cluster.meta.errors import ApiError, BadRequest, Cause, MethodNotAllowed, NotFound
from steersman.cluster.meta.objects import Obj

_APPLY = "application/apply-patch"
#: kinds whose immediate delete is answered with the object rather than with a Status
_SHOWN_WHEN_DELETED = frozenset(
    {
        ("", "pods"), ("", "services"), ("", "serviceaccounts"), ("", "podtemplates"), ("", "resourcequotas"),
        ("", "persistentvolumes"), ("", "persistentvolumeclaims"), ("storage.k8s.io", "storageclasses"),
    }
)  # fmt: skip
_STORED_SUBRESOURCES = frozenset({"status", "scale", "finalize", "ephemeralcontainers", "approval", "resize"})

Handle = Callable[[Call, Kind], Awaitable[Response]]


class Resources:
    """Answers every request for a resource."""

    def __init__(
        self,
        registry: Registry,
        reader: Reader,
        writer: Writer,
        authorizer: Authorizer,
        reviews: Reviews,
        actions: Actions,
        streams: Streams,
    ) -> None:
        self._registry = registry
        self._reader = reader
        self._writer = writer
        self._authorizer = authorizer
        self._reviews = reviews
        self._actions = actions
        self._streams = streams
        self._verbs: dict[str, Handle] = {
            "get": reader.get,
            "list": reader.collection,
            "watch": reader.watch,
            "create": self.create,
            "update": self.update,
            "patch": self.patch,
            "delete": self.delete,
            "deletecollection": self.delete_collection,
        }
        self._below: dict[str, Handle] = {
            "binding": actions.bind,
            "eviction": actions.evict,
            "token": actions.token,
            "log": streams.log,
            "exec": streams.exec,
            "attach": streams.attach,
            "portforward": streams.port_forward,
            "proxy": streams.proxy,
        }

    async def __call__(self, call: Call) -> Response:
        attributes = call.attributes
        kind = self._registry.kind(attributes.group, attributes.version, attributes.resource)
        if kind is None:
            raise NotFound("the server could not find the requested resource")
        if attributes.subresource:
            return await self._sub(call, kind, attributes.subresource)
        handle = self._verbs.get(attributes.verb)
        if handle is None or attributes.verb not in kind.verbs:
            raise _not_allowed()
        if not attributes.name and attributes.verb in ("update", "patch"):
            raise _not_allowed()
        if kind.resource.namespaced and not attributes.namespace and attributes.verb not in ("list", "watch"):
            raise NotFound("the server could not find the requested resource")
        if not kind.resource.namespaced and attributes.namespace and attributes.resource != "namespaces":
            raise NotFound("the server could not find the requested resource")
        if kind.virtual:
            if attributes.resource == "bindings":
                return await self._actions.bind(call, kind)
            return await self._reviews(call, kind)
        return await handle(call, kind)

    async def _sub(self, call: Call, kind: Kind, name: str) -> Response:
        row = kind.subresources.get(name)
        if row is None:
            raise NotFound("the server could not find the requested resource")
        if call.attributes.verb not in row.verbs:
            raise _not_allowed()
        if name in self._below:
            return await self._below[name](call, kind)
        if name not in _STORED_SUBRESOURCES:
            raise NotFound("the server could not find the requested resource")
        match call.attributes.verb:
            case "get":
                return await self._get_sub(call, kind, name)
            case "update":
                return await self.update(call, kind)
            case _:
                return await self.patch(call, kind)

    async def _get_sub(self, call: Call, kind: Kind, name: str) -> Response:
        if name != "scale":
            return await self._reader.get(call, kind)
        attributes = call.attributes
        entry = await self._reader.find(
            kind, attributes.namespace, attributes.name, call.query.get("resourceVersion", "")
        )
        return Response(200, JSON_HEADERS, orjson.dumps(pipeline.representation(kind, entry.obj, name)))

    # ---- writes

    def _check(self, call: Call) -> Callable[[Kind, Obj], None]:
        return lambda kind, obj: self._authorizer.check_write(call.user, call.attributes, kind, obj)

    def _reading(self, call: Call, kind: Kind) -> Callable[[], tuple[Obj, list[str]]]:
        body, media = call.request.body, call.header.get("content-type", "")
        validation = call.query.field_validation()
        return lambda: pipeline.decode(self._registry, kind, body, media, validation)

    async def create(self, call: Call, kind: Kind) -> Response:
        context = self._writer.context(call.user, call.field_manager(), call.query.field_validation())
        operation = self._writer.create(
            kind, call.attributes.namespace, self._reading(call, kind), context, self._check(call)
        )
        return await self._written(call, kind, await self._writer.run(operation, dry_run=call.query.dry_run()))

    async def update(self, call: Call, kind: Kind) -> Response:
        attributes = call.attributes
        context = self._writer.context(call.user, call.field_manager(), call.query.field_validation())
        read = self._reading(call, self._registry.body_kind(kind, attributes.subresource))
        operation = self._writer.update(
            kind, attributes.namespace, attributes.name, attributes.subresource, read, context, self._check(call)
        )
        return await self._written(call, kind, await self._writer.run(operation, dry_run=call.query.dry_run()))

    async def patch(self, call: Call, kind: Kind) -> Response:
        attributes, query = call.attributes, call.query
        media = call.header.get("content-type", "").partition(";")[0].strip()
        manager = call.field_manager()
        if media.startswith(_APPLY):
            manager = query.get("fieldManager", "")
        elif query.get("force", ""):
            cause = Cause("force", "Forbidden: may not be specified for non-apply patch", "FieldValueForbidden")
            raise errors.invalid("PatchOptions", "", [cause], "meta.k8s.io")
        operation = self._writer.patch(
            kind,
            attributes.namespace,
            attributes.name,
            attributes.subresource,
            media,
            call.request.body,
            self._writer.context(call.user, manager, query.field_validation()),
            force=query.flag("force"),
            check=self._check(call),
        )
        return await self._written(call, kind, await self._writer.run(operation, dry_run=query.dry_run()))

    async def _written(self, call: Call, kind: Kind, outcome: Outcome) -> Response:
        change = outcome.change
        call.warnings += change.warnings
        subresource = call.attributes.subresource
        if subresource == "scale":
            obj = {**change.obj, "metadata": {**change.obj["metadata"], "resourceVersion": str(outcome.revision)}}
            return Response(change.status, JSON_HEADERS, orjson.dumps(pipeline.representation(kind, obj, subresource)))
        return Response(change.status, JSON_HEADERS, self._reader.form(call, kind).one(outcome.entry()))

    # ---- deletes

    def _options(self, call: Call) -> Obj:
        """The DeleteOptions of a request: its body, else its query."""
        query = call.query
        options: Obj = {}
        if call.request.body:
            kind = self._registry.by_kind("v1", "DeleteOptions")
            assert kind is not None
            media = call.header.get("content-type", "")
            options, _ = pipeline.decode(self._registry, kind, call.request.body, media, "Ignore")
        if (grace := query.number("gracePeriodSeconds")) is not None:
            options.setdefault("gracePeriodSeconds", grace)
        if policy := query.get("propagationPolicy", ""):
            options.setdefault("propagationPolicy", policy)
        if "orphanDependents" in query:
            options.setdefault("orphanDependents", query.flag("orphanDependents"))
        if query.dry_run():
            options["dryRun"] = ["All"]
        return options

    async def delete(self, call: Call, kind: Kind) -> Response:
        attributes = call.attributes
        options = self._options(call)
        context = self._writer.context(call.user, call.field_manager())
        operation = self._writer.delete(
            kind, attributes.namespace, attributes.name, options, context, self._check(call)
        )
        outcome = await self._writer.run(operation, dry_run=bool(options.get("dryRun")))
        change, resource = outcome.change, kind.resource
        call.warnings += change.warnings
        if not change.removed or (resource.group, resource.plural) in _SHOWN_WHEN_DELETED:
            return Response(200, JSON_HEADERS, self._reader.form(call, kind).one(outcome.entry()))
        details = {"name": attributes.name, "group": resource.group, "kind": resource.plural}
        details["uid"] = change.obj["metadata"].get("uid", "")
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        body = {**status, "details": {key: value for key, value in details.items() if value}}
        return Response(200, JSON_HEADERS, orjson.dumps(body))

    async def delete_collection(self, call: Call, kind: Kind) -> Response:
        options = self._options(call)
        if any((options.get("preconditions") or {}).values()):
            raise BadRequest("preconditions make no sense for a collection")
        selection = self._reader.selection(call, kind)
        form = self._reader.form(call, kind)
        await self._reader.fresh()
        context = self._writer.context(call.user, call.field_manager())
        deleted = []
        for entry in self._reader.select(selection):
            namespace, _, name = entry.key.rpartition("/")
            operation = self._writer.delete(kind, namespace, name, options, context, self._check(call))
            try:
                outcome = await self._writer.run(operation, dry_run=bool(options.get("dryRun")))
            except NotFound:
                continue
            deleted.append(outcome.entry())
        revision = max((entry.revision for entry in deleted), default=0)
        return Response(200, JSON_HEADERS, form.many(deleted, revision, "", 0))


def _not_allowed() -> ApiError:
    return MethodNotAllowed("the server does not allow this method on the requested resource")
