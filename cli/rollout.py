"""`steer rollout`: status with live progress, history, undo, pause, resume, restart."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import click

from steersman.cli.completers import complete_targets
from steersman.cli.errors import Failed, failed
from steersman.cli.objects import Located, Selection, report, select
from steersman.cli.output import is_terminal, print_table
from steersman.cli.progress import Verdict, stage
from steersman.cli.session import FIELD_MANAGER, ExampleGroup, Session, api_command
from steersman.cli.waiting import DURATION, deadline, states
from steersman.cluster.meta import yamlio
from steersman.cluster.meta.errors import not_found
from steersman.cluster.meta.objects import Obj, annotations_of, controller_of
from steersman.cluster.meta.resources import REPLICA_SETS
from steersman.cluster.meta.selectors import from_dict
from steersman.cluster.meta.times import format_time

_REVISION = "deployment.kubernetes.io/revision"
_CAUSE = "kubernetes.io/change-cause"
_RESTARTED = "kubectl.kubernetes.io/restartedAt"
#: annotations of a deployment that its replica sets carry as well and that an undo leaves alone
_OWN_ANNOTATIONS = ("kubectl.kubernetes.io/last-applied-configuration", "deprecated.deployment.rollback.to", _REVISION)

rollout = ExampleGroup(
    "rollout",
    help="Watch, pause, undo or restart the rollout of a workload.",
    examples="""
    steer rollout status deployment/web
    steer rollout history deployment/web --revision=2
    steer rollout undo deployment/web --to-revision=1
    steer rollout restart deployment/web
    """,
)


def _what(function: Any) -> Any:
    function = click.argument("what", nargs=-1, metavar="TYPE NAME", shell_complete=complete_targets)(function)
    return click.option("-f", "--filename", "files", multiple=True, metavar="FILE", help="What these manifests name.")(
        function
    )


@api_command("status", group=rollout, examples="steer rollout status deployment/web --timeout=2m")
@_what
@click.option("-w", "--watch/--no-watch", default=True, help="Follow it to its end (default), or tell how it is now.")
@click.option("--timeout", type=DURATION, default=0.0, metavar="TIME", help="Wait no longer than this; 0 for ever.")
async def status(session: Session, what: tuple[str, ...], files: tuple[str, ...], watch: bool, timeout: float) -> None:
    """Follow a rollout until it is done, or fails."""
    for where in await select(session, Selection(words=what, files=files)):
        _refuse_other_kinds(where, "Deployment", "DaemonSet", "StatefulSet")
        async with deadline(timeout, f"the rollout of {where.reference}"):
            await _follow(session, where, watch)


async def _follow(session: Session, where: Located, watch: bool) -> None:
    said = ""
    show = _Bar(where) if watch and is_terminal() else None
    with show or contextlib.nullcontext():
        async with contextlib.aclosing(
            states(session, where.resource, where.namespace, where.name)  # type: ignore[type-var]
        ) as found:
            async for obj in found:
                if obj is None:
                    raise not_found(where.resource.plural, where.name, where.resource.group)
                at = stage(obj)
                if at.verdict is Verdict.FAILED:
                    raise failed(at.text)
                if show is not None:
                    show.update(at.ready, at.wanted, at.text)
                elif at.text != said and at.verdict is Verdict.RUNNING:
                    click.echo(at.text)
                    said = at.text
                if at.verdict is Verdict.DONE or not watch:
                    break
    if at.verdict is Verdict.DONE:
        click.echo(at.text)


class _Bar:
    """A progress bar on the terminal."""

    def __init__(self, where: Located) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.table import Column

        self._progress = Progress(
            TextColumn("[bold]{task.fields[name]}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True, ratio=1)),
            expand=True,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, name=where.reference)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def update(self, done: int, wanted: int, text: str) -> None:
        self._progress.update(self._task, completed=done, total=wanted, description=text.rpartition(": ")[2])


@api_command("history", group=rollout, examples="steer rollout history deployment/web --revision=2")
@_what
@click.option("--revision", type=int, default=0, metavar="N", help="Show the pods of this revision.")
async def history(session: Session, what: tuple[str, ...], files: tuple[str, ...], revision: int) -> None:
    """List the revisions of a deployment that can be returned to."""
    for where in await select(session, Selection(words=what, files=files)):
        _refuse_other_kinds(where, "Deployment")
        deployment = await session.client.get(where.resource, where.name, where.namespace)
        revisions = await _revisions(session, where, deployment)
        if revision:
            if revision not in revisions:
                raise failed(f"unable to find the specified revision {revision} of {where.reference}")
            click.echo(f"{where.reference} with revision #{revision}")
            click.echo(yamlio.dump({"Pod Template": revisions[revision]["spec"]["template"]}), nl=False)
            continue
        click.echo(where.reference)
        rows = [[str(n), annotations_of(row).get(_CAUSE, "<none>")] for n, row in sorted(revisions.items())]
        print_table(["REVISION", "CHANGE-CAUSE"], rows)
        click.echo()


@api_command("undo", group=rollout, examples="steer rollout undo deployment/web --to-revision=2")
@_what
@click.option("--to-revision", type=int, default=0, metavar="N", help="The revision; 0 is the one before.")
@click.option("--dry-run", type=click.Choice(["none", "server"]), default="none", help="server: check only.")
async def undo(session: Session, what: tuple[str, ...], files: tuple[str, ...], to_revision: int, dry_run: str) -> None:
    """Return a deployment to an earlier revision."""
    for where in await select(session, Selection(words=what, files=files)):
        _refuse_other_kinds(where, "Deployment")
        deployment = await session.client.get(where.resource, where.name, where.namespace)
        if deployment["spec"].get("paused"):
            resume_it = f'resume it first with "steer rollout resume {where.reference}" and try again'
            raise failed(f"you cannot rollback a paused deployment; {resume_it}")
        revisions = await _revisions(session, where, deployment)
        chosen, number = _earlier(revisions, to_revision, where)
        template = _plain_template(chosen)
        if template == _plain_template(deployment):
            click.echo(f"{where.reference} skipped rollback (current template already matches revision {number})")
            continue
        annotations = {k: v for k, v in annotations_of(deployment).items() if k in _OWN_ANNOTATIONS}
        annotations |= {k: v for k, v in annotations_of(chosen).items() if k == _CAUSE}
        patch = [
            {"op": "replace", "path": "/spec/template", "value": template},
            {"op": "add", "path": "/metadata/annotations", "value": {**annotations_of(deployment), **annotations}},
        ]
        await session.client.patch(
            where.resource,
            where.name,
            patch,
            where.namespace,
            kind="json",
            field_manager=FIELD_MANAGER,
            dry_run=dry_run == "server",
        )
        report(where, None, "rolled back", None, dry_run=dry_run)


async def _revisions(session: Session, where: Located, deployment: Obj) -> dict[int, Obj]:
    """Revision number to replica set."""
    selector = str(from_dict(deployment["spec"].get("selector")))
    found = await session.client.list(REPLICA_SETS, where.namespace, label_selector=selector)
    revisions = {}
    for row in found.items:
        owner = controller_of(row)
        text = annotations_of(row).get(_REVISION, "")
        if owner and owner.get("uid") == deployment["metadata"]["uid"] and text.isdigit():
            revisions[int(text)] = row
    return revisions


def _earlier(revisions: dict[int, Obj], wanted: int, where: Located) -> tuple[Obj, int]:
    if wanted:
        if wanted not in revisions:
            known = ", ".join(map(str, sorted(revisions))) or "none"
            raise failed(f"unable to find specified revision {wanted} in history; there are: {known}")
        return revisions[wanted], wanted
    ordered = sorted(revisions)
    if len(ordered) < 2:
        raise failed(f"no rollout history found for {where.reference}: there is no earlier revision")
    return revisions[ordered[-2]], ordered[-2]


def _plain_template(owner: Obj) -> Obj:
    """A workload's template without the label that tells its replica sets apart."""
    template = owner["spec"]["template"]
    metadata = dict(template.get("metadata") or {})
    labels = {k: v for k, v in (metadata.get("labels") or {}).items() if k != "pod-template-hash"}
    metadata.pop("creationTimestamp", None)
    return {**template, "metadata": {**metadata, "labels": labels}}


@api_command("pause", group=rollout, examples="steer rollout pause deployment/web")
@_what
async def pause(session: Session, what: tuple[str, ...], files: tuple[str, ...]) -> None:
    """Hold a deployment: changes of its template start no rollout until it is resumed."""
    await _set_paused(session, what, files, True)


@api_command("resume", group=rollout, examples="steer rollout resume deployment/web")
@_what
async def resume(session: Session, what: tuple[str, ...], files: tuple[str, ...]) -> None:
    """Let a paused deployment go on."""
    await _set_paused(session, what, files, False)


async def _set_paused(session: Session, what: tuple[str, ...], files: tuple[str, ...], paused: bool) -> None:
    for where in await select(session, Selection(words=what, files=files)):
        _refuse_other_kinds(where, "Deployment")
        live = await session.client.get(where.resource, where.name, where.namespace)
        if bool(live["spec"].get("paused")) == paused:
            raise failed(f'{where.resource} "{where.name}" is {"already paused" if paused else "not paused"}')
        patch = {"spec": {"paused": True if paused else None}}
        await session.client.patch(where.resource, where.name, patch, where.namespace, field_manager=FIELD_MANAGER)
        click.echo(f"{where.reference} {'paused' if paused else 'resumed'}")


@api_command(
    "restart",
    group=rollout,
    examples="steer rollout restart deployment/web\nsteer rollout restart deployment -l app=web",
)
@_what
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="By labels.")
async def restart(session: Session, what: tuple[str, ...], files: tuple[str, ...], selector: str) -> None:
    """Replace all pods of a workload, gradually."""
    for where in await select(session, Selection(words=what, files=files, label_selector=selector)):
        _refuse_other_kinds(where, "Deployment", "DaemonSet", "StatefulSet")
        live = await session.client.get(where.resource, where.name, where.namespace)
        if live["spec"].get("paused"):
            raise failed(f"can't restart paused deployment (run rollout resume first): {where.reference}")
        patch = {"spec": {"template": {"metadata": {"annotations": {_RESTARTED: format_time(time.time())}}}}}
        await session.client.patch(
            where.resource, where.name, patch, where.namespace, kind="strategic", field_manager=FIELD_MANAGER
        )
        click.echo(f"{where.reference} restarted")


def _refuse_other_kinds(where: Located, *kinds: str) -> None:
    if where.resource.kind not in kinds:
        raise Failed(f"error: no rollouts of {where.resource.kind}: this works for {', '.join(kinds)}")


COMMANDS = [rollout]
