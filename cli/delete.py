"""`steer delete`."""

from __future__ import annotations

import asyncio

import click

from steersman.cli.completers import complete_targets
from steersman.cli.errors import Failed, failed, sentence
from steersman.cli.objects import Located, Selection, select
from steersman.cli.session import Session, api_command
from steersman.cli.waiting import DURATION, deadline, until_gone
from steersman.cluster.meta.errors import ApiError, NotFound

EXAMPLES = """
steer delete pod web-1
steer delete -f web.yaml
steer delete pods,services -l app=web
steer delete deployment/web --cascade=orphan   # keep its pods
steer delete pods --all --now                  # with one second of grace
"""
#: objects whose end is watched at the same time
_WATCHES_MAX = 16
_CASCADE = {"background": "Background", "foreground": "Foreground", "orphan": "Orphan"}


@api_command("delete", examples=EXAMPLES)
@click.argument("what", nargs=-1, metavar="TYPE [NAME...]", shell_complete=complete_targets)
@click.option("-f", "--filename", "files", multiple=True, metavar="FILE", help="Delete what these manifests name.")
@click.option("-R", "--recursive", is_flag=True, help="Read directories below the given ones too.")
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="By labels.")
@click.option("--field-selector", default="", metavar="SELECTOR", help="By fields.")
@click.option("--all", "everything", is_flag=True, help="All objects of the kinds in the namespace.")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Of all namespaces.")
@click.option("--grace-period", type=int, metavar="SECONDS", help="Time for containers to end by themselves.")
@click.option("--now", is_flag=True, help="The same as --grace-period=1.")
@click.option("--force", is_flag=True, help="Forget at once, without waiting for the node.")
@click.option("--cascade", type=click.Choice(sorted(_CASCADE)), default="background", help="What dependents do.")
@click.option("--wait/--no-wait", default=True, help="Wait until the objects are gone (default).")
@click.option("--timeout", type=DURATION, default=0.0, metavar="TIME", help="Wait no longer than this; 0 for ever.")
@click.option("--ignore-not-found", is_flag=True, help="A missing object is no error.")
@click.option("--dry-run", type=click.Choice(["none", "server"]), default="none", help="server: check only.")
@click.option("-o", "--output", type=click.Choice(["name"]), help="Print names only.")
async def delete(
    session: Session,
    what: tuple[str, ...],
    files: tuple[str, ...],
    recursive: bool,
    selector: str,
    field_selector: str,
    everything: bool,
    everywhere: bool,
    grace_period: int | None,
    now: bool,
    force: bool,
    cascade: str,
    wait: bool,
    timeout: float,
    ignore_not_found: bool,
    dry_run: str,
    output: str | None,
) -> None:
    """Delete objects by name, by manifest or by selector, and wait until they are gone."""
    if now and grace_period is not None:
        raise failed("--now and --grace-period cannot be specified together")
    grace_s = 1 if now else 0 if force and grace_period is None else grace_period
    if force:
        click.echo("Warning: the objects are forgotten at once; their containers may go on running.", err=True)
    chosen = Selection(
        words=what,
        files=files,
        recursive=recursive,
        label_selector=selector,
        field_selector=field_selector,
        all=everything,
        everywhere=everywhere,
    )
    found = await select(session, chosen)
    if not found:
        click.echo("No resources found", err=True)
        return
    going: list[tuple[Located, str]] = []
    bad = False
    for where in found:
        try:
            uid = await _delete(session, where, grace_s, _CASCADE[cascade], dry_run == "server")
        except ApiError as error:
            if isinstance(error, NotFound) and (ignore_not_found or everything or selector):
                continue
            Failed(sentence(error)).show()
            bad = True
            continue
        _say(where, forced=force, dry_run=dry_run, output=output)
        going.append((where, uid))
    if wait and not force and dry_run == "none":
        async with deadline(timeout, "the objects to be gone"):
            room = asyncio.Semaphore(_WATCHES_MAX)
            await asyncio.gather(*(_gone(session, where, uid, room) for where, uid in going if uid))
    if bad:
        raise Failed("")


async def _delete(session: Session, where: Located, grace_s: int | None, propagation: str, dry_run: bool) -> str:
    """Deletes one object and returns its uid."""
    answer = await session.client.delete(
        where.resource, where.name, where.namespace, grace_s=grace_s, propagation=propagation, dry_run=dry_run
    )
    if answer.get("kind") == "Status":
        uid: str = (answer.get("details") or {}).get("uid", "")
        return uid
    return str(answer["metadata"].get("uid", ""))


def _say(where: Located, *, forced: bool, dry_run: str, output: str | None) -> None:
    if output == "name":
        click.echo(where.reference)
        return
    kind, _, name = where.reference.partition("/")
    suffix = " (server dry run)" if dry_run == "server" else ""
    click.echo(f'{kind} "{name}" {"force deleted" if forced else "deleted"}{suffix}')


async def _gone(session: Session, where: Located, uid: str, room: asyncio.Semaphore) -> None:
    async with room:
        await until_gone(session, where.resource, where.namespace, where.name, uid)


COMMANDS = [delete]
