"""Requests for objects: from (verb, kind, subresource) to a read, a write, a review or a conversation.

There is no handler per kind: what a kind can do stands in its row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence

import orjson

from steersman.actors.apiserver.actions import Actions
from steersman.actors.apiserver.aside import aside
from steersman.actors.apiserver.call import Call
from steersman.actors.apiserver.change import Outcome
from steersman.actors.apiserver.components import Components
from steersman.actors.apiserver.entry import Entry
from steersman.actors.apiserver.forms import JSON_HEADERS, prefix_of
from steersman.actors.apiserver.operations import Operations
from steersman.actors.apiserver.reads import Reader, listed
from steersman.actors.apiserver.reviews import Reviews
from steersman.actors.apiserver.streams import Streams
from steersman.actors.apiserver.watches import Watches
from steersman.actors.apiserver.writes import Writer
from steersman.actors.http.messages import Response
from steersman.cluster.api import write as pipeline
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind
from steersman.cluster.meta.errors import ApiError, BadRequest, MethodNotAllowed, NotFound, PageNotFound
from steersman.cluster.meta.gotext import quoted
from steersman.cluster.meta.names import path_segment_errors
from steersman.cluster.meta.objects import Obj

#: kinds whose immediate delete is answered with the object rather than with a Status
_SHOWN_WHEN_DELETED = frozenset(
    {
        ("", "pods"), ("", "services"), ("", "serviceaccounts"), ("", "podtemplates"), ("", "resourcequotas"),
        ("", "persistentvolumes"), ("", "persistentvolumeclaims"), ("storage.k8s.io", "csidrivers"),
        ("storage.k8s.io", "csinodes"), ("storage.k8s.io", "storageclasses"), ("storage.k8s.io", "volumeattachments"),
        ("storage.k8s.io", "volumeattributesclasses"), ("resource.k8s.io", "deviceclasses"),
        ("resource.k8s.io", "resourceclaims"), ("resource.k8s.io", "resourceclaimtemplates"),
        ("resource.k8s.io", "resourceslices"),
    }
)  # fmt: skip
_CONNECTS = frozenset({"attach", "exec", "portforward", "proxy"})
_STORED_SUBRESOURCES = frozenset({"status", "scale", "finalize", "ephemeralcontainers", "approval", "resize"})

Handle = Callable[[Call, Kind], Awaitable[Response]]


class Resources:
    """Answers every request for a resource."""

    def __init__(
        self,
        registry: Registry,
        reader: Reader,
        watches: Watches,
        writer: Writer,
        operations: Operations,
        reviews: Reviews,
        components: Components,
        actions: Actions,
        streams: Streams,
    ) -> None:
        self._registry = registry
        self._reader = reader
        self._writer = writer
        self._operations = operations
        self._reviews = reviews
        self._streams = streams
        self._verbs: dict[str, Handle] = {
            "get": reader.get,
            "list": reader.collection,
            "watch": watches.watch,
            "create": self.write,
            "update": self.write,
            "patch": self.write,
            "delete": self.delete,
            "deletecollection": self.delete_collection,
        }
        #: of kinds that are not stored; all others are reviews
        self._virtual: dict[str, Handle] = {"bindings": actions.bind, "componentstatuses": components}
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
            await self._reader.fresh()  # its definition may just have been written through another server
            kind = self._registry.kind(attributes.group, attributes.version, attributes.resource)
        if kind is None:
            raise nowhere(self._registry, attributes.group)
        if attributes.rest and attributes.subresource != "proxy":
            raise NotFound("the server could not find the requested resource")
        if attributes.name and (wrong := path_segment_errors(attributes.name)):
            raise BadRequest(f"Name parameter invalid: {quoted(attributes.name)}: {';'.join(wrong)}")
        if kind.deprecation:
            call.warn(kind.deprecation)
        if attributes.subresource:
            return await self._sub(call, kind, attributes.subresource)
        if kind.is_terminating and attributes.verb == "create":
            raise MethodNotAllowed("create not allowed while custom resource definition is terminating")
        handle = self._verbs.get(attributes.verb)
        if handle is None or attributes.verb not in kind.verbs:
            raise _not_allowed()
        if bool(attributes.name) == (attributes.verb == "create") and attributes.verb in ("create", "update", "patch"):
            raise _not_allowed()
        if kind.resource.namespaced and not attributes.namespace and attributes.verb not in ("list", "watch"):
            raise NotFound("the server could not find the requested resource")
        if not kind.resource.namespaced and attributes.namespace and attributes.resource != "namespaces":
            raise NotFound("the server could not find the requested resource")
        if kind.virtual:
            handle = self._virtual.get(attributes.resource, self._reviews)
        return await handle(call, kind)

    async def _sub(self, call: Call, kind: Kind, name: str) -> Response:
        row = kind.subresources.get(name)
        if row is None:
            raise NotFound("the server could not find the requested resource")
        # every method goes through a proxy, also such as no verb stands for
        if call.attributes.verb not in row.verbs and name != "proxy":
            raise _not_allowed()
        if name in _CONNECTS and "dryRun" in call.query:
            raise BadRequest("dryRun is not supported")
        if name in self._below:
            return await self._below[name](call, kind)
        if name not in _STORED_SUBRESOURCES:
            raise NotFound("the server could not find the requested resource")
        if call.attributes.verb == "get":
            return await self._get_sub(call, kind, name)
        return await self.write(call, kind)

    async def _get_sub(self, call: Call, kind: Kind, name: str) -> Response:
        if name != "scale":
            return await self._reader.get(call, kind)
        attributes = call.attributes
        entry = await self._reader.find(
            kind, attributes.namespace, attributes.name, call.query.get("resourceVersion", "")
        )
        return self._scale(call, kind, entry.served(kind, prefix_of(kind)), entry.revision)

    def _scale(self, call: Call, kind: Kind, obj: Obj, revision: int, status: int = 200) -> Response:
        """The Scale of an object in the form that the client wants."""
        shown = Entry("", revision, orjson.dumps(pipeline.representation(kind, obj, "scale")))
        form = self._reader.form(call, self._registry.body_kind(kind, "scale"))
        return Response(status, JSON_HEADERS, form.one(shown))

    # ---- writes

    async def transact(self, calls: Sequence[Call]) -> list[tuple[int, bytes]]:
        """Carries out several writes, all or none of them; returns status and object of each.

        Raises:
            ApiError: one is refused, and nothing is written. BadRequest: one is no write.
        """
        rows = []
        for call in calls:
            attributes = call.attributes
            kind = self._registry.kind(attributes.group, attributes.version, attributes.resource)
            if kind is None or kind.virtual:
                raise NotFound("the server could not find the requested resource")
            if attributes.subresource not in ("", *(_STORED_SUBRESOURCES & kind.subresources.keys())):
                raise NotFound("the server could not find the requested resource")
            if kind.resource.namespaced is not bool(attributes.namespace) and kind.resource.plural != "namespaces":
                raise BadRequest(
                    f"{kind.resource}: a namespace is {'missing' if kind.resource.namespaced else 'unknown'}"
                )
            is_removal = attributes.verb == "delete"
            made = await self._operations.removal(call, kind) if is_removal else self._operations(call, kind)
            rows.append((kind, *made))
        dry_run = any(dry for _, _, dry in rows)
        outcomes = await self._writer.run_all([operation for _, operation, _ in rows], dry_run=dry_run)
        shown = []
        for call, (kind, _, _), outcome in zip(calls, rows, outcomes, strict=True):
            response = self._written(call, kind, outcome)
            assert isinstance(response.body, bytes)
            shown.append((response.status, response.body))
        return shown

    async def write(self, call: Call, kind: Kind) -> Response:
        self._reader.form(call, kind)  # what cannot be answered as asked is not begun
        request, media = call.request, call.header.get("content-type", "")
        if pipeline.takes_long(request.body, media) and pipeline.reads_slowly(media):
            validation = call.query.field_validation()
            request.body, warnings = await aside(pipeline.as_json, kind, request.body, media, validation)
            call.warn(*warnings)
            if not media.startswith("application/apply-patch"):
                request.headers = {**request.headers, "content-type": "application/json"}
        operation, dry_run = self._operations(call, kind)
        return self._written(call, kind, await self._writer.run(operation, dry_run=dry_run))

    async def delete(self, call: Call, kind: Kind) -> Response:
        self._reader.form(call, kind)
        operation, dry_run = await self._operations.removal(call, kind)
        outcome = await self._writer.run(operation, dry_run=dry_run)
        change, resource = outcome.change, kind.resource
        if not change.removed or (resource.group, resource.plural) in _SHOWN_WHEN_DELETED:
            return self._written(call, kind, outcome)
        call.warn(*change.warnings)
        details = {"name": call.attributes.name, "group": resource.group, "kind": resource.plural}
        details["uid"] = change.obj["metadata"].get("uid", "")
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        body = {**status, "details": {key: value for key, value in details.items() if value}}
        return Response(200, JSON_HEADERS, orjson.dumps(body))

    def _written(self, call: Call, kind: Kind, outcome: Outcome) -> Response:
        change = outcome.change
        call.warn(*change.warnings)
        subresource = call.attributes.subresource
        if subresource == "scale":
            obj = {**change.obj, "metadata": {**change.obj["metadata"], "resourceVersion": str(outcome.revision)}}
            return self._scale(call, kind, obj, outcome.revision, change.status)
        return Response(change.status, JSON_HEADERS, self._reader.form(call, kind).one(outcome.entry()))

    async def delete_collection(self, call: Call, kind: Kind) -> Response:
        """Deletes what a list shows, which is the answer as well, as it was."""
        options = await self._operations.delete_options(call)
        form = self._reader.form(call, kind, "list")
        page = await self._reader.page(call, kind)
        for entry in page.found:
            namespace, _, name = entry.key.rpartition("/")
            operation = self._operations.delete(call, kind, namespace, name, options)
            with contextlib.suppress(NotFound):
                await self._writer.run(operation, dry_run=bool(options.get("dryRun")))
        return await listed(form, page)


def nowhere(registry: Registry, group: str) -> NotFound:
    """What is said of a path that leads nowhere: built-in groups answer for what is below them."""
    if any(kind.resource.group == group and not kind.is_custom for kind in registry.all()):
        return NotFound("the server could not find the requested resource")
    return PageNotFound()


def _not_allowed() -> ApiError:
    return MethodNotAllowed("the server does not allow this method on the requested resource")
