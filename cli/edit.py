"""`steer edit`: an object in the user's editor, again and again until the server takes it."""

from __future__ import annotations

from typing import Any

import click
import yaml

from steersman.cli.completers import complete_targets
from steersman.cli.errors import Failed, failed, sentence
from steersman.cli.objects import Located, Selection, select
from steersman.cli.output import without_managed_fields
from steersman.cli.session import FIELD_MANAGER, Session, api_command
from steersman.cluster.meta import yamlio
from steersman.cluster.meta.errors import ApiError
from steersman.cluster.meta.objects import Obj

EXAMPLES = """
steer edit deployment web
EDITOR=nano steer edit service/web
"""
_HEAD = """# Please edit the object below. Lines beginning with '#' are ignored, and an empty file aborts the edit.
# What the server refuses is shown here when the file is opened again.
#
"""


@api_command("edit", examples=EXAMPLES)
@click.argument("what", nargs=-1, metavar="TYPE NAME", shell_complete=complete_targets)
@click.option("-f", "--filename", "files", multiple=True, metavar="FILE", help="Edit what these manifests name.")
@click.option("--subresource", metavar="NAME", help="Edit a subresource: status, scale.")
async def edit(session: Session, what: tuple[str, ...], files: tuple[str, ...], subresource: str | None) -> None:
    """Open objects in $KUBE_EDITOR, $EDITOR or vi, and send what was changed."""
    for where in await select(session, Selection(words=what, files=files)):
        await _edit(session, where, subresource)


async def _edit(session: Session, where: Located, subresource: str | None) -> None:
    live = await session.client.get(where.resource, where.name, where.namespace, subresource=subresource)
    original = without_managed_fields(live)
    text = yamlio.dump(original)
    trouble = ""
    while True:
        edited = _ask(_HEAD + "".join(f"# {line}\n" for line in trouble.splitlines()) + text)
        if edited is None or not _content(edited).strip():
            click.echo("Edit cancelled, no changes made.", err=True)
            return
        if _content(edited) == _content(text) and trouble:
            raise Failed(f"{trouble}\nEdit cancelled: the file was saved without a change.")
        text = _content(edited)
        try:
            wanted = yamlio.load(text)
            if not isinstance(wanted, dict):
                raise failed("the file holds no object")
            patch = merge_difference(original, wanted)
            if not patch:
                click.echo("Edit cancelled, no changes made.", err=True)
                return
            await session.client.patch(
                where.resource,
                where.name,
                patch,
                where.namespace,
                subresource=subresource,
                field_manager=FIELD_MANAGER,
                field_validation="Strict",
            )
        except yaml.YAMLError as error:
            trouble = f"not valid YAML: {error}"
        except ApiError as error:
            trouble = sentence(error)
        except Failed as error:
            trouble = error.message
        else:
            click.echo(f"{where.reference} edited")
            return


def _ask(text: str) -> str | None:
    import os

    return click.edit(text, editor=os.environ.get("KUBE_EDITOR"), extension=".yaml", require_save=False)


def _content(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("#")) + "\n"


def merge_difference(old: Obj, new: Obj) -> Obj:
    """Returns the JSON merge patch that makes `new` of `old`."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            if inner := merge_difference(before, value):
                patch[key] = inner
        elif key not in old or before != value:
            patch[key] = value
    return patch


COMMANDS = [edit]
