"""`steer patch`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click
import yaml

from steersman.cli.completers import complete_targets
from steersman.cli.errors import failed
from steersman.cli.objects import Selection, report, select
from steersman.cli.session import FIELD_MANAGER, Session, api_command
from steersman.cluster.meta import yamlio

EXAMPLES = """
steer patch deployment web -p '{"spec":{"replicas":3}}'
steer patch pod web-1 --type=json -p '[{"op":"replace","path":"/metadata/labels/app","value":"api"}]'
steer patch node n1 --type=merge -p 'spec: {unschedulable: true}'
steer patch deployment web --patch-file=change.yaml
"""


@api_command("patch", examples=EXAMPLES)
@click.argument("what", nargs=-1, metavar="TYPE NAME", shell_complete=complete_targets)
@click.option("-f", "--filename", "files", multiple=True, metavar="FILE", help="Patch what these manifests name.")
@click.option("-p", "--patch", "text", metavar="PATCH", help="The patch, as JSON or YAML.")
@click.option("--patch-file", metavar="FILE", help="File with the patch.")
@click.option("--type", "kind", type=click.Choice(["strategic", "merge", "json"]), default="strategic")
@click.option("--subresource", metavar="NAME", help="Patch a subresource: status, scale.")
@click.option("--dry-run", type=click.Choice(["none", "server"]), default="none", help="server: check only.")
@click.option("-o", "--output", metavar="FORM", help="Print the objects: name, json, yaml.")
async def patch(
    session: Session,
    what: tuple[str, ...],
    files: tuple[str, ...],
    text: str | None,
    patch_file: str | None,
    kind: Literal["strategic", "merge", "json"],
    subresource: str | None,
    dry_run: str,
    output: str | None,
) -> None:
    """Change fields of objects by a strategic, merge or JSON patch."""
    body = _body(text, patch_file)
    for where in await select(session, Selection(words=what, files=files)):
        before = await session.client.get(where.resource, where.name, where.namespace)
        after = await session.client.patch(
            where.resource,
            where.name,
            body,
            where.namespace,
            kind=kind,
            subresource=subresource,
            field_manager=FIELD_MANAGER,
            dry_run=dry_run == "server",
        )
        same = before["metadata"].get("resourceVersion") == after["metadata"].get("resourceVersion")
        verb = "patched (no change)" if same and dry_run == "none" else "patched"
        report(where, after, verb, output, dry_run=dry_run)


def _body(text: str | None, file: str | None) -> Any:
    if (text is None) == (file is None):
        raise failed("exactly one of -p and --patch-file is needed")
    source = "--patch"
    if file is not None:
        source = file
        try:
            text = Path(file).read_text()
        except OSError as error:
            raise failed(f"cannot read {file}: {error.strerror}") from None
    try:
        body = yamlio.load(text or "")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise failed(f"{where}: unable to parse the patch: {error.problem}") from None
    if not isinstance(body, dict | list):
        raise failed(f"{source}: a patch is an object or a list of operations")
    return body


COMMANDS = [patch]
