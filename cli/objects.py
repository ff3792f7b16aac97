"""Which objects a command means: those of manifests, those named on the command line, those a selector finds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from steersman.cli import manifests
from steersman.cli.errors import Failed, failed
from steersman.cli.kinds import reference
from steersman.cli.manifests import Manifest
from steersman.cli.output import Format, parse_format, print_object
from steersman.cli.session import Session
from steersman.cluster.meta.errors import ApiError
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import Resource

if TYPE_CHECKING:
    from steersman.actors.client import Discovered

#: how long a kind defined by the same manifests may take to be served
_ESTABLISH_S = 10.0
_ESTABLISH_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Located:
    """An object's address: where it lives on the API, and the manifest it came from."""

    resource: Resource
    namespace: str | None
    name: str
    manifest: Manifest | None = None

    @property
    def reference(self) -> str:
        return reference(self.resource, self.name)


async def locate(session: Session, manifest: Manifest, *, patient: bool = False) -> Located:
    """Finds where a manifest's object lives.

    Args:
        patient: whether its kind may be about to appear, since its definition was just created.

    Raises:
        Failed: the server does not know the kind, or `--namespace` contradicts the manifest.
    """
    obj = manifest.obj
    kind = await _kind(session, obj, patient=patient)
    if kind is None:
        where = f"{manifest.source}:{manifest.line_of('kind')}"
        raise failed(
            f'{where}: no matches for kind "{obj["kind"]}" in version "{obj["apiVersion"]}"; '
            "`steer api-resources` lists what there is, and custom kinds need their definition first"
        )
    metadata = obj["metadata"]
    written = metadata.get("namespace")
    if not kind.resource.namespaced:
        return Located(kind.resource, None, metadata.get("name", ""), manifest)
    if written and session.namespace_given and written != session.namespace:
        raise failed(
            f"{manifest.source}:{manifest.line_of('metadata.namespace')}: the namespace from the provided object "
            f'"{written}" does not match the namespace "{session.namespace}". You must pass '
            f"'--namespace={written}' to perform this operation."
        )
    return Located(kind.resource, written or session.namespace, metadata.get("name", ""), manifest)


async def _kind(session: Session, obj: Obj, *, patient: bool) -> Discovered | None:
    found = (await session.kinds()).by_kind(obj["apiVersion"], obj["kind"])
    for _ in range(int(_ESTABLISH_S / _ESTABLISH_POLL_S) if patient else 0):
        if found is not None:
            break
        await asyncio.sleep(_ESTABLISH_POLL_S)
        found = (await session.kinds(fresh=True)).by_kind(obj["apiVersion"], obj["kind"])
    return found


async def for_each(
    session: Session, rows: Sequence[Manifest], act: Callable[[Located, Manifest], Awaitable[None]]
) -> None:
    """Does something with each manifest; one that fails is reported and does not stop the others.

    Raises:
        Failed: at the end, when any has failed.
    """
    bad = False
    defined = False
    for manifest in rows:
        try:
            await act(await locate(session, manifest, patient=defined), manifest)
        except ApiError as error:
            if type(error).__name__ == "ConnectionFailed":
                raise
            manifests.refusal(error, manifest).show()
            bad = True
        except Failed as error:
            error.show()
            bad = True
        defined = defined or manifest.obj["kind"] == "CustomResourceDefinition"
    if bad:
        raise Failed("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a command line says about existing objects.

    Args:
        words: `TYPE NAME...` or `TYPE/NAME...`.
        files: manifests that name the objects.
        all: every object of the types.
    """

    words: Sequence[str] = ()
    files: Sequence[str] = ()
    recursive: bool = False
    label_selector: str = ""
    field_selector: str = ""
    all: bool = False
    everywhere: bool = False


async def select(session: Session, chosen: Selection) -> list[Located]:
    """Returns the addresses of the objects meant; those named are not checked to exist.

    Raises:
        Failed: nothing is named and no selector given.
    """
    if chosen.files:
        if chosen.words:
            raise failed("when manifests are given with -f, objects cannot be named as well")
        rows = manifests.read(chosen.files, recursive=chosen.recursive)
        return [await locate(session, row) for row in rows]
    found: list[Located] = []
    for what in (await session.kinds()).targets(chosen.words):
        scope = session.scope(what.resource)
        if what.names:
            if chosen.label_selector or chosen.field_selector or chosen.all:
                raise failed("names cannot be combined with --all or a selector")
            found += [Located(what.resource, scope, name) for name in what.names]
            continue
        if not (chosen.label_selector or chosen.field_selector or chosen.all):
            raise failed("resource(s) were provided, but no name was specified; name some, or use -l or --all")
        async for obj in listed(session, what.resource, chosen):
            space = obj["metadata"].get("namespace")
            found.append(Located(what.resource, space, obj["metadata"]["name"]))
    return found


async def listed(session: Session, resource: Resource, chosen: Selection) -> AsyncIterator[Obj]:
    """Yields the objects of a kind that the selectors find."""
    scope = session.scope(resource, everywhere=chosen.everywhere)
    token = ""
    while True:
        page = await session.client.list(
            resource,
            scope,
            label_selector=chosen.label_selector,
            field_selector=chosen.field_selector,
            limit=500,
            continue_token=token,
        )
        for obj in page.items:
            yield obj
        token = page.continue_token
        if not token:
            return


def report(where: Located, obj: Obj | None, verb: str, output: str | None, *, dry_run: str = "none") -> None:
    """Says what was done with an object: `deployment.apps/web created`, or prints it in the form asked for."""
    form = parse_format(output)
    suffix = {"server": " (server dry run)", "client": " (dry run)"}.get(dry_run, "")
    if form.is_table or obj is None:
        click.echo(f"{where.reference} {verb}{suffix}")
    elif form == Format("name"):
        click.echo(where.reference)
    else:
        print_object(obj, form, lambda _: where.reference)
