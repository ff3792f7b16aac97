"""What goes through to a node: logs, exec, attach, port-forward, images, stats, and the proxies.

The API server checks what it can before the connection switches, so that a refusal is a plain Status; then it copies
frames both ways and decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from functools import partial

from steersman.actors.apiserver.call import Call
from steersman.actors.apiserver.proxies import Proxies
from steersman.actors.apiserver.reads import Reader
from steersman.actors.apiserver.writes import Writer
from steersman.actors.http.messages import Response, Upgrade
from steersman.actors.ports import Channel, ExecRequest, Frame, LogRequest, NodeDirectory, NodeStreams
from steersman.cluster.api import proxying
from steersman.cluster.api.admission.connect import connection
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind
from steersman.cluster.api.rules.logs import log_options
from steersman.cluster.meta import errors
from steersman.cluster.meta.errors import BadRequest, MethodNotAllowed
from steersman.cluster.meta.objects import Obj, annotations_of
from steersman.cluster.meta.times import parse_time

_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
#: the channel whose one frame ends a conversation
_ERROR = 3
#: the end of what a program reads, as `v5.channel.k8s.io` says it
_STDIN_ENDS = Frame(255, b"\x00")
_CONTAINER_FIELDS = ("containers", "initContainers", "ephemeralContainers")


class Streams:
    """Answers the subresources that a node agent serves.

    Args:
        last_work_s: how long a program may work on what its client sent before leaving.
    """

    def __init__(
        self,
        registry: Registry,
        reader: Reader,
        writer: Writer,
        nodes: NodeDirectory,
        proxies: Proxies,
        last_work_s: float,
    ) -> None:
        self._registry = registry
        self._reader = reader
        self._writer = writer
        self._nodes = nodes
        self._proxies = proxies
        self._last_work_s = last_work_s

    async def _admit(self, call: Call, kind: Kind) -> None:
        """Lets admission look at a connection about to be made; raises ApiError."""
        context = self._writer.context(call.user, call.field_manager(), call=call)
        if context.hooks is None:
            return
        asked = call.attributes
        attempt = connection(
            kind, asked.subresource, asked.namespace, asked.name, call.query.pairs, "/".join(asked.rest)
        )
        await self._writer.admit(attempt, context)

    async def _pod(self, call: Call, kind: Kind) -> Obj:
        return (await self._reader.find(kind, call.attributes.namespace, call.attributes.name)).obj

    async def _agent(self, pod: Obj) -> NodeStreams:
        node = (pod.get("spec") or {}).get("nodeName", "")
        if not node:
            raise BadRequest(f"pod {pod['metadata']['name']} does not have a host assigned")
        return await self._nodes.connect(node)

    # ---- logs

    async def log(self, call: Call, kind: Kind) -> Response:
        asked = _log_request(call)
        pod = await self._pod(call, kind)
        asked = replace(asked, container=container_of(pod, asked.container))
        agent = await self._agent(pod)
        pieces = await agent.logs(asked)
        return Response(200, {"content-type": "text/plain; charset=utf-8", "cache-control": "no-cache"}, pieces)

    # ---- exec and attach

    async def exec(self, call: Call, kind: Kind) -> Response:
        command = tuple(call.query.every("command"))
        if not command:
            raise BadRequest("you must specify at least 1 command for the container")
        return await self._converse(call, kind, command)

    async def attach(self, call: Call, kind: Kind) -> Response:
        return await self._converse(call, kind, ())

    async def _converse(self, call: Call, kind: Kind, command: tuple[str, ...]) -> Response:
        query = call.query
        if not call.request.upgrade:
            raise BadRequest("Upgrade request required")
        await self._admit(call, kind)
        pod = await self._pod(call, kind)
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            raise BadRequest(
                f"cannot exec into a container in a completed pod; current phase is {pod['status']['phase']}"
            )
        tty = query.flag("tty")
        request = ExecRequest(
            namespace=call.attributes.namespace,
            pod=call.attributes.name,
            container=container_of(pod, query.get("container", "")),
            command=command,
            stdin=query.flag("stdin"),
            stdout=query.flag("stdout"),
            stderr=query.flag("stderr") and not tty,
            tty=tty,
        )
        if not (request.stdin or request.stdout or request.stderr):
            raise BadRequest("you must specify at least one of stdin, stdout, stderr")
        agent = await self._agent(pod)
        inner = await (agent.exec(request) if command else agent.attach(request))
        wanted = ((0, request.stdin), (1, request.stdout), (2, request.stderr), (4, request.tty))
        channels = tuple(channel for channel, asked in wanted if asked)
        works_on_s = self._last_work_s if command and request.stdin and not tty else 0.0
        run = partial(relay, inner=inner, works_on_s=works_on_s)
        return Response(101, {}, Upgrade(run=run, channels=channels, close=inner.close, works_on_s=works_on_s))

    # ---- port-forward

    async def port_forward(self, call: Call, kind: Kind) -> Response:
        if not call.request.upgrade:
            raise BadRequest("Upgrade request required")
        namespace, name = call.attributes.namespace, call.attributes.name
        texts = [text for value in call.query.every("ports") for text in value.split(",") if text]
        if any(not text.isdigit() or not 0 < int(text) < 65536 for text in texts):
            raise BadRequest("ports: Invalid value: each must be a number between 1 and 65535")
        await self._admit(call, kind)
        pod = await self._pod(call, kind)
        phase = (pod.get("status") or {}).get("phase", "Pending")
        if phase != "Running":
            raise BadRequest(f"unable to forward port because pod is not running. Current status={phase}")
        agent = await self._agent(pod)

        async def open_port(port: int) -> Channel:
            return await agent.port_forward(namespace, name, port)

        ports = tuple(int(text) for text in texts)
        return Response(101, {}, Upgrade(port_forward=True, ports=ports, open_port=open_port))

    # ---- proxies

    async def proxy(self, call: Call, kind: Kind) -> Response:
        if call.request.method not in proxying.METHODS:
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        await self._admit(call, kind)
        return await self._proxies(call, kind)


async def relay(client: Channel, inner: Channel, works_on_s: float) -> None:
    """Copies frames between a client and a container until either side ends.

    Args:
        works_on_s: how long the program may work on what it was sent when the client has left: clients that copy files
            leave as soon as all is sent.
    """

    async def upward() -> None:
        with contextlib.suppress(ConnectionError):
            while (frame := await client.receive()) is not None:
                await inner.send(frame)
        if works_on_s:
            await inner.send(_STDIN_ENDS)
            await asyncio.sleep(works_on_s)

    async def downward() -> None:
        while (frame := await inner.receive()) is not None:
            with contextlib.suppress(ConnectionError):
                await client.send(frame)
            if frame.channel == _ERROR:
                return

    tasks = [asyncio.create_task(upward()), asyncio.create_task(downward())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(ConnectionError, TimeoutError, errors.ApiError):
            await inner.close()
        with contextlib.suppress(ConnectionError, TimeoutError, errors.ApiError):
            await client.close()


def _log_request(call: Call) -> LogRequest:
    """The lines that a query asks for; raises BadRequest and Invalid."""
    query = call.query
    since_time = query.get("sinceTime", "")
    try:
        since = parse_time(since_time) if since_time else None
    except ValueError:
        raise BadRequest(f"sinceTime: Invalid value: {since_time!r}: must be an RFC 3339 timestamp") from None
    tail_lines, limit_bytes, since_s = (query.integer(key) for key in ("tailLines", "limitBytes", "sinceSeconds"))
    causes = log_options(tail_lines=tail_lines, limit_bytes=limit_bytes, since_s=since_s, since_time=since)
    if causes:
        raise errors.invalid("PodLogOptions", call.attributes.name, causes)
    return LogRequest(
        namespace=call.attributes.namespace,
        pod=call.attributes.name,
        container=query.get("container", ""),
        follow=query.flag("follow"),
        previous=query.flag("previous"),
        timestamps=query.flag("timestamps"),
        tail_lines=tail_lines,
        limit_bytes=limit_bytes,
        since_s=None if since_s is None else float(since_s),
        since_time=since,
    )


def container_of(pod: Obj, wanted: str) -> str:
    """The container that a request means.

    Raises:
        BadRequest: it must say which, or names one that the pod does not have.
    """
    spec, name = pod.get("spec") or {}, pod["metadata"]["name"]
    names = [row["name"] for row in spec.get("containers") or ()]
    every = [row["name"] for field in _CONTAINER_FIELDS for row in spec.get(field) or ()]
    wanted = wanted or annotations_of(pod).get(_DEFAULT_CONTAINER, "")
    if not wanted:
        if len(names) == 1:
            return str(names[0])
        others = [row["name"] for row in spec.get("initContainers") or ()]
        also = f" or one of the init containers: [{' '.join(others)}]" if others else ""
        raise BadRequest(f"a container name must be specified for pod {name}, choose one of: [{' '.join(names)}]{also}")
    if wanted not in every:
        raise BadRequest(f"container {wanted} is not valid for pod {name}")
    return wanted
