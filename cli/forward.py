"""`steer port-forward`."""

from __future__ import annotations

import asyncio
import contextlib
from typing import NamedTuple

import click

from steersman.actors.ports import Channel, Frame
from steersman.cli.completers import complete_targets
from steersman.cli.errors import failed
from steersman.cli.pods import best, pod_of, pods_behind
from steersman.cli.session import Session, api_command
from steersman.cluster.meta.errors import ApiError
from steersman.cluster.meta.objects import Obj

EXAMPLES = """
steer port-forward pod/web-1 8080:80
steer port-forward deployment/web 8080:80
steer port-forward service/web 8080:http      # by the name of the service's port
steer port-forward web-1 :80                  # any free local port
steer port-forward --address 0.0.0.0 web-1 8080:80
"""
_CHUNK = 64 * 1024


class Pair(NamedTuple):
    """A local port (0 for any free one) and the port of the pod behind it."""

    local: int
    remote: int


@api_command("port-forward", examples=EXAMPLES)
@click.argument("what", metavar="POD|TYPE/NAME", shell_complete=complete_targets)
@click.argument("ports", nargs=-1, required=True, metavar="[LOCAL:]REMOTE...")
@click.option("--address", "addresses", default="127.0.0.1", metavar="ADDRESS,…", help="Listen here.")
async def port_forward(session: Session, what: str, ports: tuple[str, ...], addresses: str) -> None:
    """Forward local ports to a pod until interrupted."""
    pod, pairs = await _resolve(session, what, ports)
    namespace, name = pod["metadata"].get("namespace", session.namespace), pod["metadata"]["name"]
    phase = (pod.get("status") or {}).get("phase")
    if phase != "Running":
        raise failed(f"unable to forward port because pod is not running. Current status={phase}")
    async with contextlib.AsyncExitStack() as stack:
        servers = []
        for pair in pairs:
            for address in addresses.split(","):
                host = {"localhost": "127.0.0.1"}.get(address.strip(), address.strip())
                server = await _listen(session, namespace, name, host, pair)
                servers.append(await stack.enter_async_context(server))
        await asyncio.gather(*(server.serve_forever() for server in servers))


async def _listen(session: Session, namespace: str, pod: str, host: str, pair: Pair) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        click.echo(f"Handling connection for {port}")
        try:
            channel = await session.client.port_forward(namespace, pod, pair.remote)
            await relay(channel, reader, writer)
        except (ApiError, ConnectionError) as error:
            click.echo(f"error forwarding port {pair.remote} to pod {pod}: {error}", err=True)
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(serve, host, pair.local)
    except OSError as error:
        raise failed(f"unable to listen on {host}:{pair.local}: {error.strerror or error}") from None
    port = server.sockets[0].getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"Forwarding from {shown}:{port} -> {pair.remote}")
    return server


async def relay(channel: Channel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copies bytes both ways until the pod's side ends."""

    async def upward() -> None:
        while data := await reader.read(_CHUNK):
            await channel.send(Frame(0, data))
        await channel.send(Frame(255, b"\x00"))

    up = asyncio.create_task(upward())
    try:
        while (frame := await channel.receive()) is not None:
            if frame.channel == 3 and frame.data:
                raise ConnectionError(frame.data.decode(errors="replace"))
            if frame.channel == 1 and frame.data:
                writer.write(frame.data)
                await writer.drain()
            if frame.channel == 255:
                break
    finally:
        up.cancel()
        await asyncio.gather(up, return_exceptions=True)
        await channel.close()


async def _resolve(session: Session, what: str, ports: tuple[str, ...]) -> tuple[Obj, list[Pair]]:
    """Returns the pod and the pairs of ports, those of a service turned into the pod's."""
    if "/" in what:
        kind, name = (await session.kinds()).one([what])
        if kind.resource.kind == "Service":
            service = await session.client.get(kind.resource, name, session.namespace)
            pods = await pods_behind(session, kind.resource, service)
            if not pods:
                raise failed(f"no pods found behind {what}")
            pod = best(pods)
            return pod, [_service_pair(text, service, pod) for text in ports]
    pod = await pod_of(session, what)
    return pod, [_pod_pair(text, pod) for text in ports]


def _split(text: str) -> tuple[str, str]:
    local, colon, remote = text.rpartition(":")
    return (local or "0", remote) if colon else (remote, remote)


def _number(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise failed(f"{text!r} is no port number")
    return int(text)


def _named_port(pod: Obj, name: str) -> int | None:
    for container in pod["spec"].get("containers") or ():
        for row in container.get("ports") or ():
            if row.get("name") == name:
                return int(row["containerPort"])
    return None


def _pod_pair(text: str, pod: Obj) -> Pair:
    local, remote = _split(text)
    number = _named_port(pod, remote) if not remote.isdigit() else int(remote)
    if number is None:
        raise failed(f"pod {pod['metadata']['name']} has no port named {remote!r}")
    return Pair(_number(local) if local != remote or remote.isdigit() else number, number)


def _service_pair(text: str, service: Obj, pod: Obj) -> Pair:
    local, remote = _split(text)
    for row in service["spec"].get("ports") or ():
        if remote in (str(row.get("port")), row.get("name")):
            behind = row.get("targetPort", row["port"])
            number = _named_port(pod, behind) if isinstance(behind, str) and not behind.isdigit() else int(behind)
            if number is None:
                raise failed(f"pod {pod['metadata']['name']} has no port named {behind!r}")
            return Pair(_number(local) if local.isdigit() else int(row["port"]), number)
    known = ", ".join(str(row.get("port")) for row in service["spec"].get("ports") or ())
    raise failed(f"service {service['metadata']['name']} has no port {remote}; it has {known or 'none'}")


COMMANDS = [port_forward]
