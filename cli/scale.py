"""`steer scale`."""

from __future__ import annotations

import click

from steersman.cli.completers import complete_targets
from steersman.cli.errors import failed
from steersman.cli.objects import Located, Selection, report, select
from steersman.cli.session import FIELD_MANAGER, Session, api_command
from steersman.cli.waiting import DURATION, deadline, until

EXAMPLES = """
steer scale deployment web --replicas=5
steer scale deployment/web deployment/api --replicas=0
steer scale deployment web --current-replicas=2 --replicas=3   # only if there are two now
steer scale deployment web --replicas=5 --timeout=1m           # and wait until there are five
"""


@api_command("scale", examples=EXAMPLES)
@click.argument("what", nargs=-1, metavar="TYPE NAME", shell_complete=complete_targets)
@click.option("-f", "--filename", "files", multiple=True, metavar="FILE", help="Scale what these manifests name.")
@click.option("--replicas", type=click.IntRange(min=0), required=True, metavar="N", help="The number wanted.")
@click.option("--current-replicas", type=int, metavar="N", help="Do it only if this is the number now.")
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="By labels.")
@click.option("--all", "everything", is_flag=True, help="All objects of the kind.")
@click.option("--timeout", type=DURATION, default=0.0, metavar="TIME", help="Wait this long for them to be there.")
@click.option("--dry-run", type=click.Choice(["none", "server"]), default="none", help="server: check only.")
async def scale(
    session: Session,
    what: tuple[str, ...],
    files: tuple[str, ...],
    replicas: int,
    current_replicas: int | None,
    selector: str,
    everything: bool,
    timeout: float,
    dry_run: str,
) -> None:
    """Set the number of replicas of a Deployment, ReplicaSet or StatefulSet."""
    found = await select(session, Selection(words=what, files=files, label_selector=selector, all=everything))
    for where in found:
        if current_replicas is not None:
            now = await session.client.get(where.resource, where.name, where.namespace, subresource="scale")
            have = now["spec"].get("replicas", 0)
            if have != current_replicas:
                raise failed(f"Expected replicas to be {current_replicas}, was {have}")
        await session.client.patch(
            where.resource,
            where.name,
            {"spec": {"replicas": replicas}},
            where.namespace,
            subresource="scale",
            field_manager=FIELD_MANAGER,
            dry_run=dry_run == "server",
        )
        report(where, None, "scaled", None, dry_run=dry_run)
    if timeout and dry_run == "none":
        async with deadline(timeout, f"{replicas} replicas"):
            for where in found:
                await _settled(session, where, replicas)


async def _settled(session: Session, where: Located, replicas: int) -> None:
    await until(
        session,
        where.resource,
        where.namespace,
        where.name,
        lambda obj: obj is not None and (obj.get("status") or {}).get("replicas", 0) == replicas,
    )


COMMANDS = [scale]
