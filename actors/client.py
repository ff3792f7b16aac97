"""The client of the API server: what controllers, scheduler, node agents and the command line ask with.

Turns verbs into requests and answers into objects or errors; knows no kind and decides nothing about objects. It runs
over any `Handler`: the API server itself in this process, or `HttpTransport`.
Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self
from urllib.parse import quote, urlencode

import orjson

from steersman.actors.http.channels import pair
from steersman.actors.http.client import HttpTransport, error_of
from steersman.actors.http.messages import Handler, Request, Response, Upgrade
from steersman.actors.kubeconfig import load
from steersman.actors.ports import Channel, ExecRequest, LogRequest, User
from steersman.cluster.meta.errors import ApiError, ServiceUnavailable, TooManyRequests, from_status
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.objects import name as name_of
from steersman.cluster.meta.objects import namespace as namespace_of
from steersman.cluster.meta.resources import PODS, Resource
from steersman.cluster.meta.times import format_time

#: how often a request refused with 429 and a Retry-After is repeated
RETRIES_MAX = 5
_PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"

#: (`ADDED` | `MODIFIED` | `DELETED` | `BOOKMARK`, object) in order
Events = list[tuple[str, Obj]]


@dataclass(frozen=True, slots=True)
class ObjList:
    """A page of objects, or all of them.

    Args:
        continue_token: names the next page; empty on the last.
    """

    items: list[Obj]
    resource_version: str
    continue_token: str = ""
    remaining: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovered:
    """A kind that the server offers."""

    resource: Resource
    singular: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    preferred: bool = True


class Client:
    """Asks an API server. Every method raises `steersman.cluster.meta.errors.ApiError`.

    Args:
        handler: the API server, or a transport to it.
        user: who asks, for a trusted in-process handler; a transport authenticates by itself.
        on_warning: called with the text of each warning header.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        user: User | None = None,
        user_agent: str = "steersman",
        namespace: str = "default",
        on_warning: Callable[[str], None] | None = None,
    ) -> None:
        self._handler = handler
        self._user = user
        self._user_agent = user_agent
        self._on_warning = on_warning
        #: the namespace of the kubeconfig's context
        self.namespace = namespace
        self._conversations: set[asyncio.Task[None]] = set()

    @classmethod
    def from_kubeconfig(
        cls,
        path: str | None = None,
        context: str | None = None,
        *,
        user_agent: str = "steersman",
        on_warning: Callable[[str], None] | None = None,
    ) -> Client:
        """Returns a client for a context of a kubeconfig; nothing is sent yet.

        Raises:
            steersman.actors.kubeconfig.KubeconfigError: the file or context is missing or incomplete.
        """
        access = load(path, context)
        transport = HttpTransport(
            access.servers, tls=access.tls(), token=access.token, server_hostname=access.server_hostname
        )
        return cls(transport, user_agent=user_agent, namespace=access.namespace, on_warning=on_warning)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def get(
        self, resource: Resource, name: str, namespace: str | None = None, *, subresource: str | None = None
    ) -> Obj:
        return await self._object("GET", resource.path(namespace, name, subresource), {})

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        resource_version: str = "",
        continue_token: str = "",
    ) -> ObjList:
        """Lists a collection, in one answer unless `limit` asks for pages."""
        query = {
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "limit": str(limit) if limit else "",
            "resourceVersion": resource_version,
            "continue": continue_token,
        }
        answer = await self._object("GET", resource.path(namespace), query)
        items = answer.get("items") or []
        for item in items:
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
        meta = answer.get("metadata") or {}
        return ObjList(items, meta.get("resourceVersion", ""), meta.get("continue", ""), meta.get("remainingItemCount"))

    async def create(
        self,
        resource: Resource,
        obj: Obj,
        namespace: str | None = None,
        *,
        name: str | None = None,
        subresource: str | None = None,
        dry_run: bool = False,
        field_manager: str = "",
        field_validation: str = "",
    ) -> Obj:
        """Creates an object, or posts to the subresource of object `name` (binding, eviction, token)."""
        space = namespace or (obj.get("metadata") or {}).get("namespace") or None
        query = _write_query(dry_run, field_manager, field_validation)
        return await self._object("POST", resource.path(space, name, subresource), query, orjson.dumps(obj))

    async def update(
        self,
        resource: Resource,
        obj: Obj,
        *,
        subresource: str | None = None,
        dry_run: bool = False,
        field_manager: str = "",
        field_validation: str = "",
    ) -> Obj:
        """Replaces an object; with a `resourceVersion` in it, only that version of it."""
        path = resource.path(namespace_of(obj) or None, name_of(obj), subresource)
        return await self._object(
            "PUT", path, _write_query(dry_run, field_manager, field_validation), orjson.dumps(obj)
        )

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        kind: Literal["merge", "json", "strategic", "apply"] = "merge",
        subresource: str | None = None,
        field_manager: str = "",
        force: bool = False,
        dry_run: bool = False,
        field_validation: str = "",
    ) -> Obj:
        """Patches an object; `patch` is the tree, or the bytes as they are to be sent."""
        query = _write_query(dry_run, field_manager, field_validation)
        if force:
            query["force"] = "true"
        body = patch if isinstance(patch, bytes) else orjson.dumps(patch)
        return await self._object("PATCH", resource.path(namespace, name, subresource), query, body, _PATCH_TYPES[kind])

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        grace_s: int | None = None,
        propagation: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        dry_run: bool = False,
    ) -> Obj:
        """Deletes an object; returns it where it only begins to go, or a `Status`.

        Args:
            propagation: `Background`, `Foreground` or `Orphan`.
            uid, resource_version: only the object that still has these; else Conflict.
        """
        body = _delete_options(grace_s, propagation, uid, resource_version, dry_run)
        return await self._object("DELETE", resource.path(namespace, name), {}, body)

    async def delete_collection(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        grace_s: int | None = None,
        propagation: str | None = None,
        dry_run: bool = False,
    ) -> Obj:
        query = {"labelSelector": label_selector, "fieldSelector": field_selector}
        body = _delete_options(grace_s, propagation, None, None, dry_run)
        return await self._object("DELETE", resource.path(namespace), query, body)

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        timeout_s: int | None = None,
    ) -> AsyncIterator[tuple[str, Obj]]:
        """Yields (`ADDED` | `MODIFIED` | `DELETED` | `BOOKMARK`, object) until the server ends the watch.

        Raises:
            Expired: the resource version is too old; list again.
        """
        batches = self.watch_batches(
            resource,
            namespace,
            resource_version=resource_version,
            label_selector=label_selector,
            field_selector=field_selector,
            timeout_s=timeout_s,
        )
        try:
            async for batch in batches:
                for event in batch:
                    yield event
        finally:
            await batches.aclose()  # type: ignore[attr-defined]

    async def watch_batches(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        timeout_s: int | None = None,
    ) -> AsyncIterator[Events]:
        """As `watch`, but yields together the events that arrived together."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "timeoutSeconds": str(timeout_s) if timeout_s else "",
        }
        stream = _stream(await self._send("GET", _target(resource.path(namespace), query)))
        rest = b""
        try:
            async for chunk in stream:
                *lines, rest = (rest + chunk).split(b"\n")
                if batch := [_event(orjson.loads(line)) for line in lines if line]:
                    yield batch
        finally:
            await _close(stream)

    async def request(
        self,
        method: str,
        target: str,
        body: bytes | AsyncIterator[bytes] = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Sends a raw request; returns its answer whatever its status. `read_body` reads the answer's body."""
        request = Request(
            method=method,
            target=target,
            headers={"user-agent": self._user_agent, "accept": "application/json", **(headers or {})},
            body=body if isinstance(body, bytes) else b"",
            user=self._user,
            upload=None if isinstance(body, bytes) else body,
        )
        return await self._handler(request)

    async def logs(self, request: LogRequest) -> AsyncIterator[bytes]:
        """Yields pieces of a container's log as they come."""
        query = {
            "container": request.container,
            "follow": _flag(request.follow),
            "previous": _flag(request.previous),
            "timestamps": _flag(request.timestamps),
            "tailLines": _number(request.tail_lines),
            "limitBytes": _number(request.limit_bytes),
            "sinceSeconds": _number(None if request.since_s is None else max(1, round(request.since_s))),
            "sinceTime": "" if request.since_time is None else format_time(request.since_time),
        }
        target = _target(PODS.path(request.namespace, request.pod, "log"), query)
        stream = _stream(await self._send("GET", target, headers={"accept": "*/*"}))
        try:
            async for chunk in stream:
                yield chunk
        finally:
            await _close(stream)

    async def exec(self, request: ExecRequest) -> Channel:
        """Runs a command in a container; the conversation ends with a frame on channel 3."""
        return await self._converse(request, "exec")

    async def attach(self, request: ExecRequest) -> Channel:
        return await self._converse(request, "attach")

    async def _converse(self, request: ExecRequest, subresource: str) -> Channel:
        query = [("container", request.container)] if request.container else []
        query += [("command", part) for part in request.command]
        flags = ("stdin", "stdout", "stderr", "tty")
        query += [(flag, "true") for flag in flags if getattr(request, flag)]
        path = PODS.path(request.namespace, request.pod, subresource)
        return await self._open(f"{quote(path)}?{urlencode(query)}", 0)

    async def port_forward(self, namespace: str, pod: str, port: int) -> Channel:
        """Opens one connection to a port of a pod."""
        path = PODS.path(namespace, pod, "portforward")
        return await self._open(f"{quote(path)}?{urlencode({'ports': port})}", port)

    async def _open(self, target: str, port: int) -> Channel:
        request = Request("GET", target, {"user-agent": self._user_agent}, user=self._user, upgrade=True)
        if isinstance(self._handler, HttpTransport):
            return await self._handler.converse(request)
        response = await self._handler(request)
        upgrade = response.body
        if not isinstance(upgrade, Upgrade):
            raise error_of(response.status, await read_body(response))
        if upgrade.open_port is not None:
            return await upgrade.open_port(port)
        if upgrade.run is None:
            raise ServiceUnavailable("the server opened no conversation")
        near, far = pair()
        task = asyncio.ensure_future(_run(upgrade.run(far), far))
        self._conversations.add(task)
        task.add_done_callback(self._conversations.discard)
        return near

    async def discover(self) -> Sequence[Discovered]:
        """Returns every kind that the server offers, core first."""
        return (await self.discover_all())[0]

    async def discover_all(self) -> tuple[Sequence[Discovered], Sequence[str]]:
        """As `discover`, with the groups' versions (as `apps/v1`) whose own server does not answer now."""
        found: list[Discovered] = []
        stale: list[str] = []
        for target in ("/api", "/apis"):
            answer = await self._object("GET", target, {}, accept=_DISCOVERY)
            for group in answer.get("items") or ():
                found += _discovered(group)
                name = (group.get("metadata") or {}).get("name", "")
                rows = [row for row in group.get("versions") or () if row.get("freshness") == "Stale"]
                stale += [f"{name}/{row['version']}" for row in rows]
        return found, stale

    async def close(self) -> None:
        """Ends conversations in this process and closes the transport's connections."""
        for task in list(self._conversations):
            task.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)
        if isinstance(self._handler, HttpTransport):
            await self._handler.close()

    async def _object(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes = b"",
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Obj:
        headers = {"accept": accept}
        if body:
            headers["content-type"] = content_type
        response = await self._send(method, _target(path, query), body, headers)
        content = await read_body(response)
        try:
            parsed: Obj = orjson.loads(content) if content else {}
        except orjson.JSONDecodeError as error:
            raise ApiError(f"the server's answer to {method} {path} is no JSON") from error
        return parsed

    async def _send(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Response:
        """Sends a request and waits out throttling; an answer that is returned is a success."""
        for attempt in range(RETRIES_MAX + 1):
            response = await self.request(method, target, body, headers)
            if self._on_warning is not None and "warning" in response.headers:
                for text in response.headers["warning"].split('"')[1::2]:
                    self._on_warning(text)
            if response.status < 400:
                break
            error = error_of(response.status, await read_body(response))
            wait_s = int(response.headers.get("retry-after") or 0)
            throttled = isinstance(error, TooManyRequests) and wait_s and not target.split("?")[0].endswith("/eviction")
            if not throttled or attempt == RETRIES_MAX:
                raise error
            await asyncio.sleep(wait_s)
        return response


async def read_body(response: Response) -> bytes:
    """Returns the whole body of an answer."""
    if isinstance(response.body, bytes):
        return response.body
    if isinstance(response.body, Upgrade):
        return b""
    return b"".join([chunk async for chunk in response.body])


async def _run(conversation: Any, channel: Channel) -> None:
    try:
        await conversation
    finally:
        await channel.close()


def _stream(response: Response) -> AsyncIterator[bytes]:
    if isinstance(response.body, bytes):
        return _whole(response.body)
    if isinstance(response.body, Upgrade):
        raise ServiceUnavailable("the server switched protocols without being asked")
    return response.body


async def _whole(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _close(stream: AsyncIterator[bytes]) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()


def _event(event: Obj) -> tuple[str, Obj]:
    if event["type"] == "ERROR":
        raise from_status(event["object"])
    return event["type"], event["object"]


def _target(path: str, query: Mapping[str, str]) -> str:
    given = {key: value for key, value in query.items() if value}
    return quote(path, safe="/:@!$&'()*+,;=~") + (f"?{urlencode(given)}" if given else "")


def _flag(value: bool) -> str:
    return "true" if value else ""


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _write_query(dry_run: bool, field_manager: str, field_validation: str) -> dict[str, str]:
    return {
        "dryRun": "All" if dry_run else "",
        "fieldManager": field_manager,
        "fieldValidation": field_validation,
    }


def _delete_options(
    grace_s: int | None, propagation: str | None, uid: str | None, resource_version: str | None, dry_run: bool
) -> bytes:
    options: Obj = {"kind": "DeleteOptions", "apiVersion": "v1"}
    if grace_s is not None:
        options["gracePeriodSeconds"] = grace_s
    if propagation:
        options["propagationPolicy"] = propagation
    if preconditions := {k: v for k, v in (("uid", uid), ("resourceVersion", resource_version)) if v}:
        options["preconditions"] = preconditions
    if dry_run:
        options["dryRun"] = ["All"]
    return orjson.dumps(options)


def _discovered(group: Obj) -> list[Discovered]:
    """Reads one group of an `APIGroupDiscoveryList`; its versions come in order of preference."""
    name = (group.get("metadata") or {}).get("name", "")
    found, seen = [], set()
    for version in group.get("versions") or ():
        for row in version.get("resources") or ():
            kind = (row.get("responseKind") or {}).get("kind", "")
            found.append(
                Discovered(
                    resource=Resource(
                        name, version["version"], row["resource"], kind, namespaced=row.get("scope") == "Namespaced"
                    ),
                    singular=row.get("singularResource", ""),
                    short_names=tuple(row.get("shortNames") or ()),
                    categories=tuple(row.get("categories") or ()),
                    verbs=tuple(row.get("verbs") or ()),
                    subresources=tuple(sub["subresource"] for sub in row.get("subresources") or ()),
                    preferred=row["resource"] not in seen,
                )
            )
            seen.add(row["resource"])
    return found
