"""`steer label` and `steer annotate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from steersman.cli.completers import complete_targets
from steersman.cli.errors import failed
from steersman.cli.objects import Located, Selection, report, select
from steersman.cli.session import FIELD_MANAGER, Session, api_command

LABEL_EXAMPLES = """
steer label pod web-1 tier=front
steer label pods -l app=web tier=front --overwrite
steer label node n1 disk-              # remove the label
steer label deployment web --list
"""
ANNOTATE_EXAMPLES = """
steer annotate deployment web kubernetes.io/change-cause='new image'
steer annotate pod web-1 note-         # remove the annotation
"""


def _options(function: Any) -> Any:
    for option in (
        click.argument("words", nargs=-1, metavar="TYPE NAME KEY=VALUE|KEY-...", shell_complete=complete_targets),
        click.option("-f", "--filename", "files", multiple=True, metavar="FILE", help="Change what manifests name."),
        click.option("-l", "--selector", default="", metavar="SELECTOR", help="By labels."),
        click.option("--all", "everything", is_flag=True, help="All objects of the kind."),
        click.option("--overwrite", is_flag=True, help="Change values that are set already."),
        click.option("--list", "listing", is_flag=True, help="Print what is set."),
        click.option("--dry-run", type=click.Choice(["none", "server"]), default="none", help="server: check only."),
        click.option("-o", "--output", metavar="FORM", help="Print the objects: name, json, yaml."),
    ):
        function = option(function)
    return function


@api_command("label", examples=LABEL_EXAMPLES)
@_options
async def label(session: Session, **options: Any) -> None:
    """Set or remove labels of objects."""
    await _change(session, "labels", "labeled", **options)


@api_command("annotate", examples=ANNOTATE_EXAMPLES)
@_options
async def annotate(session: Session, **options: Any) -> None:
    """Set or remove annotations of objects."""
    await _change(session, "annotations", "annotated", **options)


async def _change(
    session: Session,
    field: str,
    verb: str,
    words: Sequence[str],
    files: Sequence[str],
    selector: str,
    everything: bool,
    overwrite: bool,
    listing: bool,
    dry_run: str,
    output: str | None,
) -> None:
    names, changes = _split(words)
    if not changes and not listing:
        raise failed("at least one KEY=VALUE to set or KEY- to remove is needed")
    chosen = Selection(words=names, files=files, label_selector=selector, all=everything)
    for where in await select(session, chosen):
        live = await session.client.get(where.resource, where.name, where.namespace)
        have: dict[str, str] = live["metadata"].get(field) or {}
        if listing:
            for key, value in sorted(have.items()):
                click.echo(f"{key}={value}")
            continue
        _refuse_overwrite(where, field, have, {} if overwrite else changes)
        wanted = {key: value for key, value in changes.items() if have.get(key) != value}
        if not wanted:
            missing = [key for key, value in changes.items() if value is None]
            for key in missing:
                click.echo(f'{field[:-1]} "{key}" not found.', err=True)
            report(where, live, f"not {verb}", output, dry_run=dry_run)
            continue
        after = await session.client.patch(
            where.resource,
            where.name,
            {"metadata": {field: wanted}},
            where.namespace,
            field_manager=FIELD_MANAGER,
            dry_run=dry_run == "server",
        )
        only_removed = all(value is None for value in wanted.values()) and verb == "labeled"
        report(where, after, "unlabeled" if only_removed else verb, output, dry_run=dry_run)


def _split(words: Sequence[str]) -> tuple[list[str], dict[str, str | None]]:
    """Returns (words naming objects, key to new value; None removes)."""
    names: list[str] = []
    changes: dict[str, str | None] = {}
    for word in words:
        key, equals, value = word.partition("=")
        removed = not equals and word.endswith("-")
        if not equals and not removed:
            if changes:
                raise failed(f"{word!r} is neither KEY=VALUE nor KEY-, and names of objects come first")
            names.append(word)
            continue
        name = word[:-1] if removed else key
        if name in changes:
            raise failed(f"{name!r} is given twice")
        changes[name] = None if removed else value
    return names, changes


def _refuse_overwrite(where: Located, field: str, have: dict[str, str], changes: dict[str, str | None]) -> None:
    for key, value in changes.items():
        if value is not None and key in have and have[key] != value:
            raise failed(
                f"{where.reference}: '{key}' already has a value ({have[key]}), and --overwrite is false: "
                f"the {field} were left as they are"
            )


COMMANDS = [label, annotate]
