"""`steer set image`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from steersman.cli.completers import complete_targets
from steersman.cli.errors import failed
from steersman.cli.objects import Located, Selection, report, select
from steersman.cli.session import FIELD_MANAGER, ExampleGroup, Session, api_command
from steersman.cluster.meta.objects import Obj

set_group = ExampleGroup(
    "set",
    help="Set parts of a workload.",
    examples="steer set image deployment/web web=nginx:1.27\nsteer set env deployment/web LEVEL=debug",
)
EXAMPLES = """
steer set image deployment/web web=nginx:1.27
steer set image deployment web '*=nginx:1.27'      # all containers
steer set image deployment/web web=nginx:1.27 sidecar=logger:2
"""


@api_command("image", group=set_group, examples=EXAMPLES)
@click.argument("words", nargs=-1, metavar="TYPE/NAME CONTAINER=IMAGE...", shell_complete=complete_targets)
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="By labels.")
@click.option("--all", "everything", is_flag=True, help="All objects of the kind.")
@click.option("--dry-run", type=click.Choice(["none", "server"]), default="none", help="server: check only.")
@click.option("-o", "--output", metavar="FORM", help="Print the objects: name, json, yaml.")
async def image(
    session: Session, words: tuple[str, ...], selector: str, everything: bool, dry_run: str, output: str | None
) -> None:
    """Set the images of containers, which starts a rollout."""
    names, images = _assignments(words, "CONTAINER=IMAGE")
    for where in await select(session, Selection(words=names, label_selector=selector, all=everything)):
        live = await session.client.get(where.resource, where.name, where.namespace)
        spec, path = _pod_spec(live, where)
        patch = _image_patch(spec, images, where)
        if not patch:
            continue
        await _send(session, where, _below(path, patch), "image updated", dry_run, output)


@api_command("env", group=set_group, examples="steer set env deployment/web LEVEL=debug OLD-")
@click.argument("words", nargs=-1, metavar="TYPE/NAME KEY=VALUE|KEY-...", shell_complete=complete_targets)
@click.option("-c", "--containers", default="*", metavar="NAME", help="Container to change; all by default.")
@click.option("--dry-run", type=click.Choice(["none", "server"]), default="none", help="server: check only.")
@click.option("-o", "--output", metavar="FORM", help="Print the objects: name, json, yaml.")
async def env(session: Session, words: tuple[str, ...], containers: str, dry_run: str, output: str | None) -> None:
    """Set or remove environment variables of containers, which starts a rollout."""
    removed = [word[:-1] for word in words if word.endswith("-") and "=" not in word]
    names, values = _assignments(
        [word for word in words if word[:-1] not in removed], "KEY=VALUE", required=not removed
    )
    changes: list[Obj] = [{"name": key, "value": value} for key, value in values.items()]
    changes += [{"name": key, "$patch": "delete"} for key in removed]
    for where in await select(session, Selection(words=names)):
        live = await session.client.get(where.resource, where.name, where.namespace)
        spec, path = _pod_spec(live, where)
        found = [row["name"] for row in spec.get("containers") or () if containers in ("*", row["name"])]
        if not found:
            raise failed(f'unable to find container named "{containers}" in {where.reference}')
        patch = _below(path, {"containers": [{"name": name, "env": changes} for name in found]})
        await _send(session, where, patch, "env updated", dry_run, output)


async def _send(session: Session, where: Located, patch: Obj, verb: str, dry_run: str, output: str | None) -> None:
    after = await session.client.patch(
        where.resource,
        where.name,
        patch,
        where.namespace,
        kind="strategic",
        field_manager=FIELD_MANAGER,
        dry_run=dry_run == "server",
    )
    report(where, after, verb, output, dry_run=dry_run)


def _assignments(words: Sequence[str], form: str, *, required: bool = True) -> tuple[list[str], dict[str, str]]:
    """Returns (words naming objects, what is assigned to what)."""
    names = [word for word in words if "=" not in word]
    pairs = dict(word.split("=", 1) for word in words if "=" in word)
    if not pairs and required:
        raise failed(f"at least one {form} is needed")
    return names, pairs


def _pod_spec(live: Obj, where: Located) -> tuple[Obj, tuple[str, ...]]:
    """Returns the pod's spec of a workload, and the path to it."""
    path = {
        "Pod": ("spec",),
        "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
    }.get(where.resource.kind, ("spec", "template", "spec"))
    spec: Obj = live
    for key in path:
        spec = spec.get(key) or {}
    if not spec.get("containers"):
        raise failed(f"{where.reference} has no containers")
    return spec, path


def _below(path: Sequence[str], patch: Obj) -> Obj:
    for key in reversed(path):
        patch = {key: patch}
    return patch


def _image_patch(spec: Obj, images: dict[str, str], where: Located) -> Obj:
    found: set[str] = set()
    patch: Obj = {}
    for part in ("containers", "initContainers"):
        for row in spec.get(part) or ():
            wanted = images.get(row["name"]) or (images.get("*") if part == "containers" else None)
            found.add(row["name"])
            if wanted and wanted != row.get("image"):
                patch.setdefault(part, []).append({"name": row["name"], "image": wanted})
    for name in images:
        if name != "*" and name not in found:
            raise failed(
                f'unable to find container named "{name}" in {where.reference}; it has {", ".join(sorted(found))}'
            )
    return patch


COMMANDS = [set_group]
