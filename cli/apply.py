"""`steer apply`: server-side apply of manifests under the field manager `steer`.

What somebody set by hand, with steer or kubectl, a manifest overrides, and the command says so; fields of controllers
and of other appliers are left to them unless the user insists.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import click

from steersman.cli import manifests
from steersman.cli.errors import failed
from steersman.cli.manifests import Manifest
from steersman.cli.objects import Located, for_each, report
from steersman.cli.output import parse_format
from steersman.cli.session import FIELD_MANAGER, Session, api_command
from steersman.cluster.meta.errors import Cause, Conflict, NotFound
from steersman.cluster.meta.objects import Obj

EXAMPLES = """
steer apply -f web.yaml                 # create what is missing, change what differs
steer apply -f manifests/ -R            # a directory and all below it
cat web.yaml | steer apply -f -
steer apply -f web.yaml --dry-run=server -o yaml
steer apply -f web.yaml --force-conflicts   # take over fields that others own
"""
#: one who is in the way: who wrote the fields with an update, and not with an apply of their own
_UPDATER = re.compile(r'conflict with "(?P<manager>[^"]+)"(?: with subresource "[^"]+")? using ')


@api_command("apply", examples=EXAMPLES)
@click.option("-f", "--filename", "files", multiple=True, required=True, metavar="FILE", help="File, directory or -.")
@click.option("-R", "--recursive", is_flag=True, help="Read directories below the given ones too.")
@click.option("--dry-run", type=click.Choice(["none", "server"]), default="none", help="server: check, change nothing.")
@click.option("--force-conflicts", is_flag=True, help="Take over fields that other managers own.")
@click.option("--field-manager", default=FIELD_MANAGER, metavar="NAME", help="Who owns the applied fields.")
@click.option("-o", "--output", metavar="FORM", help="Print the objects: name, json, yaml.")
async def apply(
    session: Session,
    files: tuple[str, ...],
    recursive: bool,
    dry_run: str,
    force_conflicts: bool,
    field_manager: str,
    output: str | None,
) -> None:
    """Create the objects of manifests, or make those that exist match them.

    Fields that an earlier apply set and the manifest no longer names are removed."""
    parse_format(output)

    async def one(where: Located, manifest: Manifest) -> None:
        if not where.name:
            raise failed(
                f"{manifest.source}:{manifest.line_of('metadata')}: metadata.name is not set; "
                "use `steer create` for generated names"
            )
        before = await _version(session, where)
        after, overridden = await server_side(
            session, where, manifest, manager=field_manager, force=force_conflicts, dry_run=dry_run == "server"
        )
        if overridden:
            paths = ", ".join(cause.field for cause in overridden)
            click.echo(f"Warning: {where.reference}: the manifest overrides what was set by hand: {paths}", err=True)
        verb = "created" if before is None else "unchanged" if _same(before, after) else "configured"
        report(where, after, verb, output, dry_run=dry_run)

    await for_each(session, manifests.read(files, recursive=recursive), one)


async def server_side(
    session: Session, where: Located, manifest: Manifest, *, manager: str, force: bool, dry_run: bool
) -> tuple[Obj, Sequence[Cause]]:
    """Applies one manifest.

    Returns:
        The object as it is now, and the fields set by hand that the manifest overrode.

    Raises:
        ApiError: the server refused; a Conflict names fields of controllers or of other appliers.
    """

    async def send(insist: bool) -> Obj:
        return await session.client.patch(
            where.resource,
            where.name,
            applied(manifest, where),
            where.namespace,
            kind="apply",
            field_manager=manager,
            force=insist,
            dry_run=dry_run,
            field_validation="Strict",
        )

    try:
        return await send(force), ()
    except Conflict as conflict:
        if not set_by_hand(conflict.causes):
            raise
        return await send(True), conflict.causes


def set_by_hand(causes: Sequence[Cause]) -> bool:
    """Whether nobody is in the way but people: updates made with steer or kubectl."""
    updaters = [_UPDATER.match(cause.message) for cause in causes]
    return bool(updaters) and all(
        found is not None
        and (found["manager"] in (FIELD_MANAGER, "kubectl") or found["manager"].startswith("kubectl-"))
        for found in updaters
    )


def applied(manifest: Manifest, where: Located) -> Obj:
    """What is sent: the manifest with its namespace, without what only a server writes."""
    metadata = {key: value for key, value in manifest.obj["metadata"].items() if key != "managedFields"}
    if where.namespace:
        metadata["namespace"] = where.namespace
    return {**manifest.obj, "metadata": metadata}


async def _version(session: Session, where: Located) -> Obj | None:
    try:
        return await session.client.get(where.resource, where.name, where.namespace)
    except NotFound:
        return None


def _same(before: Obj, after: Obj) -> bool:
    """Whether nothing but bookkeeping differs: a dry run keeps the version, a first apply adds a manager."""
    kept = ("managedFields", "resourceVersion", "generation")
    if before["metadata"].get("resourceVersion") != after["metadata"].get("resourceVersion"):
        return False
    return _content(before, kept) == _content(after, kept)


def _content(obj: Obj, without: tuple[str, ...]) -> Obj:
    return {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k not in without}}


COMMANDS = [apply]
