"""Carries out the handlers of probes and lifecycle hooks: exec, httpGet, tcpSocket, grpc, sleep.

Where the runtime only simulates containers there is nothing to connect to: there every network probe asks the runtime.

Source: https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steersman.actors.rpc.health import check_health
from steersman.cluster.meta.objects import Obj
from steersman.cluster.node.values import RuntimeFailure
from steersman.runtime.protocol import Runtime

HEADER_BYTES_MAX = 16 << 10
OUTPUT_CHARS_MAX = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Args: success: None when the handler could not be carried out at all."""

    success: bool | None
    output: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The container that a handler is about."""

    container_id: str
    container: Obj
    pod_ip: str


class HandlerError(Exception):
    """The handler names something that does not exist, as an unknown port."""


class Handlers:
    """Args: simulated: whether the runtime's pods have no real addresses."""

    def __init__(self, runtime: Runtime, *, simulated: bool = False) -> None:
        self._runtime = runtime
        self.simulated = simulated

    async def probe(self, handler: Mapping[str, Any], target: Target, deadline_s: float) -> Answer:
        """Carries out a probe once."""
        try:
            if "exec" in handler:
                return await self._exec(tuple(handler["exec"].get("command") or ()), target, deadline_s)
            if self.simulated:
                return await self._exec(("probe",), target, deadline_s)
            if "httpGet" in handler:
                return await _http(handler["httpGet"], target, deadline_s)
            if "tcpSocket" in handler:
                return await _tcp(handler["tcpSocket"], target, deadline_s)
            if "grpc" in handler:
                grpc = handler["grpc"]
                problem = await check_health(f"{target.pod_ip}:{grpc['port']}", grpc.get("service") or "", deadline_s)
                return Answer(success=not problem, output=problem)
        except (RuntimeFailure, HandlerError) as error:
            return Answer(success=None, output=str(error))
        return Answer(success=None, output="missing probe handler")

    async def hook(self, handler: Mapping[str, Any], target: Target, deadline_s: float) -> Answer:
        """Carries out a postStart or preStop hook, for at most `deadline_s`."""
        if "sleep" in handler:
            await asyncio.sleep(min(float(handler["sleep"].get("seconds") or 0), deadline_s))
            return Answer(success=True)
        if "tcpSocket" in handler:
            return Answer(success=True)  # accepted by the API and never carried out, as in Kubernetes
        return await self.probe(handler, target, deadline_s)

    async def _exec(self, command: tuple[str, ...], target: Target, deadline_s: float) -> Answer:
        try:
            result = await self._runtime.exec_sync(target.container_id, command, deadline_s)
        except TimeoutError:
            return Answer(success=False, output=f"command timed out: {list(command)!r} timed out after {deadline_s:g}s")
        output = (result.stdout + result.stderr).decode(errors="replace")[:OUTPUT_CHARS_MAX]
        return Answer(success=result.exit_code == 0, output=output)


def _port(port: Any, container: Mapping[str, Any]) -> int:
    if isinstance(port, int) or str(port).isdigit():
        return int(port)
    for row in container.get("ports") or ():
        if row.get("name") == port:
            return int(row["containerPort"])
    raise HandlerError(f"couldn't find port: {port!r} in container {container['name']!r}")


def _problem(error: OSError) -> str:
    """What Go's dialer says of the commonest errors."""
    if isinstance(error, ConnectionRefusedError):
        return "connect: connection refused"
    if isinstance(error, ConnectionResetError):
        return "read: connection reset by peer"
    return error.strerror or str(error)


async def _tcp(handler: Mapping[str, Any], target: Target, deadline_s: float) -> Answer:
    host = handler.get("host") or target.pod_ip
    port = _port(handler.get("port"), target.container)
    try:
        async with asyncio.timeout(deadline_s):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return Answer(success=False, output=f"dial tcp {host}:{port}: i/o timeout")
    except OSError as error:
        return Answer(success=False, output=f"dial tcp {host}:{port}: {_problem(error)}")
    await _hang_up(writer)
    return Answer(success=True)


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, ssl.SSLError):
        await writer.wait_closed()


def _unverified() -> ssl.SSLContext:
    """TLS as probes use it: the certificate is not looked at."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _http(handler: Mapping[str, Any], target: Target, deadline_s: float) -> Answer:
    host = handler.get("host") or target.pod_ip
    port = _port(handler.get("port"), target.container)
    secure = (handler.get("scheme") or "HTTP").upper() == "HTTPS"
    path = handler.get("path") or "/"
    path = path if path.startswith("/") else f"/{path}"
    url = f"{'https' if secure else 'http'}://{host}:{port}{path}"
    headers = {"Host": f"{host}:{port}", "User-Agent": "kube-probe/1.36", "Accept": "*/*", "Connection": "close"}
    for row in handler.get("httpHeaders") or ():
        headers[_canonical(row["name"])] = row.get("value") or ""
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    try:
        async with asyncio.timeout(deadline_s):
            code = await _ask(host, port, "\r\n".join(lines).encode(), _unverified() if secure else None)
    except TimeoutError:
        detail = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        return Answer(success=False, output=f'Get "{url}": {detail}')
    except OSError as error:
        return Answer(success=False, output=f'Get "{url}": dial tcp {host}:{port}: {_problem(error)}')
    except ValueError as error:
        return Answer(success=False, output=f'Get "{url}": {error}')
    if 200 <= code < 400:
        return Answer(success=True)
    return Answer(success=False, output=f"HTTP probe failed with statuscode: {code}")


def _canonical(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))


async def _ask(host: str, port: int, request: bytes, tls: ssl.SSLContext | None) -> int:
    """Sends a request; returns the status code, and reads no further than the first line."""
    reader, writer = await asyncio.open_connection(host, port, ssl=tls, limit=HEADER_BYTES_MAX)
    try:
        writer.write(request)
        await writer.drain()
        line = await reader.readline()
        words = line.split(maxsplit=2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
            raise ValueError("EOF" if not line else f"malformed HTTP response {line[:64]!r}")
        return int(words[1])
    finally:
        await _hang_up(writer)
