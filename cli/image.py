"""`steer image`: images in the nodes' own stores, for clusters that reach no registry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import click
import orjson

from steersman.cli.errors import failed
from steersman.cli.output import print_table, to_json
from steersman.cli.session import ExampleGroup, Session, api_command, target
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import NODES

_CHUNK = 1024 * 1024

image = ExampleGroup(
    "image",
    help="Load images into nodes, or list those they have.",
    examples="""
    steer image load web.tar                 # into every node
    steer image load web.tar --node n1
    steer image ls
    steer image ls -q
    """,
)


async def _nodes(session: Session, wanted: tuple[str, ...]) -> list[str]:
    if wanted:
        return list(wanted)
    names = [node["metadata"]["name"] for node in (await session.client.list(NODES)).items]
    if not names:
        raise failed("the cluster has no nodes yet")
    return names


@api_command("load", group=image, examples="steer image load web.tar --node n1")
@click.argument("file", metavar="FILE", type=click.Path())
@click.option("--node", "nodes", multiple=True, metavar="NAME", help="Into this node; every node by default.")
async def load(session: Session, file: str, nodes: tuple[str, ...]) -> None:
    """Load an OCI or docker archive (a tar, as `docker save` writes it) into nodes."""
    _check_file(file)
    for node in await _nodes(session, nodes):
        for name in await _load(session, node, file):
            click.echo(f"{name} loaded into node/{node}")


def _check_file(path: str) -> None:
    if not Path(path).is_file():
        raise failed(f"{path} is no file")


async def _load(session: Session, node: str, file: str) -> list[str]:
    from steersman.actors.client import read_body
    from steersman.actors.http.client import error_of

    path = target(NODES.path(None, node, "proxy") + "/images")
    answer = await session.client.request("POST", path, _pieces(file), {"content-type": "application/x-tar"})
    body = await read_body(answer)
    if answer.status >= 400:
        raise error_of(answer.status, body)
    found = orjson.loads(body) if body else {}
    names: list[str] = found.get("loaded") or []
    return names


async def _pieces(path: str) -> AsyncIterator[bytes]:
    archive = await asyncio.to_thread(open, path, "rb")
    with archive:
        while data := await asyncio.to_thread(archive.read, _CHUNK):
            yield data


@api_command("ls", group=image, examples="steer image ls\nsteer image ls -q --node n1")
@click.option("--node", "nodes", multiple=True, metavar="NAME", help="Of this node; every node by default.")
@click.option("-q", "--quiet", is_flag=True, help="Names alone.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="As JSON.")
async def ls(session: Session, nodes: tuple[str, ...], quiet: bool, output: str | None) -> None:
    """List the images that nodes have."""
    found: dict[str, list[Obj]] = {}
    for node in await _nodes(session, nodes):
        answer = await session.fetch(target(NODES.path(None, node, "proxy") + "/images"))
        found[node] = answer.get("images") or []
    if output == "json":
        click.echo(to_json(found))
        return
    if quiet:
        names = {name for rows in found.values() for row in rows for name in row.get("names") or ()}
        for name in sorted(names):
            click.echo(name)
        return
    rows = [
        [name, row.get("id", "").removeprefix("sha256:")[:12], _size(row.get("sizeBytes", 0)), node]
        for node, images in found.items()
        for row in images
        for name in row.get("names") or ["<none>"]
    ]
    print_table(["IMAGE", "ID", "SIZE", "NODE"], sorted(rows))


def _size(count: int) -> str:
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f}{unit}" if unit == "B" else f"{amount:.1f}{unit}"
        amount /= 1000
    return f"{amount:.2f}GB"


COMMANDS = [image]
