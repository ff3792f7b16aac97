"""`steer cp`: files to and from containers, as a tar stream through exec."""

from __future__ import annotations

import asyncio
import io
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast

import click
import orjson

from steersman.actors.ports import Channel, ExecRequest, Frame
from steersman.cli.errors import failed
from steersman.cli.pods import container_of
from steersman.cli.session import Session, api_command
from steersman.cli.terminal import exit_code
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import PODS

EXAMPLES = """
steer cp ./site web-1:/srv/www
steer cp web-1:/var/log/app.log ./app.log
steer cp shop/web-1:/etc/app.conf - -c app     # to standard output
"""
_CHUNK = 64 * 1024
#: an archive on its way is kept in memory up to this size, then on disk
_SPOOL_BYTES = 16 * 1024 * 1024


class Place(NamedTuple):
    """A path, in a pod or here."""

    path: str
    pod: str = ""
    namespace: str = ""


@api_command("cp", examples=EXAMPLES)
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@click.option("-c", "--container", metavar="NAME", help="Container of the pod.")
async def cp(session: Session, source: str, target: str, container: str | None) -> None:
    """Copy files and directories between here and a container, which must have `tar`.

    A path in a pod is written [NAMESPACE/]POD:PATH."""
    start, end = _place(source), _place(target)
    if bool(start.pod) == bool(end.pod):
        raise failed("one of source and target must be in a pod: [NAMESPACE/]POD:PATH")
    if end.pod:
        _check_exists(start.path)
        await _upload(session, start, end, container)
    else:
        await _download(session, start, end, container)


def _place(text: str) -> Place:
    head, colon, path = text.partition(":")
    if not colon or head.startswith((".", "/")) or "\\" in head:
        return Place(text)
    namespace, slash, pod = head.rpartition("/")
    if not pod or not path:
        raise failed(f"{text!r}: a path in a pod is written [NAMESPACE/]POD:PATH")
    return Place(path, pod, namespace if slash else "")


def _check_exists(path: str) -> None:
    if not Path(path).exists():
        raise failed(f"{path} does not exist")


def _own_name(path: str) -> str:
    """The last part of a path, also of `.`."""
    return Path(path).resolve().name


async def _open(
    session: Session, place: Place, container: str | None, command: tuple[str, ...], *, stdin: bool
) -> Channel:
    namespace = place.namespace or session.namespace
    pod: Obj = await session.client.get(PODS, place.pod, namespace)
    request = ExecRequest(
        namespace=namespace,
        pod=place.pod,
        container=container_of(pod, container),
        command=command,
        stdin=stdin,
    )
    return await session.client.exec(request)


async def _upload(session: Session, start: Place, end: Place, container: str | None) -> None:
    target = PurePosixPath(end.path)
    into = end.path.endswith("/") or await _is_directory(session, end, container)
    folder, name = (target, _own_name(start.path)) if into else (target.parent, target.name)
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool:
        file = cast(IO[bytes], spool)
        with tarfile.open(fileobj=file, mode="w") as archive:
            archive.add(start.path, arcname=name)
        file.seek(0)
        channel = await _open(session, end, container, ("tar", "xmf", "-", "-C", str(folder)), stdin=True)
        drain = asyncio.create_task(_collect(channel, io.BytesIO()))
        while data := file.read(_CHUNK):
            if drain.done():
                break
            await channel.send(Frame(0, data))
        if not drain.done():
            await channel.send(Frame(255, b"\x00"))
        await _end(channel, drain)


async def _is_directory(session: Session, place: Place, container: str | None) -> bool:
    channel = await _open(session, place, container, ("test", "-d", place.path), stdin=False)
    try:
        status, _ = await _collect(channel, io.BytesIO())
    finally:
        await channel.close()
    return exit_code(status) == 0


async def _download(session: Session, start: Place, end: Place, container: str | None) -> None:
    source = PurePosixPath(start.path.rstrip("/") or "/")
    command = ("tar", "cf", "-", "-C", str(source.parent), source.name or ".")
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool:
        file = cast(IO[bytes], spool)
        channel = await _open(session, start, container, command, stdin=False)
        await _end(channel, asyncio.create_task(_collect(channel, file)))
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r") as archive:
                _unpack(archive, source.name or ".", end.path)
        except tarfile.TarError as error:
            raise failed(f"the archive that the container sent cannot be read: {error}") from None


async def _collect(channel: Channel, out: IO[bytes]) -> tuple[Obj | None, str]:
    """Writes standard output; returns the final status and what came on standard error."""
    errors = bytearray()
    while (frame := await channel.receive()) is not None:
        if frame.channel == 1:
            out.write(frame.data)
        elif frame.channel == 2 and len(errors) < _CHUNK:
            errors += frame.data
        elif frame.channel == 3:
            status: Obj = orjson.loads(frame.data) if frame.data else {}
            return status, errors.decode(errors="replace").strip()
    return None, errors.decode(errors="replace").strip()


async def _end(channel: Channel, work: asyncio.Task[tuple[Obj | None, str]]) -> None:
    try:
        status, said = await work
    finally:
        await channel.close()
    code = exit_code(status)
    if code == 0:
        return
    detail = said or (status or {}).get("message", "")
    if code in (126, 127) or code is None:
        raise failed(f"tar cannot be run in the container, and `steer cp` needs it: {detail}")
    raise failed(f"tar in the container ended with exit code {code}: {detail}")


def _unpack(archive: tarfile.TarFile, name: str, target: str) -> None:
    """Unpacks the one file or directory `name` as `target`; nothing may land outside of it."""
    if target == "-":
        for member in archive:
            if member.isfile() and (content := archive.extractfile(member)) is not None:
                sys.stdout.buffer.write(content.read())
        return
    base = Path(target)
    if base.is_dir() and name != ".":
        base = base / name
    for member, inside in _safe(archive, name):
        path = base / inside if inside else base
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
        elif member.isfile() and (content := archive.extractfile(member)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                while data := content.read(_CHUNK):
                    file.write(data)
            os.chmod(path, member.mode & 0o777)
        else:
            click.echo(f"warning: skipping {member.name}: neither a file nor a directory", err=True)


def _safe(archive: tarfile.TarFile, name: str) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """Yields (member, path below `name`) of the members that stay inside."""
    for member in archive:
        parts = PurePosixPath(member.name).parts
        inside = parts[1:] if parts and parts[0] == name else parts
        if ".." in parts or member.name.startswith("/"):
            click.echo(f"warning: skipping {member.name}: it leads outside of the target", err=True)
            continue
        yield member, "/".join(inside)


COMMANDS = [cp]
