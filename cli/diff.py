"""`steer diff`: what applying manifests would change, by a server-side dry run."""

from __future__ import annotations

import difflib

import click

from steersman.cli import manifests
from steersman.cli.apply import server_side
from steersman.cli.errors import Failed
from steersman.cli.manifests import Manifest
from steersman.cli.objects import Located, for_each
from steersman.cli.output import is_terminal, without_managed_fields
from steersman.cli.session import FIELD_MANAGER, Session, api_command
from steersman.cluster.meta import yamlio
from steersman.cluster.meta.errors import NotFound
from steersman.cluster.meta.objects import Obj

EXAMPLES = """
steer diff -f web.yaml
cat web.yaml | steer diff -f - || echo 'it would change something'
"""


@api_command("diff", examples=EXAMPLES)
@click.option("-f", "--filename", "files", multiple=True, required=True, metavar="FILE", help="File, directory or -.")
@click.option("-R", "--recursive", is_flag=True, help="Read directories below the given ones too.")
@click.option("--force-conflicts", is_flag=True, help="As apply would take over fields of others.")
@click.option("--show-managed-fields", is_flag=True, help="Compare managedFields too.")
async def diff(
    session: Session, files: tuple[str, ...], recursive: bool, force_conflicts: bool, show_managed_fields: bool
) -> None:
    """Show what applying manifests would change. Exits 0 for nothing, 1 for differences, 2 for an error."""
    differs = False

    async def one(where: Located, manifest: Manifest) -> None:
        nonlocal differs
        try:
            live: Obj = await session.client.get(where.resource, where.name, where.namespace)
        except NotFound:
            live = {}
        after, _ = await server_side(
            session, where, manifest, manager=FIELD_MANAGER, force=force_conflicts, dry_run=True
        )
        lines = _difference(where, live, after, show_managed_fields)
        differs = differs or bool(lines)
        for line in lines:
            click.echo(_painted(line))

    try:
        await for_each(session, manifests.read(files, recursive=recursive), one)
    except Failed as error:
        raise Failed(error.message, exit_code=2) from None
    if differs:
        raise Failed("", exit_code=1)


def _difference(where: Located, live: Obj, after: Obj, with_managers: bool) -> list[str]:
    before, wanted = (_shown(obj, with_managers) for obj in (live, after))
    title = ".".join(
        part for part in (where.resource.api_version, where.resource.kind, where.namespace, where.name) if part
    )
    return [
        line.rstrip("\n")
        for line in difflib.unified_diff(
            before.splitlines(), wanted.splitlines(), f"live/{title}", f"applied/{title}", lineterm=""
        )
    ]


def _shown(obj: Obj, with_managers: bool) -> str:
    if not obj:
        return ""
    if not with_managers:
        obj = without_managed_fields(obj)
    # these differ between an object that exists and one that would be made
    metadata = {k: v for k, v in obj["metadata"].items() if k not in ("resourceVersion", "generation")}
    return yamlio.dump({**obj, "metadata": metadata})


def _painted(line: str) -> str:
    if not is_terminal():
        return line
    colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
    return click.style(line, fg=colour, bold=line.startswith(("+++", "---"))) if colour else line


COMMANDS = [diff]
