"""The process around a component on Ray: its log file, its status port, its back-off, its end.

The shell answers `steersman.actor.Actor` from its first moment, so that whoever waits can see what a component is
doing. A component that fails to start is tried again by a new process after 0.5 s, 1 s, 2 s ... 30 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import logging.handlers
import os
import random
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import grpc

from steersman.actors import collector, roster
from steersman.actors.parts import Part, make
from steersman.actors.rpc.guard import NameGuard
from steersman.actors.site import Site, decode
from steersman.actors.tls import server_credentials
from steersman.cluster.topology import ActorSpec, api_endpoints
from steersman.pb import actor_pb2, actor_pb2_grpc
from steersman.runtime import syscalls

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

#: how often a component that waits for an API server looks for one
_LOOK_S = 0.1
_BACKOFF_S_FIRST, _BACKOFF_S_MAX = 0.5, 30.0
_LOG_BYTES_MAX, _LOG_FILES = 5_000_000, 2
#: a process that has run this long was healthy: the next failure starts a new series of back-offs
_STEADY_S = 60.0


class ComponentFailed(Exception):
    """A component can go on no more, and is to be started anew."""


class Shell:
    """Runs one component for as long as its process lives."""

    def __init__(self, payload: str) -> None:
        self.spec, site = decode(payload)
        self.site = roster.refreshed(site)
        self._began = time.monotonic()
        self._part: Part | None = None
        self._detail = "starting"
        self._stopping = False
        self._history = History(self.site.run / "actors" / f"{self.spec.name}.json")
        #: kept here, since a gRPC server that nobody refers to any more stops
        self._server: grpc.aio.Server | None = None

    async def run_forever(self) -> None:
        """Starts the component; on failure ends the process after the back-off."""
        try:
            await self.start()
            assert self._server is not None and self._part is not None
            if self._part.wait_failed is not None:
                reason = await self._part.wait_failed()
                if not self._stopping:
                    raise ComponentFailed(reason)
            await self._server.wait_for_termination()
        except Exception as error:
            self._detail = f"{type(error).__name__}: {error}"
            logging.getLogger("steersman").exception("%s failed", self.spec.name)
            self._part = None
            await asyncio.sleep(self._history.fail(self._detail))
            if self._server is not None:
                await self._server.stop(0)
            os._exit(1)

    async def start(self) -> None:
        """Starts the component; its status is answered from the first moment."""
        # Ray's own pipes and logs; no container is to hold them
        syscalls.keep_descriptors()
        self._server = await _serve(self, self.spec, self.site)
        _log_to(self.site.logs / f"{self.spec.name}.log")
        self._history.begin(self._began)
        collector.relax()
        part = make(self.spec, self.site, now=time.time, rng=random.Random())
        if self.spec.role not in ("store", "apiserver", "embedded"):
            self._detail = "waiting for an API server"
            await _first_api_server(self.site)
        await part.component.start()
        self._part = part
        logging.getLogger("steersman").info("%s is running (pid %d)", self.spec.name, os.getpid())

    async def close(self) -> None:
        """Stops the component and the answers about it."""
        self._stopping = True
        if self._part is not None:
            await self._part.component.stop()
        if self._server is not None:
            await self._server.stop(0.2)

    async def stop(self) -> None:
        """Stops the component and ends the process a moment later, when the answer is out."""
        self._stopping = True
        if self._part is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await self._part.component.stop()
        asyncio.get_running_loop().call_later(0.05, os._exit, 0)

    def status(self) -> actor_pb2.StatusReply:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        reply = actor_pb2.StatusReply(
            name=self.spec.name,
            role=self.spec.role,
            host=self.spec.host,
            pid=os.getpid(),
            uptime_s=time.monotonic() - self._began,
            restarts=self._history.restarts,
            memory_bytes=_resident_bytes(),
            cpu_s=usage.ru_utime + usage.ru_stime,
            detail=self._detail,
        )
        if self._part is not None:
            report = self._part.report()
            reply.healthy = report.healthy
            reply.detail = report.detail
            reply.addresses.extend(report.addresses)
            reply.reduced.extend(report.reduced)
        return reply


async def _first_api_server(site: Site) -> None:
    """Waits until an API server listens; at a cold start every component would else back off for seconds."""
    while True:
        for url in api_endpoints(site.config, site.hosts):
            address = urlsplit(url)
            try:
                _, writer = await asyncio.open_connection(address.hostname, address.port)
            except OSError:
                continue
            writer.close()
            return
        await asyncio.sleep(_LOOK_S)


class History:
    """How often an actor was started and failed, kept in a small file across its processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._began = 0.0
        try:
            self._row: dict[str, float | str] = json.loads(path.read_text())
        except (OSError, ValueError):
            self._row = {}

    @property
    def restarts(self) -> int:
        return max(0, int(self._row.get("starts", 1)) - 1)

    def begin(self, now: float) -> None:
        self._began = now
        self._row["starts"] = int(self._row.get("starts", 0)) + 1
        with contextlib.suppress(OSError):
            self._save()

    def fail(self, reason: str) -> float:
        """Notes a failure; returns the seconds to wait before trying again: the longest where nothing can be noted."""
        failures = int(self._row.get("failures", 0))
        # by the machine's own clock, which begins anew when the machine does
        if not 0 <= self._began - float(self._row.get("failed_at", 0)) <= _STEADY_S + _BACKOFF_S_MAX:
            failures = 0
        self._row |= {"failures": failures + 1, "failed_at": time.monotonic(), "reason": reason}
        try:
            self._save()
        except OSError:  # it may be the disk that has failed
            return _BACKOFF_S_MAX
        return float(min(_BACKOFF_S_MAX, _BACKOFF_S_FIRST * 2**failures))

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps(self._row))
        temporary.replace(self._path)


class _Servicer(actor_pb2_grpc.ActorServicer):
    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    async def Status(self, request: actor_pb2.StatusRequest, context: Context) -> actor_pb2.StatusReply:
        return self._shell.status()

    async def Stop(self, request: actor_pb2.StopRequest, context: Context) -> actor_pb2.StopReply:
        await self._shell.stop()
        return actor_pb2.StopReply()


async def _serve(shell: Shell, spec: ActorSpec, site: Site) -> grpc.aio.Server:
    server = grpc.aio.server(interceptors=(NameGuard(("steersman",)),), options=[("grpc.so_reuseport", 0)])
    actor_pb2_grpc.add_ActorServicer_to_server(_Servicer(shell), server)
    server.add_secure_port(f"{site.here.address}:{spec.status_port}", server_credentials(site.credentials("component")))
    await server.start()
    return server


def _log_to(path: Path) -> None:
    """Has what is logged written to a file; on a disk that has failed, to stderr."""
    handler: logging.Handler
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.handlers.RotatingFileHandler(path, maxBytes=_LOG_BYTES_MAX, backupCount=_LOG_FILES)
    except OSError:
        handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)


def _resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize()
