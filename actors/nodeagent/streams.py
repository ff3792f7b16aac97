"""Logs, exec, attach, port-forward, statistics and images of one node, over its runtime."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any

import orjson

from steersman.actors.http.channels import pair
from steersman.actors.nodeagent.host import Host
from steersman.actors.nodeagent.worker import PodWorker
from steersman.actors.ports import Channel, ExecRequest, Frame, LogRequest
from steersman.cluster.meta.errors import BadRequest, InternalError
from steersman.cluster.meta.objects import Obj
from steersman.cluster.node.containers import find_container
from steersman.cluster.node.streams import (
    choose_log,
    choose_running,
    exec_status,
    failure_status,
    log_line,
    no_such_pod,
    outlives_input,
    summary,
)
from steersman.cluster.node.values import ContainerStats, ContainerStatus, RuntimeFailure
from steersman.runtime.protocol import ByteStream, Process

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
#: log lines are sent together up to this many bytes while nobody waits for the next one
PIECE_BYTES_MAX = 32 << 10
#: what an attachment that ends with its input still carries: the answer to the last that was said
_LAST_WORDS_S = 0.5


class Streams:
    """Args: find: the worker of a pod by namespace and name, if the pod is here."""

    def __init__(self, host: Host, find: Callable[[str, str], PodWorker | None]) -> None:
        self._host = host
        self._find = find
        #: conversations under way
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_stats: dict[str, ContainerStats] = {}

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _pod(self, namespace: str, name: str) -> tuple[PodWorker, tuple[ContainerStatus, ...]]:
        worker = self._find(namespace, name)
        if worker is None:
            raise no_such_pod(name)
        return worker, self._host.view.containers(worker.uid)

    # --- logs

    async def logs(self, request: LogRequest) -> AsyncIterator[bytes]:
        worker, containers = self._pod(request.namespace, request.pod)
        status = choose_log(worker.pod, request.container, containers, previous=request.previous)
        since = request.since_time
        if request.since_s is not None:
            since = self._host.now() - request.since_s
        skip = 0
        if request.tail_lines is not None:
            total = 0
            async for moment, _, _ in self._host.runtime.log_lines(status.id, follow=False):
                total += since is None or moment >= since
            skip = max(0, total - request.tail_lines)
        return self._pieces(request, status.id, since, skip)

    async def _pieces(
        self, request: LogRequest, container_id: str, since: float | None, skip: int
    ) -> AsyncIterator[bytes]:
        left = request.limit_bytes
        piece = bytearray()
        lines = self._host.runtime.log_lines(container_id, follow=request.follow)
        async for moment, _, line in lines:
            if since is not None and moment < since:
                continue
            if skip > 0:
                skip -= 1
                continue
            text = log_line(moment, line, timestamps=request.timestamps)
            if left is not None:
                text = text[:left]
                left -= len(text)
            piece += text
            if request.follow or len(piece) >= PIECE_BYTES_MAX:
                yield bytes(piece)
                piece.clear()
            if left is not None and left <= 0:
                break
        if piece:
            yield bytes(piece)

    # --- conversations

    async def exec(self, request: ExecRequest) -> Channel:
        if not request.command:
            raise BadRequest("you must specify at least 1 command for the container")
        worker, containers = self._pod(request.namespace, request.pod)
        status = choose_running(worker.pod, request.container, containers)
        try:
            process = await self._host.runtime.exec(status.id, request.command, stdin=request.stdin, tty=request.tty)
        except RuntimeFailure as failure:
            raise InternalError(f"error executing command in container: {failure.message}") from failure
        return self._converse(request, process)

    async def attach(self, request: ExecRequest) -> Channel:
        worker, containers = self._pod(request.namespace, request.pod)
        status = choose_running(worker.pod, request.container, containers)
        container = find_container(worker.pod, request.container) or {}
        if request.tty and not container.get("tty"):
            raise BadRequest(f"Unable to use a TTY - container {request.container} did not allocate one")
        try:
            process = await self._host.runtime.attach(status.id, stdin=request.stdin, tty=bool(container.get("tty")))
        except RuntimeFailure as failure:
            raise InternalError(f"error attaching to container: {failure.message}") from failure
        return self._converse(request, process, lasts=outlives_input(container))

    def _converse(self, request: ExecRequest, process: Process, *, lasts: bool = True) -> Channel:
        near, far = pair()
        self._spawn(_talk(request, process, far, lasts=lasts))
        return near

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def port_forward(self, namespace: str, pod: str, port: int) -> Channel:
        worker, _ = self._pod(namespace, pod)
        ready = [row for row in self._host.view.sandboxes(worker.uid) if row.ready]
        if not ready:
            raise BadRequest(f"unable to forward port because pod is not running. Current status={worker.phase}")
        sandbox = max(ready, key=lambda row: row.attempt)
        try:
            stream = await self._host.runtime.connect(sandbox.id, port)
        except RuntimeFailure as failure:
            message = f"error forwarding port {port} to pod {sandbox.id}, uid : {failure.message}"
            raise InternalError(message) from failure
        near, far = pair()
        self._spawn(_forward(stream, far))
        return near

    # --- statistics and images

    async def stats(self, pods: Iterable[Obj]) -> Obj:
        try:
            rows = await self._host.runtime.stats()
        except RuntimeFailure as failure:
            raise InternalError(f"failed to list container stats: {failure.message}") from failure
        result = summary(
            self._host.config.name, pods, rows, self._last_stats, self._host.now(), images=await self.list_images()
        )
        self._last_stats = {row.id: row for row in rows}
        return result

    async def load_image(self, archive: AsyncIterator[bytes]) -> list[str]:
        try:
            return await self._host.runtime.load_image(archive)
        except RuntimeFailure as failure:
            raise BadRequest(f"the archive cannot be loaded: {failure.message}") from failure

    async def list_images(self) -> list[dict[str, Any]]:
        try:
            images = await self._host.runtime.images()
        except RuntimeFailure as failure:
            raise InternalError(f"failed to list images: {failure.message}") from failure
        return [{"names": list(row.names), "id": row.id, "sizeBytes": row.size_bytes} for row in images]


async def _talk(request: ExecRequest, process: Process, channel: Channel, *, lasts: bool) -> None:
    """Carries a process's streams until it ends or the client leaves; `lasts`: also when there is no more input."""
    hearing = asyncio.ensure_future(_hear(request, process, channel, lasts=lasts))
    try:
        while (piece := await process.read()) is not None:
            stream, data = piece
            if (request.stdout and stream == STDOUT) or (request.stderr and stream == STDERR):
                await channel.send(Frame(stream, data))
        status = exec_status(await process.wait())
    except (RuntimeFailure, OSError) as failure:
        status = failure_status(str(failure))
    finally:
        hearing.cancel()
        with contextlib.suppress(RuntimeFailure, OSError):
            await process.close()
    await channel.send(Frame(ERROR, orjson.dumps(status)))
    await channel.close()


async def _hear(request: ExecRequest, process: Process, channel: Channel, *, lasts: bool) -> None:
    """Carries what the client sends; when it leaves, the process is let go."""
    with contextlib.suppress(RuntimeFailure, OSError):
        while (frame := await channel.receive()) is not None:
            if frame.channel == STDIN and request.stdin:
                if frame.data:
                    await process.write(frame.data)
            elif frame.channel == CLOSE and frame.data == bytes((STDIN,)) and request.stdin:
                if not lasts:
                    await asyncio.sleep(_LAST_WORDS_S)
                    break
                await process.write(b"")
            elif frame.channel == RESIZE and (size := _size(frame.data)) is not None:
                await process.resize(*size)
        await process.close()


def _size(data: bytes) -> tuple[int, int] | None:
    """The (width, height) in a resize frame, whose names Go reads in any case; None when it is not one."""
    try:
        row = {name.lower(): value for name, value in orjson.loads(data).items()}
        width, height = int(row["width"]), int(row["height"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return (width, height) if 0 < width < 65536 and 0 < height < 65536 else None


async def _forward(stream: ByteStream, channel: Channel) -> None:
    """Carries a connection until both sides have said all."""
    hearing = asyncio.ensure_future(_hear_client(stream, channel))
    try:
        with contextlib.suppress(RuntimeFailure, OSError):
            while data := await stream.read():
                await channel.send(Frame(STDOUT, data))
    finally:
        hearing.cancel()
        with contextlib.suppress(RuntimeFailure, OSError):
            await stream.close()
    await channel.close()


async def _hear_client(stream: ByteStream, channel: Channel) -> None:
    with contextlib.suppress(RuntimeFailure, OSError):
        while (frame := await channel.receive()) is not None:
            if frame.channel == STDIN and frame.data:
                await stream.write(frame.data)
            elif frame.channel == CLOSE:
                await stream.write(b"")
        await stream.close()
